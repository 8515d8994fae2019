//! The NUMA memory policy of a container's processes (`linux.memoryPolicy`, runtime-spec 1.3).
use super::{SecurityError, numbers};
use crate::sys::numa::{NodeMask, set_memory_policy};
use nix::errno::Errno;
use oci_spec::runtime::{LinuxMemoryPolicy, MemoryPolicyFlagType, MemoryPolicyModeType};

/// As config.json spells them, in the order of their numbers; for `features`.
pub const MODES: [&str; 7] = [
    "MPOL_DEFAULT",
    "MPOL_PREFERRED",
    "MPOL_BIND",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];
/// Likewise.
pub const FLAGS: [&str; 3] = ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"];

/// A policy as set_mempolicy(2) takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    mode: i32,
    nodes: NodeMask,
}

/// Numbers of linux/mempolicy.h.
fn mode(mode: MemoryPolicyModeType) -> i32 {
    match mode {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => PREFERRED_MANY,
        MemoryPolicyModeType::MpolWeightedInterleave => WEIGHTED_INTERLEAVE,
    }
}

const PREFERRED_MANY: i32 = 5;
const WEIGHTED_INTERLEAVE: i32 = 6;
const NUMA_BALANCING: i32 = 1 << 13;
const FLAG_BITS: i32 = 7 << 13;

fn flag(flag: MemoryPolicyFlagType) -> i32 {
    match flag {
        MemoryPolicyFlagType::MpolFNumaBalancing => NUMA_BALANCING,
        MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
        MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
    }
}

impl Plan {
    /// Checks what the kernel would answer with a bare EINVAL.
    pub fn new(policy: &LinuxMemoryPolicy) -> Result<Plan, SecurityError> {
        let invalid = |field: &str, reason| SecurityError::Invalid {
            field: format!("linux.memoryPolicy.{field}"),
            reason,
        };
        let mut nodes = NodeMask::default();
        if let Some(list) = policy.nodes().as_deref().filter(|list| !list.is_empty()) {
            numbers::each(list, |node| nodes.insert(node)).map_err(|reason| invalid("nodes", reason))?;
        }
        let number = mode(policy.mode());
        let flags = policy.flags().iter().flatten().fold(0, |bits, one| bits | flag(*one));
        match policy.mode() {
            MemoryPolicyModeType::MpolDefault | MemoryPolicyModeType::MpolLocal => {
                if !nodes.is_empty() {
                    return Err(invalid("nodes", "must be empty with MPOL_DEFAULT and MPOL_LOCAL"));
                }
                if flags != 0 {
                    return Err(invalid("flags", "must be empty with MPOL_DEFAULT and MPOL_LOCAL"));
                }
            }
            // Without nodes it is MPOL_LOCAL.
            MemoryPolicyModeType::MpolPreferred => {}
            _ if nodes.is_empty() => return Err(invalid("nodes", "must name a node with this mode")),
            _ => {}
        }
        // sanitize_mpol_flags of mm/mempolicy.c.
        let both =
            flag(MemoryPolicyFlagType::MpolFRelativeNodes) | flag(MemoryPolicyFlagType::MpolFStaticNodes);
        if flags & both == both {
            return Err(invalid("flags", "has both MPOL_F_RELATIVE_NODES and MPOL_F_STATIC_NODES"));
        }
        Ok(Plan { mode: number | flags, nodes })
    }

    /// Sets it for the calling thread; execve keeps it, and children inherit it.
    pub fn apply(&self) -> Result<(), SecurityError> {
        set_memory_policy(self.mode, &self.nodes).map_err(|source| SecurityError::MemoryPolicy {
            hint: if source.errno == Errno::EINVAL { self.hint() } else { "" },
            source,
        })
    }

    /// Why the kernel may find it invalid although it contradicts itself nowhere.
    fn hint(&self) -> &'static str {
        match self.mode & !FLAG_BITS {
            WEIGHTED_INTERLEAVE => ": MPOL_WEIGHTED_INTERLEAVE needs kernel 6.9, and nodes that the host has",
            PREFERRED_MANY => ": MPOL_PREFERRED_MANY needs kernel 5.15, and nodes that the host has",
            _ if self.mode & NUMA_BALANCING != 0 => {
                ": MPOL_F_NUMA_BALANCING needs kernel 5.12 and MPOL_BIND (or 6.11 and MPOL_PREFERRED_MANY)"
            }
            _ => ": its nodes must be among those of the host and of the container's cpuset",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str) -> Result<Plan, SecurityError> {
        Plan::new(&serde_json::from_str(json).expect("test input"))
    }

    #[test]
    fn every_mode_and_flag_that_is_told_is_read() {
        for (number, name) in MODES.iter().enumerate() {
            let nodes = if matches!(number, 0 | 4) { "" } else { "0" };
            let read = plan(&format!(r#"{{"mode": "{name}", "nodes": "{nodes}"}}"#)).unwrap();
            assert_eq!(read.mode, i32::try_from(number).unwrap(), "{name}");
        }
        for (position, name) in FLAGS.iter().enumerate() {
            let read = plan(&format!(r#"{{"mode": "MPOL_BIND", "nodes": "0-1,3", "flags": ["{name}"]}}"#));
            assert_eq!(read.unwrap().mode, 2 | 1 << (13 + position), "{name}");
        }
    }

    #[test]
    fn contradictions_are_named() {
        for (json, field) in [
            (r#"{"mode": "MPOL_DEFAULT", "nodes": "0"}"#, "nodes"),
            (r#"{"mode": "MPOL_LOCAL", "flags": ["MPOL_F_STATIC_NODES"]}"#, "flags"),
            (r#"{"mode": "MPOL_BIND"}"#, "nodes"),
            (r#"{"mode": "MPOL_INTERLEAVE", "nodes": "x"}"#, "nodes"),
            (
                r#"{"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]}"#,
                "flags",
            ),
        ] {
            let text = plan(json).unwrap_err().to_string();
            assert!(text.starts_with(&format!("linux.memoryPolicy.{field}: ")), "{json}: {text}");
        }
    }
}
