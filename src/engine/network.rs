//! Networks of containers that are in no task, and what others may ask about networks.
use super::Engine;
use super::error::EngineError;
use super::names::Id;
use super::options::network::{HOST_GATEWAY, exposed};
use super::options::{Connection, Network, Options};
use super::record::{Record, private_directory};
use super::task::{Cni, Dns};
use crate::network::{self, Attachment, Port, Request, Which, cni, files, netns};
use oci_spec::image::ImageConfiguration;
use serde_json::{Map, Value, json};
use std::net::IpAddr;
use std::path::PathBuf;

/// A container that has a network namespace on a bridge.
#[derive(Debug)]
pub(super) struct Connected {
    /// The file of the namespace.
    pub(super) netns: PathBuf,
    /// What it has there.
    pub(super) attachment: Attachment,
}

impl Engine {
    fn netns(&self, id: &Id) -> PathBuf {
        self.run_directory(id).join("netns")
    }

    /// Makes the network of a container that is about to be started; `None` if it needs none. The caller has its lock.
    pub(super) fn connect(&self, id: &Id, options: &Options) -> Result<Option<Connected>, EngineError> {
        if options.network != Network::Bridge {
            return Ok(None);
        }
        // What a killed start left.
        self.disconnect(id)?;
        private_directory(&self.run_directory(id))?;
        let path = self.netns(id);
        netns::create(&path)?;
        let request = Request {
            id: id.to_string(),
            netns: path.clone(),
            network: Which::Bridge(options.connection.bridge.clone()),
            ports: options.connection.ports.clone(),
        };
        match network::attach(&self.state, &request) {
            Ok(attachment) => Ok(Some(Connected { netns: path, attachment })),
            Err(error) => {
                // The first error is the one to tell; the next start or delete tries again.
                let _ = self.disconnect(id);
                Err(error.into())
            }
        }
    }

    /// Removes a container's network, however far it was made; that there is none is no error.
    pub(super) fn disconnect(&self, id: &Id) -> Result<(), EngineError> {
        network::detach(&self.state, id.as_str())?;
        Ok(netns::remove(&self.netns(id))?)
    }

    /// What a container, or its task, has of a network; `None` if it runs not or has none.
    pub fn attachment(&self, record: &Record) -> Result<Option<Attachment>, EngineError> {
        let owner = record.task.as_deref().unwrap_or(&record.id);
        Ok(network::attachment(&self.state, owner)?)
    }

    /// Whether containers can be attached by CNI plugins: the configuration and the plugins are there.
    pub fn check_cni(&self, cni: &Cni) -> Result<(), EngineError> {
        Ok(cni::check(cni)?)
    }

    /// Makes `address` an address of this host, on a link named `link`, that only the host itself and tasks on
    /// the bridges of these names reach. What is there already stays.
    pub fn make_metadata_address(
        &self,
        link: &str,
        address: IpAddr,
        bridges: &[String],
    ) -> Result<(), EngineError> {
        Ok(network::metadata(&self.state, link, address, bridges)?)
    }

    /// Removes what [`Engine::make_metadata_address`] made.
    pub fn remove_metadata_address(&self, link: &str) -> Result<(), EngineError> {
        Ok(network::remove_metadata(&self.state, link)?)
    }
}

/// With `-P`, free ports of the host for the ports that the image exposes and that are not published yet.
pub(super) fn publish_exposed(connection: &mut Connection, image: &ImageConfiguration) {
    let ports = image.config().as_ref().and_then(|config| config.exposed_ports().as_ref());
    if !connection.publish_all {
        return;
    }
    for port in ports.into_iter().flatten().filter_map(|text| exposed(text)) {
        let same =
            |other: &Port| (other.container_port, other.protocol) == (port.container_port, port.protocol);
        if !connection.ports.iter().any(same) {
            connection.ports.push(port);
        }
    }
}

