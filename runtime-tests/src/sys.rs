//! The two system calls that have no safe wrapper in our libraries.

use nix::errno::Errno;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// `pidfd_open(2)`: readable when the process has ended.
pub(crate) fn pidfd_open(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: the call takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(Errno::result(fd)?).expect("a descriptor fits in an int");
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes over a descriptor that came in a control message.
pub(crate) fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: recvmsg installed this descriptor for its caller, who passes it here once and forgets it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
