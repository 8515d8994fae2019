//! Tasks: sets of containers that share namespaces and a parent cgroup, held by one monitor.
//!
//! ```text
//!             run_task                      stop_task              remove_task
//! (nothing) ----------> Making --> Ready -------------> Stopped -------------> (nothing)
//!                          \------ a failure, or a crash of the maker: all is undone ---^
//! ```
pub use crate::network::{Address, Attachment, Bridge, Cni, Dns, Port, Protocol, Which};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

use super::options::Limits;
use super::record::Version;
use super::timestamp::Timestamp;

pub(in crate::engine) mod cgroup;
mod client;
pub mod control;
mod create;
pub(in crate::engine) mod files;
pub(in crate::engine) mod join;
pub mod namespaces;
mod pause;
mod record;
mod recover;
mod remove;
pub mod setup;
mod stats;
pub mod teardown;
mod update;
mod validate;
pub mod verbs;
pub mod worker;

pub use verbs::{
    ContainerRequest, Events, Exec, ExecRequest, ExecStdio, LinkStats, Next, Stats, TaskEvent, TaskStats,
};

/// What a task is asked to be; kept in its record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Who launched it.
    pub door: Door,
    /// Unique among tasks.
    pub name: String,
    /// Host name inside; the beginning of the id if absent.
    pub hostname: Option<String>,
    /// Which network its containers share.
    pub network: TaskNetwork,
    /// Ports of the host that lead to it.
    pub ports: Vec<Port>,
    /// Whether its containers share one PID namespace, whose init is a pause process, where they ask for
    /// `PidNamespace::Task`.
    pub shares_pid: bool,
    /// Whether its containers use the host's IPC namespace instead of one of the task's.
    pub host_ipc: bool,
    /// What goes to /etc/resolv.conf; if all is empty, what the network tells, or else the host's.
    pub dns: Dns,
    /// Further lines of /etc/hosts: address and names.
    pub hosts: Vec<(String, Vec<String>)>,
    /// The cgroup in which the containers' cgroups are made, absolute from the hierarchy's root. It is made if it is
    /// not there, and then it is removed with the task. If absent, `/corten/<id>`.
    pub cgroup: Option<String>,
    /// Limits of that cgroup.
    pub limits: Limits,
    /// Kernel parameters of the task's namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// For people and selectors.
    pub labels: BTreeMap<String, String>,
    /// Size of the shared /dev/shm in bytes; 64 MiB if absent.
    pub shm_size: Option<u64>,
    /// Kept for the door.
    pub data: serde_json::Value,
}

/// Who launches tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Door {
    /// A Kubernetes client.
    Cri,
    /// An ECS client.
    Ecs,
    /// A file in the folder of static pods.
    Manifest,
}

/// Which network the containers of a task share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskNetwork {
    /// A network namespace of its own with nothing but loopback.
    None,
    /// The host's.
    Host,
    /// A network namespace of its own that is attached to this.
    Attached(Which),
}

/// A task's record: `<root>/tasks/<id>/task.json`; only its limits change.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Version of the format.
    pub version: Version,
    /// 64 hexadecimal digits.
    pub id: String,
    /// When it was asked for.
    pub created: Timestamp,
    /// What it is.
    pub spec: TaskSpec,
}

/// What a task is doing.
#[derive(Debug, Clone)]
pub enum TaskStatus {
    /// Its monitor sets it up.
    Making,
    /// Containers can be started in it.
    Ready(Box<TaskRun>),
    /// Its containers have ended and all that was made for it is gone, but the records.
    Stopped {
        /// When.
        finished: Timestamp,
    },
}

/// What is there of a task while it is ready: `<state>/tasks/<id>/run.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskRun {
    /// Its monitor.
    pub monitor: crate::runtime::state::ProcessId,
    /// The bind-mounted file of its network namespace, unless it is the host's.
    pub netns: Option<PathBuf>,
    /// Its network.
    pub attachment: Option<Attachment>,
    /// Since when.
    pub ready: Timestamp,
}
