//! What tasks and their containers use.
use super::cgroup::TaskCgroup;
use super::namespaces::Shared;
use super::verbs::{LinkStats, TaskStats};
use super::{TaskRecord, TaskSpec};
use crate::engine::Engine;
use crate::engine::error::EngineError;
use crate::engine::launch::read_bounded;
use crate::engine::names::Id;
use crate::engine::record::Record;
use crate::runtime::cgroup::Cgroup;
use crate::runtime::cgroup::stats::Stats;
use crate::runtime::namespaces::flag;
use crate::runtime::state::State;
use crate::sys::SysError;
use crate::sys::process::setns;
use std::fs::File;
use std::path::Path;

/// A namespace may have many links, each with a line of 120 bytes.
const MAX_TABLE: u64 = 4 << 20;

/// What a running container uses.
pub(super) fn of_container(engine: &Engine, record: &Record) -> Result<Stats, EngineError> {
    Ok(cgroup_of(engine, record)?.stats()?)
}

/// The cgroup of a container that runs.
pub(super) fn cgroup_of(engine: &Engine, record: &Record) -> Result<Cgroup, EngineError> {
    let status = engine.status(&record.id()?)?;
    let stopped = || EngineError::WrongState {
        id: record.name.clone(),
        status: status.word().to_owned(),
        needed: "only one that runs has a cgroup",
    };
    if !status.is_live() {
        return Err(stopped());
    }
    let state = State::load(&engine.runtime_root(), &record.id).map_err(|_| stopped())?;
    let cgroup = Cgroup::open(&state.cgroup)?;
    if cgroup.exists() { Ok(cgroup) } else { Err(stopped()) }
}

/// The cgroup of a task that is ready.
pub(super) fn cgroup_of_task(engine: &Engine, id: &Id) -> Result<Cgroup, EngineError> {
    let cgroup = TaskCgroup::read(&engine.task_run_directory(id))?.ok_or_else(|| stopped(id))?;
    cgroup.open()
}

fn stopped(id: &Id) -> EngineError {
    EngineError::TaskState {
        id: id.to_string(),
        status: "stopped",
        needed: "only one that is ready has a cgroup",
    }
}

/// What a task uses.
pub(super) fn of_task(engine: &Engine, record: &TaskRecord) -> Result<TaskStats, EngineError> {
    let id = record.id()?;
    let cgroup = cgroup_of_task(engine, &id)?;
    if !cgroup.exists() {
        return Err(stopped(&id));
    }
    let processes = u64::try_from(cgroup.pids()?.len()).unwrap_or(u64::MAX);
    Ok(TaskStats {
        cgroup: cgroup.stats()?,
        links: links(&record.spec, &engine.task_run_directory(&id))?,
        processes,
    })
}

/// The links of a task's network namespace; those of the host are not its own.
fn links(spec: &TaskSpec, directory: &Path) -> Result<Vec<LinkStats>, EngineError> {
    if !Shared::Net.is_of(spec) {
        return Ok(Vec::new());
    }
    let path = Shared::Net.path(directory);
    let namespace = File::open(&path).map_err(SysError::io("open", path.display().to_string()))?;
    let read = || {
        setns(&namespace, flag::NETWORK)?;
        read_bounded(Path::new("/proc/thread-self/net/dev"), MAX_TABLE)
    };
    // A thread of its own, which ends in that namespace, so that no other is moved.
    let text = std::thread::scope(|scope| scope.spawn(read).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    Ok(parse(&String::from_utf8_lossy(&text)))
}

/// Reads /proc/PID/net/dev (proc_pid_net(5)): two lines of titles; then a name, eight figures of what was received and
/// eight of what was sent, of which the first is bytes and the third errors.
fn parse(text: &str) -> Vec<LinkStats> {
    let line = |line: &str| {
        let (name, figures) = line.split_once(':')?;
        let figures: Vec<u64> =
            figures.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
        Some(LinkStats {
            name: name.trim().to_owned(),
            received: (*figures.first()?, *figures.get(2)?),
            sent: (*figures.get(8)?, *figures.get(10)?),
        })
    };
    text.lines().skip(2).filter_map(line).filter(|link| link.name != "lo").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
            lo:       1       2    0    0    0     0          0         0        1       2    0    0    0     0       0          0\n  \
            eth0: 1000 10 1 0 0 0 0 0 2000 20 2 0 0 0 0 0\n";
        assert_eq!(parse(text), [LinkStats { name: "eth0".into(), received: (1000, 1), sent: (2000, 2) }]);
        assert!(parse("").is_empty());
    }
}
