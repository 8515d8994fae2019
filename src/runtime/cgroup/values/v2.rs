//! Limits as values of v2 files. The specification's values are those of v1; each conversion is runc's.
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::super::Result;
use super::super::host::Controller;
use super::{Sets, Tolerance, device, invalid, throttles};

/// Values in force, which an update may need to leave as they are.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(in super::super) struct Current {
    /// `memory.max`, -1 for `max`: a new sum of memory and swap refers to it.
    pub memory: Option<i64>,
    /// First word of `cpu.max`: a new period is written together with the quota.
    pub quota: Option<String>,
}

/// All values of `resources` but devices and `unified`.
///
/// # Errors
/// For a value out of its range. What only v1 has is told and left out.
pub(in super::super) fn sets(resources: &LinuxResources, current: &Current) -> Result<Sets> {
    let mut sets = Sets::default();
    sets.pids(resources.pids().as_ref().map(|pids| pids.limit()));
    if let Some(memory) = resources.memory() {
        memory_sets(&mut sets, memory, current)?;
    }
    if let Some(block) = resources.block_io() {
        block_sets(&mut sets, block)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu_sets(&mut sets, cpu, current)?;
    }
    sets.hugepages(resources.hugepage_limits().as_ref(), "max")?;
    if let Some(network) = resources.network() {
        if network.class_id().is_some_and(|class| class != 0) {
            ignored("network.classID");
        }
        if network.priorities().as_ref().is_some_and(|list| !list.is_empty()) {
            ignored("network.priorities");
        }
    }
    sets.rdma(resources.rdma().as_ref());
    Ok(sets)
}

/// What only v1 has does not fail a container, as with runc, whose callers hand it down without a look at the host.
fn ignored(field: &str) {
    tracing::warn!("linux.resources.{field} is ignored: cgroup v2 has no counterpart");
}

/// `unified`: file and one line of its value, in the order of the files' names.
///
/// # Errors
/// For a name that is no file of a controller.
pub(in super::super) fn unified(resources: &LinuxResources) -> Result<Vec<(&str, &str)>> {
    let mut lines = Vec::new();
    for (file, value) in resources.unified().iter().flatten() {
        let field = || format!("unified[{file:?}]");
        let known_form =
            file.split_once('.').is_some_and(|(head, tail)| !head.is_empty() && !tail.is_empty());
        if file.contains('/') || !known_form {
            return Err(invalid(field(), "is not of the form CONTROLLER.PARAMETER"));
        }
        // These move, kill and stop processes; they are no limits.
        const ACTIONS: [&str; 6] = [
            "cgroup.procs",
            "cgroup.threads",
            "cgroup.kill",
            "cgroup.freeze",
            "cgroup.type",
            "memory.reclaim",
        ];
        if ACTIONS.contains(&file.as_str()) {
            return Err(invalid(field(), "is an action, not a limit"));
        }
        lines.extend(value.lines().map(|line| (file.as_str(), line)));
    }
    lines.sort_by_key(|(file, _)| *file);
    Ok(lines)
}

fn cpu_sets(sets: &mut Sets, cpu: &LinuxCpu, current: &Current) -> Result<()> {
    if cpu.realtime_period().is_some_and(|value| value != 0)
        || cpu.realtime_runtime().is_some_and(|value| value != 0)
    {
        ignored("cpu.realtimeRuntime");
    }
    if let Some(idle) = cpu.idle() {
        // Before the weight, because the kernel refuses a weight while the group is idle.
        sets.add(Controller::Cpu, "cpu.idle", idle);
    }
    if let Some(weight) = cpu.shares().and_then(weight_of_shares) {
        sets.add(Controller::Cpu, "cpu.weight", weight);
    }
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    if let Some(burst) = cpu.burst() {
        // The kernel checks the burst against the quota, which comes next. Linux 5.14.
        let tolerance = match (burst, quota) {
            (0, _) => Tolerance::Missing,
            (_, Some(_)) => Tolerance::Again,
            (_, None) => Tolerance::None,
        };
        sets.with(Controller::Cpu, "cpu.max.burst", burst, tolerance);
    }
    let quota = quota.map(|quota| if quota < 0 { "max".to_owned() } else { quota.to_string() });
    match (quota, period) {
        (None, None) => {}
        (Some(quota), Some(period)) => sets.add(Controller::Cpu, "cpu.max", format!("{quota} {period}")),
        // The kernel keeps the period where one number is written.
        (Some(quota), None) => sets.add(Controller::Cpu, "cpu.max", quota),
        (None, Some(period)) => {
            let quota = current.quota.as_deref().unwrap_or("max");
            sets.add(Controller::Cpu, "cpu.max", format!("{quota} {period}"));
        }
    }
    for (file, list) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
            sets.add(Controller::Cpuset, file, list);
        }
    }
    Ok(())
}

