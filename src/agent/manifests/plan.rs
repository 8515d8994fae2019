//! From a Pod to the task and the containers that the engine is asked for; pure.
use super::error::ManifestError;
use super::expand::expand;
use super::parse::keyed;
use super::pod::{
    Container, ContainerPort, DnsPolicy, GroupsPolicy as PodGroups, MountPropagation, Pod, PortProtocol,
    PullPolicy, Quantity, RestartPolicy as PodRestart, SeccompKind,
};
use super::quantity::Unit;
use crate::agent::config::NetworkConfig;
use crate::engine::options::{
    GroupsPolicy, HostMount, Limits, MountAccess, Network, Options, PidNamespace, Propagation, RestartPolicy,
    Seccomp, Security, TaskOptions,
};
use crate::engine::specgen::process::Overrides;
use crate::engine::task::{
    Bridge, Cni, ContainerRequest, Dns, Door, Port, Protocol, TaskNetwork, TaskSpec, Which,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// Microseconds in which a CPU limit is measured, as a kubelet has it.
const PERIOD: u64 = 100_000;
/// The least shares and quota that the kernel takes.
const LEAST_SHARES: u64 = 2;
const LEAST_QUOTA: u64 = 1000;
/// Seconds between the stop signal and SIGKILL where a pod does not say.
pub const GRACE: u32 = 30;

/// What pods are told of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// `spec.nodeName`.
    pub name: String,
    /// `status.hostIP`.
    pub ip: IpAddr,
    /// What its /etc/resolv.conf says.
    pub dns: Dns,
}

/// Kept with the task: which content of which file it was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Name of the file.
    pub file: String,
    /// Of its content.
    pub hash: String,
}

/// What a container is to its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Must succeed before the next one starts.
    Init,
    /// Goes on beside the others, which start after it.
    Sidecar,
    /// One of those for which the pod is there.
    Main,
}

impl Role {
    /// Of one of `initContainers`.
    pub fn of_init(container: &Container) -> Self {
        if container.restart_policy.is_some() { Self::Sidecar } else { Self::Init }
    }

    /// What the monitor does when it ends.
    pub fn restart(self, pod: PodRestart) -> RestartPolicy {
        match (self, pod) {
            (Self::Sidecar, _) | (Self::Main, PodRestart::Always) => RestartPolicy::Always,
            (Self::Init, PodRestart::Always) | (_, PodRestart::OnFailure) => RestartPolicy::OnFailure,
            (_, PodRestart::Never) => RestartPolicy::Never,
        }
    }
}

/// The pod's containers in the order in which they start.
pub fn sequence(pod: &Pod) -> Vec<(Role, &Container)> {
    let init = pod.spec.init_containers.iter().map(|container| (Role::of_init(container), container));
    init.chain(pod.spec.containers.iter().map(|container| (Role::Main, container))).collect()
}

/// The task of a pod.
pub fn task(
    pod: &Pod,
    origin: &Origin,
    machine: &Machine,
    network: &NetworkConfig,
) -> Result<TaskSpec, ManifestError> {
    let spec = &pod.spec;
    let hostname = if spec.host_network {
        machine.name.clone()
    } else {
        let name = spec.hostname.as_ref().unwrap_or(&pod.metadata.name);
        // As a kubelet does: a name that begins like the pod's and is no longer than the kernel takes.
        name.chars().take(63).collect::<String>().trim_end_matches(['-', '.']).to_owned()
    };
    Ok(TaskSpec {
        door: Door::Manifest,
        name: pod.task_name(),
        hostname: Some(hostname),
        network: match spec.host_network {
            true => TaskNetwork::Host,
            false => TaskNetwork::Attached(which(network, pod)),
        },
        ports: ports(pod)?,
        shares_pid: spec.share_process_namespace,
        host_ipc: spec.host_ipc,
        dns: dns(pod, machine),
        hosts: spec.host_aliases.iter().map(|alias| (alias.ip.clone(), alias.hostnames.clone())).collect(),
        cgroup: None,
        limits: pod_limits(pod),
        sysctls: spec
            .security_context
            .sysctls
            .iter()
            .map(|one| (one.name.clone(), one.value.clone()))
            .collect(),
        labels: labels(pod),
        shm_size: None,
        data: serde_json::to_value(origin).unwrap_or_default(),
    })
}

fn labels(pod: &Pod) -> BTreeMap<String, String> {
    let mut labels = pod.metadata.labels.clone();
    labels.insert("io.kubernetes.pod.name".to_owned(), pod.metadata.name.clone());
    labels.insert("io.kubernetes.pod.namespace".to_owned(), pod.namespace().to_owned());
    labels
}

