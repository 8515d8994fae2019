//! What containers are and were.
use super::api::*;
use super::container::{self, Found};
use super::error::{CriError, Result};
use super::kept::nanos;
use super::{Cri, sandbox, signal};
use crate::agent::Node;
use crate::engine::EngineError;
use crate::engine::record::{Ended, Status, read_json};
use crate::engine::specgen::Identity;
use std::collections::BTreeMap;
use std::sync::Arc;

/// In a container's directory: its resources after an update.
pub const RESOURCES: &str = "cri-resources.json";
/// Exit code of a container that could not be started, as containerd's.
const START_ERROR: i32 = 128;

/// The part of a status that its life decides; pure.
#[derive(Debug, Default, PartialEq, Eq)]
struct Life {
    state: ContainerState,
    started_at: i64,
    finished_at: i64,
    exit_code: i32,
    reason: &'static str,
    message: String,
}

fn life(status: &Status) -> Life {
    match status {
        Status::Created(None) | Status::Starting => Life::default(),
        Status::Created(Some(ended)) => Life {
            state: ContainerState::ContainerExited,
            started_at: 0,
            finished_at: nanos(ended.finished),
            exit_code: START_ERROR,
            reason: "StartError",
            message: ended.error.clone().unwrap_or_default(),
        },
        Status::Running(run) | Status::Unmonitored(run) => Life {
            state: ContainerState::ContainerRunning,
            started_at: nanos(run.started),
            ..Life::default()
        },
        Status::Exited(ended) => exited(ended),
        Status::Lost(run) => Life {
            state: ContainerState::ContainerExited,
            started_at: nanos(run.started),
            // Nobody saw it; it is not before the start.
            finished_at: nanos(run.started),
            exit_code: 255,
            reason: "Unknown",
            message: "its monitor was killed: how it ended is not known".to_owned(),
        },
    }
}

fn exited(ended: &Ended) -> Life {
    Life {
        state: ContainerState::ContainerExited,
        started_at: ended.started.map_or(0, nanos),
        finished_at: nanos(ended.finished),
        exit_code: ended.code.into(),
        reason: match (ended.oom_killed, ended.code) {
            (true, _) => "OOMKilled",
            (false, 0) => "Completed",
            (false, _) => "Error",
        },
        message: ended.error.clone().unwrap_or_default(),
    }
}

/// The resources as they are now.
pub fn resources(node: &Node, found: &Found) -> Result<Option<LinuxContainerResources>> {
    let updated = read_json(&node.engine.directory(&found.id).join(RESOURCES))?;
    Ok(updated.or_else(|| found.kept.resources.clone()))
}

/// What `ContainerStatus` tells.
pub fn status(node: &Node, found: &Found) -> Result<ContainerStatus> {
    let life = life(&node.engine.settle(&found.record)?);
    let (kept, record) = (&found.kept, &found.record);
    let log_path = record.options.task.log_path.as_deref();
    let linux = resources(node, found)?;
    Ok(ContainerStatus {
        id: record.id.clone(),
        metadata: Some(kept.metadata.clone()),
        state: life.state as i32,
        created_at: nanos(record.created),
        started_at: life.started_at,
        finished_at: life.finished_at,
        exit_code: life.exit_code,
        image: Some(shown_image(found)),
        image_ref: kept.image_ref.clone(),
        reason: life.reason.to_owned(),
        message: life.message,
        labels: kept.labels.clone(),
        annotations: kept.annotations.clone(),
        mounts: kept.mounts.clone(),
        log_path: log_path.map(|path| path.display().to_string()).unwrap_or_default(),
        resources: linux.map(|linux| ContainerResources { linux: Some(linux), windows: None }),
        image_id: record.image_id.clone(),
        user: node.engine.identity(&found.id)?.map(user),
        stop_signal: signal::to_api(record.options.stop_signal) as i32,
    })
}

/// As the user wrote it, if that is known.
fn shown_image(found: &Found) -> ImageSpec {
    let mut image = found.kept.image.clone();
    if !image.user_specified_image.is_empty() {
        image.image.clone_from(&image.user_specified_image);
    }
    image
}

/// As whom it runs.
fn user(identity: Identity) -> ContainerUser {
    let linux = LinuxContainerUser {
        uid: identity.uid.into(),
        gid: identity.gid.into(),
        supplemental_groups: identity.groups.into_iter().map(i64::from).collect(),
    };
    ContainerUser { linux: Some(linux) }
}

