//! The part of Kubernetes' Pod, v1, that is built: names and forms of the public API. A field that is not here is
//! refused by name.
use serde::Deserialize;
use std::collections::BTreeMap;

/// A Pod.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pod {
    /// `v1`.
    pub api_version: String,
    /// `Pod`.
    pub kind: String,
    /// What it is called.
    pub metadata: Metadata,
    /// What it runs.
    pub spec: Spec,
}

/// `metadata`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// A DNS subdomain.
    pub name: String,
    /// A DNS label; `default` if absent.
    pub namespace: Option<String>,
    /// Made from the file's content if absent.
    pub uid: Option<String>,
    /// For selectors.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// For people.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// `spec`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// At least one.
    pub containers: Vec<Container>,
    /// Run before the containers, one after the other; those with the restart policy Always go on beside them.
    #[serde(default)]
    pub init_containers: Vec<Container>,
    /// When an ended container is started again.
    #[serde(default)]
    pub restart_policy: RestartPolicy,
    /// The host's network.
    #[serde(default)]
    pub host_network: bool,
    /// The host's processes.
    #[serde(default, rename = "hostPID")]
    pub host_pid: bool,
    /// The host's IPC objects.
    #[serde(default, rename = "hostIPC")]
    pub host_ipc: bool,
    /// One PID namespace for all containers.
    #[serde(default)]
    pub share_process_namespace: bool,
    /// The pod's name if absent.
    pub hostname: Option<String>,
    /// Where /etc/resolv.conf comes from.
    #[serde(default)]
    pub dns_policy: DnsPolicy,
    /// More for /etc/resolv.conf.
    #[serde(default)]
    pub dns_config: DnsConfig,
    /// More for /etc/hosts.
    #[serde(default)]
    pub host_aliases: Vec<HostAlias>,
    /// What containers mount.
    #[serde(default)]
    pub volumes: Vec<Volume>,
    /// Seconds between the stop signal and SIGKILL; 30 if absent.
    pub termination_grace_period_seconds: Option<u32>,
    /// For all containers.
    #[serde(default)]
    pub security_context: PodSecurityContext,
}

/// `restartPolicy`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum RestartPolicy {
    /// Whenever it has ended.
    #[default]
    Always,
    /// When its exit code is not 0.
    OnFailure,
    /// Never.
    Never,
}

/// `dnsPolicy`; there is no cluster whose DNS could be used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum DnsPolicy {
    /// The host's.
    #[default]
    Default,
    /// Only `dnsConfig`.
    None,
}

/// `dnsConfig`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DnsConfig {
    /// Addresses.
    #[serde(default)]
    pub nameservers: Vec<String>,
    /// Domains.
    #[serde(default)]
    pub searches: Vec<String>,
    /// resolv.conf(5).
    #[serde(default)]
    pub options: Vec<DnsOption>,
}

/// An option of resolv.conf(5).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DnsOption {
    /// Its name.
    pub name: String,
    /// What follows the colon.
    pub value: Option<String>,
}

/// A line of /etc/hosts.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostAlias {
    /// An address.
    pub ip: String,
    /// Its names.
    pub hostnames: Vec<String>,
}

/// One of `volumes`; exactly one kind is given.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Volume {
    /// A DNS label.
    pub name: String,
    /// A path of the host.
    pub host_path: Option<HostPath>,
    /// A directory that lives as long as the pod.
    pub empty_dir: Option<EmptyDir>,
}

/// `hostPath`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostPath {
    /// Absolute.
    pub path: String,
    /// What must be there or is made.
    #[serde(default, rename = "type")]
    pub kind: HostPathType,
}

/// `hostPath.type`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum HostPathType {
    /// Nothing is looked at.
    #[default]
    #[serde(rename = "")]
    Any,
    /// A directory, made if absent.
    DirectoryOrCreate,
    /// A directory.
    Directory,
    /// A file, made if absent.
    FileOrCreate,
    /// A file.
    File,
    /// A unix socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// `emptyDir`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EmptyDir {
    /// Where its files are.
    #[serde(default)]
    pub medium: Medium,
    /// A quantity; only for `Memory`.
    pub size_limit: Option<Quantity>,
}

/// `emptyDir.medium`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum Medium {
    /// The host's disk.
    #[default]
    #[serde(rename = "")]
    Disk,
    /// A tmpfs.
    Memory,
}

/// A quantity as text: `500m`, `64Mi`, and bare numbers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Quantity(pub String);

/// `securityContext` of the pod.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodSecurityContext {
    /// User id.
    pub run_as_user: Option<u32>,
    /// Group id.
    pub run_as_group: Option<u32>,
    /// Root is refused.
    pub run_as_non_root: Option<bool>,
    /// Group ids beside it.
    #[serde(default)]
    pub supplemental_groups: Vec<u32>,
    /// Whether groups of the image count too.
    #[serde(default)]
    pub supplemental_groups_policy: GroupsPolicy,
    /// Kernel parameters of the pod's namespaces.
    #[serde(default)]
    pub sysctls: Vec<Sysctl>,
    /// Filter of system calls.
    pub seccomp_profile: Option<SeccompProfile>,
}

