//! Processes that were added to containers.
use super::connection::Role;
use super::containers::lost_worker;
use super::{Monitor, Phase, Purpose, WORK, jobs};
use crate::engine::error::{EngineError, Failure};
use crate::engine::monitor::begin::failed;
use crate::engine::names::Id;
use crate::engine::task::control::{ExecHead, Reply, Report};
use crate::sys::process;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::os::fd::{AsFd, OwnedFd};

/// A process that runs.
#[derive(Debug)]
pub(super) struct ExecProcess {
    /// `None` when it was reaped.
    pub(super) pid: Option<Pid>,
    connection: u64,
}

impl ExecProcess {
    pub(super) fn is_over(&self) -> bool {
        self.pid.is_none()
    }
}

impl Monitor {
    /// Runs a process in a container for a connection, which is answered when its program was executed.
    pub(super) fn exec(&mut self, head: ExecHead, fds: Vec<OwnedFd>, connection: u64) -> Result<(), Failure> {
        let malformed = |reason| failed(EngineError::Frame { peer: "client of a task's monitor", reason });
        let id = Id::parse(&head.container).ok_or_else(|| malformed("not an id"))?;
        if fds.len() != head.stdio.count() + usize::from(head.request.is_none()) {
            return Err(malformed("a process with other descriptors than it says"));
        }
        if self.phase != Phase::Ready || self.find_container(&id).is_none_or(|found| found.init().is_none()) {
            return Err(failed(EngineError::WrongState {
                id: head.container,
                status: "not running".to_owned(),
                needed: "a process can be added to a running one only",
            }));
        }
        let (engine, task) = (self.engine.clone(), self.id.clone());
        // The worker's copies are in its own memory; ours are closed when this returns.
        let keep: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        self.send_worker(Purpose::Exec { connection }, WORK, &keep, |errand| {
            jobs::exec(&engine, &task, &id, head, &fds, errand)
        })
    }

    /// The worker that adds a process has ended.
    pub(super) fn exec_started(
        &mut self,
        number: u64,
        report: Option<(Report, Vec<OwnedFd>)>,
        expired: bool,
    ) {
        let pid = match report {
            Some((Report::Executed { pid }, fds)) => {
                let console = fds.into_iter().next();
                self.execs.push(ExecProcess { pid: Some(Pid::from_raw(pid)), connection: number });
                if let Some(connection) = self.connection(number) {
                    connection.role = Role::Exec;
                    connection.reply(&Reply::Executed { pid }, console);
                }
                return;
            }
            Some((Report::Failed(told), _)) => Err(told.into()),
            _ => Err(lost_worker(expired, "the start of the process")),
        };
        self.answer(Some(number), pid);
    }

    /// A process has ended, and is reaped here.
    pub(super) fn exec_ended(&mut self, at: usize) {
        let Some(pid) = self.execs[at].pid.take() else { return };
        let code = process::wait(pid).map_or(255, |exit| u8::try_from(exit.code() & 0xff).unwrap_or(255));
        let number = self.execs[at].connection;
        if let Some(connection) = self.connection(number) {
            connection.reply(&Reply::Exited { code }, None);
            connection.role = Role::Leaving;
        }
    }

    /// Kills the process of a connection, with its process group: it leads a session of its own.
    pub(super) fn kill_exec(&mut self, number: u64) {
        let pid = self.execs.iter().find(|exec| exec.connection == number).and_then(|exec| exec.pid);
        if let Some(pid) = pid {
            // Not reaped, so that the number is nobody else's.
            let _ = killpg(pid, Signal::SIGKILL);
        }
    }
}
