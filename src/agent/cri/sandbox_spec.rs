//! From what a pod is asked to be to a task; pure.
use super::api::{
    self, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption,
    PodSandboxConfig, SecurityProfile, security_profile::ProfileType,
};
use super::error::{CriError, Result, invalid};
use super::{kept, resources};
use crate::agent::config::NetworkConfig;
use crate::engine::options::{Limits, parse};
use crate::engine::task::{Bridge, Cni, Dns, Door, Port, Protocol, TaskNetwork, TaskSpec, Which};
use std::collections::BTreeMap;

/// Names of runtime handlers that there are.
pub const HANDLERS: [&str; 2] = ["", "corten"];
/// More ports are a mistake.
const MAX_PORTS: usize = 1024;
/// More labels or annotations, in bytes of keys and values, are a mistake; Kubernetes allows 256 KiB of annotations.
const MAX_TEXT: usize = 1024 * 1024;
/// More kernel parameters are a mistake.
const MAX_SYSCTLS: usize = 256;
/// Longest path that the kernel takes.
const MAX_PATH: usize = 4095;

/// Facts of the host and the configuration that a pod depends on.
#[derive(Debug)]
pub struct Facts<'a> {
    /// `[network]`
    pub network: &'a NetworkConfig,
    /// Whether the kernel counts swap for each cgroup.
    pub counts_swap: bool,
}

/// Builds the task.
pub fn task(
    config: &PodSandboxConfig,
    runtime_handler: &str,
    request: String,
    facts: &Facts<'_>,
) -> Result<TaskSpec> {
    if !HANDLERS.contains(&runtime_handler) {
        return invalid("runtime_handler", runtime_handler, "there is no such handler; known is \"corten\"");
    }
    let Some(metadata) = config.metadata.clone() else {
        return Err(CriError::Missing { field: "config.metadata" });
    };
    for (field, text) in [("metadata.name", &metadata.name), ("metadata.uid", &metadata.uid)] {
        if text.is_empty() {
            return Err(CriError::Missing { field });
        }
    }
    texts("labels", &config.labels)?;
    texts("annotations", &config.annotations)?;
    if config.log_directory.len() > MAX_PATH
        || (!config.log_directory.is_empty() && !config.log_directory.starts_with('/'))
    {
        return invalid("log_directory", &config.log_directory, "it is an absolute path");
    }
    let linux = config.linux.clone().unwrap_or_default();
    let security = linux.security_context.clone().unwrap_or_default();
    check(&security)?;
    let namespaces = security.namespace_options.clone().unwrap_or_default();
    let host_network = namespaces.network() == NamespaceMode::Node;
    let kept = kept::Sandbox {
        metadata: metadata.clone(),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        log_directory: config.log_directory.clone(),
        namespaces,
        privileged: security.privileged,
        runtime_handler: runtime_handler.to_owned(),
        request,
    };
    let namespaces = &kept.namespaces;
    Ok(TaskSpec {
        door: Door::Cri,
        name: kept::sandbox_name(&metadata),
        hostname: hostname(config, host_network)?,
        network: match namespaces.network() {
            NamespaceMode::Node => TaskNetwork::Host,
            _ => TaskNetwork::Attached(which(facts.network, &metadata)),
        },
        // On the host's network a port of the container is the host's; kubelets name them all the same.
        ports: ports(&config.port_mappings).map(|ports| if host_network { Vec::new() } else { ports })?,
        shares_pid: namespaces.pid() == NamespaceMode::Pod,
        host_ipc: namespaces.ipc() == NamespaceMode::Node,
        dns: config.dns_config.clone().map(dns).transpose()?.unwrap_or_default(),
        hosts: Vec::new(),
        cgroup: cgroup(&linux.cgroup_parent)?,
        limits: pod_limits(&linux, facts)?,
        sysctls: sysctls(&linux.sysctls)?,
        labels: config.labels.clone(),
        shm_size: None,
        data: kept.to_data()?,
    })
}

