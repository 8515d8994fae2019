use super::config::{arguments, load, parse, stdin};
use super::*;
use serde_json::json;
use std::collections::BTreeMap;

fn list(value: &Value) -> Result<List, NetworkError> {
    parse(value.to_string().as_bytes(), Path::new("10-x.conflist"))
}

fn two() -> Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "net",
        "plugins": [
            { "type": "bridge", "bridge": "b0" },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
}

fn cni(directory: &Path) -> Cni {
    Cni { configuration: directory.to_owned(), plugins: Vec::new(), arguments: BTreeMap::new() }
}

#[test]
fn a_plugin_whose_type_is_a_path_is_refused() {
    for kind in ["../../x", "/bin/sh", "a/b", "..", ".", ""] {
        let error = list(&json!({ "cniVersion": "1.0.0", "name": "n", "plugins": [{ "type": kind }] }));
        let text = error.unwrap_err().to_string();
        assert!(text.contains("is not the name of a plugin"), "{kind}: {text}");
    }
}

#[test]
fn the_newest_version_that_both_speak_is_taken() {
    let version = |value: Value| list(&value).map(|list| list.version);
    let with = |one: &str, several: Value| {
        let mut value = two();
        value["cniVersion"] = json!(one);
        value["cniVersions"] = several;
        value
    };
    assert_eq!(version(two()).unwrap(), "0.4.0");
    assert_eq!(version(with("0.4.0", json!(["0.4.0", "1.1.0", "2.0.0"]))).unwrap(), "1.1.0");
    let error = version(with("0.1.0", json!(null))).unwrap_err().to_string();
    assert!(error.contains("cniVersion \"0.1.0\" is not one of"), "{error}");
    assert!(list(&json!({ "name": "n", "type": "x" })).is_err());
}

#[test]
fn names_shapes_and_numbers_are_checked() {
    for (key, value) in
        [("name", json!("../x")), ("name", json!("")), ("plugins", json!([])), ("plugins", json!({}))]
    {
        let mut wrong = two();
        wrong[key] = value;
        assert!(list(&wrong).is_err(), "{wrong}");
    }
    assert!(parse(b"{", Path::new("x")).is_err());
    assert_eq!(list(&json!({ "cniVersion": "1.0.0", "name": "n", "type": "ptp" })).unwrap().plugins.len(), 1);
}

#[test]
fn only_a_plugin_with_the_capability_is_told_of_ports() {
    let list = list(&two()).unwrap();
    let port = Port { host_ip: None, host_port: 8080, container_port: 80, protocol: Protocol::Tcp };
    let first = stdin(&list, 0, std::slice::from_ref(&port), None);
    assert_eq!(first, json!({ "type": "bridge", "bridge": "b0", "name": "net", "cniVersion": "0.4.0" }));
    let second = stdin(&list, 1, &[port], Some(&json!({ "ips": [] })));
    let mappings = json!([{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "" }]);
    assert_eq!(second["runtimeConfig"], json!({ "portMappings": mappings }));
    assert_eq!(second["prevResult"], json!({ "ips": [] }));
    assert_eq!(second.get("capabilities"), None);
}

#[test]
fn the_first_file_by_name_is_used() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(load(dir.path()), Err(NetworkError::NoConfiguration { .. })));
    assert!(matches!(load(&dir.path().join("none")), Err(NetworkError::NoConfiguration { .. })));
    std::fs::write(dir.path().join("05-a.txt"), "{").unwrap();
    std::fs::write(dir.path().join("20-b.conf"), "{").unwrap();
    std::fs::write(dir.path().join("10-c.conflist"), two().to_string()).unwrap();
    assert_eq!(load(dir.path()).unwrap().name, "net");
}

#[test]
fn arguments_are_pairs() {
    let mut cni = cni(Path::new("/"));
    cni.arguments.insert("K8S_POD_NAME".to_owned(), "web".to_owned());
    assert_eq!(arguments(&cni).unwrap(), "IgnoreUnknown=1;K8S_POD_NAME=web");
    cni.arguments.insert("X".to_owned(), "a;IP=1.2.3.4".to_owned());
    assert!(arguments(&cni).is_err());
}

#[test]
fn a_result_is_of_the_link_inside() {
    let result = json!({
        "cniVersion": "1.0.0",
        "interfaces": [
            { "name": "br", "mac": "aa:aa:aa:aa:aa:aa" },
            { "name": "eth0", "mac": "bb:bb:bb:bb:bb:bb", "sandbox": "/run/x" },
        ],
        "ips": [
            { "address": "10.1.0.1/16", "interface": 0 },
            { "address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 1 },
            { "address": "fd00::5/64" },
            { "address": "nonsense" },
        ],
        "dns": { "nameservers": ["10.1.0.1"], "domain": "x.example", "options": ["ndots:1"] },
    });
    let attachment = attachment(&result);
    let addresses: Vec<String> = attachment.addresses.iter().map(|address| address.ip.to_string()).collect();
    assert_eq!(addresses, ["10.1.0.5", "fd00::5"]);
    assert_eq!(attachment.mac.as_deref(), Some("bb:bb:bb:bb:bb:bb"));
    assert_eq!(
        (attachment.dns.servers.len(), attachment.dns.searches.as_slice()),
        (1, &["x.example".to_owned()][..])
    );
}

#[test]
fn a_plugins_error_is_told_with_its_code() {
    let text = br#"{"cniVersion":"1.0.0","code":11,"msg":"no room","details":"x"}"#;
    assert_eq!(failure(text), Some((11, "no room: x".to_owned())));
    assert_eq!(failure(b"Segmentation fault"), None);
}
