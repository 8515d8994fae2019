//! Changing limits of containers and tasks.
use super::{TaskStatus, stats, validate};
use crate::engine::error::EngineError;
use crate::engine::names::Id;
use crate::engine::options::Limits;
use crate::engine::record::{Durability, Record, write_json};
use crate::engine::specgen::resources::{self, Swap};
use crate::engine::{Engine, facts};

/// Changes the limits of a container, now if it runs, and in its record.
pub(super) fn of_container(engine: &Engine, record: &Record, limits: &Limits) -> Result<(), EngineError> {
    let id = record.id()?;
    if engine.status(&id)?.is_live() {
        let cgroup = stats::cgroup_of(engine, record)?;
        cgroup.update(&resources::limits(limits, Swap::None, facts::counts_swap_for(limits))?)?;
    }
    // As it is now: another may have changed other limits since the caller read it.
    let mut kept =
        engine.record(&id)?.ok_or_else(|| EngineError::NoSuchContainer { given: record.id.clone() })?;
    merge(&mut kept.options.limits, limits);
    write_json(&engine.directory(&id).join("record.json"), &kept, kept.durability())
}

/// The same for a task's cgroup.
pub(super) fn of_task(engine: &Engine, id: &Id, limits: &Limits) -> Result<(), EngineError> {
    validate::check_limits(limits, validate::machine_memory())?;
    let wrong = |status| EngineError::TaskState {
        id: id.to_string(),
        status,
        needed: "only the limits of one that is ready can be changed",
    };
    match engine.task_status(id)? {
        TaskStatus::Ready(_) => {}
        TaskStatus::Making => return Err(wrong("being made")),
        TaskStatus::Stopped { .. } => return Err(wrong("stopped")),
    }
    let cgroup = stats::cgroup_of_task(engine, id)?;
    cgroup.update(&resources::limits(limits, Swap::None, facts::counts_swap_for(limits))?)?;
    let mut kept =
        engine.task_record(id)?.ok_or_else(|| EngineError::NoSuchTask { given: id.to_string() })?;
    merge(&mut kept.spec.limits, limits);
    write_json(&engine.task_directory(id).join("task.json"), &kept, Durability::Synced)
}

/// What is absent in `new` stays.
fn merge(kept: &mut Limits, new: &Limits) {
    fn set<T: Clone>(kept: &mut Option<T>, new: &Option<T>) {
        if new.is_some() {
            kept.clone_from(new);
        }
    }
    set(&mut kept.memory, &new.memory);
    set(&mut kept.memory_swap, &new.memory_swap);
    if new.cpu_quota.is_some() {
        // The two say the same thing.
        kept.nano_cpus = None;
    }
    set(&mut kept.nano_cpus, &new.nano_cpus);
    set(&mut kept.cpu_quota, &new.cpu_quota);
    set(&mut kept.cpu_shares, &new.cpu_shares);
    set(&mut kept.cpu_period, &new.cpu_period);
    set(&mut kept.cpuset_cpus, &new.cpuset_cpus);
    set(&mut kept.cpuset_mems, &new.cpuset_mems);
    set(&mut kept.pids, &new.pids);
    set(&mut kept.memory_reservation, &new.memory_reservation);
    set(&mut kept.swappiness, &new.swappiness);
    for (size, limit) in &new.hugepages {
        kept.hugepages.retain(|(known, _)| known != size);
        kept.hugepages.push((size.clone(), *limit));
    }
    kept.unified.extend(new.unified.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_stays() {
        let mut kept = Limits {
            memory: Some(1),
            nano_cpus: Some(2),
            hugepages: vec![("2MB".into(), 1), ("1GB".into(), 1)],
            ..Limits::default()
        };
        merge(
            &mut kept,
            &Limits {
                cpu_quota: Some(5),
                hugepages: vec![("2MB".into(), 3)],
                unified: [("memory.high".to_owned(), "1".to_owned())].into(),
                ..Limits::default()
            },
        );
        assert_eq!((kept.memory, kept.nano_cpus, kept.cpu_quota), (Some(1), None, Some(5)));
        assert_eq!(kept.hugepages, [("1GB".to_owned(), 1), ("2MB".to_owned(), 3)]);
        assert_eq!(kept.unified.len(), 1);
    }
}
