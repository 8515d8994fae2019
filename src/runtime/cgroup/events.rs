//! Whether the kernel ran out of a container's memory.
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::PollFlags;

use super::dir::{self, Dir};
use super::freezer::value_of;
use super::host::{Controller, Mode};
use super::{Cgroup, Error, Result};
use crate::sys::{SysError, eventfd};

const V1_CONTROL: &str = "memory.oom_control";
const V2_EVENTS: &str = "memory.events";

impl Cgroup {
    /// How many processes of the container the kernel has killed because a memory limit was reached, those of
    /// cgroups below included on v2 (v1 counts the container's own cgroup alone). 0 where nobody counts.
    ///
    /// # Errors
    /// Those of reading.
    pub fn oom_kills(&self) -> Result<u64> {
        let Some(dir) = self.dir_of(Controller::Memory) else { return Ok(0) };
        kills(dir, self.mode)
    }

    /// Watches for the container running out of memory.
    ///
    /// # Errors
    /// [`Error::None`] without a memory cgroup; those of opening.
    pub fn watch_oom(&self) -> Result<OomWatch> {
        let dir = self.dir_of(Controller::Memory).ok_or(Error::None { what: "memory" })?;
        let dir = dir.reopen()?;
        let fd = if self.mode == Mode::Unified {
            dir.open_file(V2_EVENTS, OFlag::O_RDONLY)?
        } else {
            let event = eventfd::new()?;
            let watched = dir.open_file(V1_CONTROL, OFlag::O_RDONLY)?;
            let control = dir.open_file("cgroup.event_control", OFlag::O_WRONLY)?;
            eventfd::register(&control, &event, &watched)?;
            event
        };
        let mut watch = OomWatch { fd, dir, mode: self.mode, seen: 0 };
        watch.seen = watch.current()?.unwrap_or(0);
        Ok(watch)
    }
}

fn kills(dir: &Dir, mode: Mode) -> Result<u64> {
    let file = if mode == Mode::Unified { V2_EVENTS } else { V1_CONTROL };
    match dir.read(file) {
        Ok(text) => Ok(value_of(&text, "oom_kill").unwrap_or(0)),
        Err(error) if dir::gone(&error) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// What happened since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oom {
    /// This many times the kernel killed a process (v2), or the limit was hit without a way out (v1, where nothing
    /// is killed while `disableOOMKiller` is set).
    Happened(u64),
    /// Nothing: the event was about something else.
    Nothing,
    /// The cgroup was removed; there will be no more.
    Gone,
}

/// Becomes ready when the container runs out of memory, and once more when its cgroup is removed.
#[derive(Debug)]
pub struct OomWatch {
    /// v1: an eventfd. v2: `memory.events`.
    fd: OwnedFd,
    dir: Dir,
    mode: Mode,
    seen: u64,
}

impl OomWatch {
    /// What to poll the descriptor for.
    pub fn interest(&self) -> PollFlags {
        if self.mode == Mode::Unified { PollFlags::POLLPRI } else { PollFlags::POLLIN }
    }

    /// To be called when poll(2) says that the descriptor is ready; resets it.
    ///
    /// # Errors
    /// Those of reading.
    pub fn look(&mut self) -> Result<Oom> {
        let Some(now) = self.current()? else { return Ok(Oom::Gone) };
        let count = now - self.seen.min(now);
        self.seen = now;
        Ok(if count == 0 { Oom::Nothing } else { Oom::Happened(count) })
    }

    /// The counter: on v1 of events seen, since the kernel's count comes after the event; `None` without a cgroup.
    fn current(&mut self) -> Result<Option<u64>> {
        if self.mode == Mode::Unified {
            let failed = |errno| SysError::on("lseek", self.dir.name(V2_EVENTS))(errno);
            nix::unistd::lseek(&self.fd, 0, nix::unistd::Whence::SeekSet).map_err(failed)?;
            return match self.dir.read_from(&self.fd, V2_EVENTS) {
                Ok(text) => Ok(Some(value_of(&text, "oom_kill").unwrap_or(0))),
                Err(error) if dir::gone(&error) => Ok(None),
                Err(error) => Err(error.into()),
            };
        }
        let mut count = [0; 8];
        let events = match nix::unistd::read(&self.fd, &mut count) {
            Ok(_) => u64::from_ne_bytes(count),
            Err(Errno::EAGAIN | Errno::EINTR) => 0,
            Err(errno) => return Err(SysError::on("read", "eventfd")(errno).into()),
        };
        // The removal of the cgroup is an event too (Documentation/admin-guide/cgroup-v1/cgroups.rst).
        match self.dir.open_file(V1_CONTROL, OFlag::O_RDONLY) {
            Ok(_) => Ok(Some(self.seen + events)),
            Err(error) if dir::gone(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
