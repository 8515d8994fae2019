//! A process that goes on in the background after the command that began it has returned.
use super::SysError;
use nix::errno::Errno;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::unistd::Pid;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// Which of the two processes this is after [`fork`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The command; the child's process id.
    Parent(Pid),
    /// The new process.
    Child,
}

/// Splits the process in two. The child may go on like any program, because the process has a single
/// thread: no other thread can have held a lock at that moment.
///
/// # Errors
/// EDEADLK if the process has a second thread.
#[expect(clippy::disallowed_methods, reason = "this is the wrapper that knows who may fork")]
pub fn fork() -> Result<Side, SysError> {
    if !super::process::is_single_threaded() {
        return Err(SysError::on("fork", "a process with several threads")(Errno::EDEADLK));
    }
    // SAFETY: there is a single thread (checked above), so every lock of the allocator and of the standard
    // library is free in the child.
    match unsafe { nix::unistd::fork() } {
        Ok(nix::unistd::ForkResult::Parent { child }) => Ok(Side::Parent(child)),
        Ok(nix::unistd::ForkResult::Child) => Ok(Side::Child),
        Err(errno) => Err(SysError::on("fork", "")(errno)),
    }
}

/// Leaves the caller's session, terminal, directory, signals and descriptors behind, all but `keep`.
/// Standard input, output and error become /dev/null.
pub fn detach(keep: &[BorrowedFd<'_>]) -> Result<(), SysError> {
    nix::unistd::setsid().map_err(SysError::on("setsid", ""))?;
    // The directory must not keep a file system of the caller busy.
    // SAFETY: the argument is a constant C string.
    Errno::result(unsafe { libc::chdir(c"/".as_ptr()) }).map_err(SysError::on("chdir", "/"))?;
    let null = nix::fcntl::open(
        "/dev/null",
        nix::fcntl::OFlag::O_RDWR | nix::fcntl::OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    )
    .map_err(SysError::on("open", "/dev/null"))?;
    nix::unistd::dup2_stdin(&null).map_err(SysError::on("dup2", "stdin"))?;
    nix::unistd::dup2_stdout(&null).map_err(SysError::on("dup2", "stdout"))?;
    nix::unistd::dup2_stderr(&null).map_err(SysError::on("dup2", "stderr"))?;
    drop(null);
    close_others(3, keep)?;
    reset_signals()
}

/// Default actions for all signals but SIGPIPE, which is ignored: a reader that went away is an error of
/// write(2), not the end of the process.
fn reset_signals() -> Result<(), SysError> {
    for number in Signal::iterator().filter(|number| !matches!(number, Signal::SIGKILL | Signal::SIGSTOP)) {
        let action = if number == Signal::SIGPIPE { SigHandler::SigIgn } else { SigHandler::SigDfl };
        // SAFETY: neither action is a function of ours.
        unsafe { signal(number, action) }.map_err(SysError::on("sigaction", number.as_str()))?;
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
        .map_err(SysError::on("sigprocmask", ""))
}

/// Closes every descriptor from `first` on that is not in `keep` (close_range(2), Linux 5.9): the caller may
/// have left pipes open in us that somebody waits for the end of. For a process that neither uses nor drops
/// the owners of what it closes.
pub fn close_others(first: RawFd, keep: &[BorrowedFd<'_>]) -> Result<(), SysError> {
    // Its owner is no caller's to give up.
    super::exe::let_go();
    let mut kept: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).filter(|fd| *fd >= first).collect();
    kept.sort_unstable();
    let mut from = first;
    for fd in kept {
        close_range(from, fd - 1)?;
        from = fd + 1;
    }
    close_range(from, RawFd::MAX)
}

fn close_range(first: RawFd, last: RawFd) -> Result<(), SysError> {
    if first > last {
        return Ok(());
    }
    // Descriptors are never negative.
    let (from, to) = (first.unsigned_abs(), last.unsigned_abs());
    // SAFETY: only descriptors outside of `keep` are closed. The caller of `detach` gave up all owners of
    // others: it never uses nor drops them (see there).
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) })
        .map(drop)
        .map_err(SysError::on("close_range", format!("{first}-{last}")))
}

/// Gives memory that is not in use back to the kernel, so that an idle process holds little of its own:
/// freed pages of the heap, and the part of the stack that earlier calls, deeper than this one, have touched.
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) only touches the allocator's free memory.
    unsafe {
        libc::malloc_trim(0);
    }
    give_back_stack();
}

/// What lies this far below the stack pointer is left alone: the frames of the calls made here.
const STACK_MARGIN: usize = 64 * 1024;

fn give_back_stack() {
    let Some(low) = stack_begin() else { return };
    let here = std::ptr::from_ref(&low).addr();
    // Pages are at most 64 KiB on what we are built for, and both ends lie on such a boundary.
    let high = here.saturating_sub(STACK_MARGIN) & !(STACK_MARGIN - 1);
    let low = low.next_multiple_of(STACK_MARGIN);
    if low >= high {
        return;
    }
    // SAFETY: the range is inside the mapping of the main thread's stack, and wholly below the stack pointer by
    // more than the red zone and the frame of madvise: no live value is in it, and there is no signal handler
    // and no other thread that could use it. The stack grows downwards on every architecture that we support.
    unsafe {
        libc::madvise(std::ptr::without_provenance_mut(low), high - low, libc::MADV_DONTNEED);
    }
}

/// The lowest address of the main thread's stack (proc_pid_maps(5)).
fn stack_begin() -> Option<usize> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.ends_with("[stack]"))?;
    usize::from_str_radix(line.split('-').next()?, 16).ok()
}

/// Ends the process at once, without running destructors or flushing what the parent had buffered.
pub fn exit(code: i32) -> ! {
    // SAFETY: _exit(2) does not return and has no precondition.
    unsafe { libc::_exit(code) }
}
