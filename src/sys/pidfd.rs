//! Processes by descriptor: no other process can take their place.
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::SysError;

/// pidfd_open(2), close-on-exec.
///
/// # Errors
/// ESRCH where there is no such process.
pub fn open(pid: i32) -> Result<OwnedFd, SysError> {
    // SAFETY: the call takes two integers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
        .map_err(|errno| SysError::on("pidfd_open", pid.to_string())(errno))?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd.try_into().unwrap_or(-1)) })
}

/// pidfd_send_signal(2).
///
/// # Errors
/// ESRCH where the process is dead and reaped.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: Signal) -> Result<(), SysError> {
    // SAFETY: no signal information is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal as libc::c_int,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    Errno::result(result).map(drop).map_err(SysError::on("pidfd_send_signal", signal.as_str()))
}