/// Those of all containers of a pod.
pub fn of_sandbox(node: &Node, pod: &sandbox::Found) -> Result<Vec<ContainerStatus>> {
    let records = node.engine.task_containers(&pod.id)?;
    let mut statuses = Vec::with_capacity(records.len());
    for record in records {
        let Some(found) = Found::new(record)? else { continue };
        match status(node, &found) {
            Ok(status) => statuses.push(status),
            // It was just removed.
            Err(CriError::Engine(EngineError::NoSuchContainer { .. })) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(statuses)
}

/// All containers that a filter lets through, the newest first.
pub fn list(node: &Node, id: &str, pod: &str, labels: &BTreeMap<String, String>) -> Result<Vec<Found>> {
    let pod = match pod {
        "" => None,
        given => match sandbox::find(node, given) {
            Ok(pod) => Some(pod),
            Err(CriError::NoSandbox { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        },
    };
    let mut all: Vec<Found> = match (id, &pod) {
        ("", None) => all_of(node.engine.records()?)?,
        ("", Some(pod)) => {
            let mut oldest_first = all_of(node.engine.task_containers(&pod.id)?)?;
            oldest_first.reverse();
            oldest_first
        }
        (id, _) => container::find_or_gone(node, id)?.into_iter().collect(),
    };
    if let Some(pod) = &pod {
        all.retain(|found| found.record.task.as_ref() == Some(&pod.record.id));
    }
    all.retain(|found| sandbox::selects(labels, &found.kept.labels));
    Ok(all)
}

fn all_of(records: Vec<crate::engine::record::Record>) -> Result<Vec<Found>> {
    records.into_iter().filter_map(|record| Found::new(record).transpose()).collect()
}

impl Cri {
    /// `ContainerStatus`
    pub async fn container_status(
        self: &Arc<Self>,
        request: ContainerStatusRequest,
    ) -> Result<ContainerStatusResponse> {
        self.node
            .blocking(move |node| {
                let found = container::find(node, &request.container_id)?;
                let info = if request.verbose { info(node, &found)? } else { BTreeMap::new() };
                Ok(ContainerStatusResponse { status: Some(status(node, &found)?), info })
            })
            .await
    }

    /// `ListContainers`
    pub async fn list_containers(
        self: &Arc<Self>,
        request: ListContainersRequest,
    ) -> Result<ListContainersResponse> {
        let filter = request.filter.unwrap_or_default();
        self.node
            .blocking(move |node| {
                let mut containers = Vec::new();
                for found in list(node, &filter.id, &filter.pod_sandbox_id, &filter.label_selector)? {
                    // One that was just removed is none.
                    let Ok(status) = node.engine.status(&found.id) else { continue };
                    let state = life(&status).state as i32;
                    if filter.state.is_some_and(|wanted| wanted.state != state) {
                        continue;
                    }
                    containers.push(Container {
                        image: Some(shown_image(&found)),
                        id: found.record.id,
                        pod_sandbox_id: found.record.task.unwrap_or_default(),
                        metadata: Some(found.kept.metadata),
                        image_ref: found.kept.image_ref,
                        state,
                        created_at: nanos(found.record.created),
                        labels: found.kept.labels,
                        annotations: found.kept.annotations,
                        image_id: found.record.image_id,
                    });
                }
                Ok(ListContainersResponse { containers })
            })
            .await
    }
}

/// What only people read.
fn info(node: &Node, found: &Found) -> Result<BTreeMap<String, String>> {
    let status = node.engine.status(&found.id)?;
    let mut command = serde_json::json!(found.record.command);
    // Secrets come as variables.
    command["env"] = serde_json::json!(found.record.command.env.len());
    let info = serde_json::json!({
        "sandboxID": found.record.task,
        "pid": status.run().map_or(0, |run| run.pid),
        "monitor": status.run().map(|run| run.monitor.pid),
        "command": command,
        "privileged": found.record.options.privileged,
        "user": found.record.command.user,
    });
    Ok(BTreeMap::from([("info".to_owned(), info.to_string())]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::timestamp::Timestamp;
    use std::time::Duration;

    fn ended(code: u8, oom_killed: bool, started: Option<u64>) -> Ended {
        let at = |seconds| Timestamp::from_unix(Duration::from_secs(seconds));
        Ended { code, oom_killed, started: started.map(at), finished: at(9), error: None, restarts: 0 }
    }

    #[test]
    fn reasons() {
        let reason = |ended: Ended| life(&Status::Exited(ended)).reason;
        assert_eq!(reason(ended(0, false, Some(1))), "Completed");
        assert_eq!(reason(ended(3, false, Some(1))), "Error");
        assert_eq!(reason(ended(137, true, Some(1))), "OOMKilled");
        let failed = life(&Status::Created(Some(ended(127, false, None))));
        assert_eq!((failed.reason, failed.exit_code, failed.started_at), ("StartError", 128, 0));
        assert_eq!(failed.state, ContainerState::ContainerExited);
        assert_eq!(life(&Status::Created(None)), Life::default());
    }
}
