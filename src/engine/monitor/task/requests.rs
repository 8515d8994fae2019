//! What clients ask of a task's monitor.
use super::connection::Role;
use super::{Monitor, Phase};
use crate::engine::error::{EngineError, Failure};
use crate::engine::monitor::begin::{TASK_LOG_MODE, failed, open_log};
use crate::engine::names::Id;
use crate::engine::task::control::{Reply, Request};
use nix::poll::PollFlags;
use std::os::fd::OwnedFd;
use std::time::Duration;

impl Monitor {
    pub(super) fn serve(&mut self, at: usize, flags: PollFlags) {
        let connection = &mut self.connections[at];
        if flags.contains(PollFlags::POLLOUT) {
            connection.flush();
        }
        if flags.contains(PollFlags::POLLIN) {
            if let Some((request, fds)) = connection.receive() {
                self.obey(at, request, fds);
            }
        } else if flags.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL) {
            connection.hang_up();
        }
    }

    fn obey(&mut self, at: usize, request: Request, fds: Vec<OwnedFd>) {
        let (number, role) = (self.connections[at].number, self.connections[at].role);
        match (role, request) {
            (Role::Exec, Request::KillExec) => self.kill_exec(number),
            (Role::Idle, request) => self.ask(at, number, request, fds),
            // It breaks the protocol.
            _ => self.connections[at].hang_up(),
        }
    }

    fn ask(&mut self, at: usize, number: u64, request: Request, fds: Vec<OwnedFd>) {
        self.connections[at].role = Role::Asking;
        // What is answered later gives `None`.
        let answer = match request {
            Request::Start { container } => {
                self.with_id(&container, |monitor, id| monitor.start(id, number)).err().map(Err)
            }
            Request::Exec(head) => self.exec(head, fds, number).err().map(Err),
            Request::Stop { grace } => {
                self.begin_stopping(grace.map(Duration::from_millis), number);
                None
            }
            Request::ReopenLog { container } => Some(self.with_id(&container, Self::reopen)),
            Request::Hold { container } => self.hold(&container, number, false),
            Request::Forget { container } => self.hold(&container, number, true),
            Request::Subscribe => {
                self.connections[at].reply(&Reply::Done, None);
                self.connections[at].role = Role::Subscriber;
                None
            }
            Request::KillExec => Some(Err(failed(EngineError::Frame {
                peer: "client of a task's monitor",
                reason: "there is no process to kill",
            }))),
        };
        if let Some(answer) = answer {
            self.answer(Some(number), answer);
        }
    }

    fn hold(&mut self, container: &str, number: u64, forget: bool) -> Option<Result<(), Failure>> {
        let mut now = true;
        let result = self.with_id(container, |monitor, id| {
            now = monitor.hold_back(id, number, forget);
            Ok(())
        });
        now.then_some(result)
    }

    fn with_id(
        &mut self,
        text: &str,
        work: impl FnOnce(&mut Self, &Id) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let id = Id::parse(text)
            .ok_or_else(|| failed(EngineError::NoSuchContainer { given: text.chars().take(80).collect() }))?;
        work(self, &id)
    }

    /// Every write of a record goes to one file or the other, so that nothing is lost or doubled.
    fn reopen(&mut self, id: &Id) -> Result<(), Failure> {
        let stopped = || {
            failed(EngineError::WrongState {
                id: id.to_string(),
                status: "not running".to_owned(),
                needed: "its log is closed",
            })
        };
        let container = self.find_container(id).ok_or_else(stopped)?;
        let path = container.traits.log.clone();
        let held = container.held_mut().ok_or_else(stopped)?;
        held.log.replace(open_log(&path, TASK_LOG_MODE).map_err(failed)?);
        Ok(())
    }

    /// Whether requests are heard.
    pub(super) fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }
}
