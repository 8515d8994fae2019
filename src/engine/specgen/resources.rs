//! Limits of cgroups.
use super::Asked;
use crate::engine::error::EngineError;
use crate::engine::options::Limits;
use oci_spec::runtime::{
    LinuxCpuBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxHugepageLimitBuilder,
    LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder,
};
use std::collections::HashMap;

/// Period of the CPU quota in microseconds, the kernel's default.
const CPU_PERIOD: u64 = 100_000;

/// How much swap goes with a memory limit where nothing is said of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swap {
    /// As much as memory: docker's default.
    AsMemory,
    /// None: containerd's default for Kubernetes.
    None,
}

/// Builds the values. `counts_swap` tells whether the kernel counts swap for each cgroup: without, the default
/// limit of swap cannot be had and is left out; one that was asked for is not.
pub fn limits(limits: &Limits, swap: Swap, counts_swap: bool) -> Result<LinuxResources, EngineError> {
    let wrong = |part| move |source| EngineError::Spec { part, source };
    let mut builder = LinuxResourcesBuilder::default();
    let default_swap = limits.memory.filter(|memory| counts_swap && *memory > 0).map(|memory| match swap {
        Swap::AsMemory => memory.saturating_mul(2),
        Swap::None => memory,
    });
    let total = limits.memory_swap.or(default_swap);
    let mut memory = LinuxMemoryBuilder::default();
    if let Some(limit) = limits.memory {
        memory = memory.limit(limit);
    }
    if let Some(total) = total {
        memory = memory.swap(total);
    }
    if let Some(reservation) = limits.memory_reservation {
        memory = memory.reservation(reservation);
    }
    if let Some(swappiness) = limits.swappiness {
        memory = memory.swappiness(swappiness);
    }
    if limits.memory.is_some()
        || total.is_some()
        || limits.memory_reservation.is_some()
        || limits.swappiness.is_some()
    {
        builder = builder.memory(memory.build().map_err(wrong("linux.resources.memory"))?);
    }
    let mut cpu = LinuxCpuBuilder::default();
    if let Some(quota) = limits.cpu_quota {
        cpu = cpu.quota(quota).period(limits.cpu_period.unwrap_or(CPU_PERIOD));
    } else if let Some(nano) = limits.nano_cpus {
        let quota = i64::try_from(nano / (1_000_000_000 / CPU_PERIOD)).unwrap_or(i64::MAX);
        cpu = cpu.period(CPU_PERIOD).quota(quota);
    } else if let Some(period) = limits.cpu_period {
        cpu = cpu.period(period);
    }
    if let Some(shares) = limits.cpu_shares {
        cpu = cpu.shares(shares);
    }
    if let Some(cpus) = &limits.cpuset_cpus {
        cpu = cpu.cpus(cpus.clone());
    }
    if let Some(mems) = &limits.cpuset_mems {
        cpu = cpu.mems(mems.clone());
    }
    let of_cpu = [limits.cpu_quota.is_some(), limits.nano_cpus.is_some(), limits.cpu_period.is_some()];
    let of_set = [limits.cpu_shares.is_some(), limits.cpuset_cpus.is_some(), limits.cpuset_mems.is_some()];
    if of_cpu.contains(&true) || of_set.contains(&true) {
        builder = builder.cpu(cpu.build().map_err(wrong("linux.resources.cpu"))?);
    }
    if let Some(pids) = limits.pids {
        builder = builder
            .pids(LinuxPidsBuilder::default().limit(pids).build().map_err(wrong("linux.resources.pids"))?);
    }
    if !limits.hugepages.is_empty() {
        let pages = limits.hugepages.iter().map(|(size, limit)| {
            LinuxHugepageLimitBuilder::default()
                .page_size(size.clone())
                .limit(i64::try_from(*limit).unwrap_or(i64::MAX))
                .build()
                .map_err(wrong("linux.resources.hugepageLimits"))
        });
        builder = builder.hugepage_limits(pages.collect::<Result<Vec<_>, _>>()?);
    }
    if !limits.unified.is_empty() {
        builder = builder.unified(limits.unified.clone().into_iter().collect::<HashMap<_, _>>());
    }
    builder.build().map_err(wrong("linux.resources"))
}

/// Adds the rules of devices: all, or those that were asked for. The rules for the default devices come from the
/// runtime, which makes the devices.
pub(super) fn with_devices(
    mut resources: LinuxResources,
    privileged: bool,
    asked: &[Asked],
) -> Result<LinuxResources, EngineError> {
    let mut rules = vec![all_devices(privileged)?];
    if !privileged {
        for Asked { device, access } in asked {
            rules.push(
                LinuxDeviceCgroupBuilder::default()
                    .allow(true)
                    .typ(device.typ())
                    .major(device.major())
                    .minor(device.minor())
                    .access(access.clone())
                    .build()
                    .map_err(|source| EngineError::Spec { part: "linux.resources.devices", source })?,
            );
        }
    }
    resources.set_devices(Some(rules));
    Ok(resources)
}

fn all_devices(allow: bool) -> Result<LinuxDeviceCgroup, EngineError> {
    LinuxDeviceCgroupBuilder::default()
        .allow(allow)
        .access("rwm")
        .build()
        .map_err(|source| EngineError::Spec { part: "linux.resources.devices", source })
}