fn which(network: &NetworkConfig, pod: &Pod) -> Which {
    if let Some(configuration) = &network.cni_configuration {
        let arguments = [
            ("IgnoreUnknown", "1"),
            ("K8S_POD_NAMESPACE", pod.namespace()),
            ("K8S_POD_NAME", pod.metadata.name.as_str()),
        ];
        return Which::Cni(Cni {
            configuration: configuration.clone(),
            plugins: network.cni_plugins.clone(),
            arguments: arguments.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        });
    }
    let default = Bridge::default();
    Which::Bridge(Bridge {
        link: network.bridge.clone().unwrap_or(default.link),
        subnet: network.subnet.clone().unwrap_or(default.subnet),
        subnet6: network.subnet6.clone().or(default.subnet6),
    })
}

fn ports(pod: &Pod) -> Result<Vec<Port>, ManifestError> {
    // With the host's network a port is the host's already.
    if pod.spec.host_network {
        return Ok(Vec::new());
    }
    let mut ports: Vec<Port> = Vec::new();
    for (_, container) in sequence(pod) {
        for port in &container.ports {
            let Some(host_port) = port.host_port.filter(|port| *port != 0) else { continue };
            let port = published(port, host_port);
            let same = |other: &Port| {
                other.host_port == port.host_port
                    && other.protocol == port.protocol
                    && other.host_ip == port.host_ip
            };
            if ports.iter().any(same) {
                let reason = format!("hostPort {host_port} is published twice");
                return Err(ManifestError::value(format!("container {}", container.name), reason));
            }
            ports.push(port);
        }
    }
    Ok(ports)
}

fn published(port: &ContainerPort, host_port: u16) -> Port {
    let host_ip = port.host_ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok());
    Port {
        host_ip: host_ip.filter(|ip| !ip.is_unspecified()),
        host_port,
        container_port: port.container_port,
        protocol: match port.protocol {
            PortProtocol::Tcp => Protocol::Tcp,
            PortProtocol::Udp => Protocol::Udp,
            PortProtocol::Sctp => Protocol::Sctp,
        },
    }
}

fn dns(pod: &Pod, machine: &Machine) -> Dns {
    let asked = &pod.spec.dns_config;
    let options = asked.options.iter().map(|option| match &option.value {
        Some(value) => format!("{}:{value}", option.name),
        None => option.name.clone(),
    });
    let asked = Dns {
        servers: asked.nameservers.clone(),
        searches: asked.searches.clone(),
        options: options.collect(),
    };
    // Nothing at all stands for what the host or its network says.
    if asked == Dns::default() || pod.spec.dns_policy == DnsPolicy::None {
        return asked;
    }
    let join = |host: &[String], asked: Vec<String>| {
        let mut all = host.to_vec();
        all.extend(asked.into_iter().filter(|one| !host.contains(one)));
        all
    };
    Dns {
        servers: join(&machine.dns.servers, asked.servers),
        searches: join(&machine.dns.searches, asked.searches),
        options: join(&machine.dns.options, asked.options),
    }
}

/// Reads resolv.conf(5).
pub fn read_resolv_conf(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines() {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => dns.servers.extend(words.next()),
            // The last line of its kind counts.
            Some("search" | "domain") => dns.searches = words.collect(),
            Some("options") => dns.options = words.collect(),
            _ => {}
        }
    }
    dns
}

fn amount(quantity: Option<&Quantity>, unit: Unit) -> Option<u64> {
    // Malformed ones do not pass the parser; 0 is no limit.
    quantity.and_then(|quantity| quantity.amount(unit)).filter(|amount| *amount != 0)
}

fn shares(milli: u64) -> u64 {
    (milli * 1024 / 1000).clamp(LEAST_SHARES, 262_144)
}

fn quota(milli: u64) -> i64 {
    i64::try_from((milli.saturating_mul(PERIOD) / 1000).max(LEAST_QUOTA)).unwrap_or(i64::MAX)
}

