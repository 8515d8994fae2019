//! The agent's configuration file, TOML; unknown keys are refused.
use crate::error::{ErrorKind, Kind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

mod check;
#[cfg(test)]
mod tests;

/// The largest file that is read, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// The whole file; everything has a default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `[cri]`
    pub cri: CriConfig,
    /// `[streaming]`
    pub streaming: StreamingConfig,
    /// `[ecs]`
    pub ecs: EcsConfig,
    /// `[manifests]`
    pub manifests: ManifestsConfig,
    /// `[network]`
    pub network: NetworkConfig,
    /// `[registries]`
    pub registries: RegistriesConfig,
    /// `[metrics]`
    pub metrics: MetricsConfig,
}

/// The Kubernetes door.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CriConfig {
    /// Whether it is open.
    pub enabled: bool,
    /// Absolute path of its socket; `<state>/cri.sock` if absent.
    pub socket: Option<PathBuf>,
    /// Most bytes of each output of ExecSync.
    pub exec_sync_limit: u64,
}

impl Default for CriConfig {
    fn default() -> Self {
        Self { enabled: true, socket: None, exec_sync_limit: 16 * 1024 * 1024 }
    }
}

/// Where exec, attach and port-forward streams are served.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StreamingConfig {
    /// Address and port; port 0 takes a free one.
    pub listen: String,
    /// Seconds for which a URL can be used.
    pub token_seconds: u64,
}

impl Default for StreamingConfig {
    fn default() -> Self {
        Self { listen: "127.0.0.1:0".to_owned(), token_seconds: 60 }
    }
}

/// The ECS door.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EcsConfig {
    /// Whether it is open.
    pub enabled: bool,
    /// Address and port of the API.
    pub listen: String,
    /// Region in ARNs and signatures.
    pub region: String,
    /// Account number in ARNs, 12 digits.
    pub account: String,
    /// Name of the cluster that is there from the beginning.
    pub cluster: String,
    /// Address and port of the metadata and credentials server.
    pub metadata_listen: String,
    /// Profiles for task roles: role ARN or name to a file of credentials.
    pub task_roles: BTreeMap<String, PathBuf>,
    /// Directory of secrets: `valueFrom` names a file in it.
    pub secrets: Option<PathBuf>,
    /// Seconds for which stopped tasks are described.
    pub stopped_task_seconds: u64,
}

impl Default for EcsConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            listen: "127.0.0.1:51680".to_owned(),
            region: "us-east-1".to_owned(),
            account: "000000000000".to_owned(),
            cluster: "default".to_owned(),
            metadata_listen: "169.254.170.2:80".to_owned(),
            task_roles: BTreeMap::new(),
            secrets: None,
            stopped_task_seconds: 3600,
        }
    }
}

/// Static pods.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ManifestsConfig {
    /// The folder; no static pods if absent.
    pub folder: Option<PathBuf>,
    /// What pods are told as `spec.nodeName`; the host's name if absent.
    pub node_name: Option<String>,
    /// What pods are told as `status.hostIP`; the address of the default route's link if absent.
    pub host_ip: Option<String>,
}

/// The network of pods and of ECS tasks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkConfig {
    /// The embedded bridge, which is used where no CNI folder is named.
    pub bridge: Option<String>,
    /// Its IPv4 subnet.
    pub subnet: Option<String>,
    /// Its IPv6 subnet.
    pub subnet6: Option<String>,
    /// Folder of CNI configuration lists, for pods.
    pub cni_configuration: Option<PathBuf>,
    /// Folders of CNI plugins.
    pub cni_plugins: Vec<PathBuf>,
}

/// Where images come from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistriesConfig {
    /// Registry host to the URL of a mirror, which is asked in its place: `"registry.k8s.io" =
    /// "http://127.0.0.1:5000"`.
    pub mirrors: BTreeMap<String, String>,
    /// File of credentials in the form of podman's auth.json; where a user's tools look if absent.
    pub auth_file: Option<PathBuf>,
}

/// Prometheus metrics.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Address and port; none if absent.
    pub listen: Option<String>,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is larger than any configuration is.
    #[error("the configuration {} is larger than {FILE_MAX} bytes", path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
    },
    /// It is no TOML, or has a key that is not known.
    #[error("the configuration {} is malformed", path.display())]
    Parse {
        /// Which.
        path: PathBuf,
        /// Where.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value that cannot be used.
    #[error("{key} = {value:?} in the configuration: {reason}")]
    Value {
        /// Section and key: `cri.socket`.
        key: String,
        /// What is there.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl Kind for ConfigError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Read { source, .. } => super::error::of_io(source),
            _ => ErrorKind::InvalidInput,
        }
    }
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// It cannot be read, is malformed, or has a value that cannot be used.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(read)?;
        file.take(FILE_MAX + 1).read_to_string(&mut text).map_err(read)?;
        if text.len() as u64 > FILE_MAX {
            return Err(ConfigError::TooLarge { path: path.to_owned() });
        }
        let config: Self = toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        config.check()?;
        Ok(config)
    }
}
