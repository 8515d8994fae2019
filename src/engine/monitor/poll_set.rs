//! What a monitor waits for at once.
use crate::sys::SysError;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;
use std::time::Duration;

/// Descriptors, and what each of them is about.
pub(super) struct PollSet<'fd, S> {
    slots: Vec<PollFd<'fd>>,
    sources: Vec<S>,
}

impl<'fd, S: Copy> PollSet<'fd, S> {
    pub(super) fn new() -> Self {
        Self { slots: Vec::new(), sources: Vec::new() }
    }

    /// Waits for `flags` of `fd`, and for its end.
    pub(super) fn add(&mut self, source: S, fd: &'fd impl AsFd, flags: PollFlags) {
        self.slots.push(PollFd::new(fd.as_fd(), flags));
        self.sources.push(source);
    }

    /// What happened, in the order in which it was added; nothing if `limit` passed first.
    pub(super) fn wait(mut self, limit: Option<Duration>) -> Result<Vec<(S, PollFlags)>, SysError> {
        // Rounded up, so that what was to be done at a time is due when this returns.
        let timeout = limit.map_or(PollTimeout::NONE, |limit| {
            let millis = i32::try_from(limit.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
            PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut self.slots, timeout) {
            // The caller asks again.
            Err(Errno::EINTR) => return Ok(Vec::new()),
            result => result.map_err(SysError::on("poll", ""))?,
        };
        let flags = self.slots.iter().map(|slot| slot.revents().unwrap_or(PollFlags::empty()));
        Ok(self.sources.into_iter().zip(flags).filter(|(_, flags)| !flags.is_empty()).collect())
    }
}