fn memory_sets(sets: &mut Sets, memory: &LinuxMemory, current: &Current) -> Result<()> {
    if memory.disable_oom_killer() == Some(true) {
        ignored("memory.disableOOMKiller");
    }
    if memory.swappiness().is_some_and(|value| value != u64::MAX) {
        ignored("memory.swappiness");
    }
    if memory.kernel().is_some() || memory.kernel_tcp().is_some() {
        tracing::warn!(
            "linux.resources.memory.kernel and kernelTCP are ignored: cgroup v2 counts them as memory"
        );
    }
    let limit = memory.limit().filter(|limit| *limit != 0);
    let swap = swap_of_sum(limit.or(current.memory), limit, memory.swap().filter(|swap| *swap != 0))?;
    if let Some(swap) = swap {
        // Where swap is not accounted, none can be used: nothing is to be lifted or forbidden.
        let tolerance = if swap <= 0 { Tolerance::Missing } else { Tolerance::None };
        sets.with(Controller::Memory, "memory.swap.max", or_max(swap), tolerance);
    }
    if let Some(limit) = limit {
        sets.add(Controller::Memory, "memory.max", or_max(limit));
    }
    if let Some(reservation) = memory.reservation().filter(|bytes| *bytes != 0) {
        sets.add(Controller::Memory, "memory.low", or_max(reservation));
    }
    Ok(())
}

/// -1 of v1 is `max`.
fn or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

/// `memory.swap.max` for a v1 sum of memory and swap: the sum without `memory`, the limit that applies with it;
/// -1 is no limit. `new` is the limit that is set together with it.
pub(in super::super) fn swap_of_sum(
    memory: Option<i64>,
    new: Option<i64>,
    sum: Option<i64>,
) -> Result<Option<i64>> {
    match (memory, sum) {
        // As v1: no limit of memory and no sum is no limit of either.
        (_, None) if new == Some(-1) => Ok(Some(-1)),
        (_, None) => Ok(None),
        (_, Some(..=-1)) => Ok(Some(-1)),
        // Unlimited memory: the sum limits swap alone.
        (Some(-1), sum) => Ok(sum),
        (None, Some(_)) => Err(invalid("memory.swap", "a limit of memory and swap needs memory.limit")),
        (Some(memory), Some(_)) if memory < 0 => {
            Err(invalid("memory.limit", format!("{memory} is neither -1 nor a size")))
        }
        (Some(memory), Some(sum)) if sum < memory => Err(invalid(
            "memory.swap",
            format!("{sum} is memory and swap together, and less than memory.limit, {memory}"),
        )),
        (Some(memory), Some(sum)) => Ok(Some(sum - memory)),
    }
}

/// `cpu.weight` for v1 shares by the formula of runc 1.3.2 and crun 1.23: a quadratic exponent which maps the
/// minimum, the default and the maximum on each other: 2, 1024 and 262144 on 1, 100 and 10000. The older
/// linear one made 39 of 1024, so that containers of the default weight lost against everything else.
pub(in super::super) fn weight_of_shares(shares: u64) -> Option<u64> {
    match shares {
        0 => None,
        1..=2 => Some(1),
        262_144.. => Some(10_000),
        shares => {
            let log = f64::from(u32::try_from(shares).unwrap_or(262_144)).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            // Within 1..=10000 by the range of `shares`.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            Some(10_f64.powf(exponent).ceil() as u64)
        }
    }
}

fn block_sets(sets: &mut Sets, block: &LinuxBlockIo) -> Result<()> {
    const LEAF: &str = "blockIO.leafWeight";
    if block.leaf_weight().is_some_and(|weight| weight != 0) {
        ignored(LEAF);
    }
    let weight = |field: &str, value: Option<u16>| match value {
        None | Some(0) => Ok(None),
        Some(value @ 10..=1000) => Ok(Some(value)),
        Some(other) => Err(invalid(field, format!("{other} is not between 10 and 1000"))),
    };
    if let Some(weight) = weight("blockIO.weight", block.weight())? {
        let io = io_weight(weight).to_string();
        sets.either(Controller::Blkio, [("io.bfq.weight", weight.to_string()), ("io.weight", io)]);
    }
    for one in block.weight_device().iter().flatten() {
        let device = device(one.major(), one.minor());
        if one.leaf_weight().is_some_and(|weight| weight != 0) {
            ignored(LEAF);
        }
        if let Some(weight) = weight("blockIO.weightDevice.weight", one.weight())? {
            let io = format!("{device} {}", io_weight(weight));
            sets.either(
                Controller::Blkio,
                [("io.bfq.weight", format!("{device} {weight}")), ("io.weight", io)],
            );
        }
    }
    for (_, name, one) in throttles(block) {
        // 0 lifts a limit on v1.
        let rate = if one.rate() == 0 { "max".to_owned() } else { one.rate().to_string() };
        let value = format!("{} {name}={rate}", device(one.major(), one.minor()));
        sets.add(Controller::Blkio, "io.max", value);
    }
    Ok(())
}

/// `io.weight` for a v1 weight: [10, 1000] linearly on [1, 10000].
pub(in super::super) fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight) - 10) * 9999 / 990
}
