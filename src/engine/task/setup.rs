//! Making what a task has, in a process of its own with a single thread.
use super::cgroup::TaskCgroup;
use super::{Attachment, TaskNetwork, TaskRecord, TaskRun, files, namespaces, pause, teardown};
use crate::engine::Engine;
use crate::engine::error::EngineError;
use crate::engine::record::private_directory;
use crate::engine::specgen::resources::{self, Swap};
use crate::engine::timestamp::Timestamp;
use crate::engine::{facts, names::Id};
use crate::network;
use crate::runtime::state::ProcessId;
use namespaces::Shared;
use nix::errno::Errno;
use std::path::Path;

/// Makes all of a task: its directory, cgroup, namespaces, shared memory, network, files and pause process. The
/// caller is the monitor's child, and is to end after an error, because it may be in other namespaces. On an error
/// nothing is left but the record.
pub fn set_up(engine: &Engine, record: &TaskRecord) -> Result<TaskRun, EngineError> {
    make(engine, record).inspect_err(|_| {
        // The first error is the one to tell; what cannot be removed now, the next recovery finds.
        let _ = teardown::tear_down(engine, record);
    })
}

fn make(engine: &Engine, record: &TaskRecord) -> Result<TaskRun, EngineError> {
    let id = record.id()?;
    let directory = engine.task_run_directory(&id);
    private_directory(&directory)?;
    let cgroup = TaskCgroup::plan(&id, &record.spec)?;
    cgroup.write(&directory)?;
    let limits = &record.spec.limits;
    cgroup.make(Some(&resources::limits(limits, Swap::None, facts::counts_swap_for(limits))?))?;
    let hostname = files::hostname(&id, &record.spec)?;
    namespaces::make(&record.spec, &hostname, &directory)?;
    files::mount_shm(&record.spec, &directory)?;
    let attachment = attach(engine, &id, record, &directory)?;
    files::write(&record.spec, &hostname, attachment.as_ref(), &directory)?;
    if Shared::Pid.is_of(&record.spec) {
        pause::start(&record.spec, &directory, &cgroup.make_pause()?)?;
    }
    let monitor = ProcessId::of(nix::unistd::getppid())?
        .ok_or_else(|| crate::sys::SysError::on("getppid", "")(Errno::ESRCH))?;
    Ok(TaskRun {
        monitor,
        netns: Shared::Net.is_of(&record.spec).then(|| Shared::Net.path(&directory)),
        attachment,
        ready: Timestamp::now(),
    })
}

fn attach(
    engine: &Engine,
    id: &Id,
    record: &TaskRecord,
    directory: &Path,
) -> Result<Option<Attachment>, EngineError> {
    let TaskNetwork::Attached(network) = &record.spec.network else { return Ok(None) };
    let request = network::Request {
        id: id.to_string(),
        netns: Shared::Net.path(directory),
        network: network.clone(),
        ports: record.spec.ports.clone(),
    };
    Ok(Some(network::attach(&engine.state, &request)?))
}
