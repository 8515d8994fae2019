//! What containers and pods use.
use super::api::*;
use super::container::{self, Found};
use super::error::Result;
use super::kept::nanos;
use super::{Cri, container_status, sandbox};
use crate::agent::Node;
use crate::engine::record::Status;
use crate::engine::task::{LinkStats, Stats, TaskStats, TaskStatus};
use crate::engine::timestamp::Timestamp;
use std::sync::Arc;

/// Limits above this are none: v1 shows "no limit" as a number near it.
const NO_LIMIT: u64 = 1 << 62;

fn value(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}

/// A figure of `memory.stat`: v1 has those of the whole tree under `total_`.
fn figure(stats: &Stats, v1: &str, v2: &str) -> u64 {
    let raw = &stats.memory.raw;
    raw.get(&format!("total_{v1}")).or_else(|| raw.get(v2)).copied().unwrap_or(0)
}

fn memory(stats: &Stats, timestamp: i64) -> MemoryUsage {
    let usage = stats.memory.usage.usage;
    let working_set = usage.saturating_sub(figure(stats, "inactive_file", "inactive_file"));
    let limit = stats.memory.usage.limit;
    let available = if limit < NO_LIMIT { limit.saturating_sub(working_set) } else { 0 };
    MemoryUsage {
        timestamp,
        working_set_bytes: value(working_set),
        available_bytes: value(available),
        usage_bytes: value(usage),
        rss_bytes: value(figure(stats, "rss", "anon")),
        page_faults: value(figure(stats, "pgfault", "pgfault")),
        major_page_faults: value(figure(stats, "pgmajfault", "pgmajfault")),
        psi: None,
    }
}

/// The engine counts memory and swap together.
fn swap(stats: &Stats, timestamp: i64) -> SwapUsage {
    let (memory, both) = (&stats.memory.usage, &stats.memory.swap);
    let used = both.usage.saturating_sub(memory.usage);
    let limit = both.limit.saturating_sub(memory.limit);
    let available = if both.limit < NO_LIMIT { limit.saturating_sub(used) } else { 0 };
    SwapUsage { timestamp, swap_available_bytes: value(available), swap_usage_bytes: value(used) }
}

fn interface(link: &LinkStats) -> NetworkInterfaceUsage {
    NetworkInterfaceUsage {
        name: link.name.clone(),
        rx_bytes: value(link.received.0),
        rx_errors: value(link.received.1),
        tx_bytes: value(link.sent.0),
        tx_errors: value(link.sent.1),
    }
}

/// The first link is the pod's own; others were added by plugins.
fn network(links: &[LinkStats], timestamp: i64) -> NetworkUsage {
    let default = links.iter().position(|link| link.name == "eth0").unwrap_or(0);
    let others = links.iter().enumerate().filter(|(at, _)| *at != default).map(|(_, link)| interface(link));
    NetworkUsage {
        timestamp,
        default_interface: links.get(default).map(interface),
        interfaces: others.collect(),
    }
}

impl Cri {
    fn cpu(&self, id: &str, stats: &Stats, timestamp: i64) -> CpuUsage {
        let total = stats.cpu.usage.total;
        CpuUsage {
            timestamp,
            usage_core_nano_seconds: value(total),
            usage_nano_cores: self.seen.rate(id, timestamp, total).and_then(value),
            psi: None,
        }
    }

    /// One that does not run uses only its files.
    fn of_container(&self, node: &Node, found: &Found) -> Result<ContainerStats> {
        let used = self.seen.writable(&node.engine, &found.id)?;
        let mut all = ContainerStats {
            attributes: Some(ContainerAttributes {
                id: found.record.id.clone(),
                metadata: Some(found.kept.metadata.clone()),
                labels: found.kept.labels.clone(),
                annotations: found.kept.annotations.clone(),
            }),
            writable_layer: Some(FilesystemUsage {
                timestamp: nanos(Timestamp::now()),
                fs_id: Some(FilesystemIdentifier {
                    mountpoint: node.engine.containers().display().to_string(),
                }),
                used_bytes: value(used.bytes),
                inodes_used: value(used.inodes),
            }),
            ..ContainerStats::default()
        };
        if let Status::Running(_) = node.engine.status(&found.id)? {
            let stats = node.engine.container_stats(&found.record)?;
            let now = nanos(Timestamp::now());
            all.cpu = Some(self.cpu(&found.record.id, &stats, now));
            all.memory = Some(memory(&stats, now));
            all.swap = Some(swap(&stats, now));
        }
        Ok(all)
    }

