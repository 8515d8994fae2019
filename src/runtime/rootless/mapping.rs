//! Mapping ids into a new user namespace: who may write which map, and the helpers for those who may not.
//!
//! ```text
//! root (of the host or of the user namespace it is in)   writes both maps
//! an ordinary user, the one own id                       writes the map; for gid_map gives up setgroups first
//! an ordinary user, anything else                        newuidmap(1), newgidmap(1)
//! ```
use std::ffi::OsStr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::Pid;
use oci_spec::runtime::LinuxIdMapping;

use super::Caller;
use crate::error::{ErrorKind, Kind};
use crate::runtime::hooks;
use crate::sys::SysError;

/// How many lines a map may have (since Linux 4.15; user_namespaces(7)).
pub const LINES_MAX: usize = 340;
/// A helper looks names up, perhaps over a network; longer than this it hangs.
const HELPER_SECONDS: i64 = 30;
/// Where helpers are when the environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Why ids could not be mapped.
#[derive(Debug, thiserror::Error)]
pub enum MappingError {
    /// The kernel refused the map.
    #[error("writing user namespace mappings ({mapping})")]
    Write {
        /// The lines that were to be written.
        mapping: String,
        /// The call that failed.
        #[source]
        source: SysError,
    },
    /// There is no helper.
    #[error(
        "mapping ({mapping}): only {helper} may map other ids than the caller's own, and no directory of PATH that belongs to root has it (install the package uidmap)"
    )]
    NoHelper {
        /// Its name.
        helper: &'static str,
        /// The lines that were to be written.
        mapping: String,
    },
    /// The helper could not be run.
    #[error("running {helper}")]
    Run {
        /// Its path.
        helper: String,
        /// The call that failed.
        #[source]
        source: SysError,
    },
    /// The helper refused.
    #[error("{helper} did not map ({mapping}){said}")]
    Refused {
        /// Its path.
        helper: String,
        /// The lines that were to be written.
        mapping: String,
        /// What it wrote, after `: `, or nothing.
        said: String,
    },
}

impl Kind for MappingError {
    fn kind(&self) -> ErrorKind {
        match self {
            MappingError::Write { source, .. } | MappingError::Run { source, .. } => source.kind(),
            MappingError::NoHelper { .. } => ErrorKind::Unsupported,
            MappingError::Refused { .. } => ErrorKind::PermissionDenied,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ids {
    User,
    Group,
}

impl Ids {
    fn file(self) -> &'static str {
        match self {
            Ids::User => "uid_map",
            Ids::Group => "gid_map",
        }
    }

    fn helper(self) -> &'static str {
        match self {
            Ids::User => "newuidmap",
            Ids::Group => "newgidmap",
        }
    }
}

/// Whether the map of one kind of ids can be written by the caller, whose own id is `own`.
fn may_write(caller: Caller, own: u32, map: &[LinuxIdMapping]) -> bool {
    // user_namespaces(7), "Defining user and group ID mappings".
    caller.uid == 0 || matches!(map, [line] if line.size() == 1 && line.host_id() == own)
}

/// Whether setgroups(2) has to be given up for this map of groups (user_namespaces(7)).
pub fn denies_setgroups(caller: Caller, groups: &[LinuxIdMapping]) -> bool {
    caller.uid != 0 && may_write(caller, caller.gid, groups)
}

/// Maps `users` and `groups` into the new user namespace of `pid`, a child of this process that waits for it.
pub fn write(
    caller: Caller,
    pid: Pid,
    users: &[LinuxIdMapping],
    groups: &[LinuxIdMapping],
) -> Result<(), MappingError> {
    if denies_setgroups(caller, groups) {
        write_file(pid, "setgroups", "deny", groups)?;
    }
    for (ids, own, map) in [(Ids::User, caller.uid, users), (Ids::Group, caller.gid, groups)] {
        if may_write(caller, own, map) {
            write_file(pid, ids.file(), &lines(map), map)?;
        } else {
            help(ids, pid, map)?;
        }
    }
    Ok(())
}

fn write_file(pid: Pid, file: &str, text: &str, map: &[LinuxIdMapping]) -> Result<(), MappingError> {
    let path = format!("/proc/{pid}/{file}");
    std::fs::write(&path, text)
        .map_err(SysError::io("write", path))
        .map_err(|source| MappingError::Write { mapping: shown(map), source })
}

/// The lines of `uid_map` or `gid_map`: user_namespaces(7).
pub(in crate::runtime) fn lines(map: &[LinuxIdMapping]) -> String {
    map.iter().map(|map| format!("{} {} {}\n", map.container_id(), map.host_id(), map.size())).collect()
}

fn shown(map: &[LinuxIdMapping]) -> String {
    lines(map).trim_end().replace('\n', ", ")
}

/// newuidmap(1): `newuidmap PID [ID LOWER-ID COUNT]...`.
fn help(ids: Ids, pid: Pid, map: &[LinuxIdMapping]) -> Result<(), MappingError> {
    let path = std::env::var_os("PATH").unwrap_or(DEFAULT_PATH.into());
    let program = find(ids.helper(), &path)
        .ok_or_else(|| MappingError::NoHelper { helper: ids.helper(), mapping: shown(map) })?;
    let helper = program.display().to_string();
    let failed = |source| MappingError::Run { helper: helper.clone(), source };
    // It is privileged: nothing of the caller's environment is its business.
    let mut command = Command::new(&program);
    command.env_clear().current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.arg(pid.to_string()).args(lines(map).split_ascii_whitespace());
    let mut child = command.spawn().map_err(SysError::io("execve", helper.as_str())).map_err(failed)?;
    let (ended, output) = hooks::watch(&mut child, Some(HELPER_SECONDS)).map_err(failed)?;
    if !ended {
        // It may have ended just now; and a setuid program is not ours to kill.
        let _ = child.kill();
        let refused = format!(": it did not end within {HELPER_SECONDS} s");
        return Err(MappingError::Refused { helper, mapping: shown(map), said: refused });
    }
    let status = child.wait().map_err(SysError::io("waitpid", helper.as_str())).map_err(failed)?;
    if status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output).trim().replace('\n', "; ");
    let said = if text.is_empty() { text } else { format!(": {text}") };
    Err(MappingError::Refused { helper, mapping: shown(map), said })
}

