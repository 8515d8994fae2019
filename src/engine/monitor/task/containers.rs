//! The containers of a task, from the wish to start one to its recorded end.
//!
//! ```text
//! Idle --Start--> Starting --worker: started--> Running --init ends--> Ending --worker: recorded--> Idle | Waiting
//!   ^                |                                                                                      |
//!   |                `--worker: failed, and recorded it--> Idle | Waiting --its time has come, or Start--> Starting
//!   `--Hold: nothing is started again until Start
//! ```
//! The monitor has the container's lock in Starting, Running and Ending.
use super::restart::Series;
use super::{GOODBYE, Monitor, Phase, Purpose, REMOVAL, WORK, jobs};
use crate::engine::attach::Exit;
use crate::engine::error::{EngineError, Failure};
use crate::engine::logs;
use crate::engine::monitor::begin::{Ends, failed};
use crate::engine::monitor::streams::{InputRule, Streams};
use crate::engine::monitor::watch::lost;
use crate::engine::names::Id;
use crate::engine::record::{Durability, Ended, Lock, write_json};
use crate::engine::task::control::{Report, StartedReport, Traits, Verdict};
use crate::engine::task::verbs::TaskEvent;
use crate::engine::timestamp::Timestamp;
use crate::sys::process;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Somebody else has a container's lock for a moment: then its restart is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// A worker that was just forked has a container's lock until it closed what is not its own: whoever starts the
/// container right after its end waits for that.
const LOCK_PAUSE: Duration = Duration::from_millis(5);
/// And this long, before the lock is taken for somebody's who keeps it.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// A client that takes nothing for so long is dropped: its container, and the log of that, wait for it.
const STUCK: Duration = Duration::from_secs(30);

/// A container that was started once.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) id: Id,
    pub(super) state: State,
    pub(super) traits: Traits,
    series: Series,
    /// It is not to be started again.
    pub(super) held_back: bool,
    /// It is being removed.
    pub(super) forgotten: bool,
    lock: Option<Lock>,
    /// The connection that waits for its start.
    asked: Option<u64>,
    /// Until when that may wait for the container's lock.
    lock_until: Instant,
    /// Connections that wait until it is held back for certain: no start is under way.
    holding: Vec<u64>,
    /// It was asked to stop: when it is killed.
    pub(super) kill_at: Option<Instant>,
}

/// Drawn above.
#[derive(Debug)]
pub(super) enum State {
    Idle,
    Waiting { at: Instant },
    Starting,
    Running(Held),
    Ending { held: Held, code: u8, ended: Option<Ended> },
}

/// What is held of a container that runs.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) pid: Pid,
    pub(super) streams: Streams,
    pub(super) log: logs::Writer,
    time: Timestamp,
}

impl Container {
    fn new(id: Id) -> Self {
        Self {
            id,
            state: State::Idle,
            traits: Traits::default(),
            series: Series::default(),
            held_back: false,
            forgotten: false,
            lock: None,
            asked: None,
            lock_until: Instant::now(),
            holding: Vec::new(),
            kill_at: None,
        }
    }

    pub(super) fn held(&self) -> Option<&Held> {
        match &self.state {
            State::Running(held) | State::Ending { held, .. } => Some(held),
            _ => None,
        }
    }

    pub(super) fn held_mut(&mut self) -> Option<&mut Held> {
        match &mut self.state {
            State::Running(held) | State::Ending { held, .. } => Some(held),
            _ => None,
        }
    }

    /// Its init, if that was not reaped.
    pub(super) fn init(&self) -> Option<Pid> {
        match &self.state {
            State::Running(held) => Some(held.pid),
            _ => None,
        }
    }

    /// Whether something is under way that has to end before the task can.
    pub(super) fn is_live(&self) -> bool {
        !matches!(self.state, State::Idle | State::Waiting { .. })
    }

    pub(super) fn is_forgotten(&self) -> bool {
        self.forgotten && !self.is_live()
    }

