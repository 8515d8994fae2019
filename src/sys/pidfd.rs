//! Processes by descriptor: no other process can take their place.
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

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

/// pidfd_getfd(2): a descriptor of another process, close-on-exec. Needs the right to trace it (kernel 5.6).
///
/// # Errors
/// EBADF where it has no such descriptor (yet).
pub fn descriptor(pidfd: impl AsFd, number: i32) -> Result<OwnedFd, SysError> {
    // SAFETY: the call takes three integers.
    let fd =
        Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_fd().as_raw_fd(), number, 0) })
            .map_err(SysError::on("pidfd_getfd", number.to_string()))?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd.try_into().unwrap_or(-1)) })
}

/// Sends a signal by number, real-time ones too, to the very process of the descriptor. 0 probes.
///
/// # Errors
/// ESRCH where the process is dead and reaped.
pub fn send_signal(pidfd: impl AsFd, signal: i32) -> Result<(), SysError> {
    // SAFETY: no signal information is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    Errno::result(result).map(drop).map_err(SysError::on("pidfd_send_signal", format!("signal {signal}")))
}

/// Waits until the process behind a pidfd has ended; it need not be a child. False when `timeout_ms`
/// passed first (None: no limit).
pub fn wait(pidfd: impl AsFd, timeout_ms: Option<u32>) -> Result<bool, SysError> {
    let deadline =
        timeout_ms.map(|ms| std::time::Instant::now() + std::time::Duration::from_millis(u64::from(ms)));
    loop {
        let timeout = match deadline {
            None => PollTimeout::NONE,
            Some(deadline) => {
                let left = deadline.saturating_duration_since(std::time::Instant::now());
                PollTimeout::try_from(left.as_millis().min(i32::MAX as u128) as i32)
                    .unwrap_or(PollTimeout::MAX)
            }
        };
        match poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(SysError::on("poll", "pidfd")(errno)),
        }
    }
}
