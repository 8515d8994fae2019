//! Limits of config.json as properties of a unit: pure.
//!
//! systemd is told what it has a property for, so that it does not take it back when it next looks at the unit
//! (`systemctl daemon-reload`); the files of the cgroup are written all the same, by the code that both drivers
//! share. Each conversion is runc's.
use oci_spec::runtime::{LinuxCpu, LinuxResources};

use super::super::values::v2::{io_weight, swap_of_sum, weight_of_shares};
use super::super::{Error as CgroupError, Version};
use super::Property;
use super::wire::Value;

/// `infinity` of systemd's limits.
const INFINITY: u64 = u64::MAX;
/// The kernel's default period, in microseconds (cgroup-v2.rst, "cpu.max").
const PERIOD: u64 = 100_000;
/// The longest list of processors or nodes: the kernel's NR_CPUS is 8192 at most.
const MAX_CPUS: u32 = 1 << 16;

// First versions of systemd with a property (its NEWS file).
const HAS_PERIOD: u32 = 242;
const HAS_CPUSET: u32 = 244;
const HAS_IDLE: u32 = 252;
const HAS_OOM_POLICY: u32 = 253;

/// Whether what `resources` asks for depends on systemd's version.
pub(super) fn asks_for_version(resources: &LinuxResources) -> bool {
    let cpu = resources.cpu().as_ref();
    cpu.is_some_and(|cpu| {
        cpu.period().is_some() || cpu.idle().is_some() || cpu.cpus().is_some() || cpu.mems().is_some()
    }) || resources.unified().as_ref().is_some_and(|unified| !unified.is_empty())
}

type Result<T> = std::result::Result<T, CgroupError>;

struct List {
    version: u32,
    all: Vec<Property>,
}

impl List {
    fn add(&mut self, name: &'static str, value: Value) {
        self.all.push((name.into(), value));
    }

    fn limit(&mut self, name: &'static str, value: Option<i64>) {
        if let Some(value) = value.filter(|value| *value != 0) {
            // -1 is no limit, and the bits of it are `infinity`.
            self.add(name, Value::U64(u64::try_from(value).unwrap_or(INFINITY)));
        }
    }

    fn tasks(&mut self, limit: Option<i64>) {
        if let Some(limit) = limit {
            // systemd takes no 0 here.
            self.add("TasksMax", Value::U64(u64::try_from(limit).map_or(INFINITY, |limit| limit.max(1))));
        }
    }

    fn quota(&mut self, quota: i64, period: u64) {
        if period != 0 && self.version >= HAS_PERIOD {
            self.add("CPUQuotaPeriodUSec", Value::U64(period));
        }
        if quota != 0 || period != 0 {
            let per_second = per_second(quota, period).unwrap_or(INFINITY);
            self.add("CPUQuotaPerSecUSec", Value::U64(per_second));
        }
    }

    fn cpuset(&mut self, name: &'static str, field: &str, list: &str) -> Result<()> {
        let bits = bits(list).ok_or_else(|| invalid(field, format!("{list:?} is no list of numbers")))?;
        if self.version >= HAS_CPUSET {
            self.add(name, Value::bytes(&bits));
        }
        Ok(())
    }
}

fn invalid(field: &str, reason: String) -> CgroupError {
    CgroupError::Invalid { field: field.to_owned(), reason }
}

/// `CPUQuotaPerSecUSec`, which systemd keeps in whole percents: rounded up to one. `None` is no limit.
fn per_second(quota: i64, period: u64) -> Option<u64> {
    const PERCENT: u64 = 10_000;
    let quota = u64::try_from(quota).ok().filter(|quota| *quota > 0)?;
    let period = if period == 0 { PERIOD } else { period };
    Some((quota.saturating_mul(1_000_000) / period).div_ceil(PERCENT).saturating_mul(PERCENT))
}

/// The quota that systemd will make of one: to be written to the file too, so that the two do not differ.
pub(in super::super) fn rounded(quota: i64, period: u64) -> i64 {
    let period_or_default = if period == 0 { PERIOD } else { period };
    per_second(quota, period).map_or(quota, |per_second| {
        let quota = u128::from(per_second) * u128::from(period_or_default) / 1_000_000;
        i64::try_from(quota).unwrap_or(i64::MAX)
    })
}

/// What `resources` asks of a unit on a host of v1 (also hybrid) or v2, by a systemd of `version`; devices are not
/// among it.
///
/// # Errors
/// For a value that makes no sense.
pub(super) fn of(resources: &LinuxResources, host: Version, version: u32) -> Result<Vec<Property>> {
    let mut list = List { version, all: Vec::new() };
    if let Some(memory) = resources.memory() {
        match host {
            Version::V1 => list.limit("MemoryLimit", memory.limit()),
            Version::V2 => {
                list.limit("MemoryMax", memory.limit());
                list.limit("MemoryLow", memory.reservation());
                let limit = memory.limit().filter(|limit| *limit != 0);
                let sum = memory.swap().filter(|swap| *swap != 0 && limit.is_some());
                if let Some(swap) = swap_of_sum(limit, limit, sum)? {
                    list.add("MemorySwapMax", Value::U64(u64::try_from(swap).unwrap_or(INFINITY)));
                }
            }
        }
    }
    if let Some(cpu) = resources.cpu() {
        processors(&mut list, cpu, host)?;
    }
    list.tasks(resources.pids().as_ref().map(|pids| pids.limit()));
    let weight = resources.block_io().as_ref().and_then(|block| block.weight());
    if let Some(weight) = weight.filter(|weight| (10..=1000).contains(weight)) {
        match host {
            Version::V1 => list.add("BlockIOWeight", Value::U64(weight.into())),
            Version::V2 => list.add("IOWeight", Value::U64(io_weight(weight))),
        }
    }
    if host == Version::V2 {
        unified(&mut list, resources)?;
    }
    Ok(list.all)
}

