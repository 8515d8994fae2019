//! Disturbing a command at its n-th system call: by a kill, or by an errno in place of the call.
//!
//! ```text
//! spawn (stopped) -> PTRACE_SEIZE -> SIGCONT -> exec -> count the system calls of the whole tree -> n: strike
//! ```
//! One counter runs over all traced processes. A kill has two points for each call, because "before" and "after"
//! leave different things behind; an errno has one for each call for which the kernel has errors.

use crate::events::patience;
use crate::sys;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Who dies at the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// The command itself; what it started lives on, as after `kill -9` by an operator.
    Command,
    /// The command and all that it started, as after an out-of-memory kill of its cgroup.
    Tree,
    /// The youngest process that the command started (the command itself before there is one).
    Child,
    /// A process that was there before: the container's init.
    Process(i32),
}

/// What happens at the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Somebody dies.
    Kill(Victim),
    /// The call is not carried out and returns this (close(2) is: Linux frees the descriptor whatever it returns).
    Errno(Errno),
}

/// What was seen of a command.
#[derive(Debug)]
pub struct Trace {
    /// How many points it had, as far as it came.
    pub points: u64,
    /// The system call at the point; None when the command had fewer.
    pub struck: Option<String>,
    /// Its exit code.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<Signal>,
    /// What it and its children wrote to standard error.
    pub stderr: String,
    /// Where it was when its time was over: then it was killed, with all that it had started.
    pub hang: Option<String>,
    /// From its start to its end.
    pub took: Duration,
}

/// Runs a command under ptrace and strikes at its point, if one is given. It may take `within` from there on; how long
/// a machine with much to do takes to come there is not the command's affair.
pub fn run_until(command: &Command, fault: Fault, point: Option<u64>, within: Duration) -> Trace {
    let mut stderr = tempfile::tempfile().expect("temporary file");
    let mut shell = stopped(command, &stderr);
    let main = Pid::from_raw(shell.id().cast_signed());
    // The shell has stopped itself; as its parent we are told.
    let stop = waitpid(main, Some(WaitPidFlag::WUNTRACED)).expect("wait for the stopped shell");
    assert!(matches!(stop, WaitStatus::Stopped(_, Signal::SIGSTOP)), "{stop:?}");
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(main, options).expect("missing need: ptrace (CAP_SYS_PTRACE)");
    let start = Instant::now();
    let watchdog = Watchdog::new(main);
    kill(main, Signal::SIGCONT).expect("SIGCONT");
    let mut tracer = Tracer { main, fault, point, ..Tracer::default() };
    let after = tracer.follow(|| watchdog.hurry(within));
    let hang = watchdog.call_off();
    match after {
        After::Kill => kill_all(),
        After::Release if hang.is_some() => kill_all(),
        After::Release => release(),
    }
    let took = start.elapsed();
    // The tracer has reaped it already when it ended; this only settles std's own bookkeeping.
    let _ = shell.try_wait();
    let mut bytes = Vec::new();
    stderr.seek(SeekFrom::Start(0)).and_then(|_| stderr.read_to_end(&mut bytes)).expect("read stderr");
    let stderr = String::from_utf8_lossy(&bytes).into_owned();
    let Tracer { points, struck, code, signal, .. } = tracer;
    Trace { points, struck, code, signal, stderr, hang, took }
}

/// A shell that stops itself and then becomes the command.
fn stopped(command: &Command, stderr: &File) -> std::process::Child {
    let mut shell = Command::new("/bin/sh");
    shell
        .arg("-c")
        .arg("kill -STOP $$; exec \"$@\"")
        .arg("sh")
        .arg(command.get_program())
        .args(command.get_args());
    for (key, value) in command.get_envs() {
        shell.env(key, value.unwrap_or_default());
    }
    if let Some(dir) = command.get_current_dir() {
        shell.current_dir(dir);
    }
    let stderr = stderr.try_clone().expect("dup");
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
    shell.spawn().expect("spawn /bin/sh")
}

/// Kills a command whose time is over.
struct Watchdog {
    leash: OwnedFd,
    thread: std::thread::JoinHandle<Option<String>>,
}