/// What cannot be had, and what contradicts itself.
fn check(security: &LinuxSandboxSecurityContext) -> Result<()> {
    if let Some(namespaces) = &security.namespace_options {
        check_namespaces(namespaces)?;
        if namespaces.pid() == NamespaceMode::Target {
            return invalid("namespace_options.pid", "TARGET", "a pod sandbox has no target container");
        }
    }
    if security.run_as_group.is_some() && security.run_as_user.is_none() {
        return invalid("run_as_group", "", "it needs run_as_user");
    }
    apparmor(security.apparmor.as_ref())
}

/// The namespaces of a pod or container.
pub fn check_namespaces(namespaces: &NamespaceOption) -> Result<()> {
    for (field, mode) in [
        ("namespace_options.network", namespaces.network),
        ("namespace_options.pid", namespaces.pid),
        ("namespace_options.ipc", namespaces.ipc),
    ] {
        if NamespaceMode::try_from(mode).is_err() {
            return invalid(field, mode.to_string(), "there is no such mode");
        }
    }
    if matches!(namespaces.network(), NamespaceMode::Container | NamespaceMode::Target) {
        return invalid("namespace_options.network", namespaces.network().as_str_name(), "it is POD or NODE");
    }
    if matches!(namespaces.ipc(), NamespaceMode::Container | NamespaceMode::Target) {
        return invalid("namespace_options.ipc", namespaces.ipc().as_str_name(), "it is POD or NODE");
    }
    match namespaces.userns_options.as_ref().map(api::UserNamespace::mode) {
        None | Some(NamespaceMode::Node) => Ok(()),
        Some(NamespaceMode::Pod) => Err(CriError::NotBuilt {
            what: "namespace_options.userns_options",
            reason: "user namespaces are not built; leave hostUsers unset",
        }),
        Some(mode) => invalid("namespace_options.userns_options", mode.as_str_name(), "it is POD or NODE"),
    }
}

/// A profile that is asked for by name must be in force; the default one is where the host has AppArmor at all.
pub fn apparmor(profile: Option<&SecurityProfile>) -> Result<()> {
    match profile {
        Some(profile) if profile.profile_type() == ProfileType::Localhost => Err(CriError::NotBuilt {
            what: "apparmor",
            reason: "profiles of the host are not built; use RuntimeDefault or Unconfined",
        }),
        _ => Ok(()),
    }
}

/// Bounds maps of texts.
pub fn texts(field: &'static str, map: &BTreeMap<String, String>) -> Result<()> {
    if map.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > MAX_TEXT {
        return invalid(field, "", "they have more than 1 MiB");
    }
    Ok(())
}

fn hostname(config: &PodSandboxConfig, host_network: bool) -> Result<Option<String>> {
    match config.hostname.as_str() {
        // On the host's network a pod is known by the host's name.
        "" if host_network => {
            let uname =
                nix::sys::utsname::uname().map_err(|errno| crate::sys::SysError::on("uname", "")(errno))?;
            Ok(Some(uname.nodename().to_string_lossy().into_owned()))
        }
        "" => Ok(None),
        name => Ok(Some(parse::hostname(name)?)),
    }
}

/// CNI plugins where the configuration names a folder for them, or else the embedded bridge.
fn which(network: &NetworkConfig, metadata: &api::PodSandboxMetadata) -> Which {
    let Some(configuration) = &network.cni_configuration else {
        let usual = Bridge::default();
        return Which::Bridge(Bridge {
            link: network.bridge.clone().unwrap_or(usual.link),
            subnet: network.subnet.clone().unwrap_or(usual.subnet),
            subnet6: network.subnet6.clone(),
        });
    };
    let arguments = [
        ("IgnoreUnknown", "1"),
        ("K8S_POD_NAMESPACE", metadata.namespace.as_str()),
        ("K8S_POD_NAME", metadata.name.as_str()),
        ("K8S_POD_UID", metadata.uid.as_str()),
    ];
    Which::Cni(Cni {
        configuration: configuration.clone(),
        plugins: network.cni_plugins.clone(),
        arguments: arguments.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
    })
}

