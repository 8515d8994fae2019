//! CNI: networks that plugins make, as a kubelet's node has them.
//!
//! What plugins are given is kept before the first runs, so that it can be taken back by the same configuration
//! whatever happens to the folder meanwhile.
use super::state::{self, State};
use super::{Address, Attachment, Cni, Dns, NetworkError, Port, Protocol, Request, ports};
use crate::sys::program::Program;
use crate::sys::{SysError, lock};
use config::List;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{Seek, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

mod config;
#[cfg(test)]
mod tests;

/// Name of the container's link.
const INSIDE: &str = "eth0";
/// After this a plugin is killed.
const DEADLINE: Duration = Duration::from_secs(60);
/// A result is some hundred bytes.
const MAX_RESULT: usize = 1 << 20;
/// Where plugins find iptables and the like.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// `<state>/net/cni/<id>.json`
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Cache {
    name: String,
    version: String,
    plugins: Vec<Map<String, Value>>,
    /// With the numbers that were taken for 0.
    ports: Vec<Port>,
    /// Of the last plugin, once all have run.
    result: Option<Value>,
}

/// Whether containers can be attached: the configuration is there and sound, and so are its plugins.
pub fn check(cni: &Cni) -> Result<(), NetworkError> {
    check_plugins(cni, &config::load(&cni.configuration)?)
}

fn check_plugins(cni: &Cni, list: &List) -> Result<(), NetworkError> {
    list.plugins.iter().try_for_each(|plugin| find(cni, &config::text_of(plugin.get("type"))).map(drop))
}

/// Runs the plugins' ADD.
pub(super) fn add(state: &State, request: &Request, cni: &Cni) -> Result<Attachment, NetworkError> {
    let list = config::load(&cni.configuration)?;
    let arguments = config::arguments(cni)?;
    // Before anything is kept: what has no plugin could not be taken back either.
    check_plugins(cni, &list)?;
    let ports = reserve(state, request, &list)?;
    let cache = state.cni(&request.id, "json");
    let mut cached = Cache {
        name: list.name.clone(),
        version: list.version.clone(),
        plugins: list.plugins.clone(),
        ports,
        result: None,
    };
    state::write_json(&cache, &cached)?;
    let mut input = Input::open(&state.cni(&request.id, "stdin"))?;
    let mut result = None;
    for index in 0..list.plugins.len() {
        let config = config::stdin(&list, index, &cached.ports, result.as_ref());
        let kind = config::text_of(config.get("type"));
        let call = Call { cni, id: &request.id, netns: &request.netns, arguments: &arguments };
        let output = call.run("ADD", &kind, &config, &mut input)?;
        let parsed: Value = serde_json::from_slice(&output)
            .map_err(|source| NetworkError::PluginResult { plugin: kind, source })?;
        result = Some(parsed);
    }
    input.close()?;
    let mut attachment = result.as_ref().map(attachment).unwrap_or_default();
    attachment.ports.clone_from(&cached.ports);
    cached.result = result;
    state::write_json(&cache, &cached)?;
    Ok(attachment)
}

/// Runs the plugins' DEL, the last first, as far as any had been given anything. A plugin that fails does not keep the
/// others from theirs.
pub(super) fn delete(state: &State, request: &Request, cni: &Cni) -> Result<(), NetworkError> {
    let (cache, stdin) = (state.cni(&request.id, "json"), state.cni(&request.id, "stdin"));
    if let Some(cached) = state::read_json::<Cache>(&cache)? {
        let list = List { name: cached.name, version: cached.version, plugins: cached.plugins };
        let arguments = config::arguments(cni)?;
        // A plugin of a process that was killed may still run: it has the lock.
        let mut input = Input::open(&stdin)?;
        // The result of ADD is told since 0.4.0.
        let previous = cached.result.filter(|_| list.version != "0.3.1");
        let mut outcome = Ok(());
        for index in (0..list.plugins.len()).rev() {
            let config = config::stdin(&list, index, &cached.ports, previous.as_ref());
            let kind = config::text_of(config.get("type"));
            let call = Call { cni, id: &request.id, netns: &request.netns, arguments: &arguments };
            outcome = outcome.and(call.run("DEL", &kind, &config, &mut input).map(drop));
        }
        input.close()?;
        outcome?;
    }
    ports::release(state, &request.id, None)?;
    state::remove(&cache)?;
    state::remove(&stdin)
}

/// Plugins do not tell whether a port is taken: we look, and keep our own containers apart.
fn reserve(state: &State, request: &Request, list: &List) -> Result<Vec<Port>, NetworkError> {
    let Some(first) = request.ports.first() else { return Ok(Vec::new()) };
    if !config::list_maps_ports(list) {
        return Err(NetworkError::PortUnsupported {
            port: first.container_port,
            protocol: first.protocol,
            reason: "no plugin of the CNI configuration has the capability portMappings",
        });
    }
    let (other, ours): (Vec<Port>, Vec<Port>) =
        request.ports.iter().cloned().partition(|port| port.protocol == Protocol::Sctp);
    let _lock = state.lock()?;
    // Only the side of the host is looked at.
    let (v4, v6) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    let mut all = ports::reserve(state, &request.id, &ours, v4, Some(v6))?.ports;
    all.extend(other);
    Ok(all)
}

/// The file from which plugins read their configuration. A plugin holds its lock until it ends, also if this process
/// is killed.
#[derive(Debug)]
struct Input {
    file: File,
}

impl Input {
    fn open(path: &Path) -> Result<Self, NetworkError> {
        Ok(Self { file: state::lock_file(path)? })
    }

    fn fill(&mut self, config: &Value) -> Result<File, NetworkError> {
        let file = &mut self.file;
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(config.to_string().as_bytes()))
            .and_then(|()| file.rewind())
            .and_then(|()| file.try_clone())
            .map_err(|error| SysError::io("write", "a plugin's configuration")(error).into())
    }

    /// Lets the lock go, though a plugin may have left somebody in the background who has the file.
    fn close(self) -> Result<(), NetworkError> {
        Ok(lock::release(&self.file)?)
    }
}

