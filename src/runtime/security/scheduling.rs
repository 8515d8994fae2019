//! Scheduler, I/O priority and personality of a process.
use super::SecurityError;
use crate::sys::SysError;
use crate::sys::sched::{self, Attributes, IoClass};
use nix::sys::personality::{self, Persona};
use oci_spec::runtime::{
    IOPriorityClass, Linux, LinuxIOPriority, LinuxPersonality, LinuxPersonalityDomain, LinuxSchedulerFlag,
    LinuxSchedulerPolicy, Process, Scheduler,
};

/// What to ask of the kernel; everything absent stays as the caller has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    scheduler: Option<Attributes>,
    io_priority: Option<(IoClass, u8)>,
    personality: Option<Persona>,
}

/// `SCHED_*` of sched(7).
fn policy(policy: LinuxSchedulerPolicy) -> Option<u32> {
    match policy {
        LinuxSchedulerPolicy::SchedOther => Some(0),
        LinuxSchedulerPolicy::SchedFifo => Some(1),
        LinuxSchedulerPolicy::SchedRr => Some(2),
        LinuxSchedulerPolicy::SchedBatch => Some(3),
        // Number 4 is reserved in the kernel and was never built.
        LinuxSchedulerPolicy::SchedIso => None,
        LinuxSchedulerPolicy::SchedIdle => Some(5),
        LinuxSchedulerPolicy::SchedDeadline => Some(6),
    }
}

/// `SCHED_FLAG_*` of linux/sched.h.
fn flag(flag: LinuxSchedulerFlag) -> u64 {
    match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    }
}

fn invalid(field: &str, reason: &'static str) -> SecurityError {
    SecurityError::Invalid { field: field.into(), reason }
}

fn attributes(scheduler: &Scheduler) -> Result<Attributes, SecurityError> {
    let policy = policy(*scheduler.policy())
        .ok_or_else(|| invalid("process.scheduler.policy", "SCHED_ISO is not in the kernel"))?;
    let priority = u32::try_from(scheduler.priority().unwrap_or(0))
        .map_err(|_| invalid("process.scheduler.priority", "is negative"))?;
    let nice = scheduler.nice().unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        return Err(invalid("process.scheduler.nice", "not between -20 and 19"));
    }
    let real_time = matches!(policy, 1 | 2);
    if !real_time && priority != 0 {
        return Err(invalid("process.scheduler.priority", "only SCHED_FIFO and SCHED_RR have one"));
    }
    let times = [scheduler.runtime(), scheduler.deadline(), scheduler.period()];
    if policy != 6 && times.iter().any(|time| time.is_some_and(|time| time != 0)) {
        return Err(invalid(
            "process.scheduler",
            "only SCHED_DEADLINE has a runtime, a deadline and a period",
        ));
    }
    let mut attributes = Attributes::default();
    attributes.policy = policy;
    attributes.flags = scheduler.flags().iter().flatten().fold(0, |flags, one| flags | flag(*one));
    attributes.nice = nice;
    attributes.priority = priority;
    attributes.runtime = scheduler.runtime().unwrap_or(0);
    attributes.deadline = scheduler.deadline().unwrap_or(0);
    attributes.period = scheduler.period().unwrap_or(0);
    Ok(attributes)
}

fn io_priority(wanted: &LinuxIOPriority) -> Result<(IoClass, u8), SecurityError> {
    let class = match wanted.class() {
        IOPriorityClass::IoprioClassRt => IoClass::RealTime,
        IOPriorityClass::IoprioClassBe => IoClass::BestEffort,
        IOPriorityClass::IoprioClassIdle => IoClass::Idle,
    };
    match u8::try_from(wanted.priority()) {
        Ok(level @ 0..=7) => Ok((class, level)),
        _ => Err(invalid("process.ioPriority.priority", "not between 0 and 7")),
    }
}

