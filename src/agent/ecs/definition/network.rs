//! Rules of what the containers of a task share: network, host name, kernel parameters.
use super::check::{Invalid, wrong};
use super::{ContainerDefinition, Definition, NetworkMode, Transport};
use crate::engine::options::parse as flags;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// More are ignored by resolvers.
const MAX_DNS_SERVERS: usize = 3;
/// Kernel parameters of an IPC namespace beside those under fs.mqueue.
const IPC_PARAMETERS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Checks all of it.
pub fn check(definition: &Definition) -> Result<(), Invalid> {
    let mode = definition.network_mode.unwrap_or_default();
    let mut ports = BTreeMap::new();
    let mut published = BTreeMap::new();
    let mut parameters: BTreeMap<&str, &str> = BTreeMap::new();
    let mut shared = Shared::default();
    for (at, container) in definition.container_definitions.iter().enumerate() {
        let path = format!("containerDefinitions[{at}]");
        for (index, _) in container.port_mappings.iter().enumerate() {
            port(
                &format!("{path}.portMappings[{index}]"),
                mode,
                container,
                index,
                &mut ports,
                &mut published,
            )?;
        }
        shared.add(&path, mode, container)?;
        for (index, control) in container.system_controls.iter().enumerate() {
            let at = format!("{path}.systemControls[{index}]");
            parameter(&at, definition, &control.namespace)?;
            if control.value.is_empty()
                || control.value.len() > 256
                || control.value.contains(char::is_control)
            {
                return wrong(format!("{at}.value"), format!("{:?} is no value", control.value));
            }
            if parameters
                .insert(&control.namespace, &control.value)
                .is_some_and(|other| other != control.value)
            {
                let reason =
                    format!("two containers set {} differently, but they share it", control.namespace);
                return wrong(at, reason);
            }
        }
    }
    Ok(())
}

type Ports<'d> = BTreeMap<(i64, bool), &'d str>;

fn port<'d>(
    path: &str,
    mode: NetworkMode,
    container: &'d ContainerDefinition,
    index: usize,
    ports: &mut Ports<'d>,
    published: &mut Ports<'d>,
) -> Result<(), Invalid> {
    let mapping = &container.port_mappings[index];
    if mode == NetworkMode::None {
        return wrong(path, "a task without a network has no ports: networkMode is none");
    }
    if !(1..=65_535).contains(&mapping.container_port) {
        return wrong(format!("{path}.containerPort"), format!("{} is no port", mapping.container_port));
    }
    let host = mapping.host_port.unwrap_or(0);
    if !(0..=65_535).contains(&host) {
        return wrong(format!("{path}.hostPort"), format!("{host} is no port"));
    }
    if matches!(mode, NetworkMode::Host | NetworkMode::Awsvpc) && host != 0 && host != mapping.container_port
    {
        let reason = format!("must be absent or the containerPort in networkMode {}", mode.as_str());
        return wrong(format!("{path}.hostPort"), reason);
    }
    if let Some(word) = mapping.app_protocol.as_deref()
        && !matches!(word, "http" | "http2" | "grpc")
    {
        return wrong(format!("{path}.appProtocol"), format!("{word:?} is not http, http2 or grpc"));
    }
    let datagrams = mapping.protocol == Transport::Udp;
    if let Some(other) = ports.insert((mapping.container_port, datagrams), &container.name)
        && other != container.name
    {
        let reason = format!(
            "{} is a port of container {other:?} too, and the containers of a task share their network",
            mapping.container_port
        );
        return wrong(format!("{path}.containerPort"), reason);
    }
    if host != 0 && published.insert((host, datagrams), &container.name).is_some() {
        return wrong(format!("{path}.hostPort"), format!("{host} is there more than once"));
    }
    Ok(())
}

/// What all containers of a task have in common.
#[derive(Default)]
struct Shared<'d> {
    hostname: Option<&'d str>,
    servers: Option<&'d [String]>,
    searches: Option<&'d [String]>,
}

impl<'d> Shared<'d> {
    fn add(
        &mut self,
        path: &str,
        mode: NetworkMode,
        container: &'d ContainerDefinition,
    ) -> Result<(), Invalid> {
        let given = [
            ("hostname", container.hostname.is_some()),
            ("dnsServers", !container.dns_servers.is_empty()),
            ("dnsSearchDomains", !container.dns_search_domains.is_empty()),
            ("extraHosts", !container.extra_hosts.is_empty()),
        ];
        let refused = matches!(mode, NetworkMode::Awsvpc | NetworkMode::Host);
        if let Some((member, _)) = given.iter().find(|(member, given)| {
            // As ECS: awsvpc takes none of them, and on the host's network a task has the host's name.
            *given && refused && (mode == NetworkMode::Awsvpc || *member == "hostname")
        }) {
            let reason = format!("cannot be given in networkMode {}", mode.as_str());
            return wrong(format!("{path}.{member}"), reason);
        }
        if let Some(name) = container.hostname.as_deref() {
            if flags::hostname(name).is_err() {
                return wrong(format!("{path}.hostname"), format!("{name:?} is no host name"));
            }
            same(&format!("{path}.hostname"), &mut self.hostname, name)?;
        }
        if !container.dns_servers.is_empty() {
            let is_address = |text: &String| text.parse::<IpAddr>().is_ok();
            if container.dns_servers.len() > MAX_DNS_SERVERS || !container.dns_servers.iter().all(is_address)
            {
                return wrong(format!("{path}.dnsServers"), "must be up to three IP addresses");
            }
            same(&format!("{path}.dnsServers"), &mut self.servers, &container.dns_servers)?;
        }
        if !container.dns_search_domains.is_empty() {
            if !container.dns_search_domains.iter().all(|text| is_domain(text)) {
                return wrong(format!("{path}.dnsSearchDomains"), "has a text that is no domain");
            }
            same(&format!("{path}.dnsSearchDomains"), &mut self.searches, &container.dns_search_domains)?;
        }
        for (index, line) in container.extra_hosts.iter().enumerate() {
            let at = format!("{path}.extraHosts[{index}]");
            if line.ip_address.parse::<IpAddr>().is_err() {
                return wrong(format!("{at}.ipAddress"), format!("{:?} is no IP address", line.ip_address));
            }
            if !is_domain(&line.hostname) {
                return wrong(format!("{at}.hostname"), format!("{:?} is no host name", line.hostname));
            }
        }
        Ok(())
    }
}

fn same<T: PartialEq + Copy>(path: &str, known: &mut Option<T>, given: T) -> Result<(), Invalid> {
    if known.replace(given).is_some_and(|other| other != given) {
        return wrong(path, "is another container's otherwise, but the containers of a task share it");
    }
    Ok(())
}

fn is_domain(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

fn parameter(path: &str, definition: &Definition, name: &str) -> Result<(), Invalid> {
    let at = format!("{path}.namespace");
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte));
    if name.is_empty() || name.len() > 255 || !is_plain || name.contains("..") {
        return wrong(at, format!("{name:?} is no kernel parameter"));
    }
    if name.starts_with("net.") {
        return match definition.network_mode {
            Some(NetworkMode::Host) => wrong(at, format!("{name} cannot be set in networkMode host")),
            _ => Ok(()),
        };
    }
    if name.starts_with("fs.mqueue.") || IPC_PARAMETERS.contains(&name) {
        return match definition.ipc_mode {
            Some(super::IpcMode::Host) => wrong(at, format!("{name} cannot be set in ipcMode host")),
            _ => Ok(()),
        };
    }
    wrong(at, format!("{name} is no parameter of a task: only net.*, fs.mqueue.* and those of IPC are"))
}