impl Watchdog {
    fn new(main: Pid) -> Self {
        let (end, leash) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("pipe");
        let pidfd = sys::pidfd_open(main.as_raw()).expect("pidfd_open of a child");
        let tracer = nix::unistd::gettid();
        let thread = std::thread::spawn(move || {
            let mut until = Instant::now() + patience();
            loop {
                let left = until.saturating_duration_since(Instant::now());
                let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
                match poll(&mut [PollFd::new(end.as_fd(), PollFlags::POLLIN)], timeout) {
                    Ok(0) => break,
                    Ok(_) => {
                        let mut left = [0; size_of::<u64>()];
                        match nix::unistd::read(&end, &mut left) {
                            Ok(0) => return None,
                            _ => until = Instant::now() + Duration::from_millis(u64::from_ne_bytes(left)),
                        }
                    }
                    Err(_) => {}
                }
            }
            let whereabouts: Vec<String> = traced_by(tracer).into_iter().map(whereabouts).collect();
            // It may have ended just now.
            let _ = sys::pidfd_kill(pidfd.as_fd());
            Some(whereabouts.join(", "))
        });
        Self { leash, thread }
    }

    /// From now on the command has this long.
    fn hurry(&self, within: Duration) {
        let within = u64::try_from(within.as_millis()).expect("a short time");
        nix::unistd::write(&self.leash, &within.to_ne_bytes()).expect("write to the watchdog");
    }

    /// What the command was doing if its time was over.
    fn call_off(self) -> Option<String> {
        drop(self.leash);
        self.thread.join().expect("the watchdog")
    }
}

/// `corten (31) in poll`.
fn whereabouts(pid: Pid) -> String {
    let of = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let call = of("syscall");
    let number = call.split(' ').next().unwrap_or_default();
    let call = number.parse().map_or_else(|_| number.trim().to_owned(), name);
    format!("{} ({pid}) in {call}", of("comm").trim())
}

