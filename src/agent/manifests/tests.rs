//! Of the parser.
use super::parse::{Form, parse};

const WEB: &str = "
apiVersion: v1
kind: Pod
metadata:
  name: web
  labels: {app: web}
spec:
  hostNetwork: false
  terminationGracePeriodSeconds: 5
  initContainers:
  - name: first
    image: busybox:1.36
    command: [sh, -c, 'echo $(A)']
    env:
    - {name: A, value: '1'}
    - name: B
      valueFrom: {fieldRef: {fieldPath: \"metadata.labels['app']\"}}
  - name: side
    image: busybox
    restartPolicy: Always
  containers:
  - name: main
    image: localhost:5000/nginx
    ports:
    - {containerPort: 80, hostPort: 8080, protocol: TCP, name: http}
    resources:
      limits: {cpu: 1, memory: 64Mi}
      requests: {cpu: 500m}
    volumeMounts:
    - {name: data, mountPath: /data, subPath: a/b, readOnly: true}
    - {name: etc, mountPath: /host}
    securityContext:
      runAsUser: 1000
      capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}
  volumes:
  - name: data
    emptyDir: {medium: Memory, sizeLimit: 1Mi}
  - name: etc
    hostPath: {path: /etc, type: Directory}
";

fn error(text: &str) -> String {
    parse(text, Form::Yaml).unwrap_err().to_string()
}

#[test]
fn a_pod_is_read() {
    let parsed = parse(WEB, Form::Yaml).unwrap();
    assert_eq!(parsed.pod.shown(), "default/web");
    assert_eq!(parsed.pod.task_name(), "static_default_web");
    assert_eq!(parsed.pod.spec.init_containers.len(), 2);
    assert_eq!(parsed.hash.len(), 64);
}

#[test]
fn the_hash_is_of_the_content_alone() {
    let hash = |text: &str| parse(text, Form::Yaml).unwrap().hash;
    let other_layout = WEB.replace("labels: {app: web}", "labels:\n    app: web # the same");
    assert_eq!(hash(WEB), hash(&other_layout));
    assert_ne!(hash(WEB), hash(&WEB.replace("64Mi", "65Mi")));
}

#[test]
fn json_is_read_and_has_the_same_hash() {
    let yaml = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: b, image: c}]}\n";
    let json = "{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\n\t\"metadata\":{\"name\":\"a\"},\"spec\":{\"containers\":\
                [{\"image\":\"c\",\"name\":\"b\"}]}}";
    assert_eq!(parse(json, Form::Json).unwrap(), parse(yaml, Form::Yaml).unwrap());
    let wrong = parse(&json.replace("image", "imag"), Form::Json).unwrap_err().to_string();
    assert!(wrong.starts_with("spec.containers[0].imag: unknown field `imag`"), "{wrong}");
    assert!(wrong.contains("line 2"), "{wrong}");
}

#[test]
fn unknown_fields_are_refused_by_name_with_path_and_line() {
    for (from, to, want) in [
        (
            "  hostNetwork: false",
            "  affinity: {}",
            "spec.affinity: unknown field `affinity` (line 8, column 3)",
        ),
        (
            "    securityContext:",
            "    lifecycle: {}\n    securityContext:",
            "spec.containers[0].lifecycle: unknown field `lifecycle`",
        ),
        (
            "    hostPath: {path: /etc, type: Directory}",
            "    configMap: {name: x}",
            "spec.volumes[1].configMap: unknown field `configMap`",
        ),
        (
            "fieldRef: {fieldPath: \"metadata.labels['app']\"}",
            "secretKeyRef: {name: a, key: b}",
            "unknown field `secretKeyRef`",
        ),
        ("  labels: {app: web}", "  generateName: x", "metadata.generateName: unknown field `generateName`"),
        (
            "      limits: {cpu: 1, memory: 64Mi}",
            "      limits: {nvidia.com/gpu: 1}",
            "unknown field `nvidia.com/gpu`",
        ),
        (
            "    securityContext:",
            "    livenessProbe: {}
    securityContext:",
            "unknown field `livenessProbe`",
        ),
        ("      runAsUser: 1000", "      seLinuxOptions: {}", "unknown field `seLinuxOptions`"),
    ] {
        assert!(WEB.contains(from), "{from}");
        let error = error(&WEB.replace(from, to));
        assert!(error.contains(want) && error.contains("(line "), "{to}: {error}");
    }
}

