//! Containers of pods: making, starting, stopping, changing and removing them.
use super::api::*;
use super::container_status::RESOURCES;
use super::error::{CriError, Result};
use super::{Cri, container_spec, events, image, kept, mounts, resources, sandbox};
use crate::agent::Node;
use crate::engine::EngineError;
use crate::engine::names::Id;
use crate::engine::options::Seccomp;
use crate::engine::record::{Durability, Record, Status, write_json};
use crate::engine::task::{ContainerRequest, TaskStatus};
use crate::sys::SysError;
use std::sync::Arc;
use std::time::Duration;

/// A container of a pod.
#[derive(Debug)]
pub struct Found {
    /// Its id.
    pub id: Id,
    /// Its record.
    pub record: Record,
    /// What the record keeps for this door.
    pub kept: kept::Container,
}

impl Found {
    /// `None` if it came through another door.
    pub fn new(record: Record) -> Result<Option<Self>> {
        let kept = kept::Container::of(&record)?;
        Ok(kept.and_then(|kept| Id::parse(&record.id).map(|id| Self { id, record, kept })))
    }
}

/// The container with this id or beginning of an id.
pub fn find(node: &Node, given: &str) -> Result<Found> {
    let missing = || CriError::NoContainer { given: given.to_owned() };
    match node.engine.find(given) {
        Ok(record) => Found::new(record)?.ok_or_else(missing),
        Err(EngineError::NoSuchContainer { .. } | EngineError::InvalidName { .. }) => Err(missing()),
        Err(error) => Err(error.into()),
    }
}

