//! This machine as a container instance: what it has and what of it is taken.
use super::definition::NetworkMode;
use super::error::EcsError;
use super::limits;
use super::record::{Phase, Task};
use super::state::random_hex;
use crate::engine::record::{Durability, read_json, write_json};
use crate::engine::task::Protocol;
use crate::engine::timestamp::Timestamp;
use crate::sys::SysError;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// Ports that are never given away: SSH, docker, and the ECS agent's own.
pub const RESERVED_PORTS: [u16; 5] = [22, 2375, 2376, 51678, 51679];

/// This machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// 32 hexadecimal digits, the end of its ARN; the same for ever.
    pub id: String,
    /// When it was first seen.
    pub registered: Timestamp,
    /// CPU units.
    pub cpu: u64,
    /// MiB.
    pub memory: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Known {
    id: String,
    registered: Timestamp,
}

impl Instance {
    /// Reads who it is, or makes it up, and what it has.
    pub fn load(directory: &Path) -> Result<Self, EcsError> {
        let path = directory.join("instance.json");
        let known = match read_json::<Known>(&path)? {
            Some(known) => known,
            None => {
                let known = Known { id: random_hex(32)?, registered: Timestamp::now() };
                write_json(&path, &known, Durability::Synced)?;
                known
            }
        };
        let cpus = std::thread::available_parallelism().map_err(SysError::io("sched_getaffinity", ""))?.get();
        let meminfo =
            std::fs::read_to_string("/proc/meminfo").map_err(SysError::io("read", "/proc/meminfo"))?;
        Ok(Self {
            id: known.id,
            registered: known.registered,
            cpu: u64::try_from(cpus).unwrap_or(1).saturating_mul(super::definition::amounts::UNITS),
            memory: total_memory(&meminfo).ok_or(EcsError::NoMemoryTotal)?,
        })
    }
}

/// MiB of `MemTotal`.
fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? / 1024)
}

/// What tasks take of a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// CPU units.
    pub cpu: u64,
    /// MiB.
    pub memory: u64,
    /// Ports of the host.
    pub ports: Vec<(u16, Protocol)>,
}

impl Taken {
    /// What these tasks take together; stopped ones nothing.
    pub fn by(tasks: &[Arc<Task>]) -> Self {
        let mut taken = Self::default();
        for task in tasks.iter().filter(|task| task.phase != Phase::Stopped) {
            taken.add(&Self::of(task));
        }
        taken
    }

    /// What one task takes.
    pub fn of(task: &Task) -> Self {
        let amounts = limits::task_amounts(task);
        let mut ports: Vec<(u16, Protocol)> =
            task.network.ports.iter().map(|port| (port.host_port, port.protocol)).collect();
        ports.extend(fixed_ports(task));
        ports.sort_unstable();
        ports.dedup();
        Self { cpu: amounts.cpu, memory: amounts.memory, ports }
    }

    fn add(&mut self, more: &Self) {
        self.cpu = self.cpu.saturating_add(more.cpu);
        self.memory = self.memory.saturating_add(more.memory);
        self.ports.extend(&more.ports);
    }

    /// What stands against `wanted` on a machine of which this is taken: `RESOURCE:…` as ECS names it.
    pub fn refuses(&self, machine: &Instance, wanted: &Self) -> Option<&'static str> {
        if self.cpu.saturating_add(wanted.cpu) > machine.cpu {
            return Some("RESOURCE:CPU");
        }
        if self.memory.saturating_add(wanted.memory) > machine.memory {
            return Some("RESOURCE:MEMORY");
        }
        let is_taken = |port: &(u16, Protocol)| {
            self.ports.contains(port) || (port.1 == Protocol::Tcp && RESERVED_PORTS.contains(&port.0))
        };
        wanted.ports.iter().any(is_taken).then_some("RESOURCE:PORTS")
    }

    /// Takes what was not refused.
    pub fn take(&mut self, wanted: &Self) {
        self.add(wanted);
    }
}

/// Ports of the host that the definition names.
pub fn fixed_ports(task: &Task) -> Vec<(u16, Protocol)> {
    let mode = task.network_mode();
    let mappings =
        task.definition.container_definitions.iter().flat_map(|container| &container.port_mappings);
    mappings
        .filter_map(|mapping| {
            let port = match (mode, mapping.host_port) {
                (NetworkMode::Host, None | Some(0)) => mapping.container_port,
                (NetworkMode::Host | NetworkMode::Bridge, Some(port)) => port,
                _ => 0,
            };
            let port = u16::try_from(port).ok().filter(|port| *port != 0)?;
            Some((port, mapping.protocol.into()))
        })
        .collect()
}

impl From<super::definition::Transport> for Protocol {
    fn from(transport: super::definition::Transport) -> Self {
        match transport {
            super::definition::Transport::Tcp => Self::Tcp,
            super::definition::Transport::Udp => Self::Udp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Instance {
        Instance { id: "0".repeat(32), registered: Timestamp::now(), cpu: 2048, memory: 1000 }
    }

    #[test]
    fn reads_the_total_of_memory() {
        assert_eq!(total_memory("MemTotal:        4096000 kB\nMemFree: 1 kB\n"), Some(4000));
        assert_eq!(total_memory("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn refuses_what_is_not_there() {
        let mut taken = Taken::default();
        let some = Taken { cpu: 1024, memory: 600, ports: vec![(8080, Protocol::Tcp)] };
        assert_eq!(taken.refuses(&machine(), &some), None);
        taken.take(&some);
        assert_eq!(taken.refuses(&machine(), &some), Some("RESOURCE:MEMORY"));
        let ports = Taken { ports: some.ports.clone(), ..Taken::default() };
        assert_eq!(taken.refuses(&machine(), &ports), Some("RESOURCE:PORTS"));
        let datagrams = Taken { ports: vec![(8080, Protocol::Udp)], ..Taken::default() };
        assert_eq!(taken.refuses(&machine(), &datagrams), None);
        assert_eq!(taken.refuses(&machine(), &Taken { cpu: 1025, ..Taken::default() }), Some("RESOURCE:CPU"));
        let shell = Taken { ports: vec![(22, Protocol::Tcp)], ..Taken::default() };
        assert_eq!(taken.refuses(&machine(), &shell), Some("RESOURCE:PORTS"));
    }
}
