use super::*;
use crate::agent::cri::api::{DnsConfig, PodSandboxMetadata, PortMapping};

fn config() -> PodSandboxConfig {
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: "web".into(),
            uid: "u".into(),
            namespace: "default".into(),
            attempt: 0,
        }),
        ..PodSandboxConfig::default()
    }
}

fn of(change: impl FnOnce(&mut PodSandboxConfig)) -> Result<TaskSpec> {
    let mut config = config();
    change(&mut config);
    task(&config, "", "r".into(), &Facts { network: &NetworkConfig::default(), counts_swap: true })
}

fn linux(config: &mut PodSandboxConfig) -> &mut LinuxPodSandboxConfig {
    config.linux.get_or_insert_default()
}

fn namespaces(config: &mut PodSandboxConfig) -> &mut NamespaceOption {
    linux(config).security_context.get_or_insert_default().namespace_options.get_or_insert_default()
}

#[test]
fn the_least_pod() {
    let spec = of(|_| ()).unwrap();
    assert_eq!(spec.name, "k8s_web_default_u_0");
    assert_eq!(spec.network, TaskNetwork::Attached(Which::Bridge(Bridge::default())));
    // PID's default mode is POD, by the order of the enumeration.
    assert!(spec.shares_pid && !spec.host_ipc && spec.cgroup.is_none() && spec.hostname.is_none());
}

#[test]
fn namespaces_of_the_host() {
    let spec = of(|config| {
        namespaces(config).set_network(NamespaceMode::Node);
        namespaces(config).set_pid(NamespaceMode::Node);
        namespaces(config).set_ipc(NamespaceMode::Node);
        config.port_mappings =
            vec![PortMapping { host_port: 80, container_port: 80, ..PortMapping::default() }];
    })
    .unwrap();
    assert_eq!(spec.network, TaskNetwork::Host);
    assert!(!spec.shares_pid && spec.host_ipc && spec.ports.is_empty());
    let own = of(|config| namespaces(config).set_pid(NamespaceMode::Container)).unwrap();
    assert!(!own.shares_pid);
}

#[test]
fn cni_is_told_the_pod() {
    let network = NetworkConfig { cni_configuration: Some("/etc/cni".into()), ..NetworkConfig::default() };
    let spec =
        task(&config(), "corten", "r".into(), &Facts { network: &network, counts_swap: true }).unwrap();
    let TaskNetwork::Attached(Which::Cni(cni)) = spec.network else { panic!("{:?}", spec.network) };
    assert_eq!(cni.arguments["K8S_POD_NAME"], "web");
}

#[test]
fn ports_of_the_host_only() {
    let mapping = |host_port, host_ip: &str| PortMapping {
        protocol: api::Protocol::Udp as i32,
        container_port: 80,
        host_port,
        host_ip: host_ip.into(),
    };
    let with = |mapping| of(|config| config.port_mappings = vec![mapping]).map(|spec| spec.ports);
    assert_eq!(with(mapping(0, "")).unwrap(), []);
    let port = &with(mapping(8080, "127.0.0.1")).unwrap()[0];
    assert_eq!((port.host_port, port.container_port, port.protocol), (8080, 80, Protocol::Udp));
    assert_eq!(port.host_ip, Some([127, 0, 0, 1].into()));
    assert_eq!(with(mapping(8080, "0.0.0.0")).unwrap()[0].host_ip, None);
    with(mapping(70_000, "")).unwrap_err();
    with(mapping(-1, "")).unwrap_err();
    with(mapping(1, "host")).unwrap_err();
}

#[test]
fn cgroups() {
    let parent = |path: &str| of(|config| linux(config).cgroup_parent = path.into()).map(|spec| spec.cgroup);
    assert_eq!(parent("/kubepods//pod1/").unwrap().as_deref(), Some("/kubepods/pod1"));
    assert_eq!(parent("kubepods").unwrap().as_deref(), Some("/kubepods"));
    assert_eq!(parent("/").unwrap(), None);
    parent("/a/../../b").unwrap_err();
    parent("/kubepods.slice").unwrap_err();
    let limited = |parent: &str| {
        of(|config| {
            linux(config).cgroup_parent = parent.into();
            linux(config).resources.get_or_insert_default().cpu_shares = 10;
        })
        .map(|spec| spec.limits.cpu_shares)
        .unwrap()
    };
    assert_eq!((limited(""), limited("/a")), (Some(10), None));
}

#[test]
fn what_is_refused() {
    let handler =
        task(&config(), "kata", "r".into(), &Facts { network: &NetworkConfig::default(), counts_swap: true });
    assert!(matches!(handler, Err(CriError::Invalid { field: "runtime_handler", .. })));
    of(|config| config.metadata = None).unwrap_err();
    of(|config| config.hostname = "a b".into()).unwrap_err();
    of(|config| config.log_directory = "logs".into()).unwrap_err();
    of(|config| config.labels = BTreeMap::from([("a".into(), "b".repeat(MAX_TEXT))])).unwrap_err();
    of(|config| {
        config.dns_config =
            Some(DnsConfig { searches: vec!["a\nnameserver 6.6.6.6".into()], ..Default::default() });
    })
    .unwrap_err();
    of(|config| namespaces(config).set_pid(NamespaceMode::Target)).unwrap_err();
    of(|config| namespaces(config).set_network(NamespaceMode::Container)).unwrap_err();
    let users = of(|config| {
        namespaces(config).userns_options.get_or_insert_default().set_mode(NamespaceMode::Pod);
    });
    assert!(matches!(users, Err(CriError::NotBuilt { .. })));
}