/// Only what this thread traces: other tests of this process wait for their own children.
fn next_event() -> Result<WaitStatus, Errno> {
    loop {
        match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// Every thread that this thread traces, the ones that have not reported yet among them. A dead one is traced until
/// its end was reported to us: before that its parent cannot reap it, nor end its PID namespace.
fn traced() -> Vec<Pid> {
    traced_by(nix::unistd::gettid())
}

fn traced_by(tracer: Pid) -> Vec<Pid> {
    let tracer = format!("\nTracerPid:\t{tracer}\n");
    let numbers = |dir: &str| {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()).collect::<Vec<_>>()
    };
    let threads = numbers("/proc").into_iter().flat_map(|pid| numbers(&format!("/proc/{pid}/task")));
    threads
        .filter(|tid| {
            let status = std::fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
            status.contains(&tracer) && !status.contains("\nState:\tX")
        })
        .map(Pid::from_raw)
        .collect()
}

/// What is to be done with the tracees that are left.
enum After {
    Release,
    Kill,
}

struct Tracer {
    main: Pid,
    fault: Fault,
    point: Option<u64>,
    points: u64,
    struck: Option<String>,
    code: Option<i32>,
    signal: Option<Signal>,
    /// In the order of their appearance.
    tracees: Vec<Pid>,
    /// Who became another program: hooks, and the container's own.
    foreign: BTreeSet<Pid>,
    /// Where the result of a call is to be replaced.
    injecting: Option<Pid>,
    counting: bool,
}

impl Default for Tracer {
    fn default() -> Self {
        Self {
            main: Pid::from_raw(0),
            fault: Fault::Kill(Victim::Command),
            point: None,
            points: 0,
            struck: None,
            code: None,
            signal: None,
            tracees: Vec::new(),
            foreign: BTreeSet::new(),
            injecting: None,
            counting: false,
        }
    }
}

impl Tracer {
    /// Until the command has ended or there is nothing more to follow; tells of the strike.
    fn follow(&mut self, struck: impl Fn()) -> After {
        self.tracees.push(self.main);
        loop {
            let status = match next_event() {
                Ok(status) => status,
                Err(Errno::ECHILD) => return After::Release,
                Err(errno) => panic!("waitpid: {errno}"),
            };
            match status {
                WaitStatus::Exited(pid, code) => {
                    self.tracees.retain(|tracee| *tracee != pid);
                    // What the container's own processes do after the command is not the command's business.
                    if pid == self.main {
                        self.code = Some(code);
                        return After::Release;
                    }
                }
                WaitStatus::Signaled(pid, signal, _) => {
                    self.tracees.retain(|tracee| *tracee != pid);
                    if pid == self.main {
                        self.signal = Some(signal);
                        return After::Release;
                    }
                }
                WaitStatus::PtraceSyscall(pid) => {
                    self.appear(pid);
                    let before = self.struck.is_some();
                    let after = self.system_call(pid);
                    if self.struck.is_some() && !before {
                        struck();
                    }
                    if let Some(after) = after {
                        return after;
                    }
                    resume(pid, None);
                }
                WaitStatus::PtraceEvent(pid, _, event) => {
                    self.appear(pid);
                    if event == nix::libc::PTRACE_EVENT_EXEC {
                        if pid == self.main {
                            self.counting = true;
                        } else {
                            self.foreign.insert(pid);
                        }
                    }
                    resume(pid, None);
                }
                WaitStatus::Stopped(pid, signal) => {
                    self.appear(pid);
                    resume(pid, deliverable(signal));
                }
                other => panic!("unexpected wait status {other:?}"),
            }
        }
    }

    fn appear(&mut self, pid: Pid) {
        if !self.tracees.contains(&pid) {
            self.tracees.push(pid);
        }
    }

    /// A tracee enters or leaves a call. Some: there is nothing more to follow.
    fn system_call(&mut self, pid: Pid) -> Option<After> {
        match self.fault {
            Fault::Kill(victim) => {
                self.points += u64::from(self.counting);
                if !self.counting || Some(self.points) != self.point {
                    return None;
                }
                self.struck = Some(call_of(pid));
                let _ = match victim {
                    Victim::Tree => return Some(After::Kill),
                    // Already dead is as good as killed.
                    Victim::Command => kill(self.main, Signal::SIGKILL),
                    Victim::Child => kill(*self.tracees.last().unwrap_or(&self.main), Signal::SIGKILL),
                    Victim::Process(victim) => kill(Pid::from_raw(victim), Signal::SIGKILL),
                };
                (victim == Victim::Command).then_some(After::Release)
            }
            Fault::Errno(errno) => {
                self.replace(pid, errno);
                None
            }
        }
    }

    /// At the entry of the call at the point: keeps the kernel from carrying it out; at its exit: puts the errno.
    fn replace(&mut self, pid: Pid, errno: Errno) {
        if self.injecting == Some(pid) {
            self.injecting = None;
            if let Ok(mut registers) = ptrace::getregs(pid) {
                registers.rax = (-i64::from(errno as i32)).cast_unsigned();
                let _ = ptrace::setregs(pid, registers);
            }
            return;
        }
        if !self.counting || self.foreign.contains(&pid) || !enters(pid) {
            return;
        }
        // ESRCH: it was killed while it was stopped.
        let Ok(mut registers) = ptrace::getregs(pid) else { return };
        if !can_fail(&registers) {
            return;
        }
        self.points += 1;
        if Some(self.points) != self.point {
            return;
        }
        self.struck = Some(name(registers.orig_rax.cast_signed()));
        self.injecting = Some(pid);
        if registers.orig_rax.cast_signed() != nix::libc::SYS_close {
            registers.orig_rax = u64::MAX;
            let _ = ptrace::setregs(pid, registers);
        }
    }
}

/// Whether a tracee is at the entry of a call (ptrace(2), `PTRACE_SYSCALL_INFO_ENTRY`).
fn enters(pid: Pid) -> bool {
    ptrace::syscall_info(pid).is_ok_and(|info| info.op == nix::libc::PTRACE_SYSCALL_INFO_ENTRY)
}

/// Whether an errno can be told from nonsense there. Left out are
/// - calls that the kernel cannot fail, or not with valid arguments: the ids of a process, umask, the actions and
///   masks of signals, the C library's notes of a thread;
/// - memory: an allocation that fails ends a program of Rust by design, and the kernel seldom fails one;
/// - getrandom, which cannot fail after the machine's start, and the poll with which Rust's runtime looks at the
///   standard streams before main: both end the program by design.
fn can_fail(registers: &nix::libc::user_regs_struct) -> bool {
    use nix::libc as c;
    let start_of_std = (registers.rsi, registers.rdx) == (3, 0);
    match registers.orig_rax.cast_signed() {
        c::SYS_exit | c::SYS_exit_group | c::SYS_rt_sigreturn | c::SYS_restart_syscall => false,
        c::SYS_munmap | c::SYS_brk | c::SYS_mmap | c::SYS_mprotect | c::SYS_madvise | c::SYS_mremap => false,
        c::SYS_arch_prctl | c::SYS_set_tid_address | c::SYS_set_robust_list | c::SYS_rseq => false,
        c::SYS_sigaltstack | c::SYS_rt_sigaction | c::SYS_rt_sigprocmask | c::SYS_umask => false,
        c::SYS_getpid | c::SYS_gettid | c::SYS_getppid | c::SYS_getuid | c::SYS_geteuid => false,
        c::SYS_getgid | c::SYS_getegid | c::SYS_sched_yield | c::SYS_getrandom => false,
        c::SYS_poll => !start_of_std,
        _ => true,
    }
}

/// The call in which a tracee is.
fn call_of(pid: Pid) -> String {
    let side = if enters(pid) { "before" } else { "after" };
    ptrace::getregs(pid).map_or_else(
        |_| "the end of a process".to_owned(),
        |registers| format!("{side} {}", name(registers.orig_rax.cast_signed())),
    )
}

macro_rules! names {
    ($number:expr, $($constant:ident)*) => {
        match $number {
            $(nix::libc::$constant => stringify!($constant).trim_start_matches("SYS_").to_owned(),)*
            other => format!("system call {other}"),
        }
    };
}

/// The name of a system call, of those that a runtime makes; the number of others.
fn name(number: i64) -> String {
    names!(number,
        SYS_accept4 SYS_access SYS_bind SYS_bpf SYS_brk SYS_capget SYS_capset SYS_chdir SYS_chmod SYS_chown
        SYS_clock_gettime SYS_clone SYS_clone3 SYS_close SYS_close_range SYS_connect SYS_dup SYS_dup2 SYS_dup3
        SYS_execve SYS_execveat SYS_exit SYS_exit_group SYS_faccessat SYS_faccessat2 SYS_fchdir SYS_fchmod
        SYS_fchmodat SYS_fchown SYS_fchownat SYS_fcntl SYS_flock SYS_fsconfig SYS_fsmount SYS_fsopen SYS_fstatfs
        SYS_fsync SYS_ftruncate SYS_getcwd SYS_getdents64 SYS_getegid SYS_geteuid SYS_getgid SYS_getpid
        SYS_getrandom SYS_getsockopt SYS_gettid SYS_getuid SYS_ioctl SYS_ioprio_set SYS_keyctl SYS_kill SYS_linkat
        SYS_listen SYS_lseek SYS_lsetxattr SYS_mkdir SYS_mkdirat SYS_mknodat SYS_mmap SYS_mount SYS_mount_setattr
        SYS_move_mount SYS_mprotect SYS_munmap SYS_newfstatat SYS_open SYS_open_tree SYS_openat SYS_openat2
        SYS_personality SYS_pidfd_open SYS_pidfd_send_signal SYS_pipe2 SYS_pivot_root SYS_poll SYS_ppoll
        SYS_prctl SYS_pread64 SYS_prlimit64 SYS_pwrite64 SYS_read SYS_readlink SYS_readlinkat SYS_recvfrom
        SYS_recvmsg SYS_rename SYS_renameat SYS_renameat2 SYS_rmdir SYS_rt_sigaction SYS_rt_sigprocmask
        SYS_sched_getaffinity SYS_sched_setaffinity SYS_sched_setattr SYS_seccomp SYS_sendfile SYS_sendmsg
        SYS_sendto SYS_set_tid_address SYS_setgroups SYS_sethostname SYS_setns SYS_setresgid SYS_setresuid
        SYS_setsid SYS_setsockopt SYS_shutdown SYS_sigaltstack SYS_signalfd4 SYS_socket SYS_socketpair SYS_stat
        SYS_statfs SYS_statx SYS_symlinkat SYS_timerfd_create SYS_timerfd_settime SYS_tgkill SYS_umask SYS_umount2
        SYS_unlink SYS_unlinkat SYS_unshare SYS_utimensat SYS_vfork SYS_wait4 SYS_waitid SYS_write SYS_writev)
}

/// The signal to pass on at a stop; a stop of ptrace's own making has none.
fn deliverable(signal: Signal) -> Option<Signal> {
    (!matches!(signal, Signal::SIGSTOP | Signal::SIGTRAP | Signal::SIGCONT)).then_some(signal)
}

fn resume(pid: Pid, signal: Option<Signal>) {
    // ESRCH: it was killed while it was stopped; its end is reported next.
    let _ = ptrace::syscall(pid, signal);
}

/// Lets every tracee go on untraced (one that is dying is waited for).
fn release() {
    loop {
        let running: Vec<_> =
            traced().into_iter().filter(|pid| ptrace::detach(*pid, None).is_err()).collect();
        if running.is_empty() {
            return;
        }
        // Only a stopped tracee can be detached.
        for pid in running {
            let _ = ptrace::interrupt(pid);
        }
        match next_event() {
            Ok(WaitStatus::Stopped(pid, signal)) => drop(ptrace::detach(pid, deliverable(signal))),
            Ok(_) | Err(Errno::ECHILD) => {}
            Err(errno) => panic!("waitpid: {errno}"),
        }
    }
}

/// Kills every tracee, those that appear meanwhile too.
fn kill_all() {
    loop {
        let left = traced();
        if left.is_empty() {
            return;
        }
        for pid in left {
            let _ = kill(pid, Signal::SIGKILL);
        }
        match next_event() {
            Ok(_) | Err(Errno::ECHILD) => {}
            Err(errno) => panic!("waitpid: {errno}"),
        }
    }
}
