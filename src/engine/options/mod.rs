//! What a container is asked to be: the values of the flags of `run` and `create`, checked, and kept in
//! the container's record.
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

pub mod network;
pub mod parse;
#[cfg(test)]
mod tests;

/// Everything that `run` and `create` can be asked for beside the image and what its process is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// A new terminal for the container's process.
    pub tty: bool,
    /// Standard input stays open.
    pub interactive: bool,
    /// Everything of the container goes away when it ends.
    pub auto_remove: bool,
    /// The root file system cannot be written.
    pub read_only: bool,
    /// All capabilities, devices and paths of the host; no seccomp filter.
    pub privileged: bool,
    /// Host name; the beginning of the id if absent.
    pub hostname: Option<String>,
    /// Which network.
    pub network: Network,
    /// Capabilities beside the default ones, or `ALL`.
    pub cap_add: Vec<String>,
    /// Capabilities that are taken away, or `ALL`.
    pub cap_drop: Vec<String>,
    /// `--security-opt`.
    pub security: Security,
    /// Limits of the cgroup.
    pub limits: Limits,
    /// Limits of the process.
    pub ulimits: Vec<Ulimit>,
    /// `-v`.
    pub volumes: Vec<Volume>,
    /// `--tmpfs`.
    pub tmpfs: Vec<Tmpfs>,
    /// What `stop` sends.
    pub stop_signal: Signal,
    /// Seconds that `stop` waits before it kills.
    pub stop_timeout: Option<u32>,
    /// Labels of the image and of `--label`.
    pub labels: BTreeMap<String, String>,
    /// Addresses, ports and names of a container at a shell.
    #[serde(default)]
    pub connection: Connection,
    /// What only tasks ask for; a container at a shell has the defaults.
    #[serde(default)]
    pub task: TaskOptions,
}

/// What containers of tasks are asked to be beyond the flags of `run`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskOptions {
    /// Which processes it sees.
    pub pid: PidNamespace,
    /// Host directories, files and devices with propagation; mounted in this order after the volumes.
    pub mounts: Vec<HostMount>,
    /// Devices of the host.
    pub devices: Vec<Device>,
    /// Groups beside those of the user.
    pub groups: Vec<u32>,
    /// Whether the groups that the image gives the user count too.
    pub groups_policy: GroupsPolicy,
    /// Capabilities that a program keeps over execve without being privileged.
    pub cap_ambient: Vec<String>,
    /// Paths that cannot be read, in place of the default ones.
    pub masked_paths: Option<Vec<String>>,
    /// Paths that cannot be written, in place of the default ones.
    pub readonly_paths: Option<Vec<String>>,
    /// How willingly the kernel kills it for want of memory, -1000..=1000. Where the host does not let us lower
    /// it, it is as low as it can be, with a warning.
    pub oom_score_adj: Option<i32>,
    /// Where the log is written; its directory exists. In the container's own directory if absent.
    pub log_path: Option<PathBuf>,
    /// Standard input ends with the first client that gave some.
    pub stdin_once: bool,
    /// What the monitor does when it ends.
    pub restart: RestartPolicy,
    /// Size of /dev/shm in bytes where it is the container's own.
    pub shm_size: Option<u64>,
}

/// Which processes a container of a task sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PidNamespace {
    /// Its own.
    #[default]
    Container,
    /// Those of all containers of the task.
    Task,
    /// All of the host's.
    Host,
    /// Those of this container of the same task.
    Of(String),
}

/// A bind mount of a path of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostMount {
    /// Absolute path on the host; it exists.
    pub source: PathBuf,
    /// Absolute path in the container.
    pub destination: String,
    /// Whether it can be written.
    pub access: MountAccess,
    /// Which mounts made under it later are seen on the other side.
    pub propagation: Propagation,
}

/// Whether a mount can be written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MountAccess {
    /// It can.
    #[default]
    ReadWrite,
    /// It cannot; mounts below it can.
    ReadOnly,
    /// Neither it nor mounts below it can.
    RecursiveReadOnly,
}

/// Which mounts made under a mount later are seen on the other side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Propagation {
    /// None.
    #[default]
    Private,
    /// The container sees the host's.
    HostToContainer,
    /// Both see the other's.
    Bidirectional,
}

/// A device of the host in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Path on the host: a device node, or a directory whose nodes are all given.
    pub source: PathBuf,
    /// Path in the container.
    pub destination: String,
    /// Some of `rwm`.
    pub access: String,
}

/// Which supplementary groups a container's process has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupsPolicy {
    /// Those of /etc/group, and those that were given.
    #[default]
    Merge,
    /// Only those that were given.
    Strict,
}