#[test]
fn what_cannot_be_used_is_told_with_its_path() {
    for (from, to, want) in [
        ("apiVersion: v1", "apiVersion: v2", "apiVersion: is not v1"),
        ("kind: Pod", "kind: Deployment", "kind: is not Pod"),
        ("  name: web", "  name: Web_1", "metadata.name"),
        ("    image: localhost:5000/nginx", "    image: 'UPPER CASE'", "spec.containers[0].image"),
        ("  - name: side", "  - name: main", "spec.containers[0].name: is the name of another container too"),
        ("restartPolicy: Always", "restartPolicy: Never", "can only be Always here"),
        ("cpu: 500m", "cpu: 2", "spec.containers[0].resources.requests.cpu: is more than the limit"),
        ("64Mi", "lots", "spec.containers[0].resources.limits.memory: is no quantity"),
        ("subPath: a/b", "subPath: a/../../b", "subPath: is absolute or has '..'"),
        (
            "{name: data, mountPath",
            "{name: nothing, mountPath",
            "volumeMounts[0].name: is the name of no volume",
        ),
        ("{path: /etc, type: Directory}", "{path: etc}", "spec.volumes[1].hostPath.path"),
        ("medium: Memory, ", "", "is only kept to with medium Memory"),
        ("runAsUser: 1000", "runAsGroup: 1000", "runAsGroup without runAsUser"),
        ("runAsUser: 1000", "runAsUser: 0\n      runAsNonRoot: true", "runAsNonRoot"),
        ("metadata.labels['app']", "status.phase", "is no field that can be referred to"),
        ("hostNetwork: false", "hostNetwork: true", "hostPort: is not containerPort"),
        ("hostNetwork: false", "dnsPolicy: None", "dnsPolicy is None"),
        ("hostNetwork: false", "dnsPolicy: ClusterFirst", "unknown variant"),
        ("hostNetwork: false", "hostNetwork: 'perhaps'", "spec.hostNetwork"),
        ("hostNetwork: false", "hostPID: true\n  shareProcessNamespace: true", "contradicts"),
    ] {
        assert!(WEB.contains(from), "{from}");
        let error = error(&WEB.replace(from, to));
        assert!(error.contains(want), "{to}: {error}");
    }
}

#[test]
fn what_is_no_single_document_is_refused() {
    for text in ["", "a: [", "- 1", "x", "\u{0}", "{", &format!("{WEB}\n---\n{WEB}"), "a: &a [*a]"] {
        error(text);
    }
}

#[test]
fn aliases_do_not_blow_up() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for depth in 1..12 {
        let before = vec![format!("*a{}", depth - 1); 10].join(", ");
        text.push_str(&format!("a{depth}: &a{depth} [{before}]\n"));
    }
    error(&text);
    // Deep nesting does not overflow the stack.
    error(&"[".repeat(100_000));
    error(&"- ".repeat(100_000));
}

mod planned {
    use super::super::parse::{Form, parse};
    use super::super::plan::{self, Machine, Origin, PodDirectory, Role};
    use super::super::pod::Pod;
    use super::WEB;
    use crate::agent::config::NetworkConfig;
    use crate::engine::options::{MountAccess, RestartPolicy};
    use crate::engine::task::{Bridge, ContainerRequest, Dns, TaskNetwork, TaskSpec, Which};

    fn machine() -> Machine {
        let dns = plan::read_resolv_conf(
            "# x\nnameserver 1.1.1.1\nsearch a.b c\noptions ndots:1\nnameserver ::1\n",
        );
        Machine { name: "node".into(), ip: [192, 0, 2, 1].into(), dns }
    }

    fn pod(change: impl Fn(&str) -> String) -> Pod {
        parse(&change(WEB), Form::Yaml).unwrap().pod
    }

    fn task(pod: &Pod) -> TaskSpec {
        let origin = Origin { file: "web.yaml".into(), hash: "h".into() };
        plan::task(pod, &origin, &machine(), &NetworkConfig::default()).unwrap()
    }

    fn request(pod: &Pod, index: usize) -> ContainerRequest {
        let (role, container) = plan::sequence(pod)[index];
        let directory = PodDirectory("/d".into());
        plan::request(pod, role, container, &machine(), &directory, Some([10, 0, 0, 2].into()))
    }

    #[test]
    fn a_pod_becomes_a_task() {
        let task = task(&pod(str::to_owned));
        assert_eq!(task.name, "static_default_web");
        assert_eq!(task.hostname.as_deref(), Some("web"));
        assert_eq!(task.network, TaskNetwork::Attached(Which::Bridge(Bridge::default())));
        assert_eq!((task.ports.len(), task.ports[0].host_port, task.ports[0].container_port), (1, 8080, 80));
        // The sidecar has no limit, so that the pod has none; what it asks for is the sum.
        assert_eq!((task.limits.memory, task.limits.cpu_shares), (None, Some(512)));
        assert_eq!(task.limits.memory_reservation, Some(64 << 20));
        assert_eq!(task.dns, Dns::default());
        assert_eq!(task.labels["app"], "web");
    }

    #[test]
    fn the_hosts_network_has_the_hosts_name_and_publishes_nothing() {
        let pod = pod(|text| {
            text.replace("hostNetwork: false", "hostNetwork: true").replace("hostPort: 8080", "hostPort: 80")
        });
        let task = task(&pod);
        assert_eq!(
            (task.network, task.hostname.as_deref(), task.ports.len()),
            (TaskNetwork::Host, Some("node"), 0)
        );
    }

