//! Tasks whose monitor was killed, and what killed calls left half-made.
use super::{TaskRecord, TaskStatus, teardown};
use crate::engine::Engine;
use crate::engine::error::EngineError;
use crate::engine::names::Id;
use crate::engine::record::{Ended, Lock, Record, Status, write_json};
use crate::engine::timestamp::Timestamp;
use crate::image::store::Store;

/// How a container ended that nobody saw.
const UNSEEN: u8 = 255;

impl Engine {
    /// Cleans up after monitors and calls that were killed: a task without a monitor is torn down and recorded as
    /// stopped, the ends of its containers are recorded (255, with the reason), and what is half-made or
    /// half-removed of tasks and containers goes. Any number of processes may do so at once.
    ///
    /// # Errors
    /// The first; other tasks are tried all the same.
    pub fn recover_tasks(&self) -> Result<(), EngineError> {
        let shelf = self.task_shelf();
        let mut first = if shelf.has_unfinished()? { shelf.sweep().map(drop) } else { Ok(()) };
        first = first
            .and(Store::open(&self.root).map_err(EngineError::from).and_then(|store| self.sweep(&store)));
        for record in self.all_tasks()? {
            first = first.and(match self.recover_task(&record) {
                // It was removed meanwhile.
                Err(EngineError::NoSuchTask { .. }) => Ok(()),
                result => result.map(drop),
            });
        }
        first
    }

    /// Cleans up after one task if its monitor was killed; `true` if the task has none any more.
    pub(super) fn recover_task(&self, record: &TaskRecord) -> Result<bool, EngineError> {
        let id = record.id()?;
        if let Some(TaskStatus::Stopped { .. }) = self.seen_status(&id)?
            && !self.task_run_directory(&id).exists()
        {
            return Ok(true);
        }
        // Its monitor has the lock, or another process that does the same as we.
        let lock = match self.try_task_lock(&id) {
            Ok(None) => return Ok(false),
            Err(EngineError::NoSuchTask { .. }) => return Ok(true),
            other => other?,
        };
        let Some(lock) = lock else { return Ok(false) };
        self.end_task(record, &id, &lock)?;
        Ok(true)
    }

    /// Tears a task without a monitor down and records its end.
    pub(super) fn end_task(&self, record: &TaskRecord, id: &Id, _lock: &Lock) -> Result<(), EngineError> {
        let members = self.members(id)?;
        // Before their processes are killed, so that the reason is the first that is found.
        let runs: Vec<(Record, Status)> = members
            .into_iter()
            .map(|member| {
                let status = self.status(&member.id()?)?;
                Ok((member, status))
            })
            .collect::<Result<_, EngineError>>()?;
        teardown::tear_down(self, record)?;
        for (member, status) in &runs {
            self.record_unseen_end(member, status)?;
        }
        match self.seen_status(id)? {
            Some(TaskStatus::Stopped { .. }) => Ok(()),
            _ => self.write_task_end(id),
        }
    }

    fn record_unseen_end(&self, record: &Record, status: &Status) -> Result<(), EngineError> {
        let (Status::Unmonitored(run) | Status::Lost(run)) = status else { return Ok(()) };
        let id = record.id()?;
        // Somebody removes it.
        let Some(_lock) = self.try_lock(&id)? else { return Ok(()) };
        let ended = Ended {
            code: UNSEEN,
            oom_killed: false,
            started: Some(run.started),
            finished: Timestamp::now(),
            error: Some("its monitor was killed".to_owned()),
            restarts: 0,
        };
        write_json(&self.directory(&id).join("exit.json"), &ended, record.durability())?;
        self.discard_run(&id)
    }
}
