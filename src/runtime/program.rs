//! Finding and executing the container's program.
mod home;
mod image;

use image::Image;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::stat::{SFlag, fstat, stat};
use nix::unistd::{AccessFlags, access, faccessat, fchdir, getcwd};

use crate::error::{ErrorKind, Kind};
use crate::sys::SysError;
use crate::sys::process::execve;
use crate::sys::root::open_own;
use crate::sys::signal::set_default;

/// Where a program is looked for when its environment has no `PATH` (as execvp(3) of glibc does).
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The step of a failure that is the program's own: it is not there, or cannot be executed. Callers tell it
/// from a failure of the set-up by this.
pub const EXEC_STEP: &str = "executing the program";

/// Why the program cannot be executed. The texts are runc's, which callers match.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// No entry of `PATH` has it.
    #[error("exec: {name:?}: executable file not found in $PATH")]
    NotInPath {
        /// As given.
        name: String,
    },
    /// It cannot be used.
    #[error("exec: {name:?}")]
    Unusable {
        /// As given.
        name: String,
        /// The call that says so.
        #[source]
        source: SysError,
    },
    /// It is a directory. execve(2) would say EACCES, and callers look for that text to tell this failure from others.
    #[error("exec: {name:?}: is a directory")]
    Directory {
        /// As given.
        name: String,
        /// What execve(2) says.
        #[source]
        source: SysError,
    },
    /// execve(2) refused it.
    #[error("exec {path}{hint}")]
    Exec {
        /// The file.
        path: String,
        /// What may be the reason, after `: `, or nothing.
        hint: String,
        /// The call.
        #[source]
        source: SysError,
    },
    /// The working directory cannot be entered.
    #[error("process.cwd {cwd}")]
    Cwd {
        /// As given.
        cwd: String,
        /// The call that failed.
        #[source]
        source: SysError,
    },
    /// The working directory is not below the container's root (CVE-2024-21626).
    #[error("process.cwd {cwd}: is outside of the container's root file system")]
    CwdOutside {
        /// As given.
        cwd: String,
    },
    /// An argument or variable has a NUL byte.
    #[error("process.{field}: {text:?} has a NUL byte")]
    Nul {
        /// `args` or `env`.
        field: &'static str,
        /// Which.
        text: String,
    },
}

impl Kind for ProgramError {
    fn kind(&self) -> ErrorKind {
        match self {
            ProgramError::NotInPath { .. } => ErrorKind::NotFound,
            ProgramError::Unusable { source, .. }
            | ProgramError::Directory { source, .. }
            | ProgramError::Exec { source, .. }
            | ProgramError::Cwd { source, .. } => source.kind(),
            ProgramError::CwdOutside { .. } => ErrorKind::PermissionDenied,
            ProgramError::Nul { .. } => ErrorKind::InvalidInput,
        }
    }
}

/// What execve(2) gets besides `process.args` and `process.env`, found in the container.
#[derive(Debug)]
pub struct Found {
    /// The file to execute.
    pub path: CString,
    /// Of the user, if the environment names none.
    pub home: Option<CString>,
}

/// `process.args` and `process.env` as execve(2) takes them.
#[derive(Debug, Clone)]
pub struct Program {
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Program {
    /// Checks them. Of a variable that stands twice the last counts, as with runc. `HOME` is added by
    /// [`Program::home_of`].
    pub fn plan(args: &[String], env: &[String]) -> Result<Program, ProgramError> {
        let c_strings = |field, list: &[String]| {
            list.iter()
                .map(|text| {
                    CString::new(text.as_str()).map_err(|_| ProgramError::Nul { field, text: text.clone() })
                })
                .collect::<Result<Vec<_>, _>>()
        };
        let name = |entry: &str| entry.split_once('=').map_or(entry, |(name, _)| name).to_owned();
        let last = |index: usize| {
            let this = name(&env[index]);
            env[index + 1..].iter().all(|later| name(later) != this)
        };
        let env: Vec<String> =
            (0..env.len()).filter(|&index| last(index)).map(|index| env[index].clone()).collect();
        Ok(Program { args: c_strings("args", args)?, env: c_strings("env", &env)? })
    }

    fn variable(&self, name: &str) -> Option<&[u8]> {
        let prefix = [name.as_bytes(), b"="].concat();
        self.env.iter().find_map(|entry| entry.to_bytes().strip_prefix(prefix.as_slice()))
    }

    /// `HOME=DIR` for a user of the container whose root is this process's, if the environment has none: the home
    /// directory in `/etc/passwd`, or `/`.
    pub fn home_of(&self, uid: u32) -> Option<CString> {
        if self.variable("HOME").is_some_and(|home| !home.is_empty()) {
            return None;
        }
        let home = home::read(uid).unwrap_or_else(|| b"/".to_vec());
        // A file may hold a NUL.
        CString::new([b"HOME=", home.as_slice()].concat()).ok()
    }

    /// Adds or replaces a variable.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        let prefix = format!("{name}=");
        self.env.retain(|entry| !entry.to_bytes().starts_with(prefix.as_bytes()));
        // Only numbers and fixed paths are set here.
        self.env.extend(CString::new(format!("{prefix}{value}")).ok());
    }

