//! What containers use, in the form of docker's statistics, which an ECS agent hands on.
use crate::agent::Node;
use crate::agent::ecs::record::Task;
use crate::engine::EngineError;
use crate::engine::names::Id;
use crate::engine::task::verbs::Stats;
use crate::engine::task::{LinkStats, TaskStats};
use crate::engine::timestamp::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Containers whose last figures are remembered.
const REMEMBERED: usize = 4096;
/// Of `/proc/stat`, in a second (USER_HZ).
const NANOSECONDS_A_TICK: u64 = 10_000_000;

/// The figures of the last request, by which a client sees what was used since.
#[derive(Debug, Default)]
pub(super) struct Samples(Mutex<HashMap<String, Sample>>);

#[derive(Debug, Clone)]
struct Sample {
    time: Timestamp,
    cpu: Value,
    links: Vec<LinkStats>,
}

impl Samples {
    fn exchange(&self, container: &str, sample: Sample) -> Option<Sample> {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() >= REMEMBERED && !samples.contains_key(container) {
            samples.clear();
        }
        samples.insert(container.to_owned(), sample)
    }
}

/// The document of one container; null if it does not run.
pub(super) async fn container(
    node: &Arc<Node>,
    samples: &Samples,
    task: &Arc<Task>,
    name: &str,
) -> Result<Value, EngineError> {
    let Some(runtime) = task.container(name).and_then(|known| known.runtime_id.clone()) else {
        return Ok(Value::Null);
    };
    let all = read(node, task, vec![runtime.clone()]).await?;
    Ok(all.into_iter().next().map_or(Value::Null, |found| document(samples, found)))
}

/// The documents of all containers by their ids; null for those that do not run.
pub(super) async fn task(
    node: &Arc<Node>,
    samples: &Samples,
    task: &Arc<Task>,
) -> Result<Value, EngineError> {
    let ids: Vec<String> = task.containers.iter().filter_map(|known| known.runtime_id.clone()).collect();
    let mut all: Map<String, Value> = ids.iter().map(|id| (id.clone(), Value::Null)).collect();
    for found in read(node, task, ids).await? {
        all.insert(found.id.clone(), document(samples, found));
    }
    Ok(Value::Object(all))
}

struct Found {
    id: String,
    name: String,
    stats: Stats,
    links: Vec<LinkStats>,
    system: u64,
    cpus: usize,
}

async fn read(node: &Arc<Node>, task: &Arc<Task>, ids: Vec<String>) -> Result<Vec<Found>, EngineError> {
    let task_id = task.engine_task.as_deref().and_then(Id::parse);
    node.blocking(move |node| {
        let TaskStats { links, .. } = match &task_id {
            Some(id) => node.engine.task_stats(id).unwrap_or_default(),
            None => TaskStats::default(),
        };
        let (system, cpus) = system();
        let mut found = Vec::new();
        for id in ids {
            let record = match node.engine.find(&id) {
                Ok(record) => record,
                // It may have been removed since.
                Err(EngineError::NoSuchContainer { .. }) => continue,
                Err(error) => return Err(error),
            };
            if node.engine.status(&record.id()?)?.run().is_none() {
                continue;
            }
            let stats = node.engine.container_stats(&record)?;
            found.push(Found { id, name: record.name, stats, links: links.clone(), system, cpus });
        }
        Ok(found)
    })
    .await
}

/// CPU time of the whole machine in nanoseconds, as docker counts it, and how many CPUs there are.
fn system() -> (u64, usize) {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let cpus = text.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count();
    let ticks = text.lines().next().unwrap_or_default().split_whitespace().skip(1).take(7);
    let sum: u64 = ticks.filter_map(|tick| tick.parse::<u64>().ok()).sum();
    (sum.saturating_mul(NANOSECONDS_A_TICK), cpus)
}

fn document(samples: &Samples, found: Found) -> Value {
    let now = Timestamp::now();
    let Found { id, name, stats, links, system, cpus } = found;
    let cpu = json!({
        "cpu_usage": {
            "total_usage": stats.cpu.usage.total,
            "percpu_usage": stats.cpu.usage.percpu,
            "usage_in_kernelmode": stats.cpu.usage.kernel,
            "usage_in_usermode": stats.cpu.usage.user,
        },
        "system_cpu_usage": system,
        "online_cpus": cpus,
        "throttling_data": {
            "periods": stats.cpu.throttling.periods,
            "throttled_periods": stats.cpu.throttling.throttled_periods,
            "throttled_time": stats.cpu.throttling.throttled_time,
        },
    });
    let before = samples.exchange(&id, Sample { time: now, cpu: cpu.clone(), links: links.clone() });
    let entry = |entries: &Vec<_>| serde_json::to_value(entries).unwrap_or_default();
    let memory = &stats.memory;
    let networks: Map<String, Value> = links
        .iter()
        .map(|link| {
            let value = json!({
                "rx_bytes": link.received.0, "rx_errors": link.received.1,
                "tx_bytes": link.sent.0, "tx_errors": link.sent.1,
            });
            (link.name.clone(), value)
        })
        .collect();
    json!({
        "read": now,
        "preread": before.as_ref().map_or(Timestamp::from_unix(std::time::Duration::ZERO), |before| before.time),
        "pids_stats": {"current": stats.pids.current},
        "blkio_stats": {
            "io_service_bytes_recursive": entry(&stats.blkio.io_service_bytes_recursive),
            "io_serviced_recursive": entry(&stats.blkio.io_serviced_recursive),
        },
        "num_procs": 0,
        "cpu_stats": cpu,
        "precpu_stats": before.as_ref().map_or_else(no_cpu, |before| before.cpu.clone()),
        "memory_stats": {
            "usage": memory.usage.usage,
            "max_usage": memory.usage.max,
            "limit": memory.usage.limit,
            "failcnt": memory.usage.failcnt,
            "stats": memory.raw,
        },
        "name": format!("/{name}"),
        "id": id,
        "networks": networks,
        "network_rate_stats": before.map_or(Value::Null, |before| rate(&before, &links, now)),
    })
}

fn no_cpu() -> Value {
    json!({
        "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
        "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
    })
}

/// Bytes a second since the last request.
fn rate(before: &Sample, links: &[LinkStats], now: Timestamp) -> Value {
    let seconds = now.since(before.time).as_secs_f64();
    if seconds <= 0.0 {
        return Value::Null;
    }
    let sum = |links: &[LinkStats], of: fn(&LinkStats) -> u64| links.iter().map(of).sum::<u64>();
    let per_second =
        |of: fn(&LinkStats) -> u64| sum(links, of).saturating_sub(sum(&before.links, of)) as f64 / seconds;
    json!({
        "rx_bytes_per_sec": per_second(|link| link.received.0),
        "tx_bytes_per_sec": per_second(|link| link.sent.0),
    })
}
