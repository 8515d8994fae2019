//! Killing a command at its n-th system call.
//!
//! ```text
//! spawn (stopped) -> PTRACE_SEIZE -> SIGCONT -> exec -> count the system calls of the whole tree -> n: SIGKILL
//! ```

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::process::{Command, Stdio};

/// Who dies at the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// The command itself; what it started lives on, as after `kill -9` by an operator.
    Command,
    /// The command and all that it started, as after an out-of-memory kill of its cgroup.
    Tree,
    /// The youngest process that the command started (the command itself before there is one).
    Child,
}

/// Runs a command under ptrace and kills at its n-th system call stop; None lets it run to its end. Entry and
/// exit of a call are two stops, because "before" and "after" leave different things behind. Returns the
/// number of stops seen.
pub fn run_until(command: &Command, point: Option<u64>, victim: Victim) -> u64 {
    let mut shell = stopped(command);
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
    kill(main, Signal::SIGCONT).expect("SIGCONT");
    let stops = Tracer { main, tracees: vec![main], stops: 0, counting: false }.follow(point, victim);
    // The tracer has reaped it already when it ended; this only settles std's own bookkeeping.
    let _ = shell.try_wait();
    stops
}

/// A shell that stops itself and then becomes the command.
fn stopped(command: &Command) -> std::process::Child {
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
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    shell.spawn().expect("spawn /bin/sh")
}

struct Tracer {
    main: Pid,
    /// In the order of their appearance.
    tracees: Vec<Pid>,
    stops: u64,
    counting: bool,
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

/// Every living thread that this thread traces, the ones that have not reported yet among them.
fn traced() -> Vec<Pid> {
    let tracer = format!("\nTracerPid:\t{}\n", nix::unistd::gettid());
    let numbers = |dir: &str| {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()).collect::<Vec<_>>()
    };
    let threads = numbers("/proc").into_iter().flat_map(|pid| numbers(&format!("/proc/{pid}/task")));
    threads
        .filter(|tid| {
            let status = std::fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
            let dead = ["\nState:\tZ", "\nState:\tX"].iter().any(|state| status.contains(state));
            status.contains(&tracer) && !dead
        })
        .map(Pid::from_raw)
        .collect()
}

impl Tracer {
    fn follow(mut self, point: Option<u64>, victim: Victim) -> u64 {
        loop {
            let status = match next_event() {
                Ok(status) => status,
                Err(Errno::ECHILD) => return self.stops,
                Err(errno) => panic!("waitpid: {errno}"),
            };
            match status {
                WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) => {
                    self.tracees.retain(|tracee| *tracee != pid);
                    // What the container's own processes do after the command is not the command's business.
                    if pid == self.main {
                        release();
                        return self.stops;
                    }
                }
                WaitStatus::PtraceSyscall(pid) => {
                    self.appear(pid);
                    self.stops += u64::from(self.counting);
                    if self.counting && Some(self.stops) == point {
                        match victim {
                            Victim::Tree => kill_all(),
                            Victim::Command => {
                                // Already dead is as good as killed.
                                let _ = kill(self.main, Signal::SIGKILL);
                                release();
                            }
                            Victim::Child => {
                                let youngest = *self.tracees.last().expect("at least the command");
                                let _ = kill(youngest, Signal::SIGKILL);
                                resume(pid, None);
                                continue;
                            }
                        }
                        return self.stops;
                    }
                    resume(pid, None);
                }
                WaitStatus::PtraceEvent(pid, _, event) => {
                    self.appear(pid);
                    self.counting |= event == nix::libc::PTRACE_EVENT_EXEC && pid == self.main;
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
        let alive = traced();
        if alive.is_empty() {
            return;
        }
        for pid in alive {
            let _ = kill(pid, Signal::SIGKILL);
        }
        match next_event() {
            Ok(_) | Err(Errno::ECHILD) => {}
            Err(errno) => panic!("waitpid: {errno}"),
        }
    }
}
