//! `update`.
use super::argv::Flags;
use super::{Context, Outcome, given, only_id, words_of};
use crate::runtime::cgroup::Cgroup;
use crate::runtime::state::{State, Status};
use anyhow::{Context as _, ensure};
use clap::Parser;
use oci_spec::runtime::LinuxResources;
use serde_json::{Map, Value, json};
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Largest resources file, in bytes.
const MAX_SIZE: u64 = 1024 * 1024;

/// Updates container resource constraints
#[derive(Debug, Parser)]
#[command(name = "update", override_usage = "corten-oci update [command options] <container-id>")]
struct Words {
    /// Path to the file containing the resources to update (the linux.resources of config.json) or '-' to
    /// read from the standard input; all other options are ignored then
    #[arg(long, short, value_name = "FILE", value_parser = super::words::path())]
    resources: Option<PathBuf>,
    /// Specifies per cgroup weight, range is from 10 to 1000
    #[arg(long, value_name = "N")]
    blkio_weight: Option<u16>,
    /// CPU CFS period to be used for hardcapping (in usecs). 0 to use system default
    #[arg(long, value_name = "N")]
    cpu_period: Option<u64>,
    /// CPU CFS hardcap limit (in usecs). Allowed cpu time in a given period
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    cpu_quota: Option<i64>,
    /// CPU CFS hardcap burst limit (in usecs). Allowed accumulated cpu time additionally for burst in a given
    /// period
    #[arg(long, value_name = "N")]
    cpu_burst: Option<u64>,
    /// CPU shares (relative weight vs. other containers)
    #[arg(long, value_name = "N")]
    cpu_share: Option<u64>,
    /// CPU realtime period to be used for hardcapping (in usecs). 0 to use system default
    #[arg(long, value_name = "N")]
    cpu_rt_period: Option<u64>,
    /// CPU realtime hardcap limit (in usecs). Allowed cpu time in a given period
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    cpu_rt_runtime: Option<i64>,
    /// Set cgroup SCHED_IDLE or not, 0: default behavior, 1: SCHED_IDLE
    #[arg(long, value_name = "N")]
    cpu_idle: Option<i64>,
    /// CPU(s) to use
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory node(s) to use
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Memory limit (in bytes)
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    memory: Option<String>,
    /// Memory reservation or soft_limit (in bytes)
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    memory_reservation: Option<String>,
    /// Total memory usage (memory + swap); set '-1' to enable unlimited swap
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    memory_swap: Option<String>,
    /// Maximum number of pids allowed in the container
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// The string of Intel RDT/CAT L3 cache schema
    #[arg(long, value_name = "SCHEMA")]
    l3_cache_schema: Option<String>,
    /// The string of Intel RDT/MBA memory bandwidth schema
    #[arg(long, value_name = "SCHEMA")]
    mem_bw_schema: Option<String>,
    /// Kernel memory limit; accepted for older callers, the kernel has no such limit any more
    #[arg(long, value_name = "SIZE", hide = true)]
    kernel_memory: Option<String>,
    /// Kernel memory limit for TCP buffers; likewise
    #[arg(long, value_name = "SIZE", hide = true)]
    kernel_memory_tcp: Option<String>,
    #[arg(hide = true)]
    args: Vec<OsString>,
}

pub(super) fn main(context: &Context, words: &[OsString]) -> Outcome {
    let words = words_of!(Words, words, Flags::Anywhere);
    let id = only_id::<Words>(&words.args)?;
    let state = State::load(&context.root, &id)?;
    let resources = resources(&words)?;
    let status = state.status(&context.root)?;
    if status == Status::Stopped {
        return Err(anyhow::anyhow!("container not running").into());
    }
    Cgroup::open(&state.cgroup)?.update(&resources)?;
    Ok(ExitCode::SUCCESS)
}

fn resources(words: &Words) -> anyhow::Result<LinuxResources> {
    let mut resources: LinuxResources = match given(words.resources.clone()) {
        Some(path) => read(&path)?,
        None => serde_json::from_value(from_flags(words)?)?,
    };
    // A container's devices are what it was created with: runc never changes them, and its callers hand
    // over the whole of linux.resources.
    resources.set_devices(None);
    Ok(resources)
}

