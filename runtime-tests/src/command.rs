//! Running a command with a deadline.

use crate::{events, needs, sys};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How a command ended, and what it and its children wrote until now.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit code; None if a signal killed it.
    pub code: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// Standard output at the time of its end.
    pub stdout: String,
    /// Standard error at the time of its end.
    pub stderr: String,
    what: String,
    stdout_file: File,
}

impl Outcome {
    /// Fails the test unless the exit code is 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// Fails the test unless the exit code is `code`.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "{} ended with code {:?} signal {:?}\nstdout: {}\nstderr: {}",
            self.what,
            self.code,
            self.signal,
            self.stdout,
            self.stderr
        );
        self
    }

    /// Fails the test unless it ended with any other code than 0, and said why on standard error.
    #[track_caller]
    pub fn fails(self) -> Self {
        assert_ne!(self.code, Some(0), "{} did not fail\nstdout: {}", self.what, self.stdout);
        assert!(!self.stderr.trim().is_empty(), "{} failed without a word", self.what);
        self
    }

    /// Fails the test unless standard error contains `text`.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "{}: {text:?} is not in stderr: {}", self.what, self.stderr);
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| {
            panic!("{}: {error}\nstdout: {}\nstderr: {}", self.what, self.stdout, self.stderr)
        })
    }

    /// Standard output until now, with what a container that outlives the command has written since.
    pub fn stdout_now(&mut self) -> String {
        read_all(&mut self.stdout_file)
    }
}

fn read_all(file: &mut File) -> String {
    // The offset is shared with whoever still writes through the same description, so it is put back at the end.
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).expect("seek in captured output");
    file.read_to_end(&mut bytes).expect("read captured output");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Runs a command to its end. Its output goes to files, so that a container that inherits them cannot keep
/// us waiting; its standard input is empty unless `command` says otherwise.
#[track_caller]
pub fn run(command: &mut Command) -> Outcome {
    run_within(command, events::patience())
}

/// The same with another deadline.
#[track_caller]
pub fn run_within(command: &mut Command, within: Duration) -> Outcome {
    command.stdin(Stdio::null());
    run_with_stdin(command, within)
}

/// The same with the standard input that `command` has.
#[track_caller]
pub fn run_with_stdin(command: &mut Command, within: Duration) -> Outcome {
    let mut stdout = tempfile::tempfile().expect("temporary file");
    let mut stderr = tempfile::tempfile().expect("temporary file");
    command.stdout(stdout.try_clone().expect("dup")).stderr(stderr.try_clone().expect("dup"));
    let what = format!("{command:?}");
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
    let ended = wait(&mut child, within);
    let (stdout_text, stderr_text) = (read_all(&mut stdout), read_all(&mut stderr));
    let Some(status) = ended else {
        panic!("{what} did not end within {within:?}\nstdout: {stdout_text}\nstderr: {stderr_text}");
    };
    Outcome {
        code: status.code(),
        signal: status.signal(),
        stdout: stdout_text,
        stderr: stderr_text,
        what,
        stdout_file: stdout,
    }
}

/// Waits for a child; kills it and gives None when the time is over.
pub fn wait(child: &mut Child, within: Duration) -> Option<std::process::ExitStatus> {
    let pid = i32::try_from(child.id()).expect("a pid");
    let pidfd = sys::pidfd_open(pid).expect("pidfd_open of a child");
    if events::readable(pidfd.as_fd(), within) {
        return Some(child.wait().expect("wait for a child"));
    }
    child.kill().expect("kill a child");
    child.wait().expect("wait for a child");
    None
}

/// How a command ended, and what it took.
#[derive(Debug)]
pub struct Measured {
    /// Its end; None if it was killed because its time was over.
    pub status: Option<std::process::ExitStatus>,
    /// What it wrote to standard output and standard error.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
    /// From its start to its end.
    pub time: Duration,
    /// The most memory that it, or a child of its own, had resident at once: bytes; 0 if it was killed.
    pub resident: u64,
}

/// Runs a command to its end, and tells what it took. A signal that ended it is 128 and its number.
#[track_caller]
pub fn measure(command: &Command, within: Duration) -> Measured {
    let mut stdout = tempfile::tempfile().expect("temporary file");
    let mut stderr = tempfile::tempfile().expect("temporary file");
    let peak = tempfile::NamedTempFile::new().expect("temporary file");
    let mut probe = Command::new(needs::probe());
    probe.arg("peak").arg(peak.path()).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => probe.env(name, value),
            None => probe.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        probe.current_dir(directory);
    }
    // A group of their own, so that both can be ended.
    probe.stdin(Stdio::null()).process_group(0);
    probe.stdout(stdout.try_clone().expect("dup")).stderr(stderr.try_clone().expect("dup"));
    let start = std::time::Instant::now();
    let mut child = probe.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let pid = i32::try_from(child.id()).expect("a pid");
    let pidfd = sys::pidfd_open(pid).expect("pidfd_open of a child");
    let ended = events::readable(pidfd.as_fd(), within);
    if !ended {
        nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
            .expect("kill a child");
    }
    let time = start.elapsed();
    let status = child.wait().expect("wait for a child");
    let (stdout, stderr) = (read_all(&mut stdout), read_all(&mut stderr));
    let resident = std::fs::read_to_string(peak.path()).expect("the probe's result");
    let resident = if ended { resident.parse().expect("a number") } else { 0 };
    Measured { status: ended.then_some(status), stdout, stderr, time, resident }
}
