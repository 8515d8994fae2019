//! What is on disk about tasks.
//!
//! ```text
//! <root>/tasks/               a shelf; see engine::shelf
//!   <id>/
//!     task.json               what the task is; written once
//!     stopped.json            when it ended; everything else of it is gone then
//!     lock                    locked by the monitor from the making of the task to its end
//!     containers/<id>         an empty file for each container that was made in it
//!     making                  locked (shared) while a container is made in it
//! <state>/tasks/<id>/
//!   cgroup.json               its cgroups, written before they are made
//!   run.json                  what there is of it, written when it is ready
//!   ns/{net,ipc,uts,pid}      bind mounts of namespace files
//!   shm/                      a tmpfs
//!   hostname hosts resolv.conf
//!   control.sock
//! ```
use super::{TaskRecord, TaskRun, TaskSpec, TaskStatus, validate};
use crate::engine::Engine;
use crate::engine::error::EngineError;
use crate::engine::names::{self, Id};
use crate::engine::record::{
    Durability, Lock, Record, Version, private_directory, read_json, remove_tree, write_json,
};
use crate::engine::shelf::{Kept, Shelf};
use crate::engine::timestamp::Timestamp;
use crate::sys::{SysError, lock};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const TASK: &str = "task.json";
const STOPPED: &str = "stopped.json";
const RUN: &str = "run.json";

/// The end of a task.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Stopped {
    finished: Timestamp,
}

/// While it lives, a container is being made in a task, which is not removed meanwhile.
#[derive(Debug)]
pub(in crate::engine) struct Joining {
    _lock: File,
}

impl TaskRecord {
    /// The id as a checked value.
    pub fn id(&self) -> Result<Id, EngineError> {
        Id::parse(&self.id).ok_or_else(|| EngineError::NoSuchTask { given: self.id.clone() })
    }
}

impl Engine {
    /// Makes a task's record and claims its name. Nothing else of the task is there yet; its monitor is to get
    /// the lock, and whoever finds the lock free takes the task for one whose monitor was killed.
    ///
    /// # Errors
    /// [`EngineError::NameInUse`], [`EngineError::Task`] for what cannot be.
    pub fn make_task(&self, spec: TaskSpec) -> Result<(TaskRecord, Lock), EngineError> {
        validate::check(&spec)?;
        names::validate(&spec.name)?;
        let id = Id::generate()?;
        let record = TaskRecord { version: Version::V1, id: id.to_string(), created: Timestamp::now(), spec };
        let shelf = self.task_shelf();
        let _making = shelf.begin_making()?;
        let lock = shelf.make(&id, &record.spec.name, Durability::Synced, |directory| {
            private_directory(&directory.join("containers"))?;
            write_json(&directory.join(TASK), &record, Durability::Synced)
        })?;
        Ok((record, lock))
    }

    /// The record of a task; `None` if it is gone.
    pub fn task_record(&self, id: &Id) -> Result<Option<TaskRecord>, EngineError> {
        read_json(&self.task_directory(id).join(TASK))
    }

    pub(super) fn all_tasks(&self) -> Result<Vec<TaskRecord>, EngineError> {
        let mut records = Vec::new();
        for id in self.task_shelf().ids()? {
            // It may have been removed since the directory was read.
            records.extend(self.task_record(&id)?);
        }
        records.sort_by_key(|record| std::cmp::Reverse(record.created));
        Ok(records)
    }

    pub(super) fn look_up_task(&self, given: &str) -> Result<TaskRecord, EngineError> {
        let shelf = self.task_shelf();
        if let Some(id) = Id::parse(given) {
            return self.task_record(&id)?.ok_or_else(|| shelf.missing(given));
        }
        if let Some(id) = shelf.holder(given)
            && let Some(record) = self.task_record(&id)?
        {
            return Ok(record);
        }
        self.task_record(&shelf.by_prefix(given)?)?.ok_or_else(|| shelf.missing(given))
    }

    /// What the files say of a task; `None` where its monitor was killed and nobody has cleaned up.
    pub(super) fn seen_status(&self, id: &Id) -> Result<Option<TaskStatus>, EngineError> {
        // Asked before the end is read: it is recorded before the lock is let go.
        let held = self.task_shelf().is_held(id)?;
        if let Some(Stopped { finished }) = read_json(&self.task_directory(id).join(STOPPED))? {
            return Ok(Some(TaskStatus::Stopped { finished }));
        }
        if !self.task_directory(id).exists() {
            return Err(self.task_shelf().missing(id.as_str()));
        }
        let run: Option<TaskRun> = read_json(&self.task_run_directory(id).join(RUN))?;
        Ok(match (held, run) {
            (true, Some(run)) => Some(TaskStatus::Ready(Box::new(run))),
            (true, None) => Some(TaskStatus::Making),
            (false, _) => None,
        })
    }