fn read(path: &Path) -> anyhow::Result<LinuxResources> {
    let shown = path.display();
    let mut text = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(MAX_SIZE + 1).read_to_end(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MAX_SIZE + 1).read_to_end(&mut text))
    };
    read.with_context(|| format!("cannot read {shown}"))?;
    ensure!(text.len() as u64 <= MAX_SIZE, "{shown} is larger than {MAX_SIZE} bytes");
    serde_json::from_slice(&text).with_context(|| format!("{shown} is no linux.resources"))
}

/// The flags in the form of `linux.resources`.
fn from_flags(words: &Words) -> anyhow::Result<Value> {
    let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    ensure!(!given(&words.l3_cache_schema), "Intel RDT/CAT: l3 cache schema is not enabled");
    ensure!(!given(&words.mem_bw_schema), "Intel RDT/MBA: memory bandwidth schema is not enabled");
    if given(&words.kernel_memory) || given(&words.kernel_memory_tcp) {
        tracing::warn!("Kernel memory settings are ignored and will be removed");
    }
    let size = |name: &str, text: &Option<String>| {
        let text = text.as_deref().filter(|text| !text.is_empty());
        text.map(|text| parse_size(text).with_context(|| format!("invalid value for {name}"))).transpose()
    };
    let given = [
        ("blockIO", "weight", json!(words.blkio_weight)),
        ("cpu", "period", json!(words.cpu_period)),
        ("cpu", "quota", json!(words.cpu_quota)),
        ("cpu", "burst", json!(words.cpu_burst)),
        ("cpu", "shares", json!(words.cpu_share)),
        ("cpu", "realtimePeriod", json!(words.cpu_rt_period)),
        ("cpu", "realtimeRuntime", json!(words.cpu_rt_runtime)),
        ("cpu", "idle", json!(words.cpu_idle)),
        ("cpu", "cpus", json!(words.cpuset_cpus)),
        ("cpu", "mems", json!(words.cpuset_mems)),
        ("memory", "limit", json!(size("memory", &words.memory)?)),
        ("memory", "reservation", json!(size("memory-reservation", &words.memory_reservation)?)),
        ("memory", "swap", json!(size("memory-swap", &words.memory_swap)?)),
        ("pids", "limit", json!(words.pids_limit)),
    ];
    let mut resources = Map::new();
    for (group, field, value) in given.into_iter().filter(|(_, _, value)| !value.is_null()) {
        let group = resources.entry(group).or_insert_with(|| json!({}));
        group[field] = value;
    }
    Ok(Value::Object(resources))
}

/// A size in bytes, or with a unit of 1024 like `512m`, `2g`, `1.5GiB` (go-units' RAMInBytes); -1 is no
/// limit.
fn parse_size(text: &str) -> anyhow::Result<i64> {
    if text == "-1" {
        return Ok(-1);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_start().to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => anyhow::bail!("invalid size: {text:?}"),
    };
    let number: f64 = number.parse().ok().with_context(|| format!("invalid size: {text:?}"))?;
    let bytes = number * (1_u64 << shift) as f64;
    ensure!(bytes < i64::MAX as f64, "size {text:?} is too large");
    // In range, as checked; a fraction of a byte is cut off.
    Ok(bytes as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("0", 0),
            ("100", 100),
            ("512m", 512 << 20),
            ("2G", 2 << 30),
            ("1.5KiB", 1536),
            ("3kb", 3072),
            ("-1", -1),
        ] {
            assert_eq!(parse_size(text).expect(text), bytes, "{text}");
        }
        for text in ["", "m", "-5", "1x", "1.2.3", "9999999999999p"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn flags_become_resources_without_devices() {
        let words =
            Words::try_parse_from(["update", "--memory", "32m", "--cpu-quota", "-1", "id"]).expect("valid");
        let resources = resources(&words).expect("valid");
        assert_eq!(resources.memory().and_then(|memory| memory.limit()), Some(32 << 20));
        assert_eq!(resources.cpu().as_ref().and_then(|cpu| cpu.quota()), Some(-1));
        assert!(resources.devices().is_none() && resources.pids().is_none());
    }
}