fn bytes(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

/// CPU in thousandths and memory in bytes that a container asks for; a limit alone is a request too.
fn requests(container: &Container) -> (Option<u64>, Option<u64>) {
    let (limits, requests) = (&container.resources.limits, &container.resources.requests);
    (
        amount(requests.cpu.as_ref(), Unit::Milli).or(amount(limits.cpu.as_ref(), Unit::Milli)),
        amount(requests.memory.as_ref(), Unit::One).or(amount(limits.memory.as_ref(), Unit::One)),
    )
}

fn container_limits(container: &Container) -> Limits {
    let limits = &container.resources.limits;
    let cpu = amount(limits.cpu.as_ref(), Unit::Milli);
    let memory = amount(limits.memory.as_ref(), Unit::One);
    Limits {
        memory: memory.map(bytes),
        // Swap would let it have more than it was promised.
        memory_swap: memory.map(bytes),
        memory_reservation: amount(container.resources.requests.memory.as_ref(), Unit::One).map(bytes),
        cpu_shares: Some(requests(container).0.map_or(LEAST_SHARES, shares)),
        cpu_period: cpu.map(|_| PERIOD),
        cpu_quota: cpu.map(quota),
        ..Limits::default()
    }
}

/// The sums of what containers that run together ask for; a sum of limits only where all have one.
fn pod_limits(pod: &Pod) -> Limits {
    let together: Vec<&Container> =
        sequence(pod).into_iter().filter(|(role, _)| *role != Role::Init).map(|(_, one)| one).collect();
    let limit = |of: fn(&Container) -> Option<u64>| together.iter().map(|one| of(one)).sum::<Option<u64>>();
    let cpu = limit(|one| amount(one.resources.limits.cpu.as_ref(), Unit::Milli));
    let memory = limit(|one| amount(one.resources.limits.memory.as_ref(), Unit::One));
    let asked: u64 = together.iter().filter_map(|one| requests(one).0).sum();
    let reserved: u64 = together.iter().filter_map(|one| requests(one).1).fold(0, u64::saturating_add);
    Limits {
        memory: memory.map(bytes),
        memory_reservation: (reserved != 0).then(|| bytes(reserved)),
        cpu_shares: Some(shares(asked)),
        cpu_period: cpu.map(|_| PERIOD),
        cpu_quota: cpu.map(quota),
        ..Limits::default()
    }
}

/// When a container's image is pulled.
pub fn pull_policy(container: &Container) -> PullPolicy {
    let latest = || {
        let name = container.image.rsplit('/').next().unwrap_or_default();
        !name.contains('@') && name.split_once(':').is_none_or(|(_, tag)| tag == "latest")
    };
    container
        .image_pull_policy
        .unwrap_or_else(|| if latest() { PullPolicy::Always } else { PullPolicy::IfNotPresent })
}

/// Where the things of a pod are that live as long as it does.
#[derive(Debug, Clone)]
pub struct PodDirectory(pub PathBuf);

impl PodDirectory {
    /// The content of an emptyDir.
    pub fn volume(&self, volume: &str) -> PathBuf {
        self.0.join("volumes").join(volume)
    }

    /// Where a path in a volume is mounted before a container gets it.
    pub fn sub_path(&self, container: &str, index: usize) -> PathBuf {
        self.0.join("sub-paths").join(container).join(index.to_string())
    }
}

/// The variables of a container, each `KEY=VALUE`.
fn environment(
    pod: &Pod,
    container: &Container,
    machine: &Machine,
    pod_ip: Option<IpAddr>,
) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::with_capacity(container.env.len());
    for variable in &container.env {
        let value = match &variable.value_from {
            Some(source) => field(pod, &source.field_ref.field_path, machine, pod_ip),
            None => expand(variable.value.as_deref().unwrap_or_default(), |name| find(&all, name)),
        };
        all.retain(|(name, _)| *name != variable.name);
        all.push((variable.name.clone(), value));
    }
    all
}

fn find<'v>(variables: &'v [(String, String)], name: &str) -> Option<&'v str> {
    variables.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// The parser lets only these paths through.
fn field(pod: &Pod, path: &str, machine: &Machine, pod_ip: Option<IpAddr>) -> String {
    let metadata = &pod.metadata;
    match path {
        "metadata.name" => metadata.name.clone(),
        "metadata.namespace" => pod.namespace().to_owned(),
        "metadata.uid" => metadata.uid.clone().unwrap_or_else(|| uid(pod)),
        "spec.nodeName" => machine.name.clone(),
        "status.hostIP" => machine.ip.to_string(),
        "status.podIP" => match pod.spec.host_network {
            true => machine.ip.to_string(),
            false => pod_ip.map(|ip| ip.to_string()).unwrap_or_default(),
        },
        _ => match keyed(path) {
            Some(("labels", key)) => metadata.labels.get(key).cloned().unwrap_or_default(),
            Some((_, key)) => metadata.annotations.get(key).cloned().unwrap_or_default(),
            None => String::new(),
        },
    }
}

/// In the form of a UUID, always the same for a pod of that name.
fn uid(pod: &Pod) -> String {
    let digest = crate::image::digest::Digest::of(pod.shown().as_bytes());
    let hex = digest.hex();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..32])
}

