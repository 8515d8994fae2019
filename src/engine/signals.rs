//! Signals that a command passes on to a container.
use super::error::EngineError;
use crate::sys::SysError;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::{AsFd, BorrowedFd};

/// The signals wait in a descriptor from the moment that this is made, and none ends the command.
#[derive(Debug)]
pub struct Forwarded(SignalFd);

const FORWARDED: [Signal; 8] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGWINCH,
];

impl Forwarded {
    /// Begins to catch them.
    pub fn catch() -> Result<Self, EngineError> {
        let mut set = SigSet::empty();
        for signal in FORWARDED {
            set.add(signal);
        }
        set.thread_block().map_err(SysError::on("sigprocmask", "SIG_BLOCK"))?;
        let descriptor = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(SysError::on("signalfd", ""))?;
        Ok(Self(descriptor))
    }

    /// The number of the next one, if there is one.
    pub fn next(&self) -> Result<Option<i32>, EngineError> {
        match self.0.read_signal() {
            Ok(info) => Ok(info.and_then(|info| i32::try_from(info.ssi_signo).ok())),
            Err(Errno::EAGAIN) => Ok(None),
            Err(errno) => Err(SysError::on("read", "signalfd")(errno).into()),
        }
    }
}

impl AsFd for Forwarded {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
