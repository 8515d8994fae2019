use super::*;
use crate::agent::cri::api::{self, Int64Value, Mount, NamespaceOption, PodSandboxMetadata};
use crate::engine::options::Seccomp;
use std::collections::BTreeMap;

fn sandbox(pid: NamespaceMode) -> kept::Sandbox {
    kept::Sandbox {
        metadata: PodSandboxMetadata::default(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        log_directory: "/var/log/pods/p".into(),
        namespaces: NamespaceOption { pid: pid as i32, ..NamespaceOption::default() },
        privileged: false,
        runtime_handler: String::new(),
        request: String::new(),
    }
}

fn of(change: impl FnOnce(&mut ContainerConfig)) -> Result<Asked> {
    in_pod(NamespaceMode::Pod, change)
}

fn in_pod(pid: NamespaceMode, change: impl FnOnce(&mut ContainerConfig)) -> Result<Asked> {
    let mut config = ContainerConfig::default();
    change(&mut config);
    container(&config, &Facts { sandbox: &sandbox(pid), counts_swap: true, selinux: false })
}

fn context(config: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

fn id(value: i64) -> Option<Int64Value> {
    Some(Int64Value { value })
}

#[test]
fn the_least_container() {
    let asked = of(|_| ()).unwrap();
    assert_eq!(asked.options.network, Network::Task);
    assert_eq!(asked.options.task.pid, PidNamespace::Task);
    // Kubernetes asks for a filter where it wants one.
    assert_eq!(asked.options.security.seccomp, Seccomp::Unconfined);
    assert_eq!(asked.overrides.entrypoint, None);
}

#[test]
fn pid_namespaces() {
    let mode = |pod, pid: NamespaceMode| {
        let asked = in_pod(pod, |config| {
            let namespaces = context(config).namespace_options.get_or_insert_default();
            namespaces.set_pid(pid);
            namespaces.target_id = "t".into();
        });
        asked.unwrap().options.task.pid
    };
    assert_eq!(mode(NamespaceMode::Pod, NamespaceMode::Pod), PidNamespace::Task);
    assert_eq!(mode(NamespaceMode::Node, NamespaceMode::Pod), PidNamespace::Host);
    assert_eq!(mode(NamespaceMode::Container, NamespaceMode::Pod), PidNamespace::Container);
    assert_eq!(mode(NamespaceMode::Pod, NamespaceMode::Container), PidNamespace::Container);
    assert_eq!(mode(NamespaceMode::Pod, NamespaceMode::Target), PidNamespace::Of("t".into()));
}

#[test]
fn users() {
    let user = |uid: Option<i64>, name: &str, gid: Option<i64>| {
        of(|config| {
            let context = context(config);
            context.run_as_user = uid.and_then(id);
            context.run_as_username = name.into();
            context.run_as_group = gid.and_then(id);
        })
        .map(|asked| asked.overrides.user)
    };
    assert_eq!(user(None, "", None).unwrap(), None);
    assert_eq!(user(Some(0), "", None).unwrap().as_deref(), Some("0"));
    assert_eq!(user(Some(1), "", Some(2)).unwrap().as_deref(), Some("1:2"));
    assert_eq!(user(Some(1), "web", Some(2)).unwrap().as_deref(), Some("web:2"));
    user(None, "", Some(2)).unwrap_err();
    user(Some(-1), "", None).unwrap_err();
    user(Some(0xffff_ffff), "", None).unwrap_err();
    user(None, "a:b", None).unwrap_err();
}

#[test]
fn logs_stay_in_the_pods_directory() {
    let log =
        |path: &str| of(|config| config.log_path = path.into()).map(|asked| asked.options.task.log_path);
    assert_eq!(log("c/0.log").unwrap(), Some("/var/log/pods/p/c/0.log".into()));
    assert_eq!(log("").unwrap(), None);
    for path in ["../x", "a/../../x", "/etc/passwd", "./x", "a\0b"] {
        log(path).unwrap_err();
    }
}

#[test]
fn privileged_only_in_a_privileged_pod() {
    let error = of(|config| context(config).privileged = true).unwrap_err();
    assert!(matches!(error, CriError::Invalid { field: "privileged", .. }), "{error}");
}

#[test]
fn what_is_refused() {
    of(|config| config.envs = vec![KeyValue { key: "A=B".into(), value: b"x".to_vec() }]).unwrap_err();
    of(|config| config.envs = vec![KeyValue { key: "A".into(), value: vec![0xff] }]).unwrap_err();
    of(|config| config.command = vec!["a\0".into()]).unwrap_err();
    of(|config| config.stop_signal = 1000).unwrap_err();
    of(|config| context(config).supplemental_groups = vec![-5]).unwrap_err();
    of(|config| context(config).supplemental_groups_policy = 7).unwrap_err();
    of(|config| {
        context(config).capabilities.get_or_insert_default().add_capabilities = vec!["CAP_FLY".into()];
    })
    .unwrap_err();
    let cdi = of(|config| config.cdi_devices = vec![api::CdiDevice { name: "v/c=d".into() }]).unwrap_err();
    assert!(matches!(cdi, CriError::NotBuilt { .. }));
    let network = of(|config| {
        context(config).namespace_options.get_or_insert_default().set_network(NamespaceMode::Node);
    });
    network.unwrap_err();
}

#[test]
fn commands_and_variables() {
    let asked = of(|config| {
        config.command = vec!["sh".into()];
        config.args = vec!["-c".into()];
        config.envs = vec![KeyValue { key: "A".into(), value: b"b=c".to_vec() }];
        config.mounts =
            vec![Mount { host_path: "/a".into(), container_path: "/b".into(), ..Mount::default() }];
    })
    .unwrap();
    assert_eq!(asked.overrides.entrypoint, Some(vec!["sh".to_owned()]));
    assert_eq!(asked.overrides.args, ["-c"]);
    assert_eq!(asked.overrides.env, ["A=b=c"]);
    assert_eq!(asked.options.task.mounts.len(), 1);
}
