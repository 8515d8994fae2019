//! Daemons of others (dockerd, containerd) with their own directories, ended by the process that was started.
//!
//! A daemon says that it serves with `READY=1` to `$NOTIFY_SOCKET`, as under systemd; nothing is guessed from the clock.

use crate::{Fixture, command, events};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running daemon. Dropped, it is told to end, and the test fails if it does not.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts it and waits until it is ready. What it starts carries the token of `fixture`.
    #[track_caller]
    pub fn start(fixture: &Fixture, name: &str, command: &mut Command) -> Self {
        let socket = fixture.path().join(format!("{name}.notify"));
        let notify = UnixDatagram::bind(&socket).expect("socket for notifications");
        let log = fixture.path().join(format!("{name}.log"));
        let file = File::create(&log).expect("log of a daemon");
        let child = command
            .env("NOTIFY_SOCKET", socket)
            .env("CORTEN_TEST", fixture.token())
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("dup"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let pid = child.id().cast_signed();
        let daemon = Self { child, log };
        await_ready(&notify, pid, || daemon.log());
        daemon
    }

    /// The end of what it has written.
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        // It may have ended by itself; then the wait says so.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let status = command::wait(&mut self.child, events::patience());
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        } else {
            assert!(status.is_some(), "{} did not end on SIGTERM:\n{}", self.log.display(), self.log());
        }
    }
}

/// Waits for `READY=1` of the process `pid`.
#[track_caller]
pub fn await_ready(notify: &UnixDatagram, pid: i32, log: impl Fn() -> String) {
    let deadline = Instant::now() + events::patience();
    let mut message = [0; 4096];
    while let Some(left) = deadline.checked_duration_since(Instant::now()) {
        // A process that ends says nothing more, so its end is looked for now and then.
        if events::readable(notify.as_fd(), left.min(Duration::from_millis(200))) {
            let length = notify.recv(&mut message).expect("a notification");
            let text = String::from_utf8_lossy(&message[..length]);
            if text.lines().any(|line| line == "READY=1") {
                return;
            }
        } else if events::process_end(pid, Duration::ZERO) {
            panic!("process {pid} ended at once:\n{}", log());
        }
    }
    panic!("process {pid} was not ready within {:?}:\n{}", events::patience(), log());
}