    /// `None` for a pod that is not ready.
    fn of_pod(&self, node: &Node, found: &sandbox::Found) -> Result<Option<PodSandboxStats>> {
        if !matches!(node.engine.task_status(&found.id)?, TaskStatus::Ready(_)) {
            return Ok(None);
        }
        let TaskStats { cgroup, links, processes } = node.engine.task_stats(&found.id)?;
        let timestamp = nanos(Timestamp::now());
        let mut containers = Vec::new();
        for record in node.engine.task_containers(&found.id)? {
            let Some(container) = Found::new(record)? else { continue };
            // One that ends meanwhile is left out.
            containers.extend(self.of_container(node, &container).ok().filter(|stats| stats.cpu.is_some()));
        }
        Ok(Some(PodSandboxStats {
            attributes: Some(PodSandboxAttributes {
                id: found.record.id.clone(),
                metadata: Some(found.kept.metadata.clone()),
                labels: found.kept.labels.clone(),
                annotations: found.kept.annotations.clone(),
            }),
            linux: Some(LinuxPodSandboxStats {
                cpu: Some(self.cpu(&found.record.id, &cgroup, timestamp)),
                memory: Some(memory(&cgroup, timestamp)),
                network: Some(network(&links, timestamp)),
                process: Some(ProcessUsage { timestamp, process_count: value(processes) }),
                containers,
                io: None,
            }),
            windows: None,
        }))
    }

    /// `ContainerStats`
    pub async fn container_stats(
        self: &Arc<Self>,
        request: ContainerStatsRequest,
    ) -> Result<ContainerStatsResponse> {
        let cri = Arc::clone(self);
        self.node
            .blocking(move |node| {
                let found = container::find(node, &request.container_id)?;
                Ok(ContainerStatsResponse { stats: Some(cri.of_container(node, &found)?) })
            })
            .await
    }

    /// `ListContainerStats`
    pub async fn list_container_stats(
        self: &Arc<Self>,
        request: ListContainerStatsRequest,
    ) -> Result<ListContainerStatsResponse> {
        let (cri, filter) = (Arc::clone(self), request.filter.unwrap_or_default());
        self.node
            .blocking(move |node| {
                let found =
                    container_status::list(node, &filter.id, &filter.pod_sandbox_id, &filter.label_selector)?;
                // One that ends meanwhile is left out.
                let stats = found.iter().filter_map(|found| cri.of_container(node, found).ok()).collect();
                Ok(ListContainerStatsResponse { stats })
            })
            .await
    }

    /// `PodSandboxStats`
    pub async fn pod_sandbox_stats(
        self: &Arc<Self>,
        request: PodSandboxStatsRequest,
    ) -> Result<PodSandboxStatsResponse> {
        let cri = Arc::clone(self);
        self.node
            .blocking(move |node| {
                let found = sandbox::find(node, &request.pod_sandbox_id)?;
                match cri.of_pod(node, &found)? {
                    Some(stats) => Ok(PodSandboxStatsResponse { stats: Some(stats) }),
                    None => Err(super::CriError::State {
                        kind: "pod sandbox",
                        id: found.record.id,
                        state: "not ready",
                        needed: "only one that is ready uses anything",
                    }),
                }
            })
            .await
    }

    /// `ListPodSandboxStats`
    pub async fn list_pod_sandbox_stats(
        self: &Arc<Self>,
        request: ListPodSandboxStatsRequest,
    ) -> Result<ListPodSandboxStatsResponse> {
        let (cri, filter) = (Arc::clone(self), request.filter.unwrap_or_default());
        self.node
            .blocking(move |node| {
                let found = sandbox::list(node, &filter.id, &filter.label_selector)?;
                // One that is stopped meanwhile is left out.
                let stats = found.iter().filter_map(|found| cri.of_pod(node, found).ok().flatten()).collect();
                Ok(ListPodSandboxStatsResponse { stats })
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn memory_of_both_hierarchies() {
        let mut stats = Stats::default();
        stats.memory.usage.usage = 100;
        stats.memory.usage.limit = u64::MAX;
        stats.memory.raw = BTreeMap::from([("inactive_file".into(), 30), ("anon".into(), 50)]);
        let v2 = memory(&stats, 1);
        assert_eq!((v2.working_set_bytes, v2.rss_bytes), (value(70), value(50)));
        assert_eq!(v2.available_bytes, value(0));
        stats.memory.usage.limit = 200;
        stats.memory.raw = BTreeMap::from([
            ("inactive_file".into(), 1),
            ("total_inactive_file".into(), 40),
            ("total_rss".into(), 20),
        ]);
        let v1 = memory(&stats, 1);
        assert_eq!((v1.working_set_bytes, v1.rss_bytes), (value(60), value(20)));
        assert_eq!(v1.available_bytes, value(140));
    }

    #[test]
    fn eth0_is_the_default_interface() {
        let link = |name: &str| LinkStats { name: name.into(), ..LinkStats::default() };
        let usage = network(&[link("net1"), link("eth0")], 1);
        assert_eq!(usage.default_interface.unwrap().name, "eth0");
        assert_eq!(usage.interfaces.len(), 1);
        assert!(network(&[], 1).default_interface.is_none());
    }
}