    #[test]
    fn dns_is_joined_with_the_hosts_or_stands_alone() {
        let config = "dnsConfig: {nameservers: [9.9.9.9, 1.1.1.1], options: [{name: ndots, value: '5'}]}";
        let with = |policy: &str| {
            let pod = pod(|text| {
                text.replace("  hostNetwork: false", &format!("  dnsPolicy: {policy}\n  {config}"))
            });
            task(&pod).dns
        };
        assert_eq!(with("None").servers, ["9.9.9.9", "1.1.1.1"]);
        let joined = with("Default");
        assert_eq!(joined.servers, ["1.1.1.1", "::1", "9.9.9.9"]);
        assert_eq!(
            (joined.searches.len(), joined.options),
            (2, vec!["ndots:1".to_owned(), "ndots:5".to_owned()])
        );
    }

    #[test]
    fn a_port_is_published_once() {
        let pod = pod(|text| {
            text.replace(
                "protocol: TCP, name: http}",
                "name: http}\n    - {containerPort: 81, hostPort: 8080}",
            )
        });
        let origin = Origin { file: String::new(), hash: String::new() };
        let error = plan::task(&pod, &origin, &machine(), &NetworkConfig::default()).unwrap_err();
        assert_eq!(error.to_string(), "container main: hostPort 8080 is published twice");
    }

    #[test]
    fn containers_start_in_order_and_are_started_again_by_role() {
        let pod = pod(str::to_owned);
        let roles: Vec<(Role, &str)> = plan::sequence(&pod)
            .into_iter()
            .map(|(role, container)| (role, container.name.as_str()))
            .collect();
        assert_eq!(roles, [(Role::Init, "first"), (Role::Sidecar, "side"), (Role::Main, "main")]);
        use super::super::pod::RestartPolicy as P;
        for (role, policy, want) in [
            (Role::Init, P::Always, RestartPolicy::OnFailure),
            (Role::Init, P::Never, RestartPolicy::Never),
            (Role::Sidecar, P::Never, RestartPolicy::Always),
            (Role::Main, P::Always, RestartPolicy::Always),
            (Role::Main, P::OnFailure, RestartPolicy::OnFailure),
            (Role::Main, P::Never, RestartPolicy::Never),
        ] {
            assert_eq!(role.restart(policy), want, "{role:?} {policy:?}");
        }
    }

    #[test]
    fn a_container_becomes_a_request() {
        let pod = pod(str::to_owned);
        let first = request(&pod, 0);
        assert_eq!(first.name, "static_default_web_first");
        assert_eq!(
            first.overrides.entrypoint.as_deref(),
            Some(&["sh", "-c", "echo 1"].map(String::from)[..])
        );
        assert_eq!(first.overrides.env, ["A=1", "B=web"]);
        let main = request(&pod, 2);
        assert_eq!(main.overrides.user.as_deref(), Some("1000"));
        assert_eq!(main.overrides.entrypoint, None);
        assert_eq!(
            (main.options.limits.memory, main.options.limits.cpu_quota),
            (Some(64 << 20), Some(100_000))
        );
        assert_eq!(main.options.stop_timeout, Some(5));
        let mounts = &main.options.task.mounts;
        assert_eq!(mounts[0].source.to_str(), Some("/d/sub-paths/main/0"));
        assert_eq!((mounts[0].access, mounts[1].source.to_str()), (MountAccess::ReadOnly, Some("/etc")));
    }

    #[test]
    fn fields_of_the_pod_become_variables() {
        for (field, want) in [
            ("metadata.name", "web"),
            ("metadata.namespace", "default"),
            ("spec.nodeName", "node"),
            ("status.hostIP", "192.0.2.1"),
            ("status.podIP", "10.0.0.2"),
            ("metadata.annotations['none']", ""),
        ] {
            let pod = pod(|text| text.replace("metadata.labels['app']", field));
            assert_eq!(request(&pod, 0).overrides.env[1], format!("B={want}"));
        }
        let pod = pod(|text| text.replace("metadata.labels['app']", "metadata.uid"));
        assert_eq!(request(&pod, 0).overrides.env[1].len(), "B=".len() + 36);
    }

    #[test]
    fn images_without_a_fixed_tag_are_pulled_always() {
        use super::super::pod::PullPolicy::{Always, IfNotPresent};
        for (image, want) in [
            ("busybox", Always),
            ("busybox:latest", Always),
            ("localhost:5000/busybox", Always),
            ("busybox:1.36", IfNotPresent),
            ("localhost:5000/a:1", IfNotPresent),
            ("a@sha256:0000000000000000000000000000000000000000000000000000000000000000", IfNotPresent),
        ] {
            let pod = pod(|text| text.replace("localhost:5000/nginx", image));
            assert_eq!(plan::pull_policy(&pod.spec.containers[0]), want, "{image}");
        }
    }
}