    /// The file to execute, found in the container as its user: by name in `PATH`, or as the path that it is.
    pub fn find(&self) -> Result<CString, ProgramError> {
        let name = self.args.first().map_or(&b""[..], |name| name.to_bytes());
        let shown = || String::from_utf8_lossy(name).into_owned();
        if name.is_empty() {
            return Err(ProgramError::NotInPath { name: shown() });
        }
        if name.contains(&b'/') {
            let path = Path::new(OsStr::from_bytes(name));
            check_executable(path).map_err(|source| match source.errno {
                Errno::EISDIR => ProgramError::Directory {
                    name: shown(),
                    source: SysError::on("execve", shown())(Errno::EACCES),
                },
                _ => ProgramError::Unusable { name: shown(), source },
            })?;
            return Ok(self.args[0].clone());
        }
        let path = self.variable("PATH").unwrap_or(DEFAULT_PATH.as_bytes());
        let mut refused = None;
        for entry in path.split(|&byte| byte == b':') {
            let directory = if entry.is_empty() { &b"."[..] } else { entry };
            let candidate: PathBuf = Path::new(OsStr::from_bytes(directory)).join(OsStr::from_bytes(name));
            match check_executable(&candidate) {
                // Joined of two strings without NUL.
                Ok(()) => return Ok(CString::new(candidate.as_os_str().as_bytes()).unwrap_or_default()),
                Err(source) if source.errno == Errno::EACCES => refused = Some(source),
                Err(_) => {}
            }
        }
        Err(match refused {
            Some(source) => ProgramError::Unusable { name: shown(), source },
            None => ProgramError::NotInPath { name: shown() },
        })
    }

    /// Executes it; returns only on failure.
    pub fn exec(&self, found: &Found) -> ProgramError {
        let path = &found.path;
        let mut env = self.env.clone();
        if let Some(home) = &found.home {
            env.retain(|entry| !entry.to_bytes().starts_with(b"HOME="));
            env.push(home.clone());
        }
        let source = execve(path, &self.args, &env);
        let shown = path.to_string_lossy().into_owned();
        let hint = hint(Path::new(OsStr::from_bytes(path.to_bytes())), source.errno);
        ProgramError::Exec { path: shown, hint, source }
    }
}

/// What the file itself says about why it was not executed. The seccomp profile may keep us from looking.
fn hint(path: &Path, errno: Errno) -> String {
    let mut head = Vec::new();
    let looked = open_own(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK)
        .map_err(|_| ())
        .and_then(|file| File::from(file).take(image::LOOK as u64).read_to_end(&mut head).map_err(|_| ()));
    let image = looked.map(|_| Image::of(&head));
    match (errno, image) {
        (Errno::ENOENT, Ok(image)) => image.why_missing().unwrap_or_default(),
        (Errno::ENOENT, Err(())) => {
            ": its interpreter (the #! line or the dynamic loader) is not in the container".into()
        }
        (Errno::ENOEXEC, Ok(image)) => image.why_unreadable(),
        (Errno::ENOEXEC, Err(())) => {
            ": neither a program for this machine nor a script with a #! line".into()
        }
        (Errno::EACCES, _) => {
            ": a file system mounted noexec, or an interpreter that may not be executed".into()
        }
        _ => String::new(),
    }
}