/// The same where it is no error that it is gone already.
pub fn find_or_gone(node: &Node, given: &str) -> Result<Option<Found>> {
    match find(node, given) {
        Ok(found) => Ok(Some(found)),
        Err(CriError::NoContainer { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What `CreateContainer` is to make.
struct Creation {
    sandbox: String,
    config: ContainerConfig,
    metadata: ContainerMetadata,
    digest: String,
    counts_swap: bool,
    selinux: bool,
}

impl Cri {
    /// `CreateContainer`
    pub async fn create_container(
        self: &Arc<Self>,
        request: CreateContainerRequest,
    ) -> Result<CreateContainerResponse> {
        let config = request.config.ok_or(CriError::Missing { field: "config" })?;
        let metadata = config.metadata.clone().ok_or(CriError::Missing { field: "config.metadata" })?;
        if metadata.name.is_empty() {
            return Err(CriError::Missing { field: "config.metadata.name" });
        }
        let creation = Creation {
            digest: kept::digest(&config),
            sandbox: request.pod_sandbox_id,
            config,
            metadata,
            counts_swap: self.counts_swap,
            selinux: self.selinux,
        };
        let (key, cri) = (format!("{} {}", creation.sandbox, creation.digest), Arc::clone(self));
        let work = async move {
            let (id, sandbox, is_new) = cri.node.blocking(move |node| create(node, &creation)).await?;
            if is_new {
                cri.announce(&sandbox, &id, ContainerEventType::ContainerCreatedEvent).await;
            }
            Ok(id)
        };
        Ok(CreateContainerResponse { container_id: self.making.run(key, work).await? })
    }

    /// `StartContainer`
    pub async fn start_container(
        self: &Arc<Self>,
        request: StartContainerRequest,
    ) -> Result<StartContainerResponse> {
        self.patiently(move |node| {
            let found = find(node, &request.container_id)?;
            let state = match node.engine.status(&found.id)? {
                Status::Created(None) => return Ok(node.engine.start_in_task(&found.record)?),
                Status::Starting | Status::Running(_) | Status::Unmonitored(_) => "running",
                Status::Created(Some(_)) | Status::Exited(_) | Status::Lost(_) => "exited",
            };
            let needed = "a container is started once";
            Err(CriError::State { kind: "container", id: found.record.id, state, needed })
        })
        .await?;
        Ok(StartContainerResponse {})
    }

    /// `StopContainer`
    pub async fn stop_container(
        self: &Arc<Self>,
        request: StopContainerRequest,
    ) -> Result<StopContainerResponse> {
        // No time is none to obey in; a negative one is a mistake that means the same.
        let grace = Duration::from_secs(u64::try_from(request.timeout).unwrap_or(0));
        self.patiently(move |node| {
            let Some(found) = find_or_gone(node, &request.container_id)? else {
                return Ok(());
            };
            match node.engine.stop(&found.record, Some(grace)) {
                Ok(()) | Err(EngineError::NoSuchContainer { .. }) => Ok(()),
                Err(error) => Err(error.into()),
            }
        })
        .await?;
        Ok(StopContainerResponse {})
    }

    /// `RemoveContainer`: one that runs is killed.
    pub async fn remove_container(
        self: &Arc<Self>,
        request: RemoveContainerRequest,
    ) -> Result<RemoveContainerResponse> {
        let wanted = self.events.is_watched();
        let removed = self.patiently(move |node| {
            let Some(found) = find_or_gone(node, &request.container_id)? else {
                return Ok(None);
            };
            let pod = found.record.task.as_deref().filter(|_| wanted);
            let pod = pod.and_then(|task| sandbox::find(node, task).ok());
            let last = pod.and_then(|pod| sandbox::status(node, &pod).ok());
            match node.engine.delete(&node.store, &found.record, true, true) {
                Ok(()) => Ok(Some((found.record.id, last))),
                Err(EngineError::NoSuchContainer { .. }) => Ok(None),
                Err(error) => Err(error.into()),
            }
        });
        if let Some((id, last)) = removed.await? {
            self.seen.forget(&id);
            self.events.send(events::deleted(&id, last));
        }
        Ok(RemoveContainerResponse {})
    }

    /// `UpdateContainerResources`
    pub async fn update_container_resources(
        self: &Arc<Self>,
        request: UpdateContainerResourcesRequest,
    ) -> Result<UpdateContainerResourcesResponse> {
        if request.windows.is_some() {
            return Err(CriError::NotBuilt { what: "windows", reason: "this is Linux" });
        }
        let given = request.linux.ok_or(CriError::Missing { field: "linux" })?;
        let limits = resources::limits(&given, self.counts_swap)?;
        self.node
            .blocking(move |node| {
                let found = find(node, &request.container_id)?;
                node.engine.update_limits(&found.record, &limits)?;
                let known = super::container_status::resources(node, &found)?;
                let merged = resources::merge(known, &given);
                let path = node.engine.directory(&found.id).join(RESOURCES);
                write_json(&path, &merged, Durability::Synced)?;
                Ok::<_, CriError>(())
            })
            .await?;
        Ok(UpdateContainerResourcesResponse {})
    }

    /// `ReopenContainerLog`
    pub async fn reopen_container_log(
        self: &Arc<Self>,
        request: ReopenContainerLogRequest,
    ) -> Result<ReopenContainerLogResponse> {
        self.node
            .blocking(move |node| {
                let found = find(node, &request.container_id)?;
                match node.engine.status(&found.id)? {
                    Status::Running(_) => Ok(node.engine.reopen_log(&found.record)?),
                    status => Err(CriError::State {
                        kind: "container",
                        id: found.record.id,
                        state: status.word(),
                        needed: "only a running container writes a log",
                    }),
                }
            })
            .await?;
        Ok(ReopenContainerLogResponse {})
    }
}

/// Makes a container; tells its id, its pod's, and whether it is new.
fn create(node: &Node, creation: &Creation) -> Result<(String, String, bool)> {
    let pod = sandbox::find(node, &creation.sandbox)?;
    if !matches!(node.engine.task_status(&pod.id)?, TaskStatus::Ready(_)) {
        let needed = "containers are made in one that is ready";
        return Err(CriError::State { kind: "pod sandbox", id: pod.record.id, state: "not ready", needed });
    }
    let config = &creation.config;
    let facts = container_spec::Facts {
        sandbox: &pod.kept,
        counts_swap: creation.counts_swap,
        selinux: creation.selinux,
    };
    let asked = container_spec::container(config, &facts)?;
    let spec = config.image.clone().unwrap_or_default();
    if spec.image.is_empty() {
        return Err(CriError::Missing { field: "config.image" });
    }
    let image = node.store.resolve(&spec.image)?;
    for mount in &asked.options.task.mounts {
        mounts::make_source(&mount.source)?;
    }
    if let Some(directory) = asked.options.task.log_path.as_deref().and_then(std::path::Path::parent) {
        mounts::make_source(directory)?;
    }
    if let Seccomp::File(path) = &asked.options.security.seccomp {
        std::fs::metadata(path).map_err(SysError::io("stat", path.display().to_string()))?;
    }
    let kept = kept::Container {
        metadata: creation.metadata.clone(),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        image_ref: image::reference(&image),
        image: spec.clone(),
        mounts: config.mounts.clone(),
        resources: config.linux.as_ref().and_then(|linux| linux.resources.clone()),
        stop_signal: config.stop_signal,
        request: creation.digest.clone(),
    };
    let request = ContainerRequest {
        name: kept::container_name(&creation.metadata, &pod.kept.metadata, pod.id.as_str()),
        image: spec.image,
        overrides: asked.overrides,
        options: asked.options,
        stop_signal: asked.stop_signal,
        data: kept.to_data()?,
    };
    match node.engine.create_in_task(&node.store, &pod.id, &image, request) {
        Ok(record) => {
            if let Err(error) = node.engine.check_user(&node.store, &image, &record) {
                node.engine.delete(&node.store, &record, true, true)?;
                return Err(error.into());
            }
            Ok((record.id, pod.record.id, true))
        }
        Err(EngineError::NameInUse { id, .. }) => {
            same(node, id, &creation.digest).map(|id| (id, pod.record.id, false))
        }
        Err(error) => Err(error.into()),
    }
}

/// The container that has the name already, if it is what was asked for and can still be started.
fn same(node: &Node, id: String, digest: &str) -> Result<String> {
    let exists = |difference| CriError::Exists { kind: "container", id: id.clone(), difference };
    let found = find_or_gone(node, &id)?.ok_or_else(|| exists("it is being made or removed"))?;
    if found.kept.request != digest {
        return Err(exists("its configuration is another one"));
    }
    match node.engine.status(&found.id)? {
        Status::Created(None) => Ok(id),
        _ => Err(exists("it was started already")),
    }
}
