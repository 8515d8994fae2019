//! The first process of a scope.
use std::io::Read;
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, pipe2};

use crate::sys::SysError;
use crate::sys::process::{Clone3, Forked, clone3, exit_now, set_parent_death_signal, wait};

/// A process that does nothing but keep a scope; it ends with this value, or with us.
#[derive(Debug)]
pub(in super::super) struct Placeholder {
    pid: Pid,
    /// Its end of a pipe reports that ours is closed.
    hold: Option<OwnedFd>,
}

impl Placeholder {
    /// Starts one.
    ///
    /// # Errors
    /// Those of pipe2(2) and clone3(2); EBUSY in a process with threads.
    pub(super) fn spawn() -> Result<Self, SysError> {
        let (wakes, hold) = pipe2(OFlag::O_CLOEXEC).map_err(SysError::on("pipe2", ""))?;
        match clone3(Clone3 { flags: 0, cgroup: None })? {
            Forked::Child => {
                drop(hold);
                // Beside the pipe, whose other end every process has that is cloned from the runtime now.
                let armed = set_parent_death_signal(Some(Signal::SIGKILL));
                let ended = std::fs::File::from(wakes).read(&mut [0]);
                exit_now(i32::from(armed.is_err() || ended.is_err()))
            }
            Forked::Parent { pid, .. } => Ok(Self { pid, hold: Some(hold) }),
        }
    }

    /// Its number, for systemd.
    pub(in super::super) fn pid(&self) -> Pid {
        self.pid
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        self.hold = None;
        // Not by the pipe alone: the container's init may have our end of it too.
        let _ = nix::sys::signal::kill(self.pid, Signal::SIGKILL);
        let _ = wait(self.pid);
    }
}
