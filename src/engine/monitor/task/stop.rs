//! Making a task, and stopping it.
use super::containers::{State, lost_worker};
use super::{GOODBYE, Monitor, Phase, Purpose, REMOVAL, WORK, jobs};
use crate::engine::error::{EngineError, Failure};
use crate::engine::lifecycle::STOP_TIMEOUT;
use crate::engine::task::control::{self, Reply, Report};
use crate::engine::task::verbs::TaskEvent;
use crate::sys::packet;
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

/// After SIGKILL, a container's init is killed again so often: it may have been frozen.
const KILL_AGAIN: Duration = Duration::from_secs(5);

/// How the task is being stopped.
#[derive(Debug, Default)]
pub(super) struct Stop {
    /// Who waits for it.
    waiters: Vec<u64>,
    /// What was asked for last; what each container asks for if absent.
    grace: Option<Duration>,
}

impl Monitor {
    pub(super) fn set_up(&mut self) -> Result<(), EngineError> {
        let (engine, id) = (self.engine.clone(), self.id.clone());
        self.send_worker(Purpose::SetUp, WORK, &[], |errand| jobs::set_up(&engine, &id, errand))
            .map_err(|failure| EngineError::Start { failure })
    }

    /// The worker that sets the task up has ended.
    pub(super) fn set_up_ended(&mut self, report: Option<Report>, expired: bool) {
        let failure = match report {
            Some(Report::Done) => {
                self.phase = Phase::Ready;
                self.tell_spawner(&Reply::Done);
                return;
            }
            Some(Report::Failed(told)) => told.into(),
            _ => lost_worker(expired, "the set-up of the task"),
        };
        self.tear_down(Some(failure));
    }

    fn tell_spawner(&mut self, reply: &Reply) {
        if let (Some(spawner), Ok(packet)) = (self.spawner.take(), control::encode(reply)) {
            // The first packet on an empty socket fits; a spawner that went away does not want to know.
            let _ = packet::try_send(&spawner, &packet);
        }
    }

    pub(super) fn begin_stopping(&mut self, grace: Option<Duration>, connection: u64) {
        self.stop.waiters.push(connection);
        // Who asks again may be in more of a hurry.
        let now = Instant::now();
        if let Some(grace) = grace {
            for container in &mut self.containers {
                container.kill_at = container.kill_at.map(|at| at.min(now + grace));
            }
        }
        if self.is_ready() {
            self.phase = Phase::Stopping;
            self.stop.grace = grace;
        }
    }

    /// Asks what runs to stop, kills what did not in time, and goes on when all has ended.
    pub(super) fn go_on_stopping(&mut self, now: Instant) {
        if self.phase != Phase::Stopping {
            return;
        }
        let asked = self.stop.grace;
        // In the reverse order of their starts.
        for container in self.containers.iter_mut().rev() {
            container.hold();
            if !matches!(container.state, State::Running(_)) {
                continue;
            }
            match container.kill_at {
                None => {
                    let own =
                        container.traits.stop_timeout.map(|seconds| Duration::from_secs(seconds.into()));
                    let grace = asked.or(own).unwrap_or(STOP_TIMEOUT);
                    if grace.is_zero() {
                        container.signal(Signal::SIGKILL as i32);
                        container.kill_at = Some(now + KILL_AGAIN);
                    } else {
                        container.signal(container.traits.stop_signal);
                        container.kill_at = Some(now + grace);
                    }
                }
                Some(at) if at <= now => {
                    container.signal(Signal::SIGKILL as i32);
                    container.kill_at = Some(now + KILL_AGAIN);
                }
                Some(_) => {}
            }
        }
        for (worker, purpose) in self.workers.iter_mut().flatten() {
            // What it adds would be killed with its container.
            if matches!(purpose, Purpose::Exec { .. }) && !worker.expired {
                worker.kill();
            }
        }
        let live = self.containers.iter().any(super::Container::is_live);
        if !live && self.workers.iter().all(Option::is_none) && !self.stop.waiters.is_empty() {
            self.tear_down(None);
        }
    }

    fn tear_down(&mut self, undo: Option<Failure>) {
        self.phase = Phase::TearingDown;
        let (engine, id) = (self.engine.clone(), self.id.clone());
        let all = undo.is_some();
        let sent = self.send_worker(Purpose::TearDown(undo.clone()), REMOVAL, &[], |errand| {
            jobs::tear_down(&engine, &id, all, errand)
        });
        if let Err(failure) = sent {
            self.torn_down(undo, Err(failure));
        }
    }

    /// The worker that removes what was made for the task has ended.
    pub(super) fn tear_down_ended(&mut self, undo: Option<Failure>, report: Option<Report>, expired: bool) {
        let result = match report {
            Some(Report::Done) => Ok(()),
            Some(Report::Failed(told)) => Err(told.into()),
            _ => Err(lost_worker(expired, "the removal of what was made for the task")),
        };
        self.torn_down(undo, result);
    }

    fn torn_down(&mut self, undo: Option<Failure>, result: Result<(), Failure>) {
        if let Some(failure) = undo {
            // What could not be removed is recorded, and the next call finds it.
            self.tell_spawner(&Reply::Failed(failure.into()));
            self.be_over();
            return;
        }
        let waiters = std::mem::take(&mut self.stop.waiters);
        if result.is_ok() {
            self.publish(TaskEvent::Stopped);
            self.be_over();
        } else {
            // Who asks again tries again.
            self.phase = Phase::Stopping;
        }
        for waiter in waiters {
            self.answer(Some(waiter), result.clone());
        }
    }

    fn be_over(&mut self) {
        self.phase = Phase::Over;
        self.over_at = Some(Instant::now() + GOODBYE);
    }
}
