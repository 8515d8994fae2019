//! CNI plugins, as an agent with a folder of configurations runs them.
use super::{answered, ask_from_host, command, free_port, names};
use runtime_tests::Agent;
use runtime_tests::agent::IMAGE;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// An agent whose pods are attached by these plugins.
fn agent(dir: &TempDir, list: &Value) -> Agent {
    let folder = dir.path().join("net.d");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("10-test.conflist"), list.to_string()).unwrap();
    Agent::start_with(&format!(
        "cni_configuration = \"{}\"\ncni_plugins = [\"/usr/lib/cni\", \"{}\"]\n",
        folder.display(),
        dir.path().display()
    ))
}

fn list(plugins: &Value) -> Value {
    json!({"cniVersion": "1.0.0", "name": format!("ct{:x}", std::process::id()), "plugins": plugins})
}

/// A plugin in shell, which notes its calls beside itself.
fn plugin(dir: &Path, script: &str) {
    let text = format!("#!/bin/sh\necho $CNI_COMMAND >>{}/calls\n{script}\n", dir.display());
    let path = dir.join("fake");
    std::fs::write(&path, text).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    file.set_permissions(std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn debians_plugins_attach_a_pod_map_its_ports_and_take_all_back() {
    let dir = tempfile::tempdir().unwrap();
    let link = format!("ctc{:x}", std::process::id());
    let base = format!("10.209.{}", std::process::id() % 256);
    let addresses = dir.path().join("addresses");
    let plugins = json!([
        {"type": "bridge", "bridge": link, "isGateway": true, "ipMasq": true, "hairpinMode": true, "ipam": {
            "type": "host-local", "dataDir": addresses,
            "ranges": [[{"subnet": format!("{base}.0/24")}]], "routes": [{"dst": "0.0.0.0/0"}],
        }},
        {"type": "portmap", "capabilities": {"portMappings": true}},
    ]);
    let agent = agent(&dir, &list(&plugins));
    let port = free_port();
    let mappings = json!({"port_mappings": [{"container_port": 80, "host_port": port}]});
    let pod = agent.pod("server", &mappings);
    agent.container(
        ("server", &pod),
        "echo",
        &json!({
            "image": {"image": IMAGE}, "command": ["/probe", "echo", "tcp", "80"],
        }),
    );
    agent.await_change(&agent.log_directory("server"), "the server is ready", || {
        let log = agent.log_directory("server").join("echo.log");
        std::fs::read_to_string(log).is_ok_and(|text| text.contains("ready"))
    });
    let address = agent.address(&pod);
    assert!(address.starts_with(&format!("{base}.")), "{address}");
    answered(ask_from_host("tcp", &format!("{address}:80")), "hello");
    answered(ask_from_host("tcp", &format!("127.0.0.1:{port}")), "hello");
    assert!(agent.try_pod("second", &mappings).fails().stderr.contains("is taken by"), "a port twice");

    let network = format!("ct{:x}", std::process::id());
    let given = || {
        let all = names(&addresses.join(&network));
        all.into_iter().filter(|name| name.parse::<std::net::Ipv4Addr>().is_ok()).collect::<Vec<_>>()
    };
    assert_eq!(given(), [address]);
    agent.remove_tasks();
    assert_eq!(given(), [""; 0]);
    let rules = command::run(Command::new("iptables-save").args(["-t", "nat"])).ok().stdout;
    assert!(!rules.contains(&pod), "{rules}");
    command::run(Command::new("ip").args(["link", "delete", &link])).ok();
}

#[test]
fn a_plugins_error_is_told_and_what_it_began_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(&dir, &list(&json!([{"type": "fake"}])));
    let missing = agent.try_pod("missing", &json!({})).fails();
    assert!(missing.stderr.contains("CNI plugin fake is in none of /usr/lib/cni"), "{}", missing.stderr);

    let error = r#"echo '{"cniVersion":"1.0.0","code":11,"msg":"no room"}'"#;
    plugin(dir.path(), &format!("[ $CNI_COMMAND = DEL ] && exit 0\n{error}\nexit 1"));
    let failed = agent.try_pod("failing", &json!({})).fails();
    assert!(failed.stderr.contains("failed to ADD (code 11): no room"), "{}", failed.stderr);
    assert_eq!(std::fs::read_to_string(dir.path().join("calls")).unwrap(), "ADD\nDEL\n");

    plugin(dir.path(), "[ $CNI_COMMAND = DEL ] && exit 0\nexec yes");
    let huge = agent.try_pod("huge", &json!({})).fails();
    assert!(huge.stderr.contains("wrote more than 1048576 bytes"), "{}", huge.stderr);

    plugin(dir.path(), "[ $CNI_COMMAND = DEL ] && exit 0\necho nonsense");
    let nonsense = agent.try_pod("nonsense", &json!({})).fails();
    assert!(nonsense.stderr.contains("gave no valid result"), "{}", nonsense.stderr);
    assert_eq!(names(&agent.state().join("net/cni")), [""; 0]);
    assert_eq!(names(&agent.state().join("net/attached")), [""; 0]);
}

#[test]
fn a_plugin_whose_type_is_a_path_is_refused() {
    // CVE-2021-20206
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("plugins")).unwrap();
    plugin(dir.path(), "exit 0");
    let agent = agent(&dir, &list(&json!([{"type": "../../../../../../../../bin/true"}])));
    let refused = agent.try_pod("traversal", &json!({})).fails();
    assert!(refused.stderr.contains("is not the name of a plugin"), "{}", refused.stderr);
    let path = dir.path().join("net.d/10-test.conflist");
    std::fs::write(path, list(&json!([{"type": "x/../fake"}])).to_string()).unwrap();
    agent.try_pod("below", &json!({})).fails();
    assert!(!dir.path().join("calls").exists(), "it was run");
}