/// The first file of that name in a directory of `path` that nobody but root can have put it into.
fn find(name: &str, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|file| file.parent().is_some_and(is_of_root) && is_of_root(file) && is_program(file))
}

fn is_of_root(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.uid() == 0 && meta.permissions().mode() & 0o022 == 0)
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(u32, u32, u32)]) -> Vec<LinuxIdMapping> {
        lines
            .iter()
            .map(|(container, host, size)| {
                let json = format!(r#"{{"containerID": {container}, "hostID": {host}, "size": {size}}}"#);
                serde_json::from_str(&json).unwrap()
            })
            .collect()
    }

    const USER: Caller = Caller { uid: 1000, gid: 100 };

    #[test]
    fn an_ordinary_user_writes_its_own_id_alone() {
        assert!(may_write(USER, 1000, &map(&[(5, 1000, 1)])));
        for other in [&[(0, 1001, 1)][..], &[(0, 1000, 2)], &[(0, 1000, 1), (1, 5000, 1)], &[]] {
            assert!(!may_write(USER, 1000, &map(other)), "{other:?}");
        }
        assert!(may_write(Caller { uid: 0, gid: 0 }, 0, &map(&[(0, 5000, 9), (9, 9000, 1)])));
    }

    #[test]
    fn setgroups_is_given_up_only_where_the_user_writes_the_groups() {
        assert!(denies_setgroups(USER, &map(&[(0, 100, 1)])));
        assert!(!denies_setgroups(USER, &map(&[(0, 100, 1), (1, 5000, 9)])));
        assert!(!denies_setgroups(Caller { uid: 0, gid: 100 }, &map(&[(0, 100, 1)])));
    }

    #[test]
    fn maps_read_as_the_kernel_wants_them() {
        let map = map(&[(0, 1000, 1), (1, 100_000, 65536)]);
        assert_eq!(lines(&map), "0 1000 1\n1 100000 65536\n");
        assert_eq!(shown(&map), "0 1000 1, 1 100000 65536");
    }

    #[test]
    fn a_helper_of_somebody_else_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sh");
        std::fs::write(&file, "").unwrap();
        std::fs::File::open(&file).unwrap().set_permissions(PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::File::open(dir.path()).unwrap().set_permissions(PermissionsExt::from_mode(0o777)).unwrap();
        let path = format!("relative::{}:/bin", dir.path().display());
        assert_eq!(find("sh", OsStr::new(&path)), Some("/bin/sh".into()));
        assert_eq!(find("no-such-helper", OsStr::new(&path)), None);
    }
}
