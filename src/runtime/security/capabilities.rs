//! The five capability sets of a process.
//!
//! A set that config.json leaves out is empty: reading it as "keep all" gave containers the full bounding
//! and ambient sets elsewhere (CVE-2016-8867).
use super::SecurityError;
use crate::sys::{self, caps::Sets};
use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};

/// No kernel knows a capability beyond this number; the masks have 64 bits.
const MAX_BIT: u8 = 63;

/// Bit masks of the five sets (bit = capability number).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Plan {
    /// Limit of what execve can give.
    pub bounding: u64,
    /// What capset(2) writes.
    pub sets: Sets,
    /// What execve of a program without file capabilities keeps.
    pub ambient: u64,
}

/// Kernel number of a capability.
fn bit(capability: Capability) -> u8 {
    use caps::Capability as Caps;
    let capability = match capability {
        Capability::AuditControl => Caps::CAP_AUDIT_CONTROL,
        Capability::AuditRead => Caps::CAP_AUDIT_READ,
        Capability::AuditWrite => Caps::CAP_AUDIT_WRITE,
        Capability::BlockSuspend => Caps::CAP_BLOCK_SUSPEND,
        Capability::Bpf => Caps::CAP_BPF,
        Capability::CheckpointRestore => Caps::CAP_CHECKPOINT_RESTORE,
        Capability::Chown => Caps::CAP_CHOWN,
        Capability::DacOverride => Caps::CAP_DAC_OVERRIDE,
        Capability::DacReadSearch => Caps::CAP_DAC_READ_SEARCH,
        Capability::Fowner => Caps::CAP_FOWNER,
        Capability::Fsetid => Caps::CAP_FSETID,
        Capability::IpcLock => Caps::CAP_IPC_LOCK,
        Capability::IpcOwner => Caps::CAP_IPC_OWNER,
        Capability::Kill => Caps::CAP_KILL,
        Capability::Lease => Caps::CAP_LEASE,
        Capability::LinuxImmutable => Caps::CAP_LINUX_IMMUTABLE,
        Capability::MacAdmin => Caps::CAP_MAC_ADMIN,
        Capability::MacOverride => Caps::CAP_MAC_OVERRIDE,
        Capability::Mknod => Caps::CAP_MKNOD,
        Capability::NetAdmin => Caps::CAP_NET_ADMIN,
        Capability::NetBindService => Caps::CAP_NET_BIND_SERVICE,
        Capability::NetBroadcast => Caps::CAP_NET_BROADCAST,
        Capability::NetRaw => Caps::CAP_NET_RAW,
        Capability::Perfmon => Caps::CAP_PERFMON,
        Capability::Setgid => Caps::CAP_SETGID,
        Capability::Setfcap => Caps::CAP_SETFCAP,
        Capability::Setpcap => Caps::CAP_SETPCAP,
        Capability::Setuid => Caps::CAP_SETUID,
        Capability::SysAdmin => Caps::CAP_SYS_ADMIN,
        Capability::SysBoot => Caps::CAP_SYS_BOOT,
        Capability::SysChroot => Caps::CAP_SYS_CHROOT,
        Capability::SysModule => Caps::CAP_SYS_MODULE,
        Capability::SysNice => Caps::CAP_SYS_NICE,
        Capability::SysPacct => Caps::CAP_SYS_PACCT,
        Capability::SysPtrace => Caps::CAP_SYS_PTRACE,
        Capability::SysRawio => Caps::CAP_SYS_RAWIO,
        Capability::SysResource => Caps::CAP_SYS_RESOURCE,
        Capability::SysTime => Caps::CAP_SYS_TIME,
        Capability::SysTtyConfig => Caps::CAP_SYS_TTY_CONFIG,
        Capability::Syslog => Caps::CAP_SYSLOG,
        Capability::WakeAlarm => Caps::CAP_WAKE_ALARM,
    };
    capability.index()
}

fn mask(set: Option<&Capabilities>) -> u64 {
    set.into_iter().flatten().fold(0, |mask, capability| mask | 1 << bit(*capability))
}

/// `CAP_CHOWN, CAP_KILL`, in the order of their numbers; a bit without a name is told by its number.
pub fn names(mask: u64) -> String {
    let mut known: Vec<_> = caps::all().into_iter().collect();
    known.sort_by_key(caps::Capability::index);
    let name = |bit: u8| {
        let found = known.iter().find(|capability| capability.index() == bit);
        found.map_or_else(|| bit.to_string(), ToString::to_string)
    };
    let names: Vec<String> = (0..=MAX_BIT).filter(|bit| mask & 1 << bit != 0).map(name).collect();
    names.join(", ")
}

