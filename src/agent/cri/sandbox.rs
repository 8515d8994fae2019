//! Pods.
use super::api::*;
use super::error::{CriError, Result};
use super::kept::{self, nanos};
use super::{Cri, events, resources, sandbox_spec};
use crate::agent::Node;
use crate::engine::EngineError;
use crate::engine::names::Id;
use crate::engine::task::{TaskRecord, TaskSpec, TaskStatus};
use crate::engine::timestamp::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A pod that came through this door.
#[derive(Debug)]
pub struct Found {
    /// Its id.
    pub id: Id,
    /// Its record.
    pub record: TaskRecord,
    /// What the record keeps for this door.
    pub kept: kept::Sandbox,
}

impl Found {
    fn new(record: TaskRecord) -> Result<Option<Self>> {
        let kept = kept::Sandbox::of(&record)?;
        Ok(kept.and_then(|kept| Id::parse(&record.id).map(|id| Self { id, record, kept })))
    }
}

/// The pod with this id or beginning of an id.
pub fn find(node: &Node, given: &str) -> Result<Found> {
    let missing = || CriError::NoSandbox { given: given.to_owned() };
    match node.engine.find_task(given) {
        Ok(record) => Found::new(record)?.ok_or_else(missing),
        Err(EngineError::NoSuchTask { .. } | EngineError::InvalidName { .. }) => Err(missing()),
        Err(error) => Err(error.into()),
    }
}

