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
    livenessProbe:
      httpGet: {path: /, port: http}
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
        ("    livenessProbe:", "    readinessProbe:", "unknown field `readinessProbe`"),
        ("      httpGet: {path: /, port: http}", "      grpc: {port: 1}", "unknown field `grpc`"),
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
        ("port: http", "port: https", "livenessProbe: has a port"),
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
