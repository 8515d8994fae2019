//! Processes: clone3, pidfds, namespaces, waiting, exec.
use std::ffi::{CStr, CString};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::SysError;

/// `CLONE_NEWTIME` of `linux/sched.h` (5.6); it shares its bit with `CSIGNAL`, so only clone3, unshare and
/// setns take it.
pub const CLONE_NEWTIME: u64 = 0x80;
/// `CLONE_INTO_CGROUP` of `linux/sched.h` (5.7).
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The two returns of [`clone3`].
#[derive(Debug)]
pub enum Forked {
    /// In the new process.
    Child,
    /// In the caller; `pid` as seen from the caller's PID namespace.
    Parent {
        /// The child.
        pid: Pid,
        /// Refers to the child even when its number is reused.
        pidfd: OwnedFd,
    },
}

/// Flags of [`clone3`]: `CLONE_NEW*`, `CLONE_PARENT`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clone3<'a> {
    /// `CLONE_NEW*` and `CLONE_PARENT` bits.
    pub flags: u64,
    /// A cgroup v2 directory in which the child starts: this skips `cgroup_threadgroup_rwsem`, which a
    /// write to `cgroup.procs` takes.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// Whether this process has one thread.
///
/// The kernel is asked by an unshare(2) that changes nothing (EINVAL where there is a second thread): libc's own note, where it
/// keeps one, never becomes "yes" again, and /proc may be another PID namespace's. A thread that was joined leaves the kernel's
/// list a moment after pthread_join(3) returns, which is waited for.
pub fn is_single_threaded() -> bool {
    // On a machine that is emulated, or whose processors are taken, a moment may be long.
    const MOMENT: Duration = Duration::from_secs(1);
    let is_alone = || nix::sched::unshare(CloneFlags::CLONE_THREAD).is_ok();
    if is_alone() {
        return true;
    }
    let begin = Instant::now();
    while begin.elapsed() < MOMENT {
        std::thread::yield_now();
        if is_alone() {
            return true;
        }
    }
    false
}

/// Starts a process that goes on from here in a copy of this one's memory, as fork(2) does.
///
/// It is refused (EBUSY) in a process that has threads: a lock that another thread holds would stay
/// locked in the child for ever.
pub fn clone3(request: Clone3<'_>) -> Result<Forked, SysError> {
    if !is_single_threaded() {
        return Err(SysError {
            call: "clone3",
            args: "in a process with threads".into(),
            errno: Errno::EBUSY,
        });
    }
    let mut pidfd: libc::c_int = -1;
    // SAFETY: clone_args is a plain C struct for which all zeroes is the documented "nothing asked".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    let parent = request.flags & libc::CLONE_PARENT as u64 != 0;
    args.flags = request.flags | libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    // clone3(2): exit_signal must be 0 with CLONE_PARENT, the child takes the caller's.
    args.exit_signal = if parent { 0 } else { libc::SIGCHLD as u64 };
    if let Some(cgroup) = request.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd().cast_unsigned().into();
    }
    // SAFETY: no CLONE_VM, so the child has its own copy of the memory and returns from here on its own
    // stack; the process has one thread (checked above), so no lock is held by somebody who is not copied.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    match Errno::result(result) {
        Ok(0) => Ok(Forked::Child),
        Ok(pid) => {
            // SAFETY: the kernel stored a new descriptor for us alone in `pidfd`.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Forked::Parent { pid: Pid::from_raw(pid as i32), pidfd })
        }
        Err(errno) => Err(SysError { call: "clone3", args: format!("flags {:#x}", args.flags), errno }),
    }
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By exit(2), with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// The code that a shell and runc report: a signal is 128 + its number.
    pub fn code(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
        }
    }
}

/// Waits for a child and reaps it.
pub fn wait(pid: Pid) -> Result<Exit, SysError> {
    let mut status = 0;
    loop {
        // SAFETY: `status` outlives the call.
        match Errno::result(unsafe { libc::waitpid(pid.as_raw(), &raw mut status, 0) }) {
            Ok(_) if libc::WIFSIGNALED(status) => return Ok(Exit::Signal(libc::WTERMSIG(status))),
            Ok(_) => return Ok(Exit::Code(libc::WEXITSTATUS(status))),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(SysError::on("waitpid", pid.to_string())(errno)),
        }
    }
}

/// A child that has ended and waits to be reaped; which one, if there are several, the kernel chooses. It is not
/// reaped by this. (waitid(2) of `nix` fails on a child that was ended by a real-time signal.)
pub fn ended_child() -> Result<Option<Pid>, SysError> {
    // SAFETY: siginfo_t is a plain C struct, and all zeroes is what "no child" leaves (waitid(2)).
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    loop {
        // SAFETY: `info` outlives the call.
        match Errno::result(unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, flags) }) {
            Ok(_) => {
                // SAFETY: the kernel filled in the fields of SIGCHLD, or left the zeroes.
                let pid = unsafe { info.si_pid() };
                return Ok((pid > 0).then(|| Pid::from_raw(pid)));
            }
            Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return Ok(None),
            Err(errno) => return Err(SysError::on("waitid", "P_ALL")(errno)),
        }
    }
}

/// Joins the namespaces of kinds `flags` that `fd` (a namespace file, or a pidfd) refers to.
pub fn setns(fd: impl AsFd, flags: u64) -> Result<(), SysError> {
    // SAFETY: two integers.
    let result = unsafe { libc::setns(fd.as_fd().as_raw_fd(), flags as i32) };
    Errno::result(result).map(drop).map_err(SysError::on("setns", format!("{flags:#x}")))
}

