//! What the ECS door keeps: clusters, registered definitions and tasks.
//!
//! ```text
//!          RunTask            containers run                 essential exit, StopTask,
//! (nothing) ---> PENDING ------------------> RUNNING ------+ failure to start
//!                   \                                      v                    swept later
//!                    `---------------------------> DEPROVISIONING --> STOPPED ------------> (nothing)
//! ```
//! What a client sees of DEPROVISIONING is `lastStatus` still being PENDING or RUNNING with `desiredStatus` STOPPED,
//! as of an ECS agent.
use super::definition::{Definition, NetworkMode};
use super::overrides::TaskOverride;
use crate::engine::task::{Address, Port};
use crate::engine::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

/// A tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tag {
    /// 1..=128 characters.
    pub key: String,
    /// Up to 256 characters.
    #[serde(default)]
    pub value: String,
}

/// A cluster: a name to which tasks belong. All run on this machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// Its tags.
    pub tags: Vec<Tag>,
}

/// A revision of a family.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Registered {
    /// What was registered.
    pub definition: Definition,
    /// 1, 2 …
    pub revision: u32,
    /// When.
    pub registered: Timestamp,
    /// When it was taken back: it is INACTIVE since then.
    pub deregistered: Option<Timestamp>,
    /// Its tags.
    pub tags: Vec<Tag>,
}

/// What a task is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Phase {
    /// Its images are pulled, its network is made, its containers wait for each other.
    Pending,
    /// All containers were started.
    Running,
    /// Nothing of it runs any more.
    Stopped,
}

impl Phase {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::Stopped => "STOPPED",
        }
    }
}

/// Why a task is to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// The word for programs.
    pub code: StopCode,
    /// The sentence for people.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

/// Why a task stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopCode {
    /// Before all containers were started.
    TaskFailedToStart,
    /// An essential container ended.
    EssentialContainerExited,
    /// StopTask.
    UserInitiated,
}

impl StopCode {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TaskFailedToStart => "TaskFailedToStart",
            Self::EssentialContainerExited => "EssentialContainerExited",
            Self::UserInitiated => "UserInitiated",
        }
    }
}

/// A task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Task {
    /// 32 hexadecimal digits, the end of its ARN.
    pub id: String,
    /// Name of its cluster.
    pub cluster: String,
    /// The definition as it was then, with the overrides.
    pub definition: Definition,
    /// Which revision that is.
    pub revision: u32,
    /// What RunTask said otherwise.
    pub overrides: TaskOverride,
    /// Changed with each change.
    pub version: u64,
    /// `EC2` or `EXTERNAL`.
    pub launch_type: String,
    /// `family:NAME`, or what RunTask said.
    pub group: String,
    /// What RunTask said.
    pub started_by: Option<String>,
    /// By which a repeated RunTask is recognised.
    pub client_token: Option<ClientToken>,
    /// Its tags.
    pub tags: Vec<Tag>,
    /// Subnets that RunTask named for awsvpc; noted only.
    pub subnets: Vec<String>,
    /// What it is doing.
    pub phase: Phase,
    /// Why it is to stop, or did.
    pub stop: Option<Stop>,
    /// Points in its life.
    pub times: Times,
    /// In the definition's order.
    pub containers: Vec<Container>,
    /// The engine's task, once it was made.
    pub engine_task: Option<String>,
    /// Its addresses and ports.
    pub network: Network,
    /// The secret part of the URL of its credentials, 64 hexadecimal digits; only if it has a role.
    pub credentials_id: Option<String>,
}

/// By which a repeated RunTask is recognised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientToken {
    /// What the client gave.
    pub token: String,
    /// SHA-256 of the request; another request with the same token is refused.
    pub request: String,
}

/// Points in a task's life.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Times {
    /// RunTask.
    pub created: Timestamp,
    /// The first pull began.
    pub pull_started: Option<Timestamp>,
    /// All images are there.
    pub pull_stopped: Option<Timestamp>,
    /// All containers were started.
    pub started: Option<Timestamp>,
    /// It was decided that it stops.
    pub stopping: Option<Timestamp>,
    /// The last container ended.
    pub execution_stopped: Option<Timestamp>,
    /// Nothing is left but records.
    pub stopped: Option<Timestamp>,
}