/// Only those with a port of the host lead anywhere.
fn ports(mappings: &[api::PortMapping]) -> Result<Vec<Port>> {
    if mappings.len() > MAX_PORTS {
        return invalid("port_mappings", mappings.len().to_string(), "there are more than 1024");
    }
    mappings.iter().filter(|mapping| mapping.host_port != 0).map(port).collect()
}

fn port(mapping: &api::PortMapping) -> Result<Port> {
    let number = |field, port: i32| match u16::try_from(port) {
        Ok(port @ 1..) => Ok(port),
        _ => invalid(field, port.to_string(), "a port is a number from 1 to 65535"),
    };
    Ok(Port {
        host_ip: match mapping.host_ip.as_str() {
            "" => None,
            text => match text.parse::<std::net::IpAddr>() {
                // Any address is all of them.
                Ok(address) => Some(address).filter(|address| !address.is_unspecified()),
                Err(_) => return invalid("port_mappings.host_ip", text, "it is no IP address"),
            },
        },
        host_port: number("port_mappings.host_port", mapping.host_port)?,
        container_port: number("port_mappings.container_port", mapping.container_port)?,
        protocol: match api::Protocol::try_from(mapping.protocol) {
            Ok(api::Protocol::Tcp) => Protocol::Tcp,
            Ok(api::Protocol::Udp) => Protocol::Udp,
            Ok(api::Protocol::Sctp) => Protocol::Sctp,
            Err(_) => {
                return invalid("port_mappings.protocol", mapping.protocol.to_string(), "it is unknown");
            }
        },
    })
}

/// Each entry becomes a word of a line.
fn dns(config: api::DnsConfig) -> Result<Dns> {
    let dns = Dns { servers: config.servers, searches: config.searches, options: config.options };
    for (field, list, most) in [
        ("dns_config.servers", &dns.servers, 16),
        ("dns_config.searches", &dns.searches, 64),
        ("dns_config.options", &dns.options, 64),
    ] {
        if list.len() > most {
            return invalid(field, list.len().to_string(), "there are too many");
        }
        for word in list {
            if word.is_empty() || word.len() > 255 || word.bytes().any(|byte| byte <= b' ' || byte == 127) {
                return invalid(field, word, "it is one word of at most 255 bytes");
            }
        }
    }
    Ok(dns)
}

/// The pod's cgroup; it has no `..`, which would lead out of the hierarchy.
fn cgroup(parent: &str) -> Result<Option<String>> {
    if parent.is_empty() {
        return Ok(None);
    }
    if parent.ends_with(".slice") {
        return invalid("cgroup_parent", parent, "it is a slice of systemd, but the driver is cgroupfs");
    }
    let mut clean = String::with_capacity(parent.len());
    for part in parent.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." || part.contains('\0') {
            return invalid("cgroup_parent", parent, "it leads out of the hierarchy");
        }
        clean.push('/');
        clean.push_str(part);
    }
    if clean.len() > MAX_PATH {
        return invalid("cgroup_parent", "", "it is too long");
    }
    Ok(Some(clean).filter(|clean| !clean.is_empty()))
}

/// Who gives a cgroup gives its limits, too: a kubelet sets them there itself.
fn pod_limits(linux: &LinuxPodSandboxConfig, facts: &Facts<'_>) -> Result<Limits> {
    match &linux.resources {
        Some(given) if linux.cgroup_parent.is_empty() => resources::limits(given, facts.counts_swap),
        _ => Ok(Limits::default()),
    }
}

fn sysctls(given: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    if given.len() > MAX_SYSCTLS {
        return invalid("sysctls", given.len().to_string(), "there are too many");
    }
    Ok(given.clone())
}

#[cfg(test)]
mod tests;