/// What is the same for all plugins of a list.
struct Call<'a> {
    cni: &'a Cni,
    id: &'a str,
    netns: &'a Path,
    arguments: &'a str,
}

impl Call<'_> {
    fn run(
        &self,
        command: &'static str,
        kind: &str,
        config: &Value,
        input: &mut Input,
    ) -> Result<Vec<u8>, NetworkError> {
        let path = find(self.cni, kind)?;
        let folders: Vec<String> = self.cni.plugins.iter().map(|path| path.display().to_string()).collect();
        // DEL of a namespace that is gone gives back what the host has.
        let netns = if self.netns.exists() { self.netns.display().to_string() } else { String::new() };
        let environment = [
            ("CNI_COMMAND", command.to_owned()),
            ("CNI_CONTAINERID", self.id.to_owned()),
            ("CNI_NETNS", netns),
            ("CNI_IFNAME", INSIDE.to_owned()),
            ("CNI_ARGS", self.arguments.to_owned()),
            ("CNI_PATH", folders.join(":")),
            ("PATH", PATH.to_owned()),
        ]
        .map(|(name, value)| (name.into(), value.into()));
        let ended = Program {
            path: &path,
            arguments: &[],
            environment: &environment,
            stdin: input.fill(config)?,
            stdout: None,
            deadline: DEADLINE,
            limit: MAX_RESULT,
        }
        .run()?;
        if ended.status.success() {
            return Ok(ended.stdout);
        }
        let (code, message) =
            failure(&ended.stdout).unwrap_or_else(|| (0, format!("{}: {}", ended.status, ended.stderr)));
        Err(NetworkError::Plugin { plugin: kind.to_owned(), command, code, message })
    }
}

/// A plugin's error (CNI specification, section 5).
fn failure(stdout: &[u8]) -> Option<(u64, String)> {
    /// Plugins pass on what iptables says.
    const MAX_MESSAGE: usize = 2000;
    let error: Map<String, Value> = serde_json::from_slice(stdout).ok()?;
    let code = error.get("code").and_then(Value::as_u64)?;
    let mut message = config::text_of(error.get("msg"));
    let details = config::text_of(error.get("details"));
    if !details.is_empty() {
        message = format!("{message}: {details}");
    }
    Some((code, message.chars().take(MAX_MESSAGE).collect()))
}

fn find(cni: &Cni, kind: &str) -> Result<PathBuf, NetworkError> {
    cni.plugins
        .iter()
        .map(|folder| folder.join(kind))
        .find(|path| path.is_file())
        .ok_or_else(|| NetworkError::NoPlugin { plugin: kind.to_owned(), folders: cni.plugins.clone() })
}

/// What a result says of the container's link; what is malformed is left out.
fn attachment(result: &Value) -> Attachment {
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let interfaces = list(result.get("interfaces"));
    let inside = |interface: &Value| {
        interface.get("sandbox").and_then(Value::as_str).is_some_and(|path| !path.is_empty())
    };
    let link = interfaces
        .iter()
        .filter(|interface| inside(interface))
        .find(|interface| interface.get("name").and_then(Value::as_str) == Some(INSIDE));
    let mut attachment = Attachment {
        mac: link.map(|link| config::text_of(link.get("mac"))).filter(|mac| !mac.is_empty()),
        interface: Some(INSIDE.to_owned()),
        ..Attachment::default()
    };
    for ip in list(result.get("ips")) {
        let on_the_host = ip
            .get("interface")
            .and_then(Value::as_u64)
            .and_then(|index| interfaces.get(usize::try_from(index).ok()?))
            .is_some_and(|interface| !inside(interface));
        if !on_the_host && let Some(address) = address(&ip) {
            attachment.addresses.push(address);
        }
    }
    let words = |value: Option<&Value>| {
        list(value).iter().filter_map(|word| word.as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    if let Some(dns) = result.get("dns") {
        let mut searches = words(dns.get("search"));
        let domain = config::text_of(dns.get("domain"));
        if searches.is_empty() && !domain.is_empty() {
            searches.push(domain);
        }
        attachment.dns =
            Dns { servers: words(dns.get("nameservers")), searches, options: words(dns.get("options")) };
    }
    attachment
}

fn address(ip: &Value) -> Option<Address> {
    let (address, prefix) = ip.get("address")?.as_str()?.split_once('/')?;
    let gateway = ip.get("gateway").and_then(Value::as_str).and_then(|gateway| gateway.parse().ok());
    Some(Address { ip: address.parse().ok()?, prefix: prefix.parse().ok()?, gateway })
}