/// A task's addresses and ports.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Id of the attachment of an awsvpc task.
    pub attachment_id: Option<String>,
    /// Addresses.
    pub addresses: Vec<Address>,
    /// Hardware address.
    pub mac: Option<String>,
    /// Published ports.
    pub ports: Vec<Port>,
}

/// What a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ContainerPhase {
    /// Not started yet.
    Pending,
    /// Running, or about to be started again by its restart policy.
    Running,
    /// It ended, or will never be started.
    Stopped,
}

impl ContainerPhase {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::Stopped => "STOPPED",
        }
    }
}

/// A container of a task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Container {
    /// As in the definition.
    pub name: String,
    /// A UUID, the end of its ARN.
    pub id: String,
    /// The secret part of its metadata URL, 64 hexadecimal digits.
    pub endpoint: String,
    /// The engine's container, once it was made.
    pub runtime_id: Option<String>,
    /// Digest of the image's manifest.
    pub image_digest: Option<String>,
    /// Id of the image.
    pub image_id: Option<String>,
    /// What it is doing.
    pub phase: ContainerPhase,
    /// Exit code.
    pub exit_code: Option<i32>,
    /// Why it does not run, for people.
    pub reason: Option<String>,
    /// What its health check says; absent without one.
    pub health: Option<Health>,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// When it was started last.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// How often its restart policy started it again.
    pub restarts: u32,
}

/// What a health check says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// The verdict.
    pub status: HealthStatus,
    /// Since when.
    pub since: Timestamp,
    /// Exit code of the last check; absent if it took too long.
    pub exit_code: Option<i32>,
    /// The beginning of what the last check wrote.
    pub output: String,
}

/// The verdict of a health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum HealthStatus {
    /// No check has counted yet.
    Unknown,
    /// The last check succeeded.
    Healthy,
    /// As many checks in a row failed as `retries` says.
    Unhealthy,
}

impl HealthStatus {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Healthy => "HEALTHY",
            Self::Unhealthy => "UNHEALTHY",
        }
    }
}

impl Task {
    /// Its network mode.
    pub fn network_mode(&self) -> NetworkMode {
        self.definition.network_mode.unwrap_or_default()
    }

    /// Lets it stop; the first reason counts, and a task that has stopped keeps its own.
    pub fn stop(&mut self, code: StopCode, reason: String) {
        if self.phase != Phase::Stopped && self.stop.is_none() {
            let now = Timestamp::now();
            self.stop = Some(Stop { code, reason, since: now });
            self.times.stopping = Some(now);
        }
    }

    /// RUNNING or STOPPED.
    pub fn desired(&self) -> &'static str {
        if self.stop.is_some() || self.phase == Phase::Stopped { "STOPPED" } else { "RUNNING" }
    }

    /// The role whose credentials its containers get.
    pub fn role(&self) -> Option<&str> {
        self.definition.task_role_arn.as_deref()
    }

    /// The container of that name.
    pub fn container(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// The worst verdict of its containers' health checks; UNKNOWN if there are none.
    pub fn health(&self) -> HealthStatus {
        let essential = |name: &str| {
            self.definition.container_definitions.iter().any(|known| known.name == name && known.essential)
        };
        let verdicts: Vec<HealthStatus> = self
            .containers
            .iter()
            .filter(|container| essential(&container.name))
            .filter_map(|container| container.health.as_ref().map(|health| health.status))
            .collect();
        match verdicts.as_slice() {
            [] => HealthStatus::Unknown,
            all if all.contains(&HealthStatus::Unhealthy) => HealthStatus::Unhealthy,
            all if all.contains(&HealthStatus::Unknown) => HealthStatus::Unknown,
            _ => HealthStatus::Healthy,
        }
    }
}
