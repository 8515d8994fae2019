//! Figures of v1 cgroups.
use super::{
    Block, Cpu, Cpuset, Hugetlb, Memory, MemoryEntry, Pids, Stats, block, huge_page_sizes, malformed, number,
    parse, text,
};
use crate::runtime::cgroup::Result;
use crate::runtime::cgroup::dir::Dir;
use crate::runtime::cgroup::host::Controller;

/// `cpuacct.stat` counts in USER_HZ, which is 100 for every architecture that userspace sees.
const TICK: u64 = 1_000_000_000 / 100;

pub(super) fn stats<'a>(dir_of: impl Fn(Controller) -> Option<&'a Dir>) -> Result<Stats> {
    let mut stats = Stats::default();
    if let Some(dir) = dir_of(Controller::Cpuacct) {
        usage(dir, &mut stats.cpu)?;
    }
    if let Some(dir) = dir_of(Controller::Cpu) {
        for (key, value) in parse::pairs(&text(dir, "cpu.stat")?) {
            match key {
                "nr_periods" => stats.cpu.throttling.periods = value,
                "nr_throttled" => stats.cpu.throttling.throttled_periods = value,
                "throttled_time" => stats.cpu.throttling.throttled_time = value,
                _ => {}
            }
        }
    }
    if let Some(dir) = dir_of(Controller::Cpuset) {
        stats.cpuset = cpuset(dir)?;
    }
    if let Some(dir) = dir_of(Controller::Memory) {
        stats.memory = memory(dir)?;
    }
    if let Some(dir) = dir_of(Controller::Pids) {
        stats.pids = pids(dir)?;
    }
    if let Some(dir) = dir_of(Controller::Blkio) {
        stats.blkio = blkio(dir)?;
    }
    if let Some(dir) = dir_of(Controller::Hugetlb) {
        for size in huge_page_sizes() {
            stats.hugetlb.insert(size.clone(), hugetlb(dir, &size)?);
        }
    }
    Ok(stats)
}

fn usage(dir: &Dir, cpu: &mut Cpu) -> Result<()> {
    let usage = &mut cpu.usage;
    usage.total = number(dir, "cpuacct.usage")?.unwrap_or(0);
    for (key, ticks) in parse::pairs(&text(dir, "cpuacct.stat")?) {
        match key {
            "user" => usage.user = ticks.saturating_mul(TICK),
            "system" => usage.kernel = ticks.saturating_mul(TICK),
            _ => {}
        }
    }
    let percpu = text(dir, "cpuacct.usage_percpu")?;
    usage.percpu = percpu.split_ascii_whitespace().filter_map(parse::number).collect();
    // Lines of `cpu user system` behind a heading.
    for line in text(dir, "cpuacct.usage_all")?.lines().skip(1) {
        let mut words = line.split_ascii_whitespace().skip(1).filter_map(parse::number);
        if let (Some(user), Some(kernel)) = (words.next(), words.next()) {
            usage.percpu_user.push(user);
            usage.percpu_kernel.push(kernel);
        }
    }
    Ok(())
}

fn cpuset(dir: &Dir) -> Result<Cpuset> {
    let list = |file: &str| -> Result<Vec<u16>> {
        let text = text(dir, file)?;
        parse::cpu_list(&text).ok_or_else(|| malformed(dir, file, text.trim()))
    };
    let flag = |file: &str| number(dir, file).map(|value| value.unwrap_or(0));
    Ok(Cpuset {
        cpus: list("cpuset.cpus")?,
        cpu_exclusive: flag("cpuset.cpu_exclusive")?,
        mems: list("cpuset.mems")?,
        mem_hardwall: flag("cpuset.mem_hardwall")?,
        mem_exclusive: flag("cpuset.mem_exclusive")?,
        memory_migrate: flag("cpuset.memory_migrate")?,
        memory_spread_page: flag("cpuset.memory_spread_page")?,
        memory_spread_slab: flag("cpuset.memory_spread_slab")?,
        memory_pressure: flag("cpuset.memory_pressure")?,
        sched_load_balance: flag("cpuset.sched_load_balance")?,
        sched_relax_domain_level: text(dir, "cpuset.sched_relax_domain_level")?.trim().parse().unwrap_or(0),
    })
}