/// The same where it is no error that it is gone already.
fn find_or_gone(node: &Node, given: &str) -> Result<Option<Found>> {
    match find(node, given) {
        Ok(found) => Ok(Some(found)),
        Err(CriError::NoSandbox { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// All pods that a filter lets through, the newest first.
pub fn list(node: &Node, id: &str, labels: &BTreeMap<String, String>) -> Result<Vec<Found>> {
    let all = if id.is_empty() {
        node.engine
            .tasks()?
            .into_iter()
            .map(Found::new)
            .filter_map(Result::transpose)
            .collect::<Result<_>>()?
    } else {
        find_or_gone(node, id)?.into_iter().collect()
    };
    Ok(Vec::into_iter(all).filter(|found: &Found| selects(labels, &found.kept.labels)).collect())
}

/// Whether all of a selector is among the labels.
pub fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// CRI's two states.
fn state(status: &TaskStatus) -> PodSandboxState {
    match status {
        TaskStatus::Ready(_) => PodSandboxState::SandboxReady,
        TaskStatus::Making | TaskStatus::Stopped { .. } => PodSandboxState::SandboxNotready,
    }
}

/// What `PodSandboxStatus` tells.
pub fn status(node: &Node, found: &Found) -> Result<PodSandboxStatus> {
    let status = node.engine.task_status(&found.id)?;
    let kept = &found.kept;
    Ok(PodSandboxStatus {
        id: found.record.id.clone(),
        metadata: Some(kept.metadata.clone()),
        state: state(&status) as i32,
        created_at: nanos(found.record.created),
        network: Some(network(&status)),
        linux: Some(LinuxPodSandboxStatus {
            namespaces: Some(Namespace { options: Some(kept.namespaces.clone()) }),
        }),
        labels: kept.labels.clone(),
        annotations: kept.annotations.clone(),
        runtime_handler: kept.runtime_handler.clone(),
    })
}

/// Addresses, if it has some of its own.
fn network(status: &TaskStatus) -> PodSandboxNetworkStatus {
    let TaskStatus::Ready(run) = status else { return PodSandboxNetworkStatus::default() };
    let mut ips =
        run.attachment.iter().flat_map(|attachment| &attachment.addresses).map(|a| a.ip.to_string());
    PodSandboxNetworkStatus {
        ip: ips.next().unwrap_or_default(),
        additional_ips: ips.map(|ip| PodIp { ip }).collect(),
    }
}

impl Cri {
    /// `RunPodSandbox`
    pub async fn run_pod_sandbox(
        self: &Arc<Self>,
        request: RunPodSandboxRequest,
    ) -> Result<RunPodSandboxResponse> {
        let digest = kept::digest(&request);
        let config = request.config.ok_or(CriError::Missing { field: "config" })?;
        let facts = sandbox_spec::Facts { network: &self.node.config.network, counts_swap: self.counts_swap };
        let spec = sandbox_spec::task(&config, &request.runtime_handler, digest.clone(), &facts)?;
        let (key, cri) = (format!("{} {digest}", spec.name), Arc::clone(self));
        let pod_sandbox_id =
            self.making.run(key, async move { cri.make_sandbox(spec, digest).await }).await?;
        Ok(RunPodSandboxResponse { pod_sandbox_id })
    }

    async fn make_sandbox(self: Arc<Self>, spec: TaskSpec, digest: String) -> Result<String> {
        let made = self.patiently(move |node| match node.engine.run_task(spec) {
            Ok(record) => Ok((record.id, true)),
            Err(EngineError::NameInUse { id, .. }) => same(node, id, &digest).map(|id| (id, false)),
            Err(error) => Err(error.into()),
        });
        let (id, is_new) = made.await?;
        if is_new {
            self.node.watch(&id).await;
            self.announce(&id, &id, ContainerEventType::ContainerCreatedEvent).await;
            self.announce(&id, &id, ContainerEventType::ContainerStartedEvent).await;
        }
        Ok(id)
    }

    /// `StopPodSandbox`: what still runs is killed, as the contract has it.
    pub async fn stop_pod_sandbox(
        self: &Arc<Self>,
        request: StopPodSandboxRequest,
    ) -> Result<StopPodSandboxResponse> {
        let given = request.pod_sandbox_id;
        let stopped = self.patiently(move |node| {
            let Some(found) = find_or_gone(node, &given)? else { return Ok(()) };
            match node.engine.stop_task(&found.id, Some(Duration::ZERO)) {
                Ok(()) | Err(EngineError::NoSuchTask { .. }) => Ok(()),
                Err(error) => Err(error.into()),
            }
        });
        stopped.await?;
        Ok(StopPodSandboxResponse {})
    }

    /// `RemovePodSandbox`
    pub async fn remove_pod_sandbox(
        self: &Arc<Self>,
        request: RemovePodSandboxRequest,
    ) -> Result<RemovePodSandboxResponse> {
        let given = request.pod_sandbox_id;
        let wanted = self.events.is_watched();
        let removed = self.patiently(move |node| {
            let Some(found) = find_or_gone(node, &given)? else { return Ok(None) };
            let containers = if wanted { node.engine.task_containers(&found.id)? } else { Vec::new() };
            // What is told of it must be read while it is there.
            let last = if wanted { status(node, &found).ok() } else { None };
            match node.engine.remove_task(&node.store, &found.id) {
                Ok(()) => Ok(Some((found.record.id, containers, last))),
                Err(EngineError::NoSuchTask { .. }) => Ok(None),
                Err(error) => Err(error.into()),
            }
        });
        if let Some((id, containers, last)) = removed.await? {
            for container in &containers {
                self.events.send(events::deleted(&container.id, last.clone()));
                self.seen.forget(&container.id);
            }
            self.events.send(events::deleted(&id, last));
            self.seen.forget(&id);
        }
        Ok(RemovePodSandboxResponse {})
    }

    /// `PodSandboxStatus`
    pub async fn pod_sandbox_status(
        self: &Arc<Self>,
        request: PodSandboxStatusRequest,
    ) -> Result<PodSandboxStatusResponse> {
        self.node
            .blocking(move |node| {
                let found = find(node, &request.pod_sandbox_id)?;
                let info = if request.verbose { info(node, &found)? } else { BTreeMap::new() };
                Ok(PodSandboxStatusResponse {
                    status: Some(status(node, &found)?),
                    info,
                    containers_statuses: super::container_status::of_sandbox(node, &found)?,
                    timestamp: nanos(Timestamp::now()),
                })
            })
            .await
    }

    /// `ListPodSandbox`
    pub async fn list_pod_sandbox(
        self: &Arc<Self>,
        request: ListPodSandboxRequest,
    ) -> Result<ListPodSandboxResponse> {
        let filter = request.filter.unwrap_or_default();
        self.node
            .blocking(move |node| {
                let mut items = Vec::new();
                for found in list(node, &filter.id, &filter.label_selector)? {
                    // One that was just removed is none.
                    let Ok(status) = node.engine.task_status(&found.id) else { continue };
                    let state = state(&status) as i32;
                    if filter.state.is_some_and(|wanted| wanted.state != state) {
                        continue;
                    }
                    items.push(PodSandbox {
                        id: found.record.id,
                        metadata: Some(found.kept.metadata),
                        state,
                        created_at: nanos(found.record.created),
                        labels: found.kept.labels,
                        annotations: found.kept.annotations,
                        runtime_handler: found.kept.runtime_handler,
                    });
                }
                Ok(ListPodSandboxResponse { items })
            })
            .await
    }

    /// `UpdatePodSandboxResources`: the limits of a cgroup that the client gave are its own business.
    pub async fn update_pod_sandbox_resources(
        self: &Arc<Self>,
        request: UpdatePodSandboxResourcesRequest,
    ) -> Result<UpdatePodSandboxResourcesResponse> {
        let counts_swap = self.counts_swap;
        let given = request.resources.unwrap_or_default();
        let limits = resources::limits(&given, counts_swap)?;
        self.node
            .blocking(move |node| {
                let found = find(node, &request.pod_sandbox_id)?;
                if found.record.spec.cgroup.is_none() {
                    node.engine.update_task_limits(&found.id, &limits)?;
                }
                Ok(UpdatePodSandboxResourcesResponse {})
            })
            .await
    }
}

/// The pod that has the name already, if it is what was asked for: an answer was lost on its way.
fn same(node: &Node, id: String, digest: &str) -> Result<String> {
    let exists = |difference| CriError::Exists { kind: "pod sandbox", id: id.clone(), difference };
    let found = match find(node, &id) {
        Ok(found) => found,
        Err(CriError::NoSandbox { .. }) => return Err(exists("it is being made or removed")),
        Err(error) => return Err(error),
    };
    if found.kept.request != digest {
        return Err(exists("its configuration is another one"));
    }
    match node.engine.task_status(&found.id)? {
        TaskStatus::Ready(_) => Ok(id),
        TaskStatus::Making | TaskStatus::Stopped { .. } => Err(exists("it is not ready")),
    }
}

/// What only people read.
fn info(node: &Node, found: &Found) -> Result<BTreeMap<String, String>> {
    let status = node.engine.task_status(&found.id)?;
    let mut info = serde_json::json!({
        "sandboxID": found.record.id,
        "runtimeHandler": found.kept.runtime_handler,
        "cgroup": found.record.spec.cgroup,
        "network": found.record.spec.network,
        "logDirectory": found.kept.log_directory,
    });
    if let TaskStatus::Ready(run) = status {
        info["monitor"] = run.monitor.pid.into();
        info["pid"] = run.monitor.pid.into();
        info["netns"] = run.netns.map(|path| path.display().to_string()).into();
        info["attachment"] = serde_json::json!(run.attachment);
    }
    Ok(BTreeMap::from([("info".to_owned(), info.to_string())]))
}
