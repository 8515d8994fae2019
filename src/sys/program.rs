//! Programs that others wrote and that are asked for something: nft, CNI plugins, credential helpers. What they write
//! and how long they take is bounded.
use super::{SysError, pidfd};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What is kept of what a program says about its failure.
const MAX_MESSAGES: usize = 16 * 1024;

/// Why a program's answer did not come.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It cannot be run or followed.
    #[error(transparent)]
    System(#[from] SysError),
    /// It did not end in time and was killed.
    #[error("{program} did not end within {seconds} s and was killed")]
    Deadline {
        /// Which.
        program: String,
        /// The limit.
        seconds: u64,
    },
    /// It wrote more than it may.
    #[error("{program} wrote more than {limit} bytes and was killed")]
    TooMuchOutput {
        /// Which.
        program: String,
        /// The limit.
        limit: usize,
    },
}

/// A program that is to be run.
#[derive(Debug)]
pub struct Program<'a> {
    /// The file.
    pub path: &'a Path,
    /// Arguments.
    pub arguments: &'a [&'a str],
    /// All of its environment.
    pub environment: &'a [(OsString, OsString)],
    /// Standard input.
    pub stdin: File,
    /// Standard output; captured if absent.
    pub stdout: Option<File>,
    /// After this its process group is killed.
    pub deadline: Duration,
    /// It may write so many bytes to standard output.
    pub limit: usize,
}

/// What came of it.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    /// The beginning of it.
    pub stderr: String,
}

impl Program<'_> {
    /// Runs it to its end. What it leaves behind in the background is not waited for.
    pub fn run(self) -> Result<Ended, ProgramError> {
        let name = self.path.display().to_string();
        let captures = self.stdout.is_none();
        let mut child = Command::new(self.path)
            .args(self.arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::from(self.stdin))
            .stdout(self.stdout.map_or_else(Stdio::piped, Stdio::from))
            .stderr(Stdio::piped())
            .spawn()
            .map_err(SysError::io("execve", name.clone()))?;
        let result = follow(&mut child, &name, self.deadline, captures.then_some(self.limit));
        if result.is_err() {
            // It may be gone already, and its group with it.
            let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
        }
        let status = child.wait().map_err(SysError::io("wait", name))?;
        let (stdout, stderr) = result?;
        Ok(Ended { status, stdout, stderr: String::from_utf8_lossy(&stderr).trim().to_owned() })
    }
}

fn follow(
    child: &mut Child,
    name: &str,
    limit: Duration,
    captured: Option<usize>,
) -> Result<(Vec<u8>, Vec<u8>), ProgramError> {
    let end = Instant::now() + limit;
    let process = pidfd::open(child.id().cast_signed())?;
    let mut stdout = Stream::new(child.stdout.take().map(OwnedFd::from))?;
    let mut stderr = Stream::new(child.stderr.take().map(OwnedFd::from))?;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ProgramError::Deadline { program: name.to_owned(), seconds: limit.as_secs() });
        }
        let mut waited = vec![PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        waited.extend(
            [&stdout, &stderr]
                .into_iter()
                .filter_map(|stream| stream.fd.as_ref())
                .map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)),
        );
        match poll(&mut waited, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(SysError::on("poll", name)(errno).into()),
        }
        // Asked before the streams are read: what it wrote before its end is then there to be read.
        let ended = waited[0].revents().is_some_and(|events| !events.is_empty());
        stdout.read(captured.unwrap_or(0))?;
        stderr.read(MAX_MESSAGES)?;
        if stdout.overflows {
            let limit = captured.unwrap_or(0);
            return Err(ProgramError::TooMuchOutput { program: name.to_owned(), limit });
        }
        if ended {
            return Ok((stdout.content, stderr.content));
        }
    }
}

#[derive(Debug)]
struct Stream {
    fd: Option<OwnedFd>,
    content: Vec<u8>,
    overflows: bool,
}

impl Stream {
    fn new(fd: Option<OwnedFd>) -> Result<Self, ProgramError> {
        if let Some(fd) = &fd {
            fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(SysError::on("fcntl", "F_SETFL"))?;
        }
        Ok(Self { fd, content: Vec::new(), overflows: false })
    }

    /// Reads what is there; what is beyond `limit` is dropped.
    fn read(&mut self, limit: usize) -> Result<(), ProgramError> {
        let Some(fd) = &self.fd else { return Ok(()) };
        let mut chunk = [0; 8192];
        // A writer that never stops must not keep us from looking at the clock.
        for _ in 0..64 {
            match nix::unistd::read(fd, &mut chunk) {
                Ok(0) => {
                    self.fd = None;
                    return Ok(());
                }
                Ok(length) => {
                    let taken = length.min(limit.saturating_sub(self.content.len()));
                    self.content.extend_from_slice(&chunk[..taken]);
                    self.overflows |= taken < length;
                }
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(SysError::on("read", "pipe")(errno).into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, seconds: u64, limit: usize) -> Result<Ended, ProgramError> {
        Program {
            path: Path::new("/bin/sh"),
            arguments: &["-c", script],
            environment: &[("A".into(), "b".into())],
            stdin: File::open("/dev/null").unwrap(),
            stdout: None,
            deadline: Duration::from_secs(seconds),
            limit,
        }
        .run()
    }

    #[test]
    fn output_and_status_come_back() {
        let ended = shell("echo $A; echo oops >&2; exit 3", 10, 100).unwrap();
        assert_eq!((ended.stdout.as_slice(), ended.stderr.as_str()), (&b"b\n"[..], "oops"));
        assert_eq!(ended.status.code(), Some(3));
    }

    #[test]
    fn too_much_output_and_too_long_a_time_end_it() {
        assert!(matches!(shell("yes", 10, 1000), Err(ProgramError::TooMuchOutput { limit: 1000, .. })));
        let begin = Instant::now();
        assert!(matches!(shell("sleep 60 & sleep 60", 1, 1000), Err(ProgramError::Deadline { .. })));
        assert!(begin.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_child_in_the_background_that_keeps_the_pipes_is_not_waited_for() {
        let begin = Instant::now();
        assert_eq!(shell("sleep 3 & echo $!", 20, 100).unwrap().status.code(), Some(0));
        assert!(begin.elapsed() < Duration::from_millis(2500));
    }
}
