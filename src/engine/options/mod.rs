//! What a container is asked to be: the values of the flags of `run` and `create`, checked, and kept in
//! the container's record.
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

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
