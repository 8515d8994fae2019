//! The system calls that have no safe wrapper in our libraries.

use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// `pidfd_open(2)`: readable when the process has ended.
pub(crate) fn pidfd_open(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: the call takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(Errno::result(fd)?).expect("a descriptor fits in an int");
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `pidfd_send_signal(2)` with SIGKILL: it cannot hit another process that got the number.
pub(crate) fn pidfd_kill(pidfd: BorrowedFd<'_>) -> Result<(), Errno> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: three integers and a null pointer, which stands for no siginfo_t of the caller's.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), libc::SIGKILL, no_info, 0) };
    Errno::result(result).map(drop)
}

/// Takes over a descriptor that came in a control message.
pub(crate) fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: recvmsg installed this descriptor for its caller, who passes it here once and forgets it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
