//! What can be done with tasks and their containers.
//!
//! Every call blocks; an asynchronous caller makes it on a thread of its own. None of them forks: what needs a
//! single-threaded process is done by the task's monitor, which is asked over its control socket.
use super::client::{Control, answer_limit};
use super::control::{self, MAX_PACKET, Reply, Request};
use super::{TaskRecord, TaskSpec, TaskStatus, create, remove, stats, teardown, update};
use crate::engine::Engine;
use crate::engine::client::wait_readable;
use crate::engine::error::EngineError;
use crate::engine::names::Id;
use crate::engine::options::{Limits, Options};
use crate::engine::record::{Ended, Record};
use crate::engine::specgen::process::Overrides;
use crate::engine::timestamp::Timestamp;
use crate::image::store::{Image, Store};
pub use crate::runtime::cgroup::stats::Stats;
use crate::sys::packet::{Received, try_peek, try_receive, try_send};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// A container that is to be made in a task.
#[derive(Debug)]
pub struct ContainerRequest {
    /// Unique among containers.
    pub name: String,
    /// The image as it was named; it is in the store.
    pub image: String,
    /// What is to run, where it differs from the image's.
    pub overrides: Overrides,
    /// Everything else; its network and host name are the task's.
    pub options: Options,
    /// The image's stop signal is taken if absent.
    pub stop_signal: Option<crate::engine::options::Signal>,
    /// Kept for the door.
    pub data: serde_json::Value,
}

/// A process that is to be added to a running container.
#[derive(Debug, Default)]
pub struct ExecRequest {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Further variables, each `KEY=VALUE`.
    pub env: Vec<String>,
    /// Its working directory, if not the container's.
    pub cwd: Option<String>,
    /// Its user, if not the container's.
    pub user: Option<String>,
}

/// Standard streams of a process that is added to a container.
#[derive(Debug)]
pub enum ExecStdio {
    /// These; /dev/null where absent.
    Fds {
        /// Standard input.
        stdin: Option<OwnedFd>,
        /// Standard output.
        stdout: Option<OwnedFd>,
        /// Standard error.
        stderr: Option<OwnedFd>,
    },
    /// A new terminal, whose master side is [`Exec::console`].
    Terminal,
}

/// A process that was added to a container; it goes on when this is dropped.
#[derive(Debug)]
pub struct Exec {
    /// The master side of its terminal.
    pub console: Option<OwnedFd>,
    /// Its process id on the host.
    pub pid: i32,
    connection: OwnedFd,
    task: String,
}

impl Exec {
    /// Waits for its end: its exit code, or `None` if `limit` passed first.
    pub fn wait(&self, limit: Option<Duration>) -> Result<Option<u8>, EngineError> {
        if !wait_readable(&self.connection, limit)? {
            return Ok(None);
        }
        // It stays where it is, so that whoever asks again gets the same answer.
        let mut buffer = [0; 256];
        let lost = || EngineError::TaskLost { id: self.task.clone() };
        match try_peek(&self.connection, &mut buffer) {
            Received::Packet(length) => match control::decode(&buffer[..length])? {
                Reply::Exited { code } => Ok(Some(code)),
                _ => Err(lost()),
            },
            Received::Nothing => Ok(None),
            Received::Gone => Err(lost()),
        }
    }

    /// Kills it and what it started, as far as that is in its own process group.
    pub fn kill(&self) -> Result<(), EngineError> {
        // One that has ended, or whose monitor has, needs no more; the socket is never full of requests.
        let _ = try_send(&self.connection, &control::encode(&Request::KillExec)?);
        Ok(())
    }
}

impl AsFd for Exec {
    /// Becomes readable when it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

/// What a task uses.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TaskStats {
    /// Its cgroup with all containers.
    pub cgroup: Stats,
    /// Its links but loopback.
    pub links: Vec<LinkStats>,
    /// Number of its processes.
    pub processes: u64,
}

/// What went over a link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Name inside.
    pub name: String,
    /// Received bytes, and errors.
    pub received: (u64, u64),
    /// Sent bytes, and errors.
    pub sent: (u64, u64),
}

/// Something that happened in a task.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskEvent {
    /// A container runs; also after it was started again.
    Started {
        /// Its id.
        container: String,
        /// Its init.
        pid: i32,
        /// When.
        time: Timestamp,
    },
    /// A container has ended, and its end is recorded.
    Exited {
        /// Its id.
        container: String,
        /// How.
        ended: Ended,
        /// Whether the monitor will start it again.
        restarts: bool,
    },
    /// The task was stopped; last of all.
    Stopped,
}

/// What happens in a task from now on.
#[derive(Debug)]
pub struct Events {
    connection: OwnedFd,
}

impl Events {
    /// The next event if there is one already; `Gone` when the monitor has ended. Never blocks.
    pub fn try_next(&mut self) -> Result<Next, EngineError> {
        let mut buffer = [0; MAX_PACKET];
        match try_receive(&self.connection, &mut buffer) {
            Received::Packet(length) => match control::decode(&buffer[..length])? {
                Reply::Event(event) => Ok(Next::Event(event)),
                _ => Err(EngineError::Frame { peer: "monitor", reason: "no event" }),
            },
            Received::Nothing => Ok(Next::Later),
            Received::Gone => Ok(Next::Gone),
        }
    }
}

/// What [`Events::try_next`] found.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// This.
    Event(TaskEvent),
    /// Nothing for now: wait until the descriptor is readable.
    Later,
    /// Nothing any more.
    Gone,
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

