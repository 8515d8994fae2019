//! The end of a task's control socket that is not its monitor's, and the monitor's beginning.
use super::control::{self, ExecBody, ExecHead, ExecStreams, MAX_INLINE, MAX_PACKET, Reply, Request, SOCKET};
use super::verbs::{ExecRequest, ExecStdio};
use crate::engine::Engine;
use crate::engine::client::wait_readable;
use crate::engine::error::EngineError;
use crate::engine::names::Id;
use crate::engine::record::{Lock, Record};
use crate::sys::{SysError, socket};
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A monitor answers everything within the deadlines of its workers, which are shorter together.
const ANSWER: Duration = Duration::from_secs(200);

/// A connection to a task's monitor.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) socket: OwnedFd,
    task: Id,
}

impl Control {
    /// Connects to the monitor of a task; `None` if it has none.
    pub(super) fn connect(engine: &Engine, task: &Id) -> Result<Option<Self>, EngineError> {
        let path = engine.task_run_directory(task);
        let directory = match File::open(&path) {
            Ok(directory) => directory,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(SysError::io("open", path.display().to_string())(error).into()),
        };
        match socket::connect_at(&directory, SOCKET) {
            Ok(socket) => Ok(Some(Self { socket, task: task.clone() })),
            Err(SysError { errno: Errno::ENOENT | Errno::ECONNREFUSED, .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The monitor of a container's task.
    pub(super) fn of(engine: &Engine, record: &Record) -> Result<Self, EngineError> {
        let missing = || EngineError::NoSuchTask { given: record.task.clone().unwrap_or_default() };
        let task = record.task.as_deref().and_then(Id::parse).ok_or_else(missing)?;
        Self::connect(engine, &task)?.ok_or_else(|| EngineError::TaskLost { id: task.to_string() })
    }

    /// Asks, and waits for the answer for at most `limit`; a failure is an error.
    pub(super) fn ask(
        &self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
        limit: Duration,
    ) -> Result<(Reply, Option<OwnedFd>), EngineError> {
        let lost = || EngineError::TaskLost { id: self.task.to_string() };
        match socket::send(&self.socket, &control::encode(request)?, fds) {
            Err(SysError { errno: Errno::EPIPE | Errno::ECONNRESET, .. }) => return Err(lost()),
            result => result?,
        }
        receive(&self.socket, limit)?.ok_or_else(lost)
    }

    /// Has a process added to a container.
    pub(super) fn exec(
        &self,
        record: &Record,
        request: &ExecRequest,
        stdio: &ExecStdio,
    ) -> Result<(Reply, Option<OwnedFd>), EngineError> {
        let body = ExecBody {
            args: request.args.clone(),
            env: request.env.clone(),
            cwd: request.cwd.clone(),
            user: request.user.clone(),
        };
        let text = serde_json::to_vec(&body)
            .map_err(|source| EngineError::Record { path: SOCKET.into(), source })?;
        let (request, file) = match text.len() <= MAX_INLINE {
            true => (Some(body), None),
            false => (None, Some(in_memory(&text)?)),
        };
        let (stdio, given) = match stdio {
            ExecStdio::Terminal => (ExecStreams::Terminal, [None, None, None]),
            ExecStdio::Fds { stdin, stdout, stderr } => {
                let streams = [stdin.as_ref(), stdout.as_ref(), stderr.as_ref()];
                (ExecStreams::Given(streams.map(|stream| stream.is_some())), streams)
            }
        };
        let fds: Vec<BorrowedFd<'_>> =
            file.iter().map(AsFd::as_fd).chain(given.into_iter().flatten().map(AsFd::as_fd)).collect();
        self.ask(&Request::Exec(ExecHead { container: record.id.clone(), request, stdio }), &fds, ANSWER)
    }

    /// Asks for something whose answer is that it is done.
    pub(super) fn call(&self, request: &Request, limit: Duration) -> Result<(), EngineError> {
        self.ask(request, &[], limit).map(drop)
    }
}

/// A file that is nowhere but in memory.
fn in_memory(content: &[u8]) -> Result<File, EngineError> {
    let memory = memfd_create(c"arguments", MFdFlags::MFD_CLOEXEC)
        .map_err(SysError::on("memfd_create", "arguments"))?;
    let mut file = File::from(memory);
    file.write_all(content).map_err(SysError::io("write", "arguments"))?;
    Ok(file)
}

/// Waits for what a monitor says; `None` if it went away.
fn receive(socket: &OwnedFd, limit: Duration) -> Result<Option<(Reply, Option<OwnedFd>)>, EngineError> {
    if !wait_readable(socket, Some(limit))? {
        return Err(SysError::on("poll", "a task's monitor")(Errno::ETIMEDOUT).into());
    }
    let mut buffer = vec![0; MAX_PACKET];
    let received = match socket::receive(socket, &mut buffer) {
        Err(SysError { errno: Errno::ECONNRESET, .. }) => return Ok(None),
        result => result?,
    };
    if received.length == 0 {
        return Ok(None);
    }
    match control::decode(&buffer[..received.length])? {
        Reply::Failed(told) => Err(EngineError::Start { failure: told.into() }),
        reply => Ok(Some((reply, received.fds.into_iter().next()))),
    }
}

impl Engine {
    /// Starts the monitor of a task that was just made, which gets its lock, and waits until the task is ready.
    ///
    /// # Errors
    /// [`EngineError::TaskLost`] if the monitor ended without a word; after any other it has removed the task with its
    /// records.
    pub(super) fn spawn_monitor(&self, task: &Id, lock: Lock) -> Result<(), EngineError> {
        let lost = || EngineError::TaskLost { id: task.to_string() };
        let (ours, theirs) = socket::pair()?;
        socket::send(&ours, b"lock", &[lock.as_fd()])?;
        let program = self.monitor_program.as_deref().unwrap_or(Path::new("/proc/self/exe"));
        let shown = || program.display().to_string();
        let mut monitor = Command::new(program)
            .arg0("corten")
            .arg("monitor")
            .args([&self.root, &self.state])
            .arg(task.as_str())
            .arg(self.storage.to_string())
            .stdin(theirs)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(SysError::io("execve", shown()))?;
        // From here on the monitor alone has it: it is free as soon as the monitor has ended.
        drop(lock);
        // It leaves the monitor in the background and ends.
        monitor.wait().map_err(SysError::io("wait4", shown()))?;
        receive(&ours, ANSWER)?.ok_or_else(lost).map(drop)
    }

    /// Has a task stopped by its monitor, and waits until that is done; `false` if it has none, or that ended before
    /// the task did.
    pub(super) fn stop_by_monitor(&self, task: &Id, grace: Option<Duration>) -> Result<bool, EngineError> {
        let Some(control) = Control::connect(self, task)? else { return Ok(false) };
        let millis = grace.map(|grace| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
        match control.call(&Request::Stop { grace: millis }, answer_limit(grace)) {
            Err(EngineError::TaskLost { .. }) => Ok(false),
            result => result.map(|()| true),
        }
    }

    /// Makes the monitor of a container's task, if it has one, not start the container again by itself.
    pub(in crate::engine) fn hold_back(&self, record: &Record) -> Result<(), EngineError> {
        self.tell_monitor(record, &Request::Hold { container: record.id.clone() })
    }

    /// The same for a container that is being removed.
    pub(in crate::engine) fn forget(&self, record: &Record) -> Result<(), EngineError> {
        self.tell_monitor(record, &Request::Forget { container: record.id.clone() })
    }

    fn tell_monitor(&self, record: &Record, request: &Request) -> Result<(), EngineError> {
        if record.task.is_none() {
            return Ok(());
        }
        match Control::of(self, record).and_then(|control| control.call(request, ANSWER)) {
            // Nobody starts it again.
            Err(EngineError::NoSuchTask { .. } | EngineError::TaskLost { .. }) => Ok(()),
            result => result,
        }
    }
}

/// How long a monitor may take to answer what is not bounded by its caller.
pub(super) fn answer_limit(grace: Option<Duration>) -> Duration {
    ANSWER.saturating_add(grace.unwrap_or(ANSWER))
}
