//! The processors of a process that exec adds (`process.execCPUAffinity`, runtime-spec 1.3).
use super::{SecurityError, numbers};
use crate::sys::SysError;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use oci_spec::runtime::{ExecCPUAffinity, Process};

/// Absent leaves what the kernel makes of the caller's processors and the container's cpuset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Plan {
    initial: Option<CpuSet>,
    last: Option<CpuSet>,
}

const INITIAL: &str = "process.execCPUAffinity.initial";
const FINAL: &str = "process.execCPUAffinity.final";

fn set(field: &'static str, list: Option<&str>) -> Result<Option<CpuSet>, SecurityError> {
    let Some(list) = list.filter(|list| !list.is_empty()) else { return Ok(None) };
    let mut cpus = CpuSet::new();
    numbers::each(list, |cpu| cpus.set(cpu).is_ok())
        .map_err(|reason| SecurityError::Invalid { field: field.into(), reason })?;
    Ok(Some(cpus))
}

fn apply(field: &'static str, cpus: &CpuSet) -> Result<(), SecurityError> {
    sched_setaffinity(Pid::from_raw(0), cpus)
        .map_err(SysError::on("sched_setaffinity", field))
        .map_err(|source| SecurityError::Scheduling { field, source })
}

impl Plan {
    /// What the process asks for, else what the container's own process does (as in runc).
    pub fn new(process: &Process, of_container: Option<&Process>) -> Result<Plan, SecurityError> {
        let wanted = process.exec_cpu_affinity().as_ref();
        let wanted = wanted.or_else(|| of_container.and_then(|process| process.exec_cpu_affinity().as_ref()));
        wanted.map_or(Ok(Plan::default()), Plan::read)
    }

    fn read(wanted: &ExecCPUAffinity) -> Result<Plan, SecurityError> {
        Ok(Plan {
            initial: set(INITIAL, wanted.initial().as_deref())?,
            last: set(FINAL, wanted.cpu_affinity_final().as_deref())?,
        })
    }

    /// Moves the runtime to the initial processors, which the new process inherits: they hold from before it
    /// enters the container's cgroup. Returns the runtime's own, for [`restore`].
    pub fn begin(&self) -> Result<Option<CpuSet>, SecurityError> {
        let Some(initial) = &self.initial else { return Ok(None) };
        let own = sched_getaffinity(Pid::from_raw(0))
            .map_err(SysError::on("sched_getaffinity", "0"))
            .map_err(|source| SecurityError::Scheduling { field: INITIAL, source })?;
        apply(INITIAL, initial)?;
        Ok(Some(own))
    }

    /// In the new process, once it is in the container's cgroup, which might have changed its processors.
    pub fn settle(&self) -> Result<(), SecurityError> {
        self.last.as_ref().map_or(Ok(()), |cpus| apply(FINAL, cpus))
    }
}

/// Gives the runtime, which may be a monitor of other containers, its own processors again.
pub fn restore(own: Option<CpuSet>) -> Result<(), SecurityError> {
    own.map_or(Ok(()), |cpus| apply(INITIAL, &cpus))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str) -> Result<Plan, SecurityError> {
        Plan::new(&serde_json::from_str(json).expect("test input"), None)
    }

    #[test]
    fn lists_become_sets_and_absence_asks_for_nothing() {
        let some =
            plan(r#"{"user": {}, "cwd": "/", "execCPUAffinity": {"initial": "0-1", "final": "1"}}"#).unwrap();
        assert!(some.initial.unwrap().is_set(0).unwrap() && !some.last.unwrap().is_set(0).unwrap());
        assert_eq!(plan(r#"{"user": {}, "cwd": "/"}"#).unwrap(), Plan::default());
        let beyond = plan(r#"{"user": {}, "cwd": "/", "execCPUAffinity": {"initial": "99999"}}"#);
        assert!(beyond.unwrap_err().to_string().starts_with("process.execCPUAffinity.initial: has a number"));
    }

    #[test]
    fn the_runtime_has_its_own_processors_again() {
        let own = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let plan = plan(r#"{"user": {}, "cwd": "/", "execCPUAffinity": {"initial": "0"}}"#).unwrap();
        let kept = plan.begin().unwrap();
        assert_eq!(kept, Some(own));
        assert_eq!(Some(sched_getaffinity(Pid::from_raw(0)).unwrap()), plan.initial);
        restore(kept).unwrap();
        assert_eq!(sched_getaffinity(Pid::from_raw(0)).unwrap(), own);
    }
}
