//! Stopping, killing, waiting for and deleting containers.
use super::Engine;
use super::attach::{Exit, Streams};
use super::client::Client;
use super::error::EngineError;
use super::monitor::anonymous_volumes;
use super::names::Id;
use super::options::Signal;
use super::record::{Ended, Lock, Record, Run, Status};
use super::timestamp::Timestamp;
use crate::image::store::Store;
use crate::runtime::delete::delete;
use crate::runtime::kill::{KillError, kill};
use crate::runtime::state::StateError;
use crate::sys::{SysError, pidfd};
use nix::errno::Errno;
use std::time::Duration;

/// docker's time between the stop signal and SIGKILL.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a process that got SIGKILL may take before we say that it hangs in the kernel.
const KILL_DEADLINE: Duration = Duration::from_secs(15);
/// How long a monitor may take to clean up after its container was killed.
const MONITOR_DEADLINE: Duration = Duration::from_secs(10);
const SIGKILL: Signal = Signal(9);

impl Engine {
    /// Sends a signal to a container's init.
    pub fn signal(&self, record: &Record, signal: Signal) -> Result<(), EngineError> {
        let id = record.id()?;
        match kill(&self.runtime_root(), id.as_str(), signal.0, false) {
            Err(KillError::NotRunning | KillError::State(StateError::NotFound { .. })) => {
                Err(EngineError::WrongState {
                    id: record.name.clone(),
                    status: self.status(&id)?.word().to_owned(),
                    needed: "it has no process that could get a signal",
                })
            }
            result => Ok(result?),
        }
    }

    /// `kill`: sends a signal; SIGKILL is certain to end the container, so that its end is waited for.
    pub fn kill(&self, record: &Record, signal: Signal) -> Result<(), EngineError> {
        if signal == SIGKILL || signal == record.options.stop_signal {
            self.hold_back(record)?;
        }
        if signal != SIGKILL {
            return self.signal(record, signal);
        }
        let id = record.id()?;
        let client = Client::connect(self, &id, Streams::default())?;
        self.signal(record, signal)?;
        match client {
            Some(client) if client.wait(Some(KILL_DEADLINE))?.is_none() && self.status(&id)?.is_live() => {
                Err(EngineError::WontDie { id: record.name.clone(), seconds: KILL_DEADLINE.as_secs() })
            }
            _ => Ok(()),
        }
    }

    /// Sends the stop signal, after `timeout` SIGKILL, and returns when the container has ended and is cleaned up.
    /// One that does not run is stopped already.
    pub fn stop(&self, record: &Record, timeout: Option<Duration>) -> Result<(), EngineError> {
        let id = record.id()?;
        let asked = record.options.stop_timeout.map(|seconds| Duration::from_secs(seconds.into()));
        let grace = timeout.or(asked).unwrap_or(STOP_TIMEOUT);
        let first = record.options.stop_signal;
        // Before its end, which must not be the beginning of another run.
        self.hold_back(record)?;
        if !self.end(record, &id, first, grace)? && !self.end(record, &id, SIGKILL, KILL_DEADLINE)? {
            return Err(EngineError::WontDie { id: record.name.clone(), seconds: KILL_DEADLINE.as_secs() });
        }
        Ok(())
    }

    /// Sends a signal and waits for the end; `false` if `limit` passed first.
    fn end(&self, record: &Record, id: &Id, signal: Signal, limit: Duration) -> Result<bool, EngineError> {
        // Before the signal, so that the end is not missed.
        let client = Client::connect(self, id, Streams::default())?;
        match self.signal(record, signal) {
            Err(EngineError::WrongState { .. } | EngineError::NoSuchContainer { .. }) => {}
            result => result?,
        }
        if let Some(client) = client {
            if client.wait(Some(limit))?.is_some() {
                return Ok(true);
            }
            return Ok(!self.status(id)?.is_live());
        }
        match self.status(id)? {
            // No monitor says when it ends.
            Status::Unmonitored(run) => wait_process(&run, limit),
            // Its monitor is about to start it: the next signal finds it.
            Status::Starting => Ok(false),
            status => Ok(!status.is_live()),
        }
    }