/// unshare(2); takes [`CLONE_NEWTIME`] too, which `nix` does not know.
pub fn unshare(flags: u64) -> Result<(), SysError> {
    // SAFETY: an integer.
    Errno::result(unsafe { libc::unshare(flags as i32) })
        .map(drop)
        .map_err(SysError::on("unshare", format!("{:?}", CloneFlags::from_bits_truncate(flags as i32))))
}

/// Ends this process at once, without running exit handlers of the process it was copied from.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit only ends the process.
    unsafe { libc::_exit(code) }
}

/// execve(2); returns only on failure.
pub fn execve(path: &CStr, args: &[CString], env: &[CString]) -> SysError {
    match nix::unistd::execve(path, args, env) {
        Ok(never) => match never {},
        Err(errno) => SysError::on("execve", path.to_string_lossy())(errno),
    }
}

/// execveat(2) with AT_EMPTY_PATH; returns only on failure.
pub fn fexecve(fd: impl AsFd, args: &[CString], env: &[CString]) -> SysError {
    let pointers = |list: &[CString]| {
        list.iter().map(|item| item.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
    };
    let (argv, envp) = (pointers(args), pointers(env));
    // SAFETY: both arrays end with NULL and live until the call returns, which is only on failure.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    SysError::on("execveat", "")(Errno::last())
}

/// Marks all descriptors from `first` on as close-on-exec.
pub fn cloexec_from(first: u32) -> Result<(), SysError> {
    // SAFETY: three integers; no descriptor is closed, so none of ours dangles.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    Errno::result(result).map(drop).map_err(SysError::on("close_range", first.to_string()))
}

/// Asks for a signal when the parent dies (0: no more).
pub fn set_parent_death_signal(signal: Option<Signal>) -> Result<(), SysError> {
    nix::sys::prctl::set_pdeathsig(signal).map_err(SysError::on("prctl", "PR_SET_PDEATHSIG"))
}

/// The start time of a process in clock ticks since boot (field 22 of proc(5) `stat`): with the number, it
/// names a process for as long as the machine runs. None when there is no such process, or only a zombie.
pub fn start_time(pid: Pid) -> Result<Option<u64>, SysError> {
    let path = || format!("/proc/{pid}/stat");
    let mut file = match std::fs::File::open(path()) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(SysError::io("openat", path()))?,
    };
    let mut stat = [0_u8; 1024];
    loop {
        match file.read(&mut stat) {
            Ok(length) => return Ok(parse_start_time(&stat[..length])),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            // It was reaped after it was opened.
            Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => return Ok(None),
            Err(error) => return Err(SysError::io("read", path())(error)),
        }
    }
}

/// The name in parentheses may hold anything, spaces and parentheses too.
fn parse_start_time(stat: &[u8]) -> Option<u64> {
    let close = stat.iter().rposition(|&byte| byte == b')')?;
    let mut fields = stat.get(close + 2..)?.split(|&byte| byte == b' ');
    let state = fields.next()?;
    if state == b"Z" || state == b"X" {
        return None;
    }
    std::str::from_utf8(fields.nth(18)?).ok()?.parse().ok()
}

/// A copy of a descriptor's number as an owned one, close-on-exec.
pub fn duplicate(fd: impl AsFd) -> Result<OwnedFd, SysError> {
    fd.as_fd().try_clone_to_owned().map_err(SysError::io("fcntl", "F_DUPFD_CLOEXEC"))
}

/// Makes `fd` the standard stream `target` (0, 1 or 2), inherited over exec.
pub fn install_stdio(fd: impl AsFd, target: i32) -> Result<(), SysError> {
    let raw = fd.as_fd().as_raw_fd();
    if raw == target {
        // dup2 onto itself would keep close-on-exec.
        // SAFETY: F_SETFD takes an integer.
        return Errno::result(unsafe { libc::fcntl(raw, libc::F_SETFD, 0) })
            .map(drop)
            .map_err(SysError::on("fcntl", "F_SETFD"));
    }
    // SAFETY: the standard streams are not owned by any OwnedFd of ours, so none is closed under its owner.
    Errno::result(unsafe { libc::dup2(raw, target) })
        .map(drop)
        .map_err(SysError::on("dup2", target.to_string()))
}

/// The number that the next descriptor of this single-threaded process will have: the lowest free one (open(2)).
pub fn next_descriptor() -> Result<i32, SysError> {
    let (next, _) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(SysError::on("pipe2", ""))?;
    Ok(next.as_raw_fd())
}

/// Whether the caller of this process handed down the descriptor `number`: it is open and passed exec, which
/// none that we opened ourselves would.
pub fn is_inherited(number: i32) -> bool {
    // SAFETY: F_GETFD only asks.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC == 0
}

/// Lets the descriptor `number`, which was [inherited](is_inherited), pass exec again.
pub fn keep_over_exec(number: i32) -> Result<(), SysError> {
    // SAFETY: F_SETFD takes an integer.
    Errno::result(unsafe { libc::fcntl(number, libc::F_SETFD, 0) })
        .map(drop)
        .map_err(SysError::on("fcntl", format!("F_SETFD {number}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_skips_a_name_with_parentheses() {
        let stat = b"7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 1 2";
        assert_eq!(parse_start_time(stat), Some(4242));
        assert_eq!(parse_start_time(b"7 (x) Z 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 1"), None);
        assert_eq!(parse_start_time(b"7 (x"), None);
    }

    #[test]
    fn own_start_time_is_known() {
        assert!(start_time(nix::unistd::getpid()).unwrap().is_some());
    }
}
