//! Limits of cgroups.
use super::api::LinuxContainerResources;
use super::error::{Result, invalid};
use crate::engine::options::{Limits, parse};
use std::collections::BTreeMap;

/// More files of a cgroup do not exist.
const MAX_UNIFIED: usize = 64;

/// What the engine is to limit; 0 and an empty text are no limit.
///
/// `counts_swap` says whether the kernel counts swap for each cgroup: then a container with a memory limit gets no
/// swap unless it asks for some, as with containerd.
pub fn limits(given: &LinuxContainerResources, counts_swap: bool) -> Result<Limits> {
    let memory = size("memory_limit_in_bytes", given.memory_limit_in_bytes)?;
    let swap = size("memory_swap_limit_in_bytes", given.memory_swap_limit_in_bytes)?;
    if let (Some(memory), Some(swap)) = (memory, swap)
        && swap != -1
        && (memory == -1 || swap < memory)
    {
        return invalid(
            "memory_swap_limit_in_bytes",
            swap.to_string(),
            "it counts memory and swap and cannot be less than the memory limit",
        );
    }
    let quota = match given.cpu_quota {
        0 => None,
        quota @ (-1 | 1000..) => Some(quota),
        quota => return invalid("cpu_quota", quota.to_string(), "the kernel's least quota is 1000 us"),
    };
    let period = match given.cpu_period {
        0 => None,
        period @ 1000..=1_000_000 => Some(period.unsigned_abs()),
        period => {
            return invalid("cpu_period", period.to_string(), "the kernel takes 1000 to 1000000 us");
        }
    };
    Ok(Limits {
        memory,
        memory_swap: swap.or(memory).filter(|_| counts_swap),
        nano_cpus: None,
        cpu_shares: match given.cpu_shares {
            0 => None,
            // The kernel's range; kubelets ask for less and more and mean its ends.
            shares @ 1.. => Some(shares.unsigned_abs().clamp(2, 262_144)),
            shares => return invalid("cpu_shares", shares.to_string(), "shares are not negative"),
        },
        cpuset_cpus: cpuset("cpuset_cpus", &given.cpuset_cpus)?,
        cpuset_mems: cpuset("cpuset_mems", &given.cpuset_mems)?,
        pids: None,
        cpu_period: period.filter(|_| quota.is_some()),
        cpu_quota: quota,
        memory_reservation: None,
        swappiness: None,
        hugepages: given
            .hugepage_limits
            .iter()
            .map(|limit| match huge_page(&limit.page_size) {
                true => Ok((limit.page_size.clone(), limit.limit)),
                false => invalid("hugepage_limits", &limit.page_size, "a page size is written 2MB or 1GB"),
            })
            .collect::<Result<_>>()?,
        unified: unified(&given.unified)?,
    })
}

fn size(field: &'static str, bytes: i64) -> Result<Option<i64>> {
    match bytes {
        0 => Ok(None),
        bytes @ -1.. => Ok(Some(bytes)),
        bytes => invalid(field, bytes.to_string(), "it is a number of bytes, or -1"),
    }
}

fn cpuset(field: &'static str, list: &str) -> Result<Option<String>> {
    if list.is_empty() {
        return Ok(None);
    }
    match parse::cpuset(list) {
        Ok(list) => Ok(Some(list)),
        Err(_) => invalid(field, list, "it is a list as 0-3,5"),
    }
}

fn huge_page(size: &str) -> bool {
    let digits = size.trim_end_matches("KB").trim_end_matches("MB").trim_end_matches("GB");
    digits.len() + 2 == size.len() && digits.parse::<u32>().is_ok()
}

/// Names become names of files.
fn unified(given: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    if given.len() > MAX_UNIFIED {
        return invalid("unified", given.len().to_string(), "there are not so many files in a cgroup");
    }
    for key in given.keys() {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if !key.contains('.') || !key.split('.').all(|part| !part.is_empty() && part.bytes().all(word)) {
            return invalid("unified", key, "it is the name of a file of cgroup v2, as memory.high");
        }
    }
    Ok(given.clone())
}