    /// Waits for a container's end and tells how it ended; at once if it does not run.
    ///
    /// # Errors
    /// [`EngineError::ExitUnknown`] when nobody saw how it ended.
    pub fn wait(&self, record: &Record) -> Result<Exit, EngineError> {
        let id = record.id()?;
        if let Some(client) = Client::connect(self, &id, Streams::default())?
            && let Some(exit) = client.wait(None)?
        {
            return Ok(exit);
        }
        loop {
            match self.status(&id)? {
                Status::Exited(ended) | Status::Created(Some(ended)) => {
                    return Ok(Exit { code: ended.code, oom_killed: ended.oom_killed });
                }
                Status::Unmonitored(run) => {
                    let pidfd = pidfd::open(run.pid)?;
                    pidfd::wait(&pidfd, None)?;
                    return Err(EngineError::ExitUnknown { id: record.name.clone() });
                }
                Status::Lost(_) => return Err(EngineError::ExitUnknown { id: record.name.clone() }),
                Status::Created(None) => {
                    return Err(EngineError::WrongState {
                        id: record.name.clone(),
                        status: "created".into(),
                        needed: "start it first",
                    });
                }
                // It began or ended since we tried to connect: its lock is free when its end is recorded.
                Status::Starting | Status::Running(_) => {
                    match Client::connect(self, &id, Streams::default())? {
                        Some(client) => {
                            if let Some(exit) = client.wait(None)? {
                                return Ok(exit);
                            }
                        }
                        None => drop(self.wait_lock(&id)?),
                    }
                }
            }
        }
    }

    /// Removes a container: with `force` also a running one. `volumes` takes its anonymous volumes along, as
    /// always for a container that was to remove itself, or of a task.
    pub fn delete(
        &self,
        store: &Store,
        record: &Record,
        force: bool,
        volumes: bool,
    ) -> Result<(), EngineError> {
        let id = record.id()?;
        let status = self.status(&id)?;
        if status.is_live() && !force {
            return Err(EngineError::WrongState {
                id: record.name.clone(),
                status: status.word().to_owned(),
                needed: "stop it first, or delete it with --force",
            });
        }
        self.forget(record)?;
        // Before its end, so that this is not missed.
        let client = Client::connect(self, &id, Streams::default())?;
        // Kills what there is; a monitor sees the end and cleans up.
        delete(&self.runtime_root(), id.as_str(), true)?;
        let Some(_lock) = self.own(record, &id, &status, client.as_ref())? else { return Ok(()) };
        // The monitor was in the middle of a start when it was asked first.
        delete(&self.runtime_root(), id.as_str(), true)?;
        if volumes || record.options.auto_remove || record.task.is_some() {
            for name in anonymous_volumes(&record.options) {
                self.remove_volume(&name)?;
            }
        }
        self.discard(&id, &record.name)?;
        if let Some(task) = &record.task {
            self.leave_task(task, &id)?;
        }
        Ok(store.release(id.as_str())?)
    }

    /// Takes the lock of a container whose processes were killed; `None` if it removed itself.
    fn own(
        &self,
        record: &Record,
        id: &Id,
        status: &Status,
        client: Option<&Client>,
    ) -> Result<Option<Lock>, EngineError> {
        let taken = |result| match result {
            Err(EngineError::NoSuchContainer { .. }) => Ok(None),
            other => other,
        };
        if let Some(client) = client {
            client.wait(Some(MONITOR_DEADLINE))?;
        }
        if let Some(lock) = taken(self.try_lock(id))? {
            return Ok(Some(lock));
        }
        // That of a task has others to care for.
        if record.task.is_none()
            && let (Status::Running(run), Some(_)) = (status, client)
            && let Ok(monitor) = pidfd::open(run.monitor.pid)
            && run.monitor.is_alive()?
        {
            // It was stopped by a signal, or hangs: its container is gone, it has nothing left to do.
            match pidfd::send_signal(&monitor, SIGKILL.0) {
                Err(SysError { errno: Errno::ESRCH, .. }) => {}
                result => result?,
            }
        }
        taken(self.wait_lock(id).map(Some))
    }

    /// Records the end of a container whose monitor was killed, as far as it is known.
    pub fn settle(&self, record: &Record) -> Result<Status, EngineError> {
        let id = record.id()?;
        let status = self.status(&id)?;
        let Status::Lost(run) = &status else { return Ok(status) };
        let Some(_lock) = self.try_lock(&id)? else { return self.status(&id) };
        delete(&self.runtime_root(), id.as_str(), true)?;
        let ended = Ended {
            code: 255,
            oom_killed: false,
            started: Some(run.started),
            finished: Timestamp::now(),
            error: Some("its monitor was killed: how it ended is not known".to_owned()),
            restarts: 0,
        };
        super::record::write_json(&self.directory(&id).join("exit.json"), &ended, record.durability())?;
        self.discard_run(&id)?;
        Ok(Status::Exited(ended))
    }
}

/// Waits for a process that is not ours.
fn wait_process(run: &Run, limit: Duration) -> Result<bool, EngineError> {
    let process = match pidfd::open(run.pid) {
        Err(SysError { errno: Errno::ESRCH, .. }) => return Ok(true),
        result => result?,
    };
    let millis = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
    Ok(pidfd::wait(&process, Some(millis))?)
}
