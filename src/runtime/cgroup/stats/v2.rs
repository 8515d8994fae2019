//! Figures of a v2 cgroup, in the tables of v1.
use super::{
    Block, Cpu, Hugetlb, Memory, MemoryEntry, Pids, Stats, block, huge_page_sizes, malformed, number, parse,
    text,
};
use crate::runtime::cgroup::Result;
use crate::runtime::cgroup::dir::Dir;

const NS_PER_US: u64 = 1000;

pub(super) fn stats(dir: &Dir) -> Result<Stats> {
    let mut stats = Stats {
        cpu: cpu(dir)?,
        memory: memory(dir)?,
        pids: Pids {
            current: number(dir, "pids.current")?.unwrap_or(0),
            limit: number(dir, "pids.max")?.filter(|limit| *limit != u64::MAX).unwrap_or(0),
        },
        blkio: io(dir)?,
        ..Stats::default()
    };
    for size in huge_page_sizes() {
        if let Some(found) = hugetlb(dir, &size)? {
            stats.hugetlb.insert(size, found);
        }
    }
    Ok(stats)
}

fn cpu(dir: &Dir) -> Result<Cpu> {
    let mut cpu = Cpu { psi: parse::pressure(&text(dir, "cpu.pressure")?), ..Cpu::default() };
    for (key, value) in parse::pairs(&text(dir, "cpu.stat")?) {
        match key {
            "usage_usec" => cpu.usage.total = value.saturating_mul(NS_PER_US),
            "user_usec" => cpu.usage.user = value.saturating_mul(NS_PER_US),
            "system_usec" => cpu.usage.kernel = value.saturating_mul(NS_PER_US),
            "nr_periods" => cpu.throttling.periods = value,
            "nr_throttled" => cpu.throttling.throttled_periods = value,
            "throttled_usec" => cpu.throttling.throttled_time = value.saturating_mul(NS_PER_US),
            _ => {}
        }
    }
    Ok(cpu)
}

fn memory(dir: &Dir) -> Result<Memory> {
    let raw: std::collections::BTreeMap<String, u64> =
        parse::pairs(&text(dir, "memory.stat")?).map(|(key, value)| (key.to_owned(), value)).collect();
    let usage = entry(dir, "memory")?;
    let swap = entry(dir, "memory.swap")?;
    Ok(Memory {
        cache: raw.get("file").copied().unwrap_or(0),
        // The sum, as v1 has it; the peaks of the two need not have been at the same time.
        swap: MemoryEntry {
            usage: swap.usage.saturating_add(usage.usage),
            limit: swap.limit.saturating_add(usage.limit),
            max: 0,
            failcnt: 0,
        },
        usage,
        raw,
        psi: parse::pressure(&text(dir, "memory.pressure")?),
        ..Memory::default()
    })
}

fn entry(dir: &Dir, prefix: &str) -> Result<MemoryEntry> {
    let Some(usage) = number(dir, &format!("{prefix}.current"))? else { return Ok(MemoryEntry::default()) };
    Ok(MemoryEntry {
        usage,
        limit: number(dir, &format!("{prefix}.max"))?.unwrap_or(0),
        // Linux 5.19, of swap 6.5.
        max: number(dir, &format!("{prefix}.peak"))?.unwrap_or(0),
        failcnt: 0,
    })
}

fn io(dir: &Dir) -> Result<Block> {
    let stat = text(dir, "io.stat")?;
    let mut block = block::v2(&stat).ok_or_else(|| malformed(dir, "io.stat", stat.trim()))?;
    block.psi = parse::pressure(&text(dir, "io.pressure")?);
    Ok(block)
}

fn hugetlb(dir: &Dir, size: &str) -> Result<Option<Hugetlb>> {
    let prefix = format!("hugetlb.{size}");
    let reserved = number(dir, &format!("{prefix}.rsvd.current"))?;
    let Some(usage) =
        reserved.map_or_else(|| number(dir, &format!("{prefix}.current")), |usage| Ok(Some(usage)))?
    else {
        return Ok(None);
    };
    let events = text(dir, &format!("{prefix}.events"))?;
    let failcnt = parse::pairs(&events).find(|(key, _)| *key == "max").map_or(0, |(_, value)| value);
    Ok(Some(Hugetlb { usage, max: 0, failcnt }))
}