/// `oom_score_adj` of a container; CRI has no way to leave it out.
pub fn oom_score_adj(given: i64) -> Result<i32> {
    match i32::try_from(given) {
        Ok(score @ -1000..=1000) => Ok(score),
        _ => invalid("oom_score_adj", given.to_string(), "it is a number from -1000 to 1000"),
    }
}

/// What is in force after an update: what is absent in `update` stays.
pub fn merge(
    known: Option<LinuxContainerResources>,
    update: &LinuxContainerResources,
) -> LinuxContainerResources {
    let mut merged = known.unwrap_or_default();
    let number = |to: &mut i64, from: i64| {
        if from != 0 {
            *to = from;
        }
    };
    number(&mut merged.cpu_period, update.cpu_period);
    number(&mut merged.cpu_quota, update.cpu_quota);
    number(&mut merged.cpu_shares, update.cpu_shares);
    number(&mut merged.memory_limit_in_bytes, update.memory_limit_in_bytes);
    number(&mut merged.memory_swap_limit_in_bytes, update.memory_swap_limit_in_bytes);
    number(&mut merged.oom_score_adj, update.oom_score_adj);
    for (to, from) in
        [(&mut merged.cpuset_cpus, &update.cpuset_cpus), (&mut merged.cpuset_mems, &update.cpuset_mems)]
    {
        if !from.is_empty() {
            from.clone_into(to);
        }
    }
    if !update.hugepage_limits.is_empty() {
        merged.hugepage_limits.clone_from(&update.hugepage_limits);
    }
    merged.unified.extend(update.unified.clone());
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::cri::api::HugepageLimit;

    fn of(change: impl FnOnce(&mut LinuxContainerResources)) -> Result<Limits> {
        let mut given = LinuxContainerResources::default();
        change(&mut given);
        limits(&given, true)
    }

    #[test]
    fn nothing_is_no_limit() {
        assert_eq!(of(|_| ()).unwrap(), Limits::default());
    }

    #[test]
    fn memory_means_no_swap() {
        let limits = of(|given| given.memory_limit_in_bytes = 1 << 20).unwrap();
        assert_eq!((limits.memory, limits.memory_swap), (Some(1 << 20), Some(1 << 20)));
        let given = LinuxContainerResources { memory_limit_in_bytes: 1 << 20, ..Default::default() };
        assert_eq!(super::limits(&given, false).unwrap().memory_swap, None);
    }

    #[test]
    fn what_the_kernel_would_refuse() {
        of(|given| given.cpu_quota = 10).unwrap_err();
        of(|given| given.cpu_period = -1).unwrap_err();
        of(|given| given.cpu_shares = -1).unwrap_err();
        of(|given| given.memory_limit_in_bytes = -2).unwrap_err();
        of(|given| given.cpuset_cpus = "a".into()).unwrap_err();
        of(|given| given.unified = BTreeMap::from([("../x".into(), "1".into())])).unwrap_err();
        of(|given| given.unified = BTreeMap::from([("a.b/c".into(), "1".into())])).unwrap_err();
        of(|given| given.hugepage_limits = vec![HugepageLimit { page_size: "/x".into(), limit: 1 }])
            .unwrap_err();
        of(|given| {
            given.memory_limit_in_bytes = 2 << 20;
            given.memory_swap_limit_in_bytes = 1 << 20;
        })
        .unwrap_err();
        oom_score_adj(1001).unwrap_err();
        assert_eq!(oom_score_adj(-998).unwrap(), -998);
    }

    #[test]
    fn shares_are_clamped_and_a_period_needs_a_quota() {
        assert_eq!(of(|given| given.cpu_shares = 1).unwrap().cpu_shares, Some(2));
        assert_eq!(of(|given| given.cpu_shares = 1 << 40).unwrap().cpu_shares, Some(262_144));
        assert_eq!(of(|given| given.cpu_period = 100_000).unwrap().cpu_period, None);
    }

    #[test]
    fn an_update_keeps_what_it_does_not_name() {
        let known =
            LinuxContainerResources { cpu_shares: 10, memory_limit_in_bytes: 5, ..Default::default() };
        let update = LinuxContainerResources { cpu_shares: 20, ..Default::default() };
        let merged = merge(Some(known), &update);
        assert_eq!((merged.cpu_shares, merged.memory_limit_in_bytes), (20, 5));
    }
}
