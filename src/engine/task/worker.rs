//! Children of a task's monitor that do what may block or needs memory.
//!
//! ```text
//! monitor --fork--> worker: job --reports, descriptors--> monitor
//!                     `-- ends; what it started becomes the monitor's child
//! ```
//! A worker shares nothing with its monitor but the descriptors that its job needs, dies with it, and is the leader
//! of a process group, so that it can be killed with all that it started when its time is up.
use super::control::{self, MAX_PACKET, Report, Verdict};
use crate::engine::error::{EngineError, Failure};
use crate::engine::monitor::begin::failed;
use crate::sys::{SysError, background, pidfd, process, socket};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, killpg, sigprocmask};
use nix::unistd::{Pid, getppid, setpgid};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// A worker, seen from its monitor.
#[derive(Debug)]
pub struct Worker {
    /// It, a child of this process.
    pub pid: Pid,
    /// Refers to it.
    pub pidfd: OwnedFd,
    /// Its reports come here; nothing more comes when it is `None`.
    pub socket: Option<OwnedFd>,
    /// When it is killed.
    pub deadline: Instant,
    /// It was killed.
    pub expired: bool,
    /// What it said last of all.
    pub report: Option<(Report, Vec<OwnedFd>)>,
}

/// The worker's side.
#[derive(Debug)]
pub struct Errand {
    socket: OwnedFd,
}

/// Starts a worker, which gets `keep` of our descriptors and may take as long as `limit`.
pub fn spawn(
    limit: Duration,
    keep: &[BorrowedFd<'_>],
    job: impl FnOnce(&Errand) -> Result<(), Failure>,
) -> Result<Worker, SysError> {
    let (ours, theirs) = socket::pair()?;
    let monitor = nix::unistd::getpid();
    match background::fork()? {
        background::Side::Parent(pid) => {
            // Both sides do it, so that it is done whoever comes first; it may have ended already.
            let _ = setpgid(pid, pid);
            let pidfd = pidfd::open(pid.as_raw())?;
            let deadline = Instant::now() + limit;
            Ok(Worker { pid, pidfd, socket: Some(ours), deadline, expired: false, report: None })
        }
        background::Side::Child => {
            // Nothing that the monitor owns may be dropped here, so that this never returns.
            let code = catch_unwind(AssertUnwindSafe(|| work(monitor, theirs, keep, job)));
            background::exit(code.unwrap_or(101))
        }
    }
}

fn work(
    monitor: Pid,
    socket: OwnedFd,
    keep: &[BorrowedFd<'_>],
    job: impl FnOnce(&Errand) -> Result<(), Failure>,
) -> i32 {
    let mut kept: Vec<BorrowedFd<'_>> = keep.to_vec();
    kept.push(socket.as_fd());
    if settle(monitor, &kept).is_err() {
        return 1;
    }
    drop(kept);
    let errand = Errand { socket };
    let said = match job(&errand) {
        Ok(()) => Ok(()),
        Err(failure) => errand.report(&Report::Failed(failure.into()), &[]),
    };
    i32::from(said.is_err())
}

fn settle(monitor: Pid, keep: &[BorrowedFd<'_>]) -> Result<(), SysError> {
    // See above.
    let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
    process::set_parent_death_signal(Some(Signal::SIGKILL))?;
    // It died before it was asked for.
    if getppid() != monitor {
        return Err(SysError::on("getppid", "")(Errno::ESRCH));
    }
    background::close_others(3, keep)?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
        .map_err(SysError::on("sigprocmask", ""))
}

impl Errand {
    /// Tells the monitor something.
    pub fn report(&self, report: &Report, fds: &[BorrowedFd<'_>]) -> Result<(), EngineError> {
        Ok(socket::send(&self.socket, &control::encode(report)?, fds)?)
    }

    /// Waits for what the monitor answers.
    pub fn verdict(&self) -> Result<Verdict, EngineError> {
        let mut buffer = vec![0; MAX_PACKET];
        let received = socket::receive(&self.socket, &mut buffer)?;
        control::decode(&buffer[..received.length])
    }

    /// The job is done.
    pub fn done(&self) -> Result<(), Failure> {
        self.report(&Report::Done, &[]).map_err(failed)
    }
}

impl Worker {
    /// Takes the next report, if there is one.
    pub fn receive(&mut self) -> Option<(Report, Vec<OwnedFd>)> {
        let socket = self.socket.as_ref()?;
        let mut buffer = [0; MAX_PACKET];
        match socket::try_receive(socket, &mut buffer) {
            Ok(None) => None,
            Ok(Some(received)) if received.length > 0 => {
                control::decode(&buffer[..received.length]).ok().map(|report| (report, received.fds))
            }
            Ok(Some(_)) | Err(_) => {
                self.socket = None;
                None
            }
        }
    }

    /// Answers a report.
    pub fn answer(&self, verdict: &Verdict) {
        if let (Some(socket), Ok(packet)) = (&self.socket, control::encode(verdict)) {
            // A worker that ended does not read it, and then it is found that it did not finish.
            let _ = crate::sys::packet::try_send(socket, &packet);
        }
    }

    /// Kills it and what it started.
    pub fn kill(&mut self) {
        self.expired = true;
        // It is a child that was not reaped, so that its number is nobody else's.
        let _ = killpg(self.pid, Signal::SIGKILL);
        let _ = pidfd::send_signal(&self.pidfd, Signal::SIGKILL as i32);
    }

    /// Reaps it, which has ended.
    pub fn reap(&self) {
        // Its reports tell how it went.
        let _ = process::wait(self.pid);
    }
}
