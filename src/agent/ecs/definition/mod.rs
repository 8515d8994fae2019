//! Task definitions: their shape in the public API, in the part of it that is built here.
//!
//! The shape is that of `RegisterTaskDefinition` of API version 2014-11-13. A member that is not here is refused by
//! its name; members whose only supported value is an empty list have the type [`Refused`], because clients send
//! the empty lists of a definition that they have got from `DescribeTaskDefinition`.
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

pub mod amounts;
mod basics;
pub mod check;
mod graph;
mod network;
#[cfg(test)]
mod tests;

pub use check::{Invalid, check};
pub use graph::{depends, start_order};

/// A definition without what registering adds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Definition {
    /// Name of the family, whose revisions are counted.
    pub family: String,
    /// Role whose credentials the containers get.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_role_arn: Option<String>,
    /// Noted only: corten pulls images with the host's credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_role_arn: Option<String>,
    /// Which network; [`NetworkMode::Bridge`] if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_mode: Option<NetworkMode>,
    /// The containers, 1..=[`check::MAX_CONTAINERS`].
    pub container_definitions: Vec<ContainerDefinition>,
    /// Volumes that [`MountPoint`]s name.
    #[serde(default)]
    pub volumes: Vec<Volume>,
    /// Empty: there is one machine.
    #[serde(default)]
    pub placement_constraints: Vec<Refused>,
    /// What it must run on: `EC2` or `EXTERNAL`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires_compatibilities: Vec<String>,
    /// CPU units, or vCPUs as `1 vCPU`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// MiB, or GiB as `1 GB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Whose processes the containers see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid_mode: Option<PidMode>,
    /// Whose IPC objects the containers share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipc_mode: Option<IpcMode>,
    /// Which platform it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_platform: Option<RuntimePlatform>,
    /// Empty.
    #[serde(default, skip_serializing)]
    pub inference_accelerators: Vec<Refused>,
    /// False.
    #[serde(default, skip_serializing)]
    pub enable_fault_injection: Off,
}

/// One container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContainerDefinition {
    /// Unique in the definition.
    pub name: String,
    /// Reference of the image.
    pub image: String,
    /// CPU units; a share, not a limit.
    #[serde(default)]
    pub cpu: i64,
    /// Limit in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<i64>,
    /// MiB that are kept for it when memory is short.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_reservation: Option<i64>,
    /// Whether its end ends the task.
    #[serde(default = "yes")]
    pub essential: bool,
    /// In place of the image's ENTRYPOINT.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entry_point: Vec<String>,
    /// In place of the image's CMD.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Variables.
    #[serde(default)]
    pub environment: Vec<Pair>,
    /// Empty: they are in S3.
    #[serde(default, skip_serializing)]
    pub environment_files: Vec<Refused>,
    /// Variables whose values are files of the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<Secret>,
    /// What must be before it is started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<Dependency>,
    /// Seconds within which what depends on it must be able to start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_timeout: Option<i64>,
    /// Seconds between its stop signal and SIGKILL; 30 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// Whether it is started again when it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<RestartPolicy>,
    /// How its health is found out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// Ports that it listens on.
    #[serde(default)]
    pub port_mappings: Vec<PortMapping>,
    /// Where it sees volumes.
    #[serde(default)]
    pub mount_points: Vec<MountPoint>,
    /// Empty.
    #[serde(default)]
    pub volumes_from: Vec<Refused>,
    /// Empty: the containers of a task share localhost.
    #[serde(default, skip_serializing)]
    pub links: Vec<Refused>,
    /// Host name of the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Name servers of the task.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_servers: Vec<String>,
    /// Search domains of the task.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_search_domains: Vec<String>,
    /// Lines of the task's /etc/hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_hosts: Vec<ExtraHost>,
    /// False.
    #[serde(default, skip_serializing)]
    pub disable_networking: Off,
    /// Labels of the container.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub docker_labels: BTreeMap<String, String>,
    /// `no-new-privileges`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub docker_security_options: Vec<String>,
    /// Standard input stays open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interactive: Option<bool>,
    /// A terminal for the container's process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pseudo_terminal: Option<bool>,
    /// All capabilities and devices of the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privileged: Option<bool>,
    /// `USER[:GROUP]` in place of the image's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// In place of the image's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<String>,
    /// The root file system cannot be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readonly_root_filesystem: Option<bool>,
    /// Limits of its processes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<Ulimit>,
    /// Kernel parameters of the task's namespaces.
    #[serde(default)]
    pub system_controls: Vec<SystemControl>,
    /// Linux' own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linux_parameters: Option<LinuxParameters>,
    /// Where its output goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_configuration: Option<LogConfiguration>,
    /// Empty.
    #[serde(default, skip_serializing)]
    pub resource_requirements: Vec<Refused>,
    /// Empty.
    #[serde(default, skip_serializing)]
    pub credential_specs: Vec<Refused>,
}

fn yes() -> bool {
    true
}

/// `networkMode`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// An address on the embedded bridge, and published ports.
    #[default]
    Bridge,
    /// The host's.
    Host,
    /// An address on the embedded bridge that is the task's own; no published ports.
    Awsvpc,
    /// Loopback alone.
    None,
}

impl NetworkMode {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Host => "host",
            Self::Awsvpc => "awsvpc",
            Self::None => "none",
        }
    }
}

/// `pidMode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PidMode {
    /// All of the host.
    Host,
    /// Those of the task.
    Task,
}

/// `ipcMode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpcMode {
    /// The host's.
    Host,
    /// The task's.
    Task,
}

/// `runtimePlatform`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuntimePlatform {
    /// `X86_64` or `ARM64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_architecture: Option<String>,
    /// `LINUX`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operating_system_family: Option<String>,
}

