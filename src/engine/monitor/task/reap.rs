//! What workers say, and what becomes of the monitor's children.
use super::{Monitor, Purpose};
use crate::engine::task::control::Report;
use crate::sys::process;
use nix::unistd::Pid;

impl Monitor {
    /// Reads what a worker says before it ends.
    pub(super) fn listen_to(&mut self, at: usize) {
        while let Some(Some((worker, purpose))) = self.workers.get_mut(at) {
            let Some((report, fds)) = worker.receive() else { return };
            let id = match (purpose, &report) {
                (Purpose::End(id), Report::Quiet { .. }) => id.clone(),
                _ => {
                    worker.report = Some((report, fds));
                    continue;
                }
            };
            if let Report::Quiet { oom_killed } = report
                && let Some(verdict) = self.quiet(&id, oom_killed)
                && let Some(Some((worker, _))) = self.workers.get(at)
            {
                worker.answer(&verdict);
            }
        }
    }

    /// Reaps every child that has ended, and does what is to be done about its end.
    pub(super) fn reap(&mut self) {
        // It says no more than that some have.
        while let Ok(Some(_)) = self.children.read_signal() {}
        while let Ok(Some(pid)) = process::ended_child() {
            if !self.reap_known(pid) {
                // Its worker's report may be on its way; then that has ended too.
                for at in 0..self.workers.len() {
                    self.listen_to(at);
                }
                match self.worker_that_started(pid) {
                    Some(at) => self.worker_ended(at),
                    None => drop(process::wait(pid)),
                }
            }
        }
    }

    fn reap_known(&mut self, pid: Pid) -> bool {
        let worker = |entry: &Option<(crate::engine::task::worker::Worker, Purpose)>| {
            entry.as_ref().is_some_and(|(worker, _)| worker.pid == pid)
        };
        if let Some(at) = self.workers.iter().position(worker) {
            self.worker_ended(at);
        } else if let Some(at) = self.containers.iter().position(|container| container.init() == Some(pid)) {
            self.init_ended(at);
        } else if let Some(at) = self.execs.iter().position(|exec| exec.pid == Some(pid)) {
            self.exec_ended(at);
        } else {
            return false;
        }
        true
    }

    fn worker_that_started(&self, started: Pid) -> Option<usize> {
        self.workers.iter().position(|entry| {
            let Some((worker, _)) = entry else { return false };
            let pid = match &worker.report {
                Some((Report::Started(report), _)) => report.pid,
                Some((Report::Executed { pid }, _)) => *pid,
                _ => return false,
            };
            pid == started.as_raw()
        })
    }

    /// Reaps a worker that has ended, or is about to, and takes over what it made.
    fn worker_ended(&mut self, at: usize) {
        self.listen_to(at);
        let Some((mut worker, purpose)) = self.workers[at].take() else { return };
        worker.reap();
        let (report, expired) = (worker.report.take(), worker.expired);
        let said = |report: Option<(Report, _)>| report.map(|(report, _)| report);
        match purpose {
            Purpose::SetUp => self.set_up_ended(said(report), expired),
            Purpose::Start(id) => self.start_ended(&id, report, expired),
            Purpose::Exec { connection } => self.exec_started(connection, report, expired),
            Purpose::End(id) => {
                let failure = match said(report) {
                    Some(Report::Done) => None,
                    Some(Report::Failed(told)) => Some(told.into()),
                    _ => Some(super::containers::lost_worker(expired, "the removal of the container's run")),
                };
                self.end_ended(&id, failure);
            }
            Purpose::CleanUp(id, failure) => self.start_failed(&id, failure),
            Purpose::TearDown(undo) => self.tear_down_ended(undo, said(report), expired),
        }
    }
}
