//! eventfd(2), and its registration with a v1 cgroup, which takes descriptors by number.
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::SysError;

/// A counter of events: close-on-exec, and reading does not wait.
///
/// # Errors
/// That of eventfd(2).
pub fn new() -> Result<OwnedFd, SysError> {
    EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
        .map(OwnedFd::from)
        .map_err(SysError::on("eventfd", ""))
}

/// Has the kernel add to `event` what happens to `watched`: `control` is the `cgroup.event_control` of its cgroup.
/// The registration lasts as long as `event`; the other two may be closed.
///
/// # Errors
/// That of the write.
pub fn register(control: &OwnedFd, event: &OwnedFd, watched: &OwnedFd) -> Result<(), SysError> {
    let line = format!("{} {}", event.as_raw_fd(), watched.as_raw_fd());
    nix::unistd::write(control, line.as_bytes())
        .map(drop)
        .map_err(SysError::on("write", "cgroup.event_control"))
}