/// Whether this process may execute a file, by its effective rights.
fn check_executable(path: &Path) -> Result<(), SysError> {
    let shown = || path.display().to_string();
    let status = stat(path).map_err(SysError::on("stat", shown()))?;
    match SFlag::from_bits_truncate(status.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFDIR => return Err(SysError::on("stat", shown())(Errno::EISDIR)),
        SFlag::S_IFREG => {}
        _ => return Err(SysError::on("stat", shown())(Errno::EACCES)),
    }
    // With CAP_DAC_OVERRIDE access says yes only when some execute bit is set, as execve does.
    faccessat(nix::fcntl::AT_FDCWD, path, AccessFlags::X_OK, AtFlags::AT_EACCESS)
        // That is faccessat2 (Linux 5.8), which an older seccomp profile forbids; access differs for a user other
        // than root with capabilities alone.
        .or_else(|errno| if errno == Errno::EPERM { access(path, AccessFlags::X_OK) } else { Err(errno) })
        .map_err(SysError::on("faccessat", shown()))
}

/// Enters the working directory, in the container's root, and makes sure that it can be reached from the root: a
/// magic link is no way to it, a `/proc/self/fd/N` of a host directory cannot be reached, and getcwd(2) says so by a
/// path that does not begin with a slash.
pub fn enter_cwd(cwd: &Path) -> Result<(), ProgramError> {
    let shown = cwd.display().to_string();
    let fails = |call| {
        let cwd = shown.clone();
        move |errno| ProgramError::Cwd { cwd: cwd.clone(), source: SysError::on(call, cwd)(errno) }
    };
    let fd = open_own(cwd, OFlag::O_PATH | OFlag::O_DIRECTORY)
        .map_err(|source| ProgramError::Cwd { cwd: shown.clone(), source })?;
    if fstat(&fd).map_err(fails("fstat"))?.st_nlink == 0 {
        return Err(ProgramError::CwdOutside { cwd: shown });
    }
    fchdir(&fd).map_err(fails("fchdir"))?;
    match getcwd() {
        Ok(path) if path.is_absolute() => Ok(()),
        // glibc turns "(unreachable)" into ENOENT.
        Ok(_) | Err(Errno::ENOENT) => Err(ProgramError::CwdOutside { cwd: shown }),
        Err(errno) => Err(fails("getcwd")(errno)),
    }
}

/// Gives the program the signal set-up of a fresh process: Rust ignores SIGPIPE, and what the caller of the
/// runtime ignores or blocks would be inherited over exec.
pub fn reset_signals() -> Result<(), SysError> {
    for signal in Signal::iterator().filter(|signal| !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP)) {
        set_default(signal)?;
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
        .map_err(SysError::on("sigprocmask", "SIG_SETMASK"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(args: &[&str], env: &[&str]) -> Program {
        let own = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        Program::plan(&own(args), &own(env)).unwrap()
    }

    #[test]
    fn a_name_is_found_in_path_and_a_path_is_taken_as_it_is() {
        let found = program(&["sh"], &["PATH=/nonexistent:/bin"]).find().unwrap();
        assert_eq!(found.to_bytes(), b"/bin/sh");
        assert_eq!(program(&["/bin/sh"], &[]).find().unwrap().to_bytes(), b"/bin/sh");
    }

    #[test]
    fn what_callers_match_is_in_the_texts() {
        let text = |args: &[&str]| crate::error::chain(&program(args, &["PATH=/bin"]).find().unwrap_err());
        assert!(text(&["no-such"]).contains("executable file not found in $PATH"));
        assert!(text(&["/no/such"]).contains("no such file or directory"));
        assert!(text(&["/etc"]).ends_with("is a directory: execve /etc: permission denied"));
        assert!(text(&["/etc/passwd"]).contains("permission denied"));
    }

    #[test]
    fn the_last_of_a_doubled_variable_counts() {
        let program = program(&["x"], &["A=1", "B=2", "A=3"]);
        let env: Vec<_> = program.env.iter().map(|entry| entry.to_str().unwrap()).collect();
        assert_eq!(env, ["B=2", "A=3"]);
    }

    #[test]
    fn a_home_is_looked_for_when_the_environment_has_none() {
        assert_eq!(program(&["x"], &["HOME=/h"]).home_of(0), None);
        let nobody = u32::MAX - 7;
        for env in [&["HOME="][..], &[]] {
            assert_eq!(program(&["x"], env).home_of(nobody).as_deref(), Some(c"HOME=/"));
        }
    }

    #[test]
    fn a_nul_byte_is_refused() {
        assert!(Program::plan(&["a\0b".into()], &[]).is_err());
    }
}