/// What the engine is asked for a container; the pod's address is known once its task is there.
pub fn request(
    pod: &Pod,
    role: Role,
    container: &Container,
    machine: &Machine,
    directory: &PodDirectory,
    pod_ip: Option<IpAddr>,
) -> ContainerRequest {
    let env = environment(pod, container, machine, pod_ip);
    let expanded = |words: &[String]| -> Vec<String> {
        words.iter().map(|word| expand(word, |name| find(&env, name))).collect()
    };
    let user = container.security_context.run_as_user.or(pod.spec.security_context.run_as_user);
    let group = container.security_context.run_as_group.or(pod.spec.security_context.run_as_group);
    let command = container.command.as_deref().filter(|command| !command.is_empty());
    ContainerRequest {
        name: pod.container_name(&container.name),
        image: container.image.clone(),
        overrides: Overrides {
            entrypoint: command.map(expanded),
            args: expanded(&container.args),
            env: env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
            cwd: container.working_dir.clone(),
            user: user.map(|user| group.map_or_else(|| user.to_string(), |group| format!("{user}:{group}"))),
        },
        options: options(pod, role, container, directory),
        stop_signal: None,
        data: serde_json::Value::String(container.name.clone()),
    }
}

fn options(pod: &Pod, role: Role, container: &Container, directory: &PodDirectory) -> Options {
    let spec = &pod.spec;
    let own = &container.security_context;
    let profile = own.seccomp_profile.as_ref().or(spec.security_context.seccomp_profile.as_ref());
    let seccomp = match profile.map(|profile| (profile.kind, profile.localhost_profile.as_ref())) {
        None | Some((SeccompKind::RuntimeDefault, _)) => Seccomp::Default,
        Some((SeccompKind::Localhost, Some(path))) => Seccomp::File(PathBuf::from(path)),
        Some((SeccompKind::Unconfined | SeccompKind::Localhost, _)) => Seccomp::Unconfined,
    };
    let mut labels = labels(pod);
    labels.insert("io.kubernetes.container.name".to_owned(), container.name.clone());
    Options {
        tty: container.tty,
        interactive: container.stdin,
        read_only: own.read_only_root_filesystem,
        privileged: own.privileged,
        network: Network::Task,
        cap_add: own.capabilities.add.clone(),
        cap_drop: own.capabilities.drop.clone(),
        security: Security {
            no_new_privileges: own.allow_privilege_escalation == Some(false),
            seccomp,
            apparmor: None,
        },
        limits: container_limits(container),
        stop_timeout: Some(spec.termination_grace_period_seconds.unwrap_or(GRACE)),
        labels,
        task: TaskOptions {
            pid: match (spec.host_pid, spec.share_process_namespace) {
                (true, _) => PidNamespace::Host,
                (false, true) => PidNamespace::Task,
                (false, false) => PidNamespace::Container,
            },
            mounts: mounts(pod, container, directory),
            groups: spec.security_context.supplemental_groups.clone(),
            groups_policy: match spec.security_context.supplemental_groups_policy {
                PodGroups::Merge => GroupsPolicy::Merge,
                PodGroups::Strict => GroupsPolicy::Strict,
            },
            oom_score_adj: Some(oom_score(pod, container)),
            stdin_once: container.stdin_once,
            restart: role.restart(spec.restart_policy),
            ..TaskOptions::default()
        },
        ..Options::default()
    }
}

/// As a kubelet sorts pods: those that asked for all that they may have go last, those that asked for nothing first.
fn oom_score(pod: &Pod, container: &Container) -> i32 {
    let guaranteed = |one: &Container| {
        let limits = &one.resources.limits;
        let both = [amount(limits.cpu.as_ref(), Unit::Milli), amount(limits.memory.as_ref(), Unit::One)];
        both == [requests(one).0, requests(one).1] && both.iter().all(Option::is_some)
    };
    let all = sequence(pod);
    if all.iter().all(|(_, one)| guaranteed(one)) {
        -997
    } else if all.iter().all(|(_, one)| requests(one) == (None, None)) {
        1000
    } else if requests(container).1.is_some() {
        500
    } else {
        999
    }
}

fn mounts(pod: &Pod, container: &Container, directory: &PodDirectory) -> Vec<HostMount> {
    let mount = |(index, mount): (usize, &super::pod::VolumeMount)| {
        let volume = pod.spec.volumes.iter().find(|volume| volume.name == mount.name)?;
        let whole = match &volume.host_path {
            Some(host) => PathBuf::from(&host.path),
            None => directory.volume(&volume.name),
        };
        let part = mount.sub_path.as_deref().is_some_and(|path| !path.is_empty());
        Some(HostMount {
            source: if part { directory.sub_path(&container.name, index) } else { whole },
            destination: mount.mount_path.clone(),
            access: if mount.read_only { MountAccess::ReadOnly } else { MountAccess::ReadWrite },
            propagation: match mount.mount_propagation {
                MountPropagation::None => Propagation::Private,
                MountPropagation::HostToContainer => Propagation::HostToContainer,
                MountPropagation::Bidirectional => Propagation::Bidirectional,
            },
        })
    };
    // The parser refuses a mount of a volume that is not there.
    container.volume_mounts.iter().enumerate().filter_map(mount).collect()
}