/// A name and its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// Name.
    pub name: String,
    /// Value; empty if absent.
    #[serde(default)]
    pub value: String,
}

/// A variable whose value is a file of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Secret {
    /// Name of the variable.
    pub name: String,
    /// Name of the file in the configured directory.
    pub value_from: String,
}

/// What must be before a container is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dependency {
    /// Another container of the definition.
    pub container_name: String,
    /// What it must have reached.
    pub condition: Condition,
}

/// What a container must have reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Condition {
    /// It was started.
    Start,
    /// It ended.
    Complete,
    /// It ended with exit code 0.
    Success,
    /// Its health check succeeded.
    Healthy,
}

/// Whether a container is started again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestartPolicy {
    /// Whether it is.
    pub enabled: bool,
    /// Exit codes after which it is not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored_exit_codes: Vec<i64>,
    /// Seconds that it must have run; 300 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_attempt_period: Option<i64>,
}

/// How a container's health is found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthCheck {
    /// `CMD` and words, `CMD-SHELL` and a line, or `NONE`.
    pub command: Vec<String>,
    /// Seconds between checks.
    #[serde(default = "HealthCheck::default_interval")]
    pub interval: i64,
    /// Seconds that a check may take.
    #[serde(default = "HealthCheck::default_timeout")]
    pub timeout: i64,
    /// Failures in a row that make it unhealthy.
    #[serde(default = "HealthCheck::default_retries")]
    pub retries: i64,
    /// Seconds from its start in which failures do not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_period: Option<i64>,
}

impl HealthCheck {
    fn default_interval() -> i64 {
        30
    }

    fn default_timeout() -> i64 {
        5
    }

    fn default_retries() -> i64 {
        3
    }

    /// Program and arguments of a check; `None` if there is none.
    pub fn args(&self) -> Option<Vec<String>> {
        match self.command.split_first() {
            Some((kind, words)) if kind == "CMD" => Some(words.to_vec()),
            Some((kind, words)) if kind == "CMD-SHELL" => {
                Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), words.join(" ")])
            }
            _ => None,
        }
    }
}

/// A port that a container listens on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortMapping {
    /// In the container.
    pub container_port: i64,
    /// On the host; 0 or absent takes a free one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_port: Option<i64>,
    /// Of which protocol.
    #[serde(default)]
    pub protocol: Transport,
    /// Noted only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Noted only: http, http2 or grpc.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
}

/// Protocol of a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// Where a container sees a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MountPoint {
    /// Name of the volume.
    pub source_volume: String,
    /// Absolute path in the container.
    pub container_path: String,
    /// Whether it cannot be written there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
}

/// A volume: a path of the host, or a directory that is there as long as the task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Volume {
    /// Unique in the definition.
    pub name: String,
    /// With a path: that of the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HostVolume>,
    /// A directory of the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub docker_volume_configuration: Option<DockerVolume>,
}

impl Volume {
    /// The host's path, if it is one.
    pub fn host_path(&self) -> Option<&str> {
        self.host.as_ref().and_then(|host| host.source_path.as_deref()).filter(|path| !path.is_empty())
    }
}

/// A path of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostVolume {
    /// Absolute; if absent, a directory of the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_path: Option<String>,
}

/// A volume as docker has them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DockerVolume {
    /// `task`, which is the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// `local`, which is the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
}

/// A line of /etc/hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExtraHost {
    /// The name.
    pub hostname: String,
    /// Its address.
    pub ip_address: String,
}

/// A limit of processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ulimit {
    /// `nofile` and the like.
    pub name: String,
    /// Soft limit; -1 is unlimited.
    pub soft_limit: i64,
    /// Hard limit; -1 is unlimited.
    pub hard_limit: i64,
}

/// A kernel parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemControl {
    /// `net.ipv4.ip_forward` and the like.
    pub namespace: String,
    /// Its value.
    pub value: String,
}

/// Linux' own options.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LinuxParameters {
    /// Beside and without the default ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// Devices of the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// False: a container's first process is its program.
    #[serde(default, skip_serializing)]
    pub init_process_enabled: Off,
    /// Swap in MiB beside the memory; 0 is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_swap: Option<i64>,
    /// How willingly it is swapped out, 0..=100; only with `max_swap`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swappiness: Option<i64>,
    /// Size of the task's /dev/shm in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_memory_size: Option<i64>,
    /// File systems in memory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tmpfs: Vec<Tmpfs>,
}

/// Capabilities without `CAP_`, or `ALL`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capabilities {
    /// Beside the default ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<String>,
    /// Taken away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drop: Vec<String>,
}

/// A device of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Device {
    /// Path on the host.
    pub host_path: String,
    /// Path in the container; the same if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_path: Option<String>,
    /// Some of `read`, `write`, `mknod`; all if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permissions: Vec<String>,
}

/// A file system in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tmpfs {
    /// Where.
    pub container_path: String,
    /// MiB.
    pub size: i64,
    /// As of mount(8).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mount_options: Vec<String>,
}

/// Where output goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogConfiguration {
    /// `json-file`.
    pub log_driver: String,
    /// Empty: logs are not rotated.
    #[serde(default, skip_serializing)]
    pub options: BTreeMap<String, Refused>,
    /// Empty.
    #[serde(default, skip_serializing)]
    pub secret_options: Vec<Refused>,
}

/// What no value of is supported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Refused {}

impl<'de> Deserialize<'de> for Refused {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("is not supported"))
    }
}

/// A switch that can only be off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Off;

impl<'de> Deserialize<'de> for Off {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if bool::deserialize(deserializer)? {
            return Err(serde::de::Error::custom("is not supported"));
        }
        Ok(Self)
    }
}
