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
use std::collections::BTreeSet;
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
    let stops =
        Tracer { main, tracees: vec![main], running: BTreeSet::from([main]), stops: 0, counting: false }
            .follow(point, victim);
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
    running: BTreeSet<Pid>,
    stops: u64,
    counting: bool,
}

impl Tracer {
    fn follow(mut self, point: Option<u64>, victim: Victim) -> u64 {
        // Only what this thread traces: other tests of this process wait for their own children.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        loop {
            let status = match waitpid(None, Some(flags)) {
                Ok(status) => status,
                Err(Errno::ECHILD) => return self.stops,
                Err(Errno::EINTR) => continue,
                Err(errno) => panic!("waitpid: {errno}"),
            };
            match status {
                WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) => {
                    self.forget(pid);
                    // What the container's own processes do after the command is not the command's business.
                    if pid == self.main {
                        self.release(None);
                        return self.stops;
                    }
                }
                WaitStatus::PtraceSyscall(pid) => {
                    self.appear(pid);
                    if self.counting {
                        self.stops += 1;
                        if Some(self.stops) == point {
                            self.strike(pid, victim);
                            if victim != Victim::Child {
                                return self.stops;
                            }
                            continue;
                        }
                    }
                    self.resume(pid, None);
                }
                WaitStatus::PtraceEvent(pid, _, event) => {
                    self.appear(pid);
                    if event == nix::libc::PTRACE_EVENT_EXEC && pid == self.main {
                        self.counting = true;
                    }
                    self.resume(pid, None);
                }
                WaitStatus::Stopped(pid, signal) => {
                    self.appear(pid);
                    let deliver = !matches!(signal, Signal::SIGSTOP | Signal::SIGTRAP | Signal::SIGCONT);
                    self.resume(pid, deliver.then_some(signal));
                }
                other => panic!("unexpected wait status {other:?}"),
            }
        }
    }

    fn appear(&mut self, pid: Pid) {
        if !self.tracees.contains(&pid) {
            self.tracees.push(pid);
        }
        self.running.remove(&pid);
    }

    fn forget(&mut self, pid: Pid) {
        self.tracees.retain(|tracee| *tracee != pid);
        self.running.remove(&pid);
    }

    fn resume(&mut self, pid: Pid, signal: Option<Signal>) {
        // ESRCH: it was killed while it was stopped; its end is reported next.
        if ptrace::syscall(pid, signal).is_ok() {
            self.running.insert(pid);
        }
    }

    /// Kills the victim while `at` is stopped at the point.
    fn strike(&mut self, at: Pid, victim: Victim) {
        match victim {
            Victim::Tree => {
                for pid in self.tracees.clone() {
                    // Already gone is as good as killed.
                    let _ = kill(pid, Signal::SIGKILL);
                }
                while !self.tracees.is_empty() {
                    self.reap_one();
                }
            }
            Victim::Command => {
                let _ = kill(self.main, Signal::SIGKILL);
                // Its children may be stopped, or run into a stop: they go on untraced.
                self.release(Some(at));
                while self.tracees.contains(&self.main) {
                    self.reap_one();
                }
            }
            Victim::Child => {
                let youngest = *self.tracees.last().expect("at least the command");
                let _ = kill(youngest, Signal::SIGKILL);
                if youngest != at {
                    self.resume(at, None);
                }
            }
        }
    }

    fn reap_one(&mut self) {
        match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) => self.forget(pid),
            Ok(status) => {
                if let Some(pid) = status.pid() {
                    // A death on its way is reported as a stop first (PTRACE_EVENT_EXIT is not asked for).
                    if ptrace::detach(pid, None).is_ok() && pid != self.main {
                        self.forget(pid);
                    }
                }
            }
            Err(Errno::EINTR) => {}
            Err(_) => self.tracees.clear(),
        }
    }

    /// Lets every tracee but the command go on untraced.
    fn release(&mut self, stopped: Option<Pid>) {
        for pid in self.tracees.clone() {
            if pid == self.main {
                continue;
            }
            if self.running.contains(&pid) && stopped != Some(pid) {
                // Only a stopped tracee can be detached.
                if ptrace::interrupt(pid).is_err() || waitpid(pid, Some(WaitPidFlag::__WALL)).is_err() {
                    self.forget(pid);
                    continue;
                }
            }
            let _ = ptrace::detach(pid, None);
            self.forget(pid);
        }
    }
}