impl Engine {
    /// Makes a task and starts its monitor; returns when containers can be started in it. On an error nothing is
    /// left of it.
    ///
    /// # Errors
    /// [`EngineError::NameInUse`] with the id of the task that has the name.
    pub fn run_task(&self, spec: TaskSpec) -> Result<TaskRecord, EngineError> {
        let (record, lock) = self.make_task(spec)?;
        let id = record.id()?;
        self.spawn_monitor(&id, lock).inspect_err(|_| self.undo_task(&record, &id))?;
        Ok(record)
    }

    /// A task whose monitor could not be started, or was killed, is of no use to anybody.
    fn undo_task(&self, record: &TaskRecord, id: &Id) {
        // The first error is the one to tell; what cannot be removed now, the next recovery finds. Its monitor has the
        // lock while it is there, and then removes the task by itself.
        if let Ok(Some(_lock)) = self.try_task_lock(id)
            && teardown::tear_down(self, record).is_ok()
        {
            let _ = self.discard_task(id, &record.spec.name);
        }
    }

    /// All tasks, newest first.
    pub fn tasks(&self) -> Result<Vec<TaskRecord>, EngineError> {
        self.all_tasks()
    }

    /// The task with this id, beginning of an id, or name.
    pub fn find_task(&self, given: &str) -> Result<TaskRecord, EngineError> {
        self.look_up_task(given)
    }

    /// What a task is doing.
    pub fn task_status(&self, id: &Id) -> Result<TaskStatus, EngineError> {
        if let Some(status) = self.seen_status(id)? {
            return Ok(status);
        }
        let record = self.task_record(id)?.ok_or_else(|| self.task_shelf().missing(id.as_str()))?;
        self.recover_task(&record)?;
        // While somebody else cleans up, it is as good as stopped.
        let ended = TaskStatus::Stopped { finished: Timestamp::now() };
        Ok(self.seen_status(id)?.filter(|seen| matches!(seen, TaskStatus::Stopped { .. })).unwrap_or(ended))
    }

    /// The containers of a task, oldest first.
    pub fn task_containers(&self, id: &Id) -> Result<Vec<Record>, EngineError> {
        self.members(id)
    }

    /// Stops all containers (their stop signal, after `grace` SIGKILL) and removes what was made for the task, but
    /// its records. One that is stopped stays so.
    pub fn stop_task(&self, id: &Id, grace: Option<Duration>) -> Result<(), EngineError> {
        if self.stop_by_monitor(id, grace)? {
            return Ok(());
        }
        let record = self.task_record(id)?.ok_or_else(|| self.task_shelf().missing(id.as_str()))?;
        // It is about to end, or another process cleans up after it.
        drop(self.wait_task_lock(id)?);
        self.recover_task(&record).map(drop)
    }

    /// Stops a task at once and removes it with its containers.
    pub fn remove_task(&self, store: &Store, id: &Id) -> Result<(), EngineError> {
        remove::remove(self, store, id)
    }

    /// Makes a container in a task that is ready, without starting it.
    pub fn create_in_task(
        &self,
        store: &Store,
        task: &Id,
        image: &Image,
        request: ContainerRequest,
    ) -> Result<Record, EngineError> {
        create::create_in(self, store, task, image, request)
    }

    /// Starts a container of a task; returns when its program was executed. `stop`, `kill`, `wait` and `delete` are
    /// those of every container.
    pub fn start_in_task(&self, record: &Record) -> Result<(), EngineError> {
        let start = Request::Start { container: record.id.clone() };
        Control::of(self, record)?.call(&start, answer_limit(None))
    }

    /// Adds a process to a running container of a task.
    pub fn exec_in_task(
        &self,
        record: &Record,
        request: &ExecRequest,
        stdio: ExecStdio,
    ) -> Result<Exec, EngineError> {
        let control = Control::of(self, record)?;
        let (reply, console) = control.exec(record, request, &stdio)?;
        let Reply::Executed { pid } = reply else {
            return Err(EngineError::Frame { peer: "monitor", reason: "no process" });
        };
        Ok(Exec { console, pid, connection: control.socket, task: record.task.clone().unwrap_or_default() })
    }

    /// Makes the monitor open the container's log again after somebody renamed it.
    pub fn reopen_log(&self, record: &Record) -> Result<(), EngineError> {
        let reopen = Request::ReopenLog { container: record.id.clone() };
        Control::of(self, record)?.call(&reopen, answer_limit(None))
    }

    /// Changes limits of a container; what is absent stays.
    pub fn update_limits(&self, record: &Record, limits: &Limits) -> Result<(), EngineError> {
        update::of_container(self, record, limits)
    }

    /// Changes limits of a task's cgroup; what is absent stays.
    pub fn update_task_limits(&self, id: &Id, limits: &Limits) -> Result<(), EngineError> {
        update::of_task(self, id, limits)
    }

    /// What a running container uses.
    pub fn container_stats(&self, record: &Record) -> Result<Stats, EngineError> {
        stats::of_container(self, record)
    }

    /// What a task that is ready uses: all of its cgroup, and its network.
    pub fn task_stats(&self, id: &Id) -> Result<TaskStats, EngineError> {
        let record = self.task_record(id)?.ok_or_else(|| self.task_shelf().missing(id.as_str()))?;
        stats::of_task(self, &record)
    }

    /// What happens in a task from now on; `None` if it has no monitor.
    pub fn task_events(&self, id: &Id) -> Result<Option<Events>, EngineError> {
        let Some(control) = Control::connect(self, id)? else { return Ok(None) };
        match control.call(&Request::Subscribe, answer_limit(None)) {
            Err(EngineError::TaskLost { .. }) => Ok(None),
            result => result.map(|()| Some(Events { connection: control.socket })),
        }
    }
}
