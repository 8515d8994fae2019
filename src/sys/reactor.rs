//! Descriptors that the asynchronous runtime waits for.
use super::SysError;
use nix::errno::Errno;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
pub use tokio::io::unix::AsyncFd;

/// Lets tokio's reactor watch a descriptor, and takes it. It is not made non-blocking.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn watch(fd: OwnedFd, interest: Interest) -> Result<AsyncFd<OwnedFd>, SysError> {
    // SAFETY: an OwnedFd is open, and the same one, for as long as the AsyncFd owns it: nobody gets it out of there
    // but by `into_inner`, which takes it off the reactor first.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(|error| {
        let (_, cause) = error.into_parts();
        let errno = cause.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        SysError::on("epoll_ctl", "")(errno)
    })
}