/// What the monitor does when a container ends by itself; never when it was asked to stop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Nothing.
    #[default]
    Never,
    /// As a kubelet: starts it again if its exit code is not 0, after 10 s, 20 s ... 5 min; after a run of 10 min
    /// from the beginning of that series.
    OnFailure,
    /// Starts it again, likewise.
    Always,
    /// As ECS: starts it again at once, if it ran at least `period` seconds since it was last (re)started, and its
    /// exit code is not among `ignored`.
    AfterRunning {
        /// Exit codes after which it stays.
        ignored: Vec<u8>,
        /// Seconds.
        period: u32,
    },
}

/// Which network a container is in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// A network namespace of its own with nothing but loopback.
    #[default]
    None,
    /// The host's.
    Host,
    /// A network namespace of its own that is attached to [`Connection::bridge`].
    Bridge,
    /// That of its task; only for containers of tasks.
    Task,
}

/// How a container that is in no task is connected, and what it knows of others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Connection {
    /// Which bridge, with [`Network::Bridge`].
    pub bridge: crate::network::Bridge,
    /// `-p`.
    pub ports: Vec<crate::network::Port>,
    /// `-P`: the ports that the image exposes are published too.
    pub publish_all: bool,
    /// `--dns` and the like.
    pub dns: crate::network::Dns,
    /// `--add-host`: lines of /etc/hosts.
    pub hosts: Vec<(String, Vec<String>)>,
}

/// `--security-opt`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    /// Programs gain no privileges from set-user-id bits and file capabilities.
    pub no_new_privileges: bool,
    /// Which system calls are allowed.
    pub seccomp: Seccomp,
    /// AppArmor profile; none if absent.
    pub apparmor: Option<String>,
}

/// Which seccomp filter a container gets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seccomp {
    /// The built-in profile.
    #[default]
    Default,
    /// No filter.
    Unconfined,
    /// A profile in moby's format.
    File(PathBuf),
}

/// Limits of the container's cgroup; what is absent is unlimited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory in bytes.
    pub memory: Option<i64>,
    /// Memory and swap together in bytes; -1 is unlimited.
    pub memory_swap: Option<i64>,
    /// CPUs in units of 1e-9.
    pub nano_cpus: Option<u64>,
    /// Weight against other containers, 2..=262144, 1024 being usual.
    pub cpu_shares: Option<u64>,
    /// CPUs that may be used, as `0-3,5`.
    pub cpuset_cpus: Option<String>,
    /// Number of processes and threads; -1 is unlimited.
    pub pids: Option<i64>,
    /// Period of the CPU quota in microseconds; 100,000 if absent. Only with `cpu_quota`.
    #[serde(default)]
    pub cpu_period: Option<u64>,
    /// CPU time in each period in microseconds, in place of `nano_cpus`; -1 is unlimited.
    #[serde(default)]
    pub cpu_quota: Option<i64>,
    /// Memory nodes that may be used.
    #[serde(default)]
    pub cpuset_mems: Option<String>,
    /// Memory in bytes that is left to it when memory is short.
    #[serde(default)]
    pub memory_reservation: Option<i64>,
    /// How willingly its memory is swapped out, 0..=100.
    #[serde(default)]
    pub swappiness: Option<u64>,
    /// Huge pages: size as `2MB`, and limit in bytes.
    #[serde(default)]
    pub hugepages: Vec<(String, u64)>,
    /// Files of cgroup v2 and what is written to them.
    #[serde(default)]
    pub unified: BTreeMap<String, String>,
}

/// One `--ulimit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// As in the specification: `RLIMIT_NOFILE`.
    pub name: String,
    /// Soft limit, `u64::MAX` being unlimited.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// One `-v`, or a volume that the image asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Where its content is.
    pub source: VolumeSource,
    /// Absolute path in the container.
    pub destination: String,
    /// Mount options beside the kind of bind.
    pub options: Vec<String>,
    /// The image's content at the destination fills a new volume.
    pub copy_up: bool,
}

/// Where the content of a volume is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeSource {
    /// A path of the host; relative to the caller's directory until the flags are resolved.
    Host(PathBuf),
    /// A named volume.
    Named(String),
    /// A volume of the container alone; its name once it is made.
    Anonymous(Option<String>),
}

/// One `--tmpfs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    /// Absolute path in the container.
    pub destination: String,
    /// Mount options.
    pub options: Vec<String>,
}

/// A signal that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal(pub i32);

impl Default for Signal {
    fn default() -> Self {
        Self(15)
    }
}
