//! What a container takes from its task when it is started.
use super::namespaces::Shared;
use super::{TaskSpec, cgroup, files};
use crate::engine::Engine;
use crate::engine::error::EngineError;
use crate::engine::names::Id;
use crate::engine::options::PidNamespace;
use crate::engine::record::Record;
use crate::engine::specgen::{self, Joined};
use oci_spec::runtime::LinuxNamespaceType;
use std::path::{Path, PathBuf};

/// See there.
#[derive(Debug)]
pub(in crate::engine) struct Context {
    /// Namespaces and cgroup.
    pub(in crate::engine) joined: Joined,
    /// Files and directories that are bound over the image's: destination and source.
    pub(in crate::engine) files: Vec<(&'static str, PathBuf)>,
}

/// What the container of `record` takes from its task; `None` if it has none.
pub(in crate::engine) fn context(engine: &Engine, record: &Record) -> Result<Option<Context>, EngineError> {
    let Some(given) = &record.task else { return Ok(None) };
    let missing = || EngineError::NoSuchTask { given: given.clone() };
    let id = Id::parse(given).ok_or_else(missing)?;
    let task = engine.task_record(&id)?.ok_or_else(missing)?;
    let directory = engine.task_run_directory(&id);
    let mut namespaces = shared(&task.spec, &directory);
    let own_pid = match &record.options.task.pid {
        PidNamespace::Container => true,
        PidNamespace::Host => false,
        PidNamespace::Task if task.spec.shares_pid => {
            namespaces.push((LinuxNamespaceType::Pid, Shared::Pid.path(&directory)));
            false
        }
        PidNamespace::Task => {
            return Err(EngineError::Task {
                field: "pid",
                value: "task".to_owned(),
                reason: "the containers of this task do not share a PID namespace",
            });
        }
        PidNamespace::Of(other) => {
            namespaces.push((LinuxNamespaceType::Pid, pid_of(engine, given, other)?));
            false
        }
    };
    let shm = if task.spec.host_ipc { PathBuf::from("/dev/shm") } else { directory.join("shm") };
    Ok(Some(Context {
        joined: Joined {
            namespaces,
            own_pid,
            hostname: files::hostname(&id, &task.spec)?,
            cgroup: cgroup::path(&id, &task.spec),
        },
        files: vec![
            ("/etc/hostname", directory.join("hostname")),
            ("/etc/hosts", directory.join("hosts")),
            ("/etc/resolv.conf", directory.join("resolv.conf")),
            ("/dev/shm", shm),
        ],
    }))
}

/// The host name that a container's processes find in their environment: its task's, or its own.
pub(in crate::engine) fn hostname(engine: &Engine, record: &Record) -> Result<String, EngineError> {
    let task = match record.task.as_deref().and_then(Id::parse) {
        Some(id) => engine.task_record(&id)?.map(|task| (id, task)),
        None => None,
    };
    match task {
        Some((id, task)) => files::hostname(&id, &task.spec),
        None => Ok(specgen::hostname(&record.id()?, &record.options)),
    }
}

/// The namespaces that the task holds, but that of processes.
fn shared(spec: &TaskSpec, directory: &Path) -> Vec<(LinuxNamespaceType, PathBuf)> {
    [
        (Shared::Net, LinuxNamespaceType::Network),
        (Shared::Ipc, LinuxNamespaceType::Ipc),
        (Shared::Uts, LinuxNamespaceType::Uts),
    ]
    .into_iter()
    .filter(|(kind, _)| kind.is_of(spec))
    .map(|(kind, of)| (of, kind.path(directory)))
    .collect()
}

/// The PID namespace of another container of the task.
fn pid_of(engine: &Engine, task: &str, other: &str) -> Result<PathBuf, EngineError> {
    let missing = || EngineError::NoSuchContainer { given: other.to_owned() };
    let id = Id::parse(other).ok_or_else(missing)?;
    let record = engine.record(&id)?.filter(|record| record.task.as_deref() == Some(task));
    let record = record.ok_or_else(missing)?;
    let status = engine.status(&id)?;
    let run = status.run().ok_or_else(|| EngineError::WrongState {
        id: record.name,
        status: status.word().to_owned(),
        needed: "it must run for another to share its PID namespace",
    })?;
    Ok(PathBuf::from(format!("/proc/{}/ns/pid", run.pid)))
}
