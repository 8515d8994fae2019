//! Removing what a task has, by its record alone, however far its making came.
use super::cgroup::TaskCgroup;
use super::namespaces::{Shared, unmount};
use super::{TaskNetwork, TaskRecord};
use crate::engine::Engine;
use crate::engine::error::EngineError;
use crate::network;
use crate::runtime::delete::delete;

/// Kills what is left of a task's containers and removes all that was made for the task but the records. Nothing
/// there is no error. It needs no single-threaded process.
///
/// # Errors
/// The first; what comes after it is tried all the same, and a later call goes on.
pub fn tear_down(engine: &Engine, record: &TaskRecord) -> Result<(), EngineError> {
    let id = record.id()?;
    let directory = engine.task_run_directory(&id);
    let containers = engine.members(&id).and_then(|members| {
        let mut first = Ok(());
        for member in members {
            let deleted = delete(&engine.runtime_root(), &member.id, true).map_err(EngineError::from);
            first = first.and(deleted);
        }
        first
    });
    let cgroup = TaskCgroup::read(&directory);
    let pause = match &cgroup {
        Ok(Some(cgroup)) => cgroup.remove_pause(),
        _ => Ok(()),
    };
    // Before its namespace goes: plugins want to enter it.
    let network = match &record.spec.network {
        TaskNetwork::Attached(_) => network::detach(&engine.state, id.as_str()).map_err(EngineError::from),
        TaskNetwork::None | TaskNetwork::Host => Ok(()),
    };
    let mut mounts = Ok(());
    for kind in Shared::ALL {
        mounts = mounts.and(unmount(&kind.path(&directory)));
    }
    mounts = mounts.and(unmount(&directory.join("shm")));
    let removed = match cgroup {
        Ok(Some(cgroup)) => cgroup.remove(),
        other => other.map(drop),
    };
    containers.and(pause).and(network).and(Ok(mounts?)).and(removed)?;
    // Last, because it tells what there was.
    engine.discard_task_run(&id)
}