    pub(super) fn wakes_at(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { at } => Some(at),
            State::Running(ref held) => self.kill_at.into_iter().chain(held.streams.drops_at()).min(),
            State::Ending { ref held, .. } => held.streams.drops_at(),
            _ => None,
        }
    }

    /// Sends a signal to its init. It is our child and not reaped, so that its number is nobody else's.
    pub(super) fn signal(&self, signal: i32) {
        if let (Some(pid), Ok(signal)) = (self.init(), Signal::try_from(signal)) {
            let _ = kill(pid, signal);
        } else if let Some(pid) = self.init()
            && let Ok(pidfd) = crate::sys::pidfd::open(pid.as_raw())
        {
            // A real-time signal.
            let _ = crate::sys::pidfd::send_signal(&pidfd, signal);
        }
    }

    /// No restart, until it is started by request.
    pub(super) fn hold(&mut self) {
        self.held_back = true;
        // One that somebody waits for is refused when its time has come.
        if matches!(self.state, State::Waiting { .. }) && self.asked.is_none() {
            self.state = State::Idle;
        }
    }
}

fn wrong_state(id: &Id, status: &str, needed: &'static str) -> Failure {
    failed(EngineError::WrongState { id: id.to_string(), status: status.to_owned(), needed })
}

impl Monitor {
    pub(super) fn find_container(&mut self, id: &Id) -> Option<&mut Container> {
        self.containers.iter_mut().find(|container| container.id == *id)
    }

