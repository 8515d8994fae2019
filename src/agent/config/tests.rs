use super::*;
use std::collections::BTreeSet;

const EXAMPLE: &str = include_str!("../../../contrib/agent.toml");

/// The keys of a section, as serde tells them to whoever writes a wrong one.
fn keys(section: &str) -> BTreeSet<String> {
    let text = if section.is_empty() {
        "no_such_key = 1".to_owned()
    } else {
        format!("[{section}]\nno_such_key = 1")
    };
    let error = toml::from_str::<Config>(&text).unwrap_err().to_string();
    let expected = error.split_once("expected ").expect("a list of keys").1;
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// `section.key` of every line `#key = value` or `key = value` of the example, which must follow a line of
/// documentation.
fn documented() -> BTreeSet<String> {
    let (mut section, mut found, mut comment) = (String::new(), BTreeSet::new(), false);
    for line in EXAMPLE.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
            found.insert(section.clone());
            comment = false;
        } else if line.starts_with("# ") {
            comment = true;
        } else if let Some((key, _)) = line.trim_start_matches('#').split_once(" = ") {
            assert!(comment, "{section}.{key} has no line that says what it is");
            found.insert(format!("{section}.{}", key.trim()));
            comment = false;
        }
    }
    found
}

/// The example with every `#key = value` in force.
fn uncommented() -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') => rest.to_owned(),
        _ => line.to_owned(),
    };
    EXAMPLE.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_documents_every_option_and_no_other() {
    let mut wanted = BTreeSet::new();
    for section in keys("") {
        for key in keys(&section) {
            wanted.insert(format!("{section}.{key}"));
        }
        wanted.insert(section);
    }
    assert_eq!(documented(), wanted);
    // A key that was misspelt would be refused.
    toml::from_str::<Config>(&uncommented()).unwrap();
}

#[test]
fn the_example_changes_nothing_and_shows_the_defaults() {
    assert_eq!(toml::from_str::<Config>(EXAMPLE).unwrap(), Config::default());
    let shown: toml::Table = toml::from_str(&uncommented()).unwrap();
    let defaults = toml::Table::try_from(Config::default()).unwrap();
    for (section, values) in &defaults {
        for (key, value) in values.as_table().unwrap() {
            let empty = value.as_table().is_some_and(toml::Table::is_empty)
                || value.as_array().is_some_and(Vec::is_empty);
            assert!(empty || shown[section][key] == *value, "{section}.{key} is {value}");
        }
    }
}

#[test]
fn the_defaults_can_be_used() {
    Config::default().check().unwrap();
}

#[test]
fn what_cannot_be_used_is_told_with_key_value_and_reason() {
    for (text, want) in [
        ("[cri]\nsocket = 'cri.sock'", "cri.socket = \"cri.sock\" in the configuration: is not absolute"),
        ("[cri]\nsocket = '/no/such/place/cri.sock'", "is in a directory that does not exist"),
        ("[cri]\nexec_sync_limit = 1", "cri.exec_sync_limit = \"1\""),
        ("[streaming]\nlisten = 'localhost:1'", "streaming.listen = \"localhost:1\""),
        ("[streaming]\ntoken_seconds = 0", "is not within 1 and 3600"),
        ("[metrics]\nlisten = ':9100'", "is no IP address with a port"),
        ("[ecs]\naccount = '12'", "ecs.account = \"12\" in the configuration: is not 12 digits"),
        ("[ecs]\nregion = 'Moon 1'", "ecs.region"),
        ("[ecs]\ncluster = ''", "ecs.cluster"),
        (
            "[ecs]\nsecrets = '/no/such/place'",
            "ecs.secrets = \"/no/such/place\" in the configuration: is no directory",
        ),
        ("[ecs.task_roles]\nx = '/no/such/place'", "ecs.task_roles.x"),
        ("[ecs]\nstopped_task_seconds = 604801", "ecs.stopped_task_seconds"),
        ("[network]\nbridge = 'a-name-that-is-too-long'", "network.bridge"),
        ("[network]\nbridge = '../x'", "network.bridge"),
        ("[network]\nsubnet = '10.0.0.0'", "network.subnet"),
        ("[network]\nsubnet = 'fd00::/64'", "network.subnet"),
        ("[network]\nsubnet6 = '10.0.0.0/8'", "network.subnet6"),
        ("[network]\ncni_configuration = '/'", "needs network.cni_plugins"),
        ("[manifests]\nfolder = '/no/such/place'", "manifests.folder"),
        ("[manifests]\nnode_name = 'A_b'", "manifests.node_name"),
        ("[manifests]\nhost_ip = 'x'", "manifests.host_ip"),
        ("[registries.mirrors]\n'gcr.io' = 'mirror:5000'", "registries.mirrors.gcr.io = \"mirror:5000\""),
        ("[registries.mirrors]\n'gcr.io' = 'http://mirror/path'", "registries.mirrors.gcr.io"),
    ] {
        let error = toml::from_str::<Config>(text).unwrap().check().unwrap_err().to_string();
        assert!(error.contains(want), "{text}: {error}");
    }
}

#[test]
fn an_unknown_key_is_refused_by_name() {
    for text in ["nothing = 1", "[cri]\nsockte = '/x'", "[manifests]\nfolders = []"] {
        let error = toml::from_str::<Config>(text).unwrap_err().to_string();
        assert!(error.contains("unknown field"), "{error}");
    }
}