/// Number of capabilities that this kernel knows. Bisects over PR_CAPBSET_READ (six system calls), because
/// `/proc/sys/kernel/cap_last_cap` is a path that a container may have mounted over.
fn known_to_kernel() -> u8 {
    let (mut low, mut high) = (0, MAX_BIT + 1);
    while low < high {
        let middle = u8::midpoint(low, high);
        if sys::caps::in_bounding(middle).is_some() { low = middle + 1 } else { high = middle }
    }
    low
}

impl Plan {
    /// The masks of `process.capabilities`; no capabilities at all if it is absent.
    pub fn new(capabilities: Option<&LinuxCapabilities>) -> Plan {
        let Some(capabilities) = capabilities else { return Plan::default() };
        let sets = Sets {
            effective: mask(capabilities.effective().as_ref()),
            permitted: mask(capabilities.permitted().as_ref()),
            inheritable: mask(capabilities.inheritable().as_ref()),
        };
        Plan {
            bounding: mask(capabilities.bounding().as_ref()),
            sets,
            // The kernel refuses an ambient capability that is not permitted and inheritable
            // (capabilities(7)); runc ignores that refusal, and its own template relies on it: it lists
            // ambient capabilities, but no inheritable ones.
            ambient: mask(capabilities.ambient().as_ref()) & sets.permitted & sets.inheritable,
        }
    }

    /// Drops all but [`Self::bounding`] from the bounding set of the calling thread.
    pub fn drop_bounding(&self) -> Result<(), SecurityError> {
        for bit in 0..known_to_kernel() {
            let wanted = self.bounding & 1 << bit != 0;
            if wanted || sys::caps::in_bounding(bit) != Some(true) {
                continue;
            }
            sys::caps::drop_bounding(bit)
                .map_err(|source| SecurityError::CapabilitySet { set: "bounding", source })?;
        }
        Ok(())
    }

    /// Writes the effective, permitted and inheritable sets in one call, then the ambient set.
    pub fn apply(&self) -> Result<(), SecurityError> {
        // A kernel older than this binary may not know the newest ones: they are left out, as runc does.
        let known = match known_to_kernel() {
            64.. => u64::MAX,
            count => (1 << count) - 1,
        };
        let sets = Sets {
            effective: self.sets.effective & known,
            permitted: self.sets.permitted & known,
            inheritable: self.sets.inheritable & known,
        };
        sys::caps::set(&sets).map_err(|source| {
            // The permitted set can only shrink (capset(2)): what we lack is the likely reason.
            let own = sys::caps::get().map_or(u64::MAX, |own| own.permitted);
            let wanted = sets.effective | sets.permitted | sets.inheritable;
            let missing = sets.permitted & !own;
            let beyond = sets.effective & !sets.permitted;
            let culprits = [missing, beyond, wanted].into_iter().find(|mask| *mask != 0).unwrap_or(0);
            SecurityError::Capabilities { names: names(culprits), source }
        })?;
        let ambient = |source| SecurityError::CapabilitySet { set: "ambient", source };
        sys::caps::clear_ambient().map_err(ambient)?;
        for bit in (0..=MAX_BIT).filter(|bit| self.ambient & known & 1 << bit != 0) {
            sys::caps::raise_ambient(bit).map_err(ambient)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str) -> Plan {
        let capabilities: LinuxCapabilities = serde_json::from_str(json).expect("test input");
        Plan::new(Some(&capabilities))
    }

    #[test]
    fn absent_capabilities_are_none_at_all() {
        assert_eq!(Plan::new(None), Plan::default());
    }

    #[test]
    fn an_absent_set_is_empty() {
        let plan = plan(r#"{"bounding": ["CAP_KILL"]}"#);
        assert_eq!(plan.bounding, 1 << 5);
        assert_eq!(plan.sets, Sets::default());
        assert_eq!(plan.ambient, 0);
    }

    #[test]
    fn ambient_needs_permitted_and_inheritable() {
        let without = plan(r#"{"permitted": ["CAP_KILL"], "ambient": ["CAP_KILL"]}"#);
        assert_eq!(without.ambient, 0);
        let with = plan(
            r#"{"permitted": ["CAP_KILL"], "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL", "CAP_CHOWN"]}"#,
        );
        assert_eq!(with.ambient, 1 << 5);
    }

    #[test]
    fn every_capability_has_its_kernel_number() {
        assert_eq!(bit(Capability::Chown), 0);
        assert_eq!(bit(Capability::SysAdmin), 21);
        assert_eq!(bit(Capability::SysResource), 24);
        assert_eq!(bit(Capability::CheckpointRestore), 40);
        assert_eq!(names(1 << 24 | 1), "CAP_CHOWN, CAP_SYS_RESOURCE");
        assert_eq!(names(1 << 50), "50");
    }

    #[test]
    fn the_kernel_knows_at_least_the_capabilities_of_5_12() {
        let known = known_to_kernel();
        assert!((41..=64).contains(&known), "{known}");
        assert!(sys::caps::in_bounding(known - 1).is_some());
    }
}