fn memory(dir: &Dir) -> Result<Memory> {
    let raw: std::collections::BTreeMap<String, u64> =
        parse::pairs(&text(dir, "memory.stat")?).map(|(key, value)| (key.to_owned(), value)).collect();
    Ok(Memory {
        cache: raw.get("cache").copied().unwrap_or(0),
        usage: entry(dir, "memory")?,
        swap: entry(dir, "memory.memsw")?,
        kernel: entry(dir, "memory.kmem")?,
        kernel_tcp: entry(dir, "memory.kmem.tcp")?,
        raw,
        psi: None,
    })
}

fn entry(dir: &Dir, prefix: &str) -> Result<MemoryEntry> {
    let value = |name: &str| number(dir, &format!("{prefix}.{name}")).map(|value| value.unwrap_or(0));
    let Some(usage) = number(dir, &format!("{prefix}.usage_in_bytes"))? else {
        // Swap and kernel memory are counted where the kernel is configured so.
        return Ok(MemoryEntry::default());
    };
    Ok(MemoryEntry {
        usage,
        limit: value("limit_in_bytes")?,
        max: value("max_usage_in_bytes")?,
        failcnt: value("failcnt")?,
    })
}

fn pids(dir: &Dir) -> Result<Pids> {
    Ok(Pids {
        current: number(dir, "pids.current")?.unwrap_or(0),
        limit: number(dir, "pids.max")?.filter(|limit| *limit != u64::MAX).unwrap_or(0),
    })
}

/// The first scheduler that counts, as runc looks for it: BFQ, then the throttling layer, which always does.
fn blkio(dir: &Dir) -> Result<Block> {
    let table = |file: &str| -> Result<Vec<super::BlockEntry>> {
        let text = text(dir, file)?;
        block::v1(&text).ok_or_else(|| malformed(dir, file, text.trim()))
    };
    let mut found = Block::default();
    for (prefix, suffix) in
        [("blkio.bfq", "_recursive"), ("blkio.throttle", "_recursive"), ("blkio.throttle", "")]
    {
        found.io_serviced_recursive = table(&format!("{prefix}.io_serviced{suffix}"))?;
        found.io_service_bytes_recursive = table(&format!("{prefix}.io_service_bytes{suffix}"))?;
        if !found.io_serviced_recursive.is_empty() {
            break;
        }
    }
    // Of kernels with CONFIG_BFQ_CGROUP_DEBUG alone.
    found.sectors_recursive = table("blkio.bfq.sectors_recursive")?;
    found.io_service_time_recursive = table("blkio.bfq.io_service_time_recursive")?;
    found.io_wait_time_recursive = table("blkio.bfq.io_wait_time_recursive")?;
    found.io_merged_recursive = table("blkio.bfq.io_merged_recursive")?;
    found.io_queue_recursive = table("blkio.bfq.io_queued_recursive")?;
    found.io_time_recursive = table("blkio.bfq.time_recursive")?;
    Ok(found)
}

/// Reservations where the kernel counts them (Linux 5.7), because that is what the limit is on.
fn hugetlb(dir: &Dir, size: &str) -> Result<Hugetlb> {
    let mut prefix = format!("hugetlb.{size}.rsvd");
    let mut usage = number(dir, &format!("{prefix}.usage_in_bytes"))?;
    if usage.is_none() {
        prefix = format!("hugetlb.{size}");
        usage = number(dir, &format!("{prefix}.usage_in_bytes"))?;
    }
    Ok(Hugetlb {
        usage: usage.unwrap_or(0),
        max: number(dir, &format!("{prefix}.max_usage_in_bytes"))?.unwrap_or(0),
        failcnt: number(dir, &format!("{prefix}.failcnt"))?.unwrap_or(0),
    })
}
