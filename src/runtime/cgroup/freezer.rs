//! Freezing and thawing all processes of a container.
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Whence, lseek};

use super::dir::{self, Dir};
use super::host::{Controller, Version};
use super::processes::pause;
use super::{Cgroup, Error, Result};
use crate::sys::SysError;

/// runc gives up after as long: a process that does not freeze by then hangs in the kernel.
const PATIENCE: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Stops all processes of the container where they are, and returns when all have stopped.
    ///
    /// # Errors
    /// [`Error::TimedOut`] where some do not stop within ten seconds (the cgroup is thawed again then);
    /// [`Error::None`] without a freezer cgroup.
    pub fn freeze(&self) -> Result<()> {
        let dir = self.freezer()?;
        let deadline = Instant::now() + PATIENCE;
        let outcome = match dir.version() {
            Version::V1 => freeze_v1(dir, deadline),
            Version::V2 => freeze_v2(dir, deadline),
        };
        if outcome.is_err() {
            // Half frozen is worse than either; the error that led here is the one to tell.
            let _ = self.thaw();
        }
        outcome
    }

    /// Lets frozen processes go on.
    ///
    /// # Errors
    /// [`Error::None`] without a freezer cgroup, and those of writing.
    pub fn thaw(&self) -> Result<()> {
        let dir = self.freezer()?;
        match dir.version() {
            Version::V1 => dir.write("freezer.state", "THAWED")?,
            Version::V2 => dir.write("cgroup.freeze", "0")?,
        }
        Ok(())
    }

    /// Whether this cgroup itself was told to freeze: one that stands still because a cgroup above it is frozen
    /// is not paused by us, and cannot be resumed by us.
    ///
    /// # Errors
    /// Those of reading; a container without a freezer cgroup is not frozen.
    pub fn frozen(&self) -> Result<bool> {
        let Ok(dir) = self.freezer() else { return Ok(false) };
        let file = match dir.version() {
            Version::V1 => "freezer.self_freezing",
            Version::V2 => "cgroup.freeze",
        };
        match dir.read(file) {
            Ok(text) => Ok(text.trim_end() == "1"),
            Err(error) if dir::gone(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn freezer(&self) -> Result<&Dir> {
        self.dir_of(Controller::Freezer).or_else(|| self.v2()).ok_or(Error::None { what: "freezer" })
    }
}

/// v1 may stay in FREEZING while processes fork, and has no event for the end of it: ask again until it holds.
/// A thaw now and then lets through what waits for a process that is frozen already (as runc does).
fn freeze_v1(dir: &Dir, deadline: Instant) -> Result<()> {
    const FILE: &str = "freezer.state";
    for round in 1_u32.. {
        dir.write(FILE, "FROZEN")?;
        let state = dir.read(FILE)?;
        if state.trim_end() == "FROZEN" {
            return Ok(());
        }
        if Instant::now() >= deadline {
            break;
        }
        if round.is_multiple_of(50) {
            dir.write(FILE, "THAWED")?;
        }
        if round.is_multiple_of(10) {
            pause(deadline)?;
        }
    }
    Err(stuck(dir))
}

/// v2 says in `cgroup.events` when all have stopped, and notifies whoever polls it.
fn freeze_v2(dir: &Dir, deadline: Instant) -> Result<()> {
    const EVENTS: &str = "cgroup.events";
    let events = dir.open_file(EVENTS, OFlag::O_RDONLY)?;
    dir.write("cgroup.freeze", "1")?;
    loop {
        lseek(&events, 0, Whence::SeekSet).map_err(SysError::on("lseek", dir.name(EVENTS)))?;
        if value_of(&dir.read_from(&events, EVENTS)?, "frozen") == Some(1) {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], timeout) {
            Ok(0) => return Err(stuck(dir)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(SysError::on("poll", dir.name(EVENTS))(errno).into()),
        }
    }
}

fn stuck(dir: &Dir) -> Error {
    let pids = dir.all_pids().unwrap_or_default();
    Error::TimedOut { path: dir.path().to_owned(), what: "it does not freeze", pids: dir::list(&pids) }
}

/// The number behind `key` in a file of `key number` lines.
pub(super) fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim_end().parse().ok())
}