    /// Records what there is of a task: from now on it is ready.
    pub fn write_task_run(&self, id: &Id, run: &TaskRun) -> Result<(), EngineError> {
        write_json(&self.task_run_directory(id).join(RUN), run, Durability::Volatile)
    }

    /// Records the end of a task of which all is gone. The caller has its lock.
    pub fn write_task_end(&self, id: &Id) -> Result<(), EngineError> {
        let stopped = Stopped { finished: Timestamp::now() };
        write_json(&self.task_directory(id).join(STOPPED), &stopped, Durability::Synced)
    }

    /// Removes a task's record and its name; what is gone already is no error. Nothing else of it is there, and
    /// the caller has its lock.
    pub fn discard_task(&self, id: &Id, name: &str) -> Result<(), EngineError> {
        let shelf = self.task_shelf();
        shelf.withdraw(id)?;
        self.discard_task_run(id)?;
        shelf.discard(id, name)
    }

    /// Removes what is there only while a task runs. Its mounts are gone.
    pub(super) fn discard_task_run(&self, id: &Id) -> Result<(), EngineError> {
        remove_tree(&self.state.join("tasks"), Path::new(id.as_str()))
    }

    /// Takes a task's lock; `None` if somebody has it.
    pub fn try_task_lock(&self, id: &Id) -> Result<Option<Lock>, EngineError> {
        self.task_shelf().try_lock(id)
    }

    /// Waits for a task's lock.
    pub fn wait_task_lock(&self, id: &Id) -> Result<Lock, EngineError> {
        self.task_shelf().wait_lock(id)
    }

    /// Keeps a task from being removed while a container is made in it, and notes the container.
    pub(in crate::engine) fn join_task(&self, task: &Id, container: &Id) -> Result<Joining, EngineError> {
        let making = self.open_making(task)?;
        lock::wait_shared(&making)?;
        let path = self.member(task, container.as_str());
        match OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path) {
            Ok(_) => Ok(Joining { _lock: making }),
            // It was removed while we waited.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(self.task_shelf().missing(task.as_str()))
            }
            Err(error) => Err(SysError::io("open", path.display().to_string())(error).into()),
        }
    }

    /// Forgets a container of a task; that it is forgotten already, or the task gone, is no error.
    pub(in crate::engine) fn leave_task(&self, task: &str, container: &Id) -> Result<(), EngineError> {
        let Some(task) = Id::parse(task) else { return Ok(()) };
        let path = self.member(&task, container.as_str());
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(SysError::io("unlink", path.display().to_string())(error).into())
            }
            _ => Ok(()),
        }
    }

    /// Waits until no container is being made in a task, and keeps it so.
    pub(super) fn close_task(&self, task: &Id) -> Result<Lock, EngineError> {
        let making = self.open_making(task)?;
        lock::wait_exclusive(&making)?;
        Ok(Lock(making))
    }

    fn open_making(&self, task: &Id) -> Result<File, EngineError> {
        let path = self.task_directory(task).join("making");
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => self.task_shelf().missing(task.as_str()),
                _ => SysError::io("open", path.display().to_string())(error).into(),
            })
    }

    /// The records of a task's containers, oldest first.
    pub(super) fn members(&self, task: &Id) -> Result<Vec<Record>, EngineError> {
        let path = self.task_directory(task).join("containers");
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(self.task_shelf().missing(task.as_str()));
            }
            Err(error) => return Err(SysError::io("readdir", path.display().to_string())(error).into()),
        };
        let mut records = Vec::new();
        for entry in entries {
            let entry = entry.map_err(SysError::io("readdir", path.display().to_string()))?;
            let Some(id) = entry.file_name().to_str().and_then(Id::parse) else { continue };
            // It is being made, or was removed.
            records.extend(self.record(&id)?.filter(|record| record.task.as_deref() == Some(task.as_str())));
        }
        records.sort_by_key(|record| record.created);
        Ok(records)
    }

    fn member(&self, task: &Id, container: &str) -> PathBuf {
        self.task_directory(task).join("containers").join(container)
    }

    /// The directory of a task's record.
    pub fn task_directory(&self, id: &Id) -> PathBuf {
        self.task_shelf().directory(id)
    }

    /// What is there of a task only while it runs.
    pub fn task_run_directory(&self, id: &Id) -> PathBuf {
        self.state.join("tasks").join(id.as_str())
    }

    pub(super) fn task_shelf(&self) -> Shelf {
        Shelf::new(self.root.join("tasks"), Kept::Task)
    }
}
