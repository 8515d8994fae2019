//! What a container uses, in the shape of runc's `events` (types/events.go): containerd, podman and CRI-O read it.
//!
//! The readers are our own because those of cgroups-rs end the process on a device number above 32767, and
//! take an unreadable file for zeros.
use std::collections::BTreeMap;

use serde::Serialize;

use super::dir::{self, Dir};
use super::host::{Controller, Mode};
use super::{Cgroup, Result};

mod block;
mod parse;
mod v1;
mod v2;

/// All figures. Times are nanoseconds, sizes bytes; no limit is `u64::MAX`, except of pids, where it is 0.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stats {
    pub cpu: Cpu,
    pub cpuset: Cpuset,
    pub memory: Memory,
    pub pids: Pids,
    pub blkio: Block,
    /// By page size, as `2MB`.
    pub hugetlb: BTreeMap<String, Hugetlb>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cpu {
    pub usage: CpuUsage,
    pub throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CpuUsage {
    #[serde(skip_serializing_if = "is_default")]
    pub total: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_kernel: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_user: Vec<u64>,
    pub kernel: u64,
    pub user: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    #[serde(skip_serializing_if = "is_default")]
    pub periods: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub throttled_periods: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub throttled_time: u64,
}

/// v1's cpuset; on v2 runc has no figures here either.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Cpuset {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u16>,
    pub cpu_exclusive: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mems: Vec<u16>,
    pub mem_hardwall: u64,
    pub mem_exclusive: u64,
    pub memory_migrate: u64,
    pub memory_spread_page: u64,
    pub memory_spread_slab: u64,
    pub memory_pressure: u64,
    pub sched_load_balance: u64,
    pub sched_relax_domain_level: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Memory {
    #[serde(skip_serializing_if = "is_default")]
    pub cache: u64,
    pub usage: MemoryEntry,
    /// Memory and swap together, as v1 has it.
    pub swap: MemoryEntry,
    pub kernel: MemoryEntry,
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: MemoryEntry,
    /// All of `memory.stat`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MemoryEntry {
    pub limit: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub usage: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub max: u64,
    pub failcnt: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pids {
    #[serde(skip_serializing_if = "is_default")]
    pub current: u64,
    /// 0 is no limit.
    #[serde(skip_serializing_if = "is_default")]
    pub limit: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Block {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlockEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlockEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_queue_recursive: Vec<BlockEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_time_recursive: Vec<BlockEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_wait_time_recursive: Vec<BlockEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_merged_recursive: Vec<BlockEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_time_recursive: Vec<BlockEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sectors_recursive: Vec<BlockEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BlockEntry {
    #[serde(skip_serializing_if = "is_default")]
    pub major: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub minor: u64,
    /// `Read`, `Write`, ..
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    #[serde(skip_serializing_if = "is_default")]
    pub value: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Hugetlb {
    #[serde(skip_serializing_if = "is_default")]
    pub usage: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub max: u64,
    pub failcnt: u64,
}

/// Pressure stall information of v2 (Documentation/accounting/psi.rst).
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Pressure {
    pub some: PressureLine,
    pub full: PressureLine,
}

/// Shares of time in percent, and the total in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PressureLine {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    pub total: u64,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Cgroup {
    /// What the container uses now. What its cgroups do not count is left at its default.
    ///
    /// # Errors
    /// Those of reading, and [`super::Error::Malformed`].
    pub fn stats(&self) -> Result<Stats> {
        match self.mode {
            Mode::Unified => self.v2().map_or_else(|| Ok(Stats::default()), v2::stats),
            Mode::V1 | Mode::Hybrid => v1::stats(|controller: Controller| self.dir_of(controller)),
        }
    }
}

/// The text of a file, or an empty one where the kernel has no such file.
fn text(dir: &Dir, file: &str) -> Result<String> {
    match dir.read(file) {
        Ok(text) => Ok(text),
        // EOPNOTSUPP: pressure files of kernels that want `psi=1` on their command line.
        Err(error) if dir::gone(&error) || error.errno == nix::errno::Errno::EOPNOTSUPP => Ok(String::new()),
        Err(error) => Err(error.into()),
    }
}

/// The number of a file with one: `max` is `u64::MAX`; `None` where there is no such file.
fn number(dir: &Dir, file: &str) -> Result<Option<u64>> {
    let text = text(dir, file)?;
    if text.is_empty() {
        return Ok(None);
    }
    parse::number(text.trim()).map(Some).ok_or_else(|| malformed(dir, file, text.trim()))
}

fn malformed(dir: &Dir, file: &str, line: &str) -> super::Error {
    super::Error::Malformed { file: dir.name(file), line: line.into() }
}

/// The sizes of huge pages of this host as cgroup files name them: 2MB, 1GB.
fn huge_page_sizes() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/sys/kernel/mm/hugepages") else { return Vec::new() };
    entries.flatten().filter_map(|entry| parse::huge_page_size(entry.file_name().to_str()?)).collect()
}

#[cfg(test)]
mod tests;