/// The flags of personality(2), which the specification leaves to the kernel. `PER_LINUX` and its like are not
/// among them: they are the domain's business.
const PERSONALITY_FLAGS: [(&str, i32); 11] = [
    ("UNAME26", 0x002_0000),
    ("ADDR_NO_RANDOMIZE", 0x004_0000),
    ("FDPIC_FUNCPTRS", 0x008_0000),
    ("MMAP_PAGE_ZERO", 0x010_0000),
    ("ADDR_COMPAT_LAYOUT", 0x020_0000),
    ("READ_IMPLIES_EXEC", 0x040_0000),
    ("ADDR_LIMIT_32BIT", 0x080_0000),
    ("SHORT_INODE", 0x100_0000),
    ("WHOLE_SECONDS", 0x200_0000),
    ("STICKY_TIMEOUTS", 0x400_0000),
    ("ADDR_LIMIT_3GB", 0x800_0000),
];

fn persona(wanted: &LinuxPersonality) -> Result<Persona, SecurityError> {
    let domain = match wanted.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => PER_LINUX32,
    };
    let bits = wanted.flags().iter().flatten().try_fold(domain, |bits, name| {
        let known = PERSONALITY_FLAGS.iter().find(|(flag, _)| flag == name);
        known.map(|(_, bit)| bits | bit).ok_or_else(|| SecurityError::Invalid {
            field: format!("linux.personality.flags: {name:?}"),
            reason: "is no flag of personality(2)",
        })
    });
    Ok(Persona::from_bits_retain(bits?))
}

impl Plan {
    /// Checks the values that the kernel would refuse without saying why.
    pub fn new(process: &Process, linux: Option<&Linux>) -> Result<Plan, SecurityError> {
        let persona = linux.and_then(|linux| linux.personality().as_ref()).map(persona).transpose()?;
        Ok(Plan {
            scheduler: process.scheduler().as_ref().map(attributes).transpose()?,
            io_priority: process.io_priority().as_ref().map(io_priority).transpose()?,
            personality: persona,
        })
    }

    /// Applies all to the calling thread.
    pub fn apply(&self) -> Result<(), SecurityError> {
        let refused = |field| move |source| SecurityError::Scheduling { field, source };
        if let Some(attributes) = self.scheduler {
            sched::set_attributes(attributes).map_err(refused("process.scheduler"))?;
        }
        if let Some((class, level)) = self.io_priority {
            sched::set_io_priority(class, level).map_err(refused("process.ioPriority"))?;
        }
        if let Some(persona) = self.personality {
            personality::set(persona)
                .map_err(SysError::on("personality", format!("{:#x}", persona.bits())))
                .map_err(refused("linux.personality"))?;
        }
        Ok(())
    }
}

/// `PER_LINUX32` of linux/personality.h: uname(2) tells a 32-bit machine.
const PER_LINUX32: i32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str) -> Result<Plan, SecurityError> {
        Plan::new(&serde_json::from_str(json).expect("test input"), None)
    }

    #[test]
    fn scheduler_and_io_priority_are_checked() {
        let good = plan(
            r#"{"user": {}, "cwd": "/", "scheduler": {"policy": "SCHED_FIFO", "priority": 10, "flags": ["SCHED_RESET_ON_FORK"]},
                "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 0}}"#,
        )
        .expect("valid");
        let scheduler = good.scheduler.expect("given");
        assert_eq!((scheduler.policy, scheduler.priority, scheduler.flags), (1, 10, 1));
        assert_eq!(good.io_priority, Some((IoClass::Idle, 0)));
        for bad in [
            r#"{"user": {}, "cwd": "/", "scheduler": {"policy": "SCHED_OTHER", "priority": 10}}"#,
            r#"{"user": {}, "cwd": "/", "scheduler": {"policy": "SCHED_OTHER", "nice": 20}}"#,
            r#"{"user": {}, "cwd": "/", "scheduler": {"policy": "SCHED_ISO"}}"#,
            r#"{"user": {}, "cwd": "/", "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 8}}"#,
        ] {
            assert!(plan(bad).is_err(), "{bad}");
        }
    }
}