fn processors(list: &mut List, cpu: &LinuxCpu, host: Version) -> Result<()> {
    let shares = cpu.shares().filter(|shares| *shares != 0);
    let idle = cpu.idle() == Some(1) && list.version >= HAS_IDLE;
    match (host, shares) {
        (Version::V1, Some(shares)) => list.add("CPUShares", Value::U64(shares)),
        // A weight of 0 is systemd's word for idle.
        (Version::V2, _) if idle => list.add("CPUWeight", Value::U64(0)),
        (Version::V2, Some(shares)) => {
            if let Some(weight) = weight_of_shares(shares) {
                list.add("CPUWeight", Value::U64(weight));
            }
        }
        (_, None) => {}
    }
    list.quota(cpu.quota().unwrap_or(0), cpu.period().unwrap_or(0));
    for (name, field, value) in
        [("AllowedCPUs", "cpu.cpus", cpu.cpus()), ("AllowedMemoryNodes", "cpu.mems", cpu.mems())]
    {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            list.cpuset(name, field, value)?;
        }
    }
    Ok(())
}

/// Files of `unified` that systemd has a property for.
fn unified(list: &mut List, resources: &LinuxResources) -> Result<()> {
    let Some(unified) = resources.unified() else { return Ok(()) };
    let is_idle = |text: &str| text.trim() == "1";
    let idle = unified.get("cpu.idle").is_some_and(|text| is_idle(text)) && list.version >= HAS_IDLE;
    let mut files: Vec<_> = unified.iter().collect();
    files.sort();
    for (file, text) in files {
        let text = text.trim();
        let field = format!("unified[{file:?}]");
        let bad = || invalid(&field, format!("{text:?} is no value of it"));
        let or_max = || if text == "max" { Some(INFINITY) } else { text.parse().ok() };
        match file.as_str() {
            "cpu.idle" if idle => list.add("CPUWeight", Value::U64(0)),
            "cpu.weight" if !idle => list.add("CPUWeight", Value::U64(text.parse().map_err(|_| bad())?)),
            "cpu.max" => {
                let mut words = text.split_ascii_whitespace();
                let quota = words.next().ok_or_else(bad)?;
                let quota = if quota == "max" { 0 } else { quota.parse().map_err(|_| bad())? };
                let period = words.next().map_or(Ok(PERIOD), str::parse).map_err(|_| bad())?;
                list.quota(quota, period);
            }
            "cpuset.cpus" => list.cpuset("AllowedCPUs", &field, text)?,
            "cpuset.mems" => list.cpuset("AllowedMemoryNodes", &field, text)?,
            "memory.high" => list.add("MemoryHigh", Value::U64(or_max().ok_or_else(bad)?)),
            "memory.low" => list.add("MemoryLow", Value::U64(or_max().ok_or_else(bad)?)),
            "memory.min" => list.add("MemoryMin", Value::U64(or_max().ok_or_else(bad)?)),
            "memory.max" => list.add("MemoryMax", Value::U64(or_max().ok_or_else(bad)?)),
            "memory.swap.max" => list.add("MemorySwapMax", Value::U64(or_max().ok_or_else(bad)?)),
            "pids.max" => list.add("TasksMax", Value::U64(or_max().ok_or_else(bad)?.max(1))),
            _ => {}
        }
    }
    Ok(())
}

/// `memory.oom.group` of `unified`, which a unit takes only when it is made.
pub(super) fn oom_policy(resources: &LinuxResources, version: u32) -> Option<Property> {
    let value = resources.unified().as_ref()?.get("memory.oom.group")?;
    let policy = match value.trim() {
        "0" => "continue",
        "1" => "kill",
        _ => return None,
    };
    (version >= HAS_OOM_POLICY).then(|| ("OOMPolicy".into(), Value::text(policy)))
}

