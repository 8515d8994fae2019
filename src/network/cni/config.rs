//! Configuration lists of CNI, and what goes from them to a plugin (CNI specification 1.1, sections 1 and 3).
use crate::network::state;
use crate::network::{Cni, NetworkError, Port};
use crate::sys::SysError;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Versions of the specification that we speak.
const VERSIONS: [&str; 4] = ["1.1.0", "1.0.0", "0.4.0", "0.3.1"];
/// A list of more plugins is none.
const MAX_PLUGINS: usize = 32;
/// Names that are looked at in a folder.
const MAX_FILES: usize = 1000;

/// A list of plugins.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::network) struct List {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) plugins: Vec<Map<String, Value>>,
}

/// The first list of the folder by name.
pub(super) fn load(directory: &Path) -> Result<List, NetworkError> {
    let path = first(directory)?;
    let missing = || NetworkError::NoConfiguration { directory: directory.to_owned() };
    let text = state::read(&path)?.ok_or_else(missing)?;
    parse(&text, &path)
}

fn first(directory: &Path) -> Result<PathBuf, NetworkError> {
    let failed = |error| SysError::io("readdir", directory.display().to_string())(error);
    let none = || NetworkError::NoConfiguration { directory: directory.to_owned() };
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(none()),
        entries => entries.map_err(failed)?,
    };
    let mut found: Option<PathBuf> = None;
    for entry in entries.take(MAX_FILES) {
        let path = entry.map_err(failed)?.path();
        let known = path
            .extension()
            .and_then(|extension| extension.to_str())
            .is_some_and(|extension| ["conflist", "conf", "json"].contains(&extension));
        if known && found.as_ref().is_none_or(|found| path < *found) {
            found = Some(path);
        }
    }
    found.ok_or_else(none)
}

/// A list, or one plugin's configuration, which is a list of one.
pub(super) fn parse(text: &[u8], path: &Path) -> Result<List, NetworkError> {
    let bad = |what, value: &str, reason| NetworkError::BadConfiguration {
        path: path.to_owned(),
        what,
        value: value.chars().take(100).collect(),
        reason,
    };
    let source = |source| NetworkError::Configuration { path: path.to_owned(), source };
    let mut object: Map<String, Value> = serde_json::from_slice(text).map_err(source)?;
    let name = object.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if !name.bytes().all(letter) || !name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric()) {
        return Err(bad(
            "name",
            &name,
            "must be letters, digits, '.', '_' and '-', the first a letter or digit",
        ));
    }
    let version = version(&object).ok_or_else(|| {
        bad("cniVersion", &text_of(object.get("cniVersion")), "is not one of 0.3.1, 0.4.0, 1.0.0, 1.1.0")
    })?;
    let plugins = match object.remove("plugins") {
        None => vec![Value::Object(object)],
        Some(Value::Array(plugins)) => plugins,
        Some(other) => return Err(bad("plugins", &other.to_string(), "is not a list")),
    };
    if plugins.is_empty() || plugins.len() > MAX_PLUGINS {
        return Err(bad("plugins", &plugins.len().to_string(), "must be 1 to 32 plugins"));
    }
    let mut checked = Vec::new();
    for plugin in plugins {
        let Value::Object(plugin) = plugin else {
            return Err(bad("plugin", &plugin.to_string(), "is not an object"));
        };
        let kind = text_of(plugin.get("type"));
        // The type is a file's name in one of the folders, nothing else (CVE-2021-20206).
        if kind.is_empty() || kind.contains(['/', '\0']) || kind == "." || kind == ".." || kind.len() > 255 {
            return Err(bad("type", &kind, "is not the name of a plugin"));
        }
        checked.push(plugin);
    }
    Ok(List { name, version, plugins: checked })
}

/// The newest version that both sides speak (`cniVersions` since 1.1).
fn version(object: &Map<String, Value>) -> Option<String> {
    let known = |text: &str| VERSIONS.iter().position(|known| *known == text);
    let several = object.get("cniVersions").and_then(Value::as_array);
    let one = object.get("cniVersion");
    several
        .into_iter()
        .flatten()
        .chain(one)
        .filter_map(|version| known(version.as_str()?))
        .min()
        .map(|position| VERSIONS[position].to_owned())
}

/// What the plugin at `index` reads: its own configuration, with what the list and the runtime add.
pub(super) fn stdin(list: &List, index: usize, ports: &[Port], previous: Option<&Value>) -> Value {
    let mut config = list.plugins.get(index).cloned().unwrap_or_default();
    config.insert("name".to_owned(), json!(list.name));
    config.insert("cniVersion".to_owned(), json!(list.version));
    let maps_ports = maps_ports(&config);
    config.remove("capabilities");
    if maps_ports && !ports.is_empty() {
        config.insert("runtimeConfig".to_owned(), json!({ "portMappings": mappings(ports) }));
    }
    if let Some(previous) = previous {
        config.insert("prevResult".to_owned(), previous.clone());
    }
    Value::Object(config)
}

/// Whether any plugin of the list maps ports.
pub(super) fn list_maps_ports(list: &List) -> bool {
    list.plugins.iter().any(maps_ports)
}

fn maps_ports(config: &Map<String, Value>) -> bool {
    config.get("capabilities").and_then(|all| all.get("portMappings")) == Some(&Value::Bool(true))
}

fn mappings(ports: &[Port]) -> Vec<Value> {
    ports
        .iter()
        .map(|port| {
            json!({
                "hostPort": port.host_port,
                "containerPort": port.container_port,
                "protocol": port.protocol.name(),
                "hostIP": port.host_ip.map_or_else(String::new, |ip| ip.to_string()),
            })
        })
        .collect()
}

/// `CNI_ARGS`: pairs with semicolons between them.
pub(super) fn arguments(cni: &Cni) -> Result<String, NetworkError> {
    // Plugins that know none of these keys must not fail (convention of CNI).
    let mut text = String::from("IgnoreUnknown=1");
    for (key, value) in &cni.arguments {
        if key.is_empty() || [key, value].iter().any(|part| part.contains([';', '=', '\0'])) {
            let reason = "a CNI argument cannot contain ';' and '='";
            return Err(NetworkError::Invalid { what: "argument", value: format!("{key}={value}"), reason });
        }
        if key != "IgnoreUnknown" {
            text.push_str(&format!(";{key}={value}"));
        }
    }
    Ok(text)
}

/// The value as text, empty if it is none.
pub(super) fn text_of(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}
