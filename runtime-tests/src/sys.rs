//! The system calls that have no safe wrapper in our libraries.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

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

/// `ioctl(2)` on standard input with a request of 64 bits, of which the kernel reads the lower half; for requests that
/// have no argument, or whose argument may be a null pointer.
pub fn ioctl(request: u64) -> Result<(), Errno> {
    // SAFETY: the argument is a null pointer, which the kernel answers with EFAULT where it needs memory.
    let rc = unsafe { libc::syscall(libc::SYS_ioctl, 0, request, std::ptr::null::<u8>()) };
    Errno::result(rc).map(drop)
}

/// What a seccomp agent answers to a notified call.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    /// The kernel goes on with it.
    Continue,
    /// It fails with this error.
    Fail(Errno),
}

/// Takes one notification from a seccomp listener (seccomp_unotify(2)) that is readable or hung up, and answers it; the
/// number of the call. None when the last process of the filter has ended, or the call was interrupted.
pub fn answer_notification(listener: &OwnedFd, answer: impl FnOnce(i32) -> Answer) -> Option<i32> {
    use std::os::fd::AsRawFd;
    const RECEIVE: libc::c_ulong = 0xc050_2100;
    const SEND: libc::c_ulong = 0xc018_2101;
    // Before Linux 6.11 the call waits for ever where no process is left.
    let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    poll(&mut ready, PollTimeout::ZERO).ok()?;
    if !ready[0].revents().is_some_and(|seen| seen.contains(PollFlags::POLLIN)) {
        return None;
    }
    // `struct seccomp_notif` and `struct seccomp_notif_resp` of linux/seccomp.h: 80 and 24 bytes.
    let mut notification = [0_u64; 10];
    // SAFETY: the kernel writes at most 80 bytes to the array, which has that many and must be zero before.
    let rc =
        unsafe { libc::syscall(libc::SYS_ioctl, listener.as_raw_fd(), RECEIVE, notification.as_mut_ptr()) };
    Errno::result(rc).ok()?;
    let call = notification[2] as u32 as i32;
    let mut response = [notification[0], 0, 0_u64];
    response[2] = match answer(call) {
        // SECCOMP_USER_NOTIF_FLAG_CONTINUE, in the upper half of this word of a little-endian machine.
        Answer::Continue => 1 << 32,
        Answer::Fail(errno) => u64::from((-(errno as i32)).cast_unsigned()),
    };
    // SAFETY: the kernel reads 24 bytes of the array, which has that many.
    let rc = unsafe { libc::syscall(libc::SYS_ioctl, listener.as_raw_fd(), SEND, response.as_ptr()) };
    Errno::result(rc).ok().map(|_| call)
}

/// Gives a command these supplementary groups.
pub fn with_groups(command: &mut std::process::Command, groups: Vec<u32>) -> &mut std::process::Command {
    use std::os::unix::process::CommandExt;
    let groups: Vec<nix::unistd::Gid> = groups.into_iter().map(nix::unistd::Gid::from_raw).collect();
    // SAFETY: setgroups(2) is one system call, and the vector was made before the fork.
    unsafe { command.pre_exec(move || Ok(nix::unistd::setgroups(&groups)?)) }
}

/// Gives a file inheritable capabilities, of which bit n is capability n, and the effective flag (setcap(8), `=ei`).
pub fn set_inheritable(file: &std::path::Path, mask: u32) {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(file.as_os_str().as_bytes()).expect("a path");
    // `struct vfs_cap_data` of linux/capability.h: revision 2 with the effective flag; permitted and inheritable, low
    // and high words.
    let words = [0x0200_0001_u32, 0, mask, 0, 0];
    let data: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    // SAFETY: both strings end with NUL, and the kernel reads `data.len()` bytes of `data`.
    let rc = unsafe {
        libc::setxattr(path.as_ptr(), c"security.capability".as_ptr(), data.as_ptr().cast(), data.len(), 0)
    };
    Errno::result(rc).expect("setxattr security.capability");
}

/// The extended attributes of a file, not following a link; none where the file system has none.
pub(crate) fn xattrs(file: &std::path::Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(file.as_os_str().as_bytes()).expect("a path");
    let read = |call: &dyn Fn(*mut libc::c_char, usize) -> isize| {
        let mut buffer = vec![0_u8; 128 << 10];
        let length = call(buffer.as_mut_ptr().cast(), buffer.len());
        buffer.truncate(usize::try_from(length).unwrap_or(0));
        buffer
    };
    // SAFETY: the path ends with NUL, and the kernel writes at most as many bytes as the buffer has.
    let names = read(&|buffer, length| unsafe { libc::llistxattr(path.as_ptr(), buffer, length) });
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let key = std::ffi::CString::new(name).expect("a name without NUL");
            let value = read(&|buffer, length| {
                // SAFETY: both strings end with NUL, and the kernel writes at most as many bytes as the buffer has.
                unsafe { libc::lgetxattr(path.as_ptr(), key.as_ptr(), buffer.cast(), length) }
            });
            (name.to_vec(), value)
        })
        .collect()
}

/// Waits for a child that has ended, and tells its status and the most memory (bytes) that it or a child that it waited
/// for had resident at once (wait4(2)).
pub fn wait4(pid: i32) -> (std::process::ExitStatus, u64) {
    use std::os::unix::process::ExitStatusExt;
    let mut status = 0;
    // SAFETY: all of the structure is numbers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one int and one structure, which outlive the call.
    let rc = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    Errno::result(rc).expect("wait4 of a child");
    let resident = u64::try_from(usage.ru_maxrss).expect("a size in KiB") << 10;
    (std::process::ExitStatus::from_raw(status), resident)
}