/// A list like `0-3,7` as the bits of a mask, the lowest byte first.
fn bits(list: &str) -> Option<Vec<u8>> {
    let mut mask = Vec::new();
    for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= MAX_CPUS {
            return None;
        }
        for bit in first..=last {
            let byte = bit as usize / 8;
            if mask.len() <= byte {
                mask.resize(byte + 1, 0);
            }
            mask[byte] |= 1 << (bit % 8);
        }
    }
    (!mask.is_empty()).then_some(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(json: &str, host: Version, version: u32) -> Vec<(String, Value)> {
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        let all = of(&resources, host, version).unwrap();
        all.into_iter().map(|(name, value)| (name.into_owned(), value)).collect()
    }

    fn is(json: &str, host: Version, expected: &[(&str, u64)]) {
        let expected: Vec<_> =
            expected.iter().map(|(name, value)| ((*name).to_owned(), Value::U64(*value))).collect();
        assert_eq!(list(json, host, 252), expected, "{json}");
    }

    #[test]
    fn limits_of_v2() {
        use Version::V2;
        is(
            r#"{"memory": {"limit": 100, "reservation": 50, "swap": 150}}"#,
            V2,
            &[("MemoryMax", 100), ("MemoryLow", 50), ("MemorySwapMax", 50)],
        );
        is(r#"{"memory": {"limit": 100, "swap": 100}}"#, V2, &[("MemoryMax", 100), ("MemorySwapMax", 0)]);
        is(r#"{"memory": {"limit": -1}}"#, V2, &[("MemoryMax", INFINITY), ("MemorySwapMax", INFINITY)]);
        is(r#"{"memory": {"limit": 0}}"#, V2, &[]);
        is(r#"{"cpu": {"shares": 1024}}"#, V2, &[("CPUWeight", 100)]);
        is(r#"{"cpu": {"shares": 1024, "idle": 1}}"#, V2, &[("CPUWeight", 0)]);
        is(r#"{"cpu": {"idle": 0}}"#, V2, &[]);
        is(r#"{"pids": {"limit": 0}}"#, V2, &[("TasksMax", 1)]);
        is(r#"{"pids": {"limit": -1}}"#, V2, &[("TasksMax", INFINITY)]);
        is(r#"{"blockIO": {"weight": 500}}"#, V2, &[("IOWeight", 4950)]);
    }

    #[test]
    fn limits_of_v1() {
        use Version::V1;
        is(
            r#"{"memory": {"limit": 100, "swap": 150}, "pids": {"limit": 7}}"#,
            V1,
            &[("MemoryLimit", 100), ("TasksMax", 7)],
        );
        is(r#"{"cpu": {"shares": 512, "idle": 1}}"#, V1, &[("CPUShares", 512)]);
        is(r#"{"blockIO": {"weight": 500}}"#, V1, &[("BlockIOWeight", 500)]);
    }

    #[test]
    fn a_quota_is_rounded_up_to_a_percent() {
        let v2 = Version::V2;
        let quota = r#"{"cpu": {"quota": 12345, "period": 50000}}"#;
        is(quota, v2, &[("CPUQuotaPeriodUSec", 50_000), ("CPUQuotaPerSecUSec", 250_000)]);
        assert_eq!(rounded(12_345, 50_000), 12_500);
        assert_eq!(rounded(-1, 50_000), -1);
        is(r#"{"cpu": {"quota": 50000}}"#, v2, &[("CPUQuotaPerSecUSec", 500_000)]);
        is(r#"{"cpu": {"quota": -1}}"#, v2, &[("CPUQuotaPerSecUSec", INFINITY)]);
        is(
            r#"{"cpu": {"period": 20000}}"#,
            v2,
            &[("CPUQuotaPeriodUSec", 20_000), ("CPUQuotaPerSecUSec", INFINITY)],
        );
    }

    #[test]
    fn an_older_systemd_is_not_asked_for_what_it_has_not() {
        let json = r#"{"cpu": {"period": 20000, "cpus": "0-1", "idle": 1}}"#;
        let names: Vec<_> = list(json, Version::V2, 241).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["CPUQuotaPerSecUSec"]);
    }

    #[test]
    fn processors_are_bits() {
        assert_eq!(bits("0-4,9"), Some(vec![0b1_1111, 0b10]));
        assert_eq!(bits(" 3 , 7,"), Some(vec![0b1000_1000]));
        for list in ["", ",", "a", "3-1", "1-", "-1", "70000", "0-4294967295"] {
            assert_eq!(bits(list), None, "{list:?}");
        }
    }

    #[test]
    fn files_of_unified_have_properties() {
        is(
            r#"{"unified": {"memory.high": "max", "memory.max": "100", "pids.max": "0", "cpu.max": "5000 10000", "x.y": "1"}}"#,
            Version::V2,
            &[
                ("CPUQuotaPeriodUSec", 10_000),
                ("CPUQuotaPerSecUSec", 500_000),
                ("MemoryHigh", INFINITY),
                ("MemoryMax", 100),
                ("TasksMax", 1),
            ],
        );
        let bad: LinuxResources = serde_json::from_str(r#"{"unified": {"memory.max": "much"}}"#).unwrap();
        assert!(of(&bad, Version::V2, 252).is_err());
        let group: LinuxResources =
            serde_json::from_str(r#"{"unified": {"memory.oom.group": "1"}}"#).unwrap();
        assert_eq!(oom_policy(&group, 253), Some(("OOMPolicy".into(), Value::text("kill"))));
        assert_eq!(oom_policy(&group, 252), None);
    }
}