    /// Starts a container for a connection, which is answered when its program was executed.
    pub(super) fn start(&mut self, id: &Id, connection: u64) -> Result<(), Failure> {
        if self.phase != Phase::Ready {
            return Err(wrong_state(id, "of a task that is stopping", "nothing is started in it any more"));
        }
        let at = match self.containers.iter().position(|container| container.id == *id) {
            Some(at) if self.containers[at].is_live() => {
                return Err(wrong_state(id, "running", "there is nothing to start"));
            }
            Some(at) if self.containers[at].asked.is_some() => {
                return Err(wrong_state(id, "starting", "another call starts it"));
            }
            Some(at) => at,
            None => {
                self.containers.push(Container::new(id.clone()));
                self.containers.len() - 1
            }
        };
        let container = &mut self.containers[at];
        container.held_back = false;
        container.forgotten = false;
        container.asked = Some(connection);
        container.lock_until = Instant::now() + LOCK_PATIENCE;
        match self.begin_start(at) {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.containers[at].state = State::Waiting { at: Instant::now() + LOCK_PAUSE };
                Ok(())
            }
            Err(failure) => {
                // It is not there, or nothing of it was begun: then there is nothing to keep.
                self.containers[at].forgotten = true;
                Err(failure)
            }
        }
    }

    /// `false` if another process has the container's lock.
    fn begin_start(&mut self, at: usize) -> Result<bool, Failure> {
        let container = &mut self.containers[at];
        let Some(lock) = self.engine.try_lock(&container.id).map_err(failed)? else { return Ok(false) };
        let (id, restarts) = (container.id.clone(), container.series.restarts);
        let (engine, task) = (self.engine.clone(), self.id.clone());
        self.send_worker(Purpose::Start(id.clone()), WORK, &[lock.as_fd()], |errand| {
            jobs::start(engine, &task, id, restarts, errand)
        })?;
        let container = &mut self.containers[at];
        container.lock = Some(lock);
        container.kill_at = None;
        container.state = State::Starting;
        Ok(true)
    }

    /// Starts again what has waited long enough.
    pub(super) fn restart_due(&mut self, now: Instant) {
        for at in 0..self.containers.len() {
            let container = &mut self.containers[at];
            if !matches!(container.state, State::Waiting { at } if at <= now) {
                continue;
            }
            container.state = State::Idle;
            if container.asked.is_some() && container.held_back {
                self.refuse_start(at, "stopped", "it was asked to stop before it began");
                continue;
            }
            match self.begin_start(at) {
                Ok(true) => {}
                Ok(false) => self.wait_for_lock(at, now),
                Err(failure) if self.containers[at].asked.is_some() => {
                    let asked = self.containers[at].asked.take();
                    self.containers[at].forgotten = true;
                    self.answer(asked, Err(failure));
                }
                // It was removed, or there are no processes to be had: then the next end of the pause tries again.
                Err(failure) if failure.kind == crate::error::ErrorKind::NotFound => {
                    self.containers[at].forgotten = true;
                }
                Err(_) => self.containers[at].state = State::Waiting { at: now + 10 * RETRY },
            }
        }
    }

    /// Another process has the lock of a container that is to be started.
    fn wait_for_lock(&mut self, at: usize, now: Instant) {
        let container = &mut self.containers[at];
        let pause = if container.asked.is_some() { LOCK_PAUSE } else { RETRY };
        if container.asked.is_none() || now < container.lock_until {
            container.state = State::Waiting { at: now + pause };
            return;
        }
        self.refuse_start(at, "in use", "it is being changed by another call");
    }

    /// Answers who waits for a start that does not come.
    fn refuse_start(&mut self, at: usize, status: &str, needed: &'static str) {
        let container = &mut self.containers[at];
        let asked = container.asked.take();
        let failure = wrong_state(&container.id, status, needed);
        self.answer(asked, Err(failure));
    }

    /// The worker of a start has ended.
    pub(super) fn start_ended(&mut self, id: &Id, report: Option<(Report, Vec<OwnedFd>)>, expired: bool) {
        match report {
            Some((Report::Started(report), fds)) => match self.hold_started(id, *report, fds) {
                Ok(()) => {}
                Err(failure) => self.clean_up(id, failure),
            },
            // It has recorded the failure.
            Some((Report::Failed(told), _)) => self.start_failed(id, told.into()),
            _ => self.clean_up(id, lost_worker(expired, "the start of the container")),
        }
    }

    fn hold_started(&mut self, id: &Id, report: StartedReport, fds: Vec<OwnedFd>) -> Result<(), Failure> {
        let gone = || failed(EngineError::MonitorLost { id: id.to_string() });
        let mut fds = fds.into_iter();
        let (log, listener) = (fds.next().ok_or_else(gone)?, fds.next().ok_or_else(gone)?);
        let [stdin, stdout, stderr] = report.streams.map(|there| if there { fds.next() } else { None });
        let rule = if report.traits.stdin_once { InputRule::FirstClient } else { InputRule::Kept };
        let ends = Ends { stdin, outputs: [stdout, stderr] };
        let container = self.find_container(id).ok_or_else(gone)?;
        container.state = State::Running(Held {
            pid: Pid::from_raw(report.pid),
            streams: Streams::new(ends, listener, report.traits.tty, rule).with_patience(STUCK),
            log: logs::Writer::new(log.into()),
            time: report.time,
        });
        container.traits = report.traits;
        let asked = container.asked.take();
        self.answer(asked, Ok(()));
        self.release_holders(id);
        self.publish(TaskEvent::Started { container: id.to_string(), pid: report.pid, time: report.time });
        Ok(())
    }

    /// A start that nobody finished: another worker removes what is there of it and records the failure.
    fn clean_up(&mut self, id: &Id, failure: Failure) {
        let (engine, owned, told) = (self.engine.clone(), id.clone(), failure.clone());
        let restarts = self.find_container(id).map_or(0, |container| container.series.restarts);
        let sent = self.send_worker(Purpose::CleanUp(id.clone(), failure.clone()), REMOVAL, &[], |errand| {
            jobs::clean_up(engine, owned, restarts, told, errand)
        });
        if sent.is_err() {
            self.start_failed(id, failure);
        }
    }

    /// A start has failed, and that is recorded.
    pub(super) fn start_failed(&mut self, id: &Id, failure: Failure) {
        let stopping = self.phase != Phase::Ready;
        let Some(container) = self.find_container(id) else { return };
        container.state = State::Idle;
        container.lock = None;
        let asked = container.asked.take();
        let ended = Ended {
            code: failure.exit_code,
            oom_killed: false,
            started: None,
            finished: Timestamp::now(),
            error: Some(failure.chain.clone()),
            restarts: container.series.restarts,
        };
        // Who asked for it decides what to do about it.
        let restarts = asked.is_none() && container.plan_restart(&ended, stopping);
        if asked.is_none() {
            self.publish(TaskEvent::Exited { container: id.to_string(), ended, restarts });
        }
        self.answer(asked, Err(failure));
        self.release_holders(id);
    }

    /// No restart of this container from now on, until it is asked for; `forget` if it is being removed. A start that is
    /// under way is over when this is answered. `false` if it will be answered later.
    pub(super) fn hold_back(&mut self, id: &Id, connection: u64, forget: bool) -> bool {
        let Some(container) = self.find_container(id) else { return true };
        container.hold();
        container.forgotten |= forget;
        let starting = matches!(container.state, State::Starting);
        if starting {
            container.holding.push(connection);
        }
        !starting
    }

    fn release_holders(&mut self, id: &Id) {
        let holding = self.find_container(id).map(|container| std::mem::take(&mut container.holding));
        for connection in holding.into_iter().flatten() {
            self.answer(Some(connection), Ok(()));
        }
    }

    /// Init has ended, and is reaped here.
    pub(super) fn init_ended(&mut self, at: usize) {
        let container = &mut self.containers[at];
        let State::Running(held) = std::mem::replace(&mut container.state, State::Idle) else { return };
        let code =
            process::wait(held.pid).map_or(255, |exit| u8::try_from(exit.code() & 0xff).unwrap_or(255));
        container.state = State::Ending { held, code, ended: None };
        container.kill_at = None;
        let (engine, id) = (self.engine.clone(), container.id.clone());
        let sent =
            self.send_worker(Purpose::End(id.clone()), REMOVAL, &[], |errand| jobs::end(engine, &id, errand));
        if let Err(failure) = sent {
            let id = self.containers[at].id.clone();
            self.end_ended(&id, Some(failure));
        }
    }

    /// Nothing of the container runs any more: reads the rest of its output, and says how it ended.
    pub(super) fn quiet(&mut self, id: &Id, oom_killed: bool) -> Option<Verdict> {
        let container = self.find_container(id)?;
        let restarts = container.series.restarts;
        let State::Ending { held, code, ended } = &mut container.state else { return None };
        held.streams.drain(&mut held.log);
        let told = Ended {
            code: *code,
            oom_killed,
            started: Some(held.time),
            finished: Timestamp::now(),
            error: lost(held.log.dropped()),
            restarts,
        };
        *ended = Some(told.clone());
        Some(Verdict { ended: told })
    }

    /// The worker that cleans up after a container has ended; `failure` if it did not finish.
    pub(super) fn end_ended(&mut self, id: &Id, failure: Option<Failure>) {
        if let Some(failure) = failure {
            self.record_badly_ended(id, &failure);
        }
        let stopping = self.phase != Phase::Ready;
        let Some(container) = self.find_container(id) else { return };
        let State::Ending { held, ended: Some(ended), .. } =
            std::mem::replace(&mut container.state, State::Idle)
        else {
            return;
        };
        container.lock = None;
        let restarts = container.plan_restart(&ended, stopping);
        let clients = held.streams.say_goodbye(Exit { code: ended.code, oom_killed: ended.oom_killed });
        let until = Instant::now() + GOODBYE;
        self.leaving.extend(clients.into_iter().map(|client| (client, until)));
        self.publish(TaskEvent::Exited { container: id.to_string(), ended, restarts });
    }

    /// Its exit code is known all the same, and is not to be lost.
    fn record_badly_ended(&mut self, id: &Id, failure: &Failure) {
        self.quiet(id, false);
        let path = self.engine.directory(id).join("exit.json");
        let Some(container) = self.find_container(id) else { return };
        let State::Ending { ended: Some(ended), .. } = &mut container.state else { return };
        ended.error = Some(format!("it could not be cleaned up: {}", failure.chain));
        // What cannot be written now is found by the next call, which says that nobody saw how it ended.
        let _ = write_json(&path, ended, Durability::Volatile);
        let _ = self.engine.discard_run(id);
    }
}

impl Container {
    /// Decides whether the container is started again, and when.
    fn plan_restart(&mut self, ended: &Ended, stopping: bool) -> bool {
        if self.held_back || self.forgotten || stopping {
            return false;
        }
        let ran = ended.started.map(|started| ended.finished.since(started));
        let Some(pause) = self.series.next(&self.traits.restart, ended.code, ran) else { return false };
        self.state = State::Waiting { at: Instant::now() + pause };
        true
    }
}

/// What is said of a worker that ended without a word.
pub(super) fn lost_worker(expired: bool, what: &str) -> Failure {
    let (kind, how) = match expired {
        true => (crate::error::ErrorKind::TimedOut, "took too long and was given up"),
        false => (crate::error::ErrorKind::System, "was broken off by the end of its process"),
    };
    Failure { kind, exit_code: crate::engine::exit_code::TOOL, chain: format!("{what} {how}") }
}