/// `supplementalGroupsPolicy`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum GroupsPolicy {
    /// They do.
    #[default]
    Merge,
    /// They do not.
    Strict,
}

/// One of `sysctls`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sysctl {
    /// With dots.
    pub name: String,
    /// What is written.
    pub value: String,
}

/// `seccompProfile`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SeccompProfile {
    /// Which kind.
    #[serde(rename = "type")]
    pub kind: SeccompKind,
    /// An absolute path, for `Localhost`.
    pub localhost_profile: Option<String>,
}

/// `seccompProfile.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum SeccompKind {
    /// The built-in profile; also if nothing is said.
    RuntimeDefault,
    /// No filter.
    Unconfined,
    /// A file of the host.
    Localhost,
}

/// One of `containers` or `initContainers`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Container {
    /// A DNS label.
    pub name: String,
    /// A reference.
    pub image: String,
    /// When it is pulled; `Always` for `:latest`, else `IfNotPresent`.
    pub image_pull_policy: Option<PullPolicy>,
    /// In place of the image's entry point.
    pub command: Option<Vec<String>>,
    /// In place of the image's arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// Variables.
    #[serde(default)]
    pub env: Vec<EnvVar>,
    /// Absolute.
    pub working_dir: Option<String>,
    /// Ports that it listens on.
    #[serde(default)]
    pub ports: Vec<ContainerPort>,
    /// What it gets and what it may use.
    #[serde(default)]
    pub resources: Resources,
    /// Volumes in it.
    #[serde(default)]
    pub volume_mounts: Vec<VolumeMount>,
    /// What it may do.
    #[serde(default)]
    pub security_context: SecurityContext,
    /// Only in `initContainers`, and only `Always`: a sidecar.
    pub restart_policy: Option<RestartPolicy>,
    /// Standard input stays open.
    #[serde(default)]
    pub stdin: bool,
    /// It ends with the first client.
    #[serde(default)]
    pub stdin_once: bool,
    /// A terminal.
    #[serde(default)]
    pub tty: bool,
}

/// `imagePullPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum PullPolicy {
    /// Each time that the pod is made.
    Always,
    /// When it is not in the store.
    IfNotPresent,
    /// It must be in the store.
    Never,
}

/// One of `env`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// `$(NAME)` stands for an earlier variable.
    pub value: Option<String>,
    /// In its place, a field of the pod.
    pub value_from: Option<EnvSource>,
}

/// `valueFrom`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvSource {
    /// The only kind that is built.
    pub field_ref: FieldRef,
}

/// `fieldRef`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FieldRef {
    /// `v1`.
    pub api_version: Option<String>,
    /// `metadata.name` and the like.
    pub field_path: String,
}

/// One of `ports`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContainerPort {
    /// For people.
    pub name: Option<String>,
    /// Of the container.
    pub container_port: u16,
    /// Of the host, which leads to it.
    pub host_port: Option<u16>,
    /// Address of the host.
    #[serde(rename = "hostIP")]
    pub host_ip: Option<String>,
    /// TCP if absent.
    #[serde(default)]
    pub protocol: PortProtocol,
}

/// `protocol`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum PortProtocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// `resources`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resources {
    /// At most.
    #[serde(default)]
    pub limits: Amounts,
    /// At least.
    #[serde(default)]
    pub requests: Amounts,
}

/// `limits` and `requests`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Amounts {
    /// CPUs.
    pub cpu: Option<Quantity>,
    /// Bytes.
    pub memory: Option<Quantity>,
}

/// One of `volumeMounts`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeMount {
    /// Of a volume.
    pub name: String,
    /// Absolute, in the container.
    pub mount_path: String,
    /// A path in the volume, which is mounted in place of all of it.
    pub sub_path: Option<String>,
    /// Nothing can be written.
    #[serde(default)]
    pub read_only: bool,
    /// Which mounts made later are seen on the other side.
    #[serde(default)]
    pub mount_propagation: MountPropagation,
}

/// `mountPropagation`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum MountPropagation {
    /// None.
    #[default]
    None,
    /// The container sees the host's.
    HostToContainer,
    /// Both see the other's; only for privileged containers.
    Bidirectional,
}

/// `securityContext` of a container.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecurityContext {
    /// All capabilities and devices.
    #[serde(default)]
    pub privileged: bool,
    /// User id.
    pub run_as_user: Option<u32>,
    /// Group id.
    pub run_as_group: Option<u32>,
    /// Root is refused.
    pub run_as_non_root: Option<bool>,
    /// The root file system cannot be written.
    #[serde(default)]
    pub read_only_root_filesystem: bool,
    /// Whether set-user-id programs work; they do if absent.
    pub allow_privilege_escalation: Option<bool>,
    /// Beside and without the default ones.
    #[serde(default)]
    pub capabilities: Capabilities,
    /// Filter of system calls.
    pub seccomp_profile: Option<SeccompProfile>,
}

/// `capabilities`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Capabilities {
    /// Names without `CAP_`, or `ALL`.
    #[serde(default)]
    pub add: Vec<String>,
    /// Likewise.
    #[serde(default)]
    pub drop: Vec<String>,
}
