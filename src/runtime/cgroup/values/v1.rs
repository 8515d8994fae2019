//! Limits as values of v1 files.
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::super::Result;
use super::super::host::{Controller, Version};
use super::{Sets, Tolerance, device, invalid, no_counterpart, throttles};

/// All values of `resources` but devices.
///
/// # Errors
/// For a value out of its range, and for `unified`.
pub(in super::super) fn sets(resources: &LinuxResources) -> Result<Sets> {
    let mut sets = Sets::default();
    if let Some(cpu) = resources.cpu() {
        cpu_sets(&mut sets, cpu)?;
    }
    if let Some(memory) = resources.memory() {
        memory_sets(&mut sets, memory)?;
    }
    sets.pids(resources.pids().as_ref().map(|pids| pids.limit()));
    if let Some(block) = resources.block_io() {
        block_sets(&mut sets, block);
    }
    sets.hugepages(resources.hugepage_limits().as_ref(), "limit_in_bytes")?;
    if let Some(network) = resources.network() {
        if let Some(class) = network.class_id().filter(|class| *class != 0) {
            sets.add(Controller::NetCls, "net_cls.classid", class);
        }
        for priority in network.priorities().iter().flatten() {
            let value = format!("{} {}", priority.name(), priority.priority());
            sets.add(Controller::NetPrio, "net_prio.ifpriomap", value);
        }
    }
    sets.rdma(resources.rdma().as_ref());
    if resources.unified().as_ref().is_some_and(|unified| !unified.is_empty()) {
        return Err(no_counterpart("unified", Version::V1));
    }
    Ok(sets)
}

fn cpu_sets(sets: &mut Sets, cpu: &LinuxCpu) -> Result<()> {
    let add = |sets: &mut Sets, file: &'static str, value: String, tolerance| {
        sets.with(Controller::Cpu, file, value, tolerance);
    };
    match cpu.shares() {
        None | Some(0) => {}
        // The kernel clamps without a word (MIN_SHARES and MAX_SHARES, kernel/sched/sched.h).
        Some(shares @ 2..=262_144) => add(sets, "cpu.shares", shares.to_string(), Tolerance::None),
        Some(shares) => {
            let reason = format!("{shares} is not between 2, the minimum, and 262144, the maximum");
            return Err(invalid("cpu.shares", reason));
        }
    }
    // 0 means "leave as it is" in all of these, as in runc.
    let quota = cpu.quota().filter(|quota| *quota != 0);
    // The kernel checks each of the three against the others; the new quota may be what the new period needs.
    let dependent = if quota.is_some() { Tolerance::Again } else { Tolerance::None };
    if let Some(period) = cpu.period().filter(|period| *period != 0) {
        add(sets, "cpu.cfs_period_us", period.to_string(), dependent);
    }
    if let Some(burst) = cpu.burst() {
        // Linux 5.14; an older kernel has no burst that 0 could switch off.
        let tolerance = if burst == 0 { Tolerance::Missing } else { dependent };
        add(sets, "cpu.cfs_burst_us", burst.to_string(), tolerance);
    }
    if let Some(quota) = quota {
        add(sets, "cpu.cfs_quota_us", quota.to_string(), Tolerance::None);
    }
    if let Some(idle) = cpu.idle() {
        add(sets, "cpu.idle", idle.to_string(), Tolerance::None);
    }
    if let Some(period) = cpu.realtime_period().filter(|period| *period != 0) {
        add(sets, "cpu.rt_period_us", period.to_string(), Tolerance::Again);
    }
    if let Some(runtime) = cpu.realtime_runtime().filter(|runtime| *runtime != 0) {
        add(sets, "cpu.rt_runtime_us", runtime.to_string(), Tolerance::None);
    }
    for (file, list) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
            sets.add(Controller::Cpuset, file, list);
        }
    }
    Ok(())
}

fn memory_sets(sets: &mut Sets, memory: &LinuxMemory) -> Result<()> {
    const LIMIT: &str = "memory.limit_in_bytes";
    const WITH_SWAP: &str = "memory.memsw.limit_in_bytes";
    let limit = memory.limit().filter(|limit| *limit != 0);
    let swap = memory.swap().filter(|swap| *swap != 0);
    if let (Some(limit @ 1..), Some(swap @ 1..)) = (limit, swap)
        && swap < limit
    {
        let reason = format!("{swap} is memory and swap together, and less than memory.limit, {limit}");
        return Err(invalid("memory.swap", reason));
    }
    if let Some(limit) = limit {
        // Raised above the old memory+swap limit it is refused until that one is raised too.
        sets.with(Controller::Memory, LIMIT, limit, Tolerance::Again);
    }
    match (limit, swap) {
        // Unlimited memory with a limited sum is refused; a kernel without swap accounting has no sum.
        (Some(-1), None) => sets.with(Controller::Memory, WITH_SWAP, -1, Tolerance::Missing),
        (_, Some(swap)) => sets.add(Controller::Memory, WITH_SWAP, swap),
        (_, None) => {}
    }
    if let Some(reservation) = memory.reservation().filter(|bytes| *bytes != 0) {
        sets.add(Controller::Memory, "memory.soft_limit_in_bytes", reservation);
    }
    if memory.disable_oom_killer() == Some(true) {
        sets.add(Controller::Memory, "memory.oom_control", 1);
    }
    match memory.swappiness() {
        // -1 stands for "not set" in configurations of Docker.
        None | Some(u64::MAX) => {}
        Some(swappiness @ ..=100) => sets.add(Controller::Memory, "memory.swappiness", swappiness),
        Some(other) => {
            return Err(invalid("memory.swappiness", format!("{other} is not between 0 and 100")));
        }
    }
    if memory.kernel().is_some() || memory.kernel_tcp().is_some() {
        tracing::warn!("linux.resources.memory.kernel and kernelTCP are ignored: Linux 5.16 removed them");
    }
    Ok(())
}

fn block_sets(sets: &mut Sets, block: &LinuxBlockIo) {
    let weight = |value: Option<u16>| value.filter(|value| *value != 0);
    if let Some(weight) = weight(block.weight()) {
        // BFQ's files appear with its module; Linux 5.0 dropped CFQ and `blkio.weight` with it.
        let value = weight.to_string();
        let targets = [("blkio.weight", value.clone()), ("blkio.bfq.weight", value)];
        sets.either(Controller::Blkio, targets);
    }
    if let Some(weight) = weight(block.leaf_weight()) {
        sets.add(Controller::Blkio, "blkio.leaf_weight", weight);
    }
    for one in block.weight_device().iter().flatten() {
        let device = device(one.major(), one.minor());
        if let Some(weight) = weight(one.weight()) {
            let value = format!("{device} {weight}");
            let targets = [("blkio.weight_device", value.clone()), ("blkio.bfq.weight_device", value)];
            sets.either(Controller::Blkio, targets);
        }
        if let Some(weight) = weight(one.leaf_weight()) {
            sets.add(Controller::Blkio, "blkio.leaf_weight_device", format!("{device} {weight}"));
        }
    }
    for (file, _, one) in throttles(block) {
        sets.add(Controller::Blkio, file, format!("{} {}", device(one.major(), one.minor()), one.rate()));
    }
}