/// The text of /etc/hosts; `host` is the host's, for a container on its network.
pub(super) fn hosts(
    hostname: &str,
    options: &Options,
    connected: Option<&Connected>,
    host: Vec<u8>,
) -> Result<Vec<u8>, EngineError> {
    let addresses = connected.map(|connected| connected.attachment.addresses.as_slice()).unwrap_or_default();
    let gateway = addresses.first().and_then(|address| address.gateway);
    let mut extra = options.connection.hosts.clone();
    for (address, _) in extra.iter_mut().filter(|(address, _)| address == HOST_GATEWAY) {
        // Off a bridge the host is reached by loopback, if at all.
        *address = gateway.map_or_else(|| "127.0.0.1".to_owned(), |gateway| gateway.to_string());
    }
    let own: Vec<IpAddr> = addresses.iter().map(|address| address.ip).collect();
    if options.network != Network::Host {
        return Ok(files::hosts(hostname, &own, &extra)?.into_bytes());
    }
    // The same lines after the host's own.
    let with = files::hosts("localhost", &[], &extra)?;
    let without = files::hosts("localhost", &[], &[])?;
    let mut text = host;
    if !text.is_empty() && !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    text.extend_from_slice(with.strip_prefix(&without).unwrap_or_default().as_bytes());
    Ok(text)
}

/// The text of /etc/resolv.conf; `host` is the host's, for a container on its network.
pub(super) fn resolv_conf(
    options: &Options,
    connected: Option<&Connected>,
    host: Vec<u8>,
) -> Result<Vec<u8>, EngineError> {
    let asked = &options.connection.dns;
    let text = match connected {
        Some(connected) => files::attached_resolv_conf(asked, &connected.attachment)?,
        None if *asked == Dns::default() => return Ok(host),
        None if options.network == Network::Host => {
            files::resolv_conf(&files::choose(asked, &Dns::default(), files::host_dns(false)))?
        }
        None => files::resolv_conf(asked)?,
    };
    Ok(text.into_bytes())
}

/// docker's `NetworkMode`.
pub(super) fn mode(network: Network) -> &'static str {
    match network {
        Network::None => "none",
        Network::Host => "host",
        Network::Bridge => "bridge",
        Network::Task => "task",
    }
}

/// docker's `PortBindings`: what was asked for, or what is there, by the container's port.
pub(super) fn bindings(ports: &[Port]) -> Value {
    let mut all: Map<String, Value> = Map::new();
    for port in ports {
        let key = format!("{}/{}", port.container_port, port.protocol.name());
        let binding = json!({
            "HostIp": port.host_ip.map_or_else(String::new, |ip| ip.to_string()),
            "HostPort": if port.host_port == 0 { String::new() } else { port.host_port.to_string() },
        });
        if let Value::Array(list) = all.entry(key).or_insert_with(|| json!([])) {
            list.push(binding);
        }
    }
    Value::Object(all)
}

/// docker's `ExtraHosts`.
pub(super) fn extra_hosts(hosts: &[(String, Vec<String>)]) -> Vec<String> {
    hosts
        .iter()
        .flat_map(|(address, names)| names.iter().map(move |name| format!("{name}:{address}")))
        .collect()
}

/// docker's `NetworkSettings`.
pub(super) fn settings(engine: &Engine, record: &Record) -> Result<Value, EngineError> {
    let attachment = engine.attachment(record)?.unwrap_or_default();
    let of = |v6: bool| attachment.addresses.iter().find(|address| address.ip.is_ipv6() == v6);
    let text = |address: Option<IpAddr>| address.map_or_else(String::new, |address| address.to_string());
    let (v4, v6) = (of(false), of(true));
    Ok(json!({
        "IPAddress": text(v4.map(|address| address.ip)),
        "IPPrefixLen": v4.map_or(0, |address| address.prefix),
        "Gateway": text(v4.and_then(|address| address.gateway)),
        "GlobalIPv6Address": text(v6.map(|address| address.ip)),
        "GlobalIPv6PrefixLen": v6.map_or(0, |address| address.prefix),
        "IPv6Gateway": text(v6.and_then(|address| address.gateway)),
        "MacAddress": attachment.mac.unwrap_or_default(),
        "Ports": bindings(&attachment.ports),
    }))
}
