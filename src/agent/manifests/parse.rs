//! From the text of a file to a Pod whose every value can be used; pure.
use super::error::ManifestError;
use super::pod::{Container, Pod, RestartPolicy, Volume};
use super::quantity::Unit;
use crate::image::digest::Digest;
use crate::image::reference::Reference;
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::net::IpAddr;

type Checked = Result<(), ManifestError>;

/// Containers of a pod, volumes of a pod, mounts or ports of a container: no pod has so many.
const MANY: usize = 256;
/// RFC 1123: bytes of a label.
const LABEL: usize = 63;
/// Bytes of a container's name in the engine.
const ENGINE_NAME: usize = 128;

/// A Pod and what tells it from another.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The Pod.
    pub pod: Pod,
    /// Of its content, whatever its comments and layout are; 64 hexadecimal digits.
    pub hash: String,
}

/// Which form a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `*.yaml`, `*.yml`.
    Yaml,
    /// `*.json`.
    Json,
}

impl Pod {
    /// Its namespace.
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or("default")
    }

    /// `namespace/name`.
    pub fn shown(&self) -> String {
        format!("{}/{}", self.namespace(), self.metadata.name)
    }

    /// Name of its task.
    pub fn task_name(&self) -> String {
        format!("static_{}_{}", self.namespace(), self.metadata.name)
    }

    /// The engine's name for one of its containers.
    pub fn container_name(&self, container: &str) -> String {
        format!("{}_{container}", self.task_name())
    }
}

/// Reads and checks a Pod.
///
/// # Errors
/// The first thing that is wrong with it, with the path of the field, and the line if its form is wrong.
pub fn parse(text: &str, form: Form) -> Result<Parsed, ManifestError> {
    let pod: Pod = read(text, form)?;
    check(&pod)?;
    let content: serde_json::Value = read(text, form)?;
    let hash = Digest::of(content.to_string().as_bytes()).hex();
    Ok(Parsed { pod, hash })
}

fn read<T: DeserializeOwned>(text: &str, form: Form) -> Result<T, ManifestError> {
    match form {
        Form::Json => {
            let mut json = serde_json::Deserializer::from_str(text);
            let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
                let (path, error) = (error.path().to_string(), error.into_inner());
                malformed(&path, &error.to_string(), error.line() as u64, error.column() as u64)
            })?;
            json.end().map_err(|error| {
                malformed(".", &error.to_string(), error.line() as u64, error.column() as u64)
            })?;
            Ok(value)
        }
        Form::Yaml => {
            let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
            let mut field = String::new();
            serde_saphyr::with_deserializer_from_str_with_options(text, options, |yaml| {
                serde_path_to_error::deserialize(yaml).map_err(|error| {
                    field = error.path().to_string();
                    error.into_inner()
                })
            })
            .map_err(|error| {
                let (line, column) =
                    error.location().map_or((0, 0), |location| (location.line(), location.column()));
                malformed(&field, &error.to_string(), line, column)
            })
        }
    }
}

/// `message` without the place, which is told apart, and without serde's list of all that could be there.
fn malformed(path: &str, message: &str, line: u64, column: u64) -> ManifestError {
    let line_of = message.lines().next().unwrap_or_default();
    let reason = line_of.strip_prefix("error: ").unwrap_or(line_of);
    let reason = reason.split(" at line ").next().unwrap_or(reason);
    let unknown = reason.split_once(", expected").filter(|(start, _)| start.starts_with("unknown field"));
    let reason = unknown.map_or(reason, |(start, _)| start).to_owned();
    let field = if path.is_empty() || path == "." { "the pod".to_owned() } else { path.to_owned() };
    ManifestError::Malformed { field, reason, line, column }
}

fn ensure(holds: bool, field: &str, reason: &str) -> Checked {
    if holds { Ok(()) } else { Err(ManifestError::value(field, reason)) }
}

/// Checks all that can be without looking at the host.
fn check(pod: &Pod) -> Checked {
    ensure(pod.api_version == "v1", "apiVersion", "is not v1")?;
    ensure(pod.kind == "Pod", "kind", "is not Pod: nothing else can be in the folder")?;
    check_metadata(pod)?;
    let spec = &pod.spec;
    ensure(!spec.containers.is_empty(), "spec.containers", "has no container")?;
    let count = spec.containers.len() + spec.init_containers.len();
    ensure(count <= MANY && spec.volumes.len() <= MANY, "spec", "has more than 256 containers or volumes")?;
    ensure(
        !(spec.host_pid && spec.share_process_namespace),
        "spec.shareProcessNamespace",
        "contradicts spec.hostPID",
    )?;
    if let Some(name) = &spec.hostname {
        ensure(is_label(name), "spec.hostname", "is no DNS label")?;
    }
    check_dns(pod)?;
    check_volumes(&spec.volumes)?;
    let mut names = HashSet::new();
    let init =
        spec.init_containers.iter().enumerate().map(|(at, one)| (format!("spec.initContainers[{at}]"), one));
    let main = spec.containers.iter().enumerate().map(|(at, one)| (format!("spec.containers[{at}]"), one));
    for (field, container) in init.chain(main) {
        let is_init = field.starts_with("spec.init");
        ensure(
            names.insert(&container.name),
            &format!("{field}.name"),
            "is the name of another container too",
        )?;
        check_container(pod, container, &field, is_init)?;
    }
    check_security(pod)
}

fn check_metadata(pod: &Pod) -> Checked {
    let metadata = &pod.metadata;
    let subdomain = metadata.name.len() <= 253 && metadata.name.split('.').all(is_label);
    ensure(subdomain, "metadata.name", "is no DNS name of lower-case letters, digits, '-' and '.'")?;
    ensure(is_label(pod.namespace()), "metadata.namespace", "is no DNS label")?;
    if let Some(uid) = &metadata.uid {
        let valid = (1..=128).contains(&uid.len())
            && uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        ensure(valid, "metadata.uid", "is not 1 to 128 letters, digits, '-' and '_'")?;
    }
    Ok(())
}

fn check_dns(pod: &Pod) -> Checked {
    let dns = &pod.spec.dns_config;
    if pod.spec.dns_policy == super::pod::DnsPolicy::None {
        ensure(!dns.nameservers.is_empty(), "spec.dnsConfig.nameservers", "is empty, and dnsPolicy is None")?;
    }
    for server in &dns.nameservers {
        ensure(is_ip(server), "spec.dnsConfig.nameservers", "has what is no IP address")?;
    }
    let words = dns.searches.iter().chain(dns.options.iter().map(|option| &option.name));
    let words = words.chain(dns.options.iter().filter_map(|option| option.value.as_ref()));
    for word in words {
        let plain = word.bytes().all(|b| b.is_ascii_graphic());
        ensure(plain, "spec.dnsConfig", "has a word with blanks or control characters")?;
    }
    let count = dns.nameservers.len().max(dns.searches.len()).max(dns.options.len());
    ensure(count <= 32, "spec.dnsConfig", "has a list of more than 32")?;
    for (at, alias) in pod.spec.host_aliases.iter().enumerate() {
        let field = format!("spec.hostAliases[{at}]");
        ensure(is_ip(&alias.ip), &format!("{field}.ip"), "is no IP address")?;
        let names = alias.hostnames.iter().all(|name| name.split('.').all(is_label));
        ensure(names && !alias.hostnames.is_empty(), &format!("{field}.hostnames"), "are no DNS names")?;
    }
    Ok(())
}

fn check_volumes(volumes: &[Volume]) -> Checked {
    let mut names = HashSet::new();
    for (at, volume) in volumes.iter().enumerate() {
        let field = format!("spec.volumes[{at}]");
        ensure(is_label(&volume.name), &format!("{field}.name"), "is no DNS label")?;
        ensure(names.insert(&volume.name), &format!("{field}.name"), "is the name of another volume too")?;
        match (&volume.host_path, &volume.empty_dir) {
            (Some(host), None) => {
                ensure(
                    is_path(&host.path),
                    &format!("{field}.hostPath.path"),
                    "is no absolute path without '..'",
                )?;
            }
            (None, Some(empty)) => {
                let memory = empty.medium == super::pod::Medium::Memory;
                let limit = empty.size_limit.as_ref();
                let field = format!("{field}.emptyDir.sizeLimit");
                ensure(memory || limit.is_none(), &field, "is only kept to with medium Memory")?;
                let valid = limit.is_none_or(|limit| limit.amount(Unit::One).is_some_and(|bytes| bytes > 0));
                ensure(valid, &field, "is no positive quantity")?;
            }
            _ => return Err(ManifestError::value(field, "is not exactly one of hostPath and emptyDir")),
        }
    }
    Ok(())
}

fn check_container(pod: &Pod, container: &Container, field: &str, is_init: bool) -> Checked {
    let at = |name: &str| format!("{field}.{name}");
    ensure(is_label(&container.name), &at("name"), "is no DNS label")?;
    let length = pod.container_name(&container.name).len();
    ensure(length <= ENGINE_NAME, &at("name"), "is too long together with the pod's name and namespace")?;
    reference(container, field)?;
    match container.restart_policy {
        None => {}
        Some(RestartPolicy::Always) if is_init => {}
        Some(_) if is_init => {
            return Err(ManifestError::value(at("restartPolicy"), "can only be Always here"));
        }
        Some(_) => return Err(ManifestError::value(at("restartPolicy"), "is only for init containers")),
    }
    if let Some(path) = &container.working_dir {
        ensure(path.starts_with('/'), &at("workingDir"), "is not absolute")?;
    }
    check_words(container, field)?;
    let lists = [container.ports.len(), container.volume_mounts.len(), container.env.len() / 16];
    ensure(lists.iter().all(|length| *length <= MANY), field, "has a list that is too long")?;
    for (index, port) in container.ports.iter().enumerate() {
        let field = at(&format!("ports[{index}]"));
        ensure(port.container_port != 0, &format!("{field}.containerPort"), "is 0")?;
        let address = port.host_ip.as_deref().is_none_or(|ip| ip.is_empty() || is_ip(ip));
        ensure(address, &format!("{field}.hostIP"), "is no IP address")?;
        let same = port.host_port.is_none_or(|host| host == port.container_port);
        ensure(
            !pod.spec.host_network || same,
            &format!("{field}.hostPort"),
            "is not containerPort, with hostNetwork",
        )?;
    }
    check_amounts(container, field)?;
    for (index, mount) in container.volume_mounts.iter().enumerate() {
        let field = at(&format!("volumeMounts[{index}]"));
        let known = pod.spec.volumes.iter().any(|volume| volume.name == mount.name);
        ensure(known, &format!("{field}.name"), "is the name of no volume")?;
        ensure(
            is_path(&mount.mount_path),
            &format!("{field}.mountPath"),
            "is no absolute path without '..'",
        )?;
        let sub_path = mount.sub_path.as_deref().is_none_or(|path| {
            !path.starts_with('/') && !path.contains('\0') && !path.split('/').any(|part| part == "..")
        });
        ensure(sub_path, &format!("{field}.subPath"), "is absolute or has '..'")?;
        let shared = mount.mount_propagation == super::pod::MountPropagation::Bidirectional;
        let privileged = container.security_context.privileged;
        ensure(
            privileged || !shared,
            &format!("{field}.mountPropagation"),
            "Bidirectional is for privileged containers",
        )?;
    }
    Ok(())
}

/// Nothing that execve(2) takes has a NUL.
fn check_words(container: &Container, field: &str) -> Checked {
    let command = container.command.iter().flatten().chain(&container.args);
    ensure(command.clone().all(|word| !word.contains('\0')), &format!("{field}.command"), "has a NUL")?;
    for (index, variable) in container.env.iter().enumerate() {
        let field = format!("{field}.env[{index}]");
        let name = &variable.name;
        let valid = !name.is_empty() && !name.contains(['=', '\0']);
        ensure(valid, &format!("{field}.name"), "is empty or has '=' or a NUL")?;
        let value = variable.value.as_deref().is_none_or(|value| !value.contains('\0'));
        ensure(value, &format!("{field}.value"), "has a NUL")?;
        if let Some(source) = &variable.value_from {
            ensure(variable.value.is_none(), &field, "has both value and valueFrom")?;
            let version = source.field_ref.api_version.as_deref().is_none_or(|version| version == "v1");
            ensure(version, &format!("{field}.valueFrom.fieldRef.apiVersion"), "is not v1")?;
            let path = source.field_ref.field_path.as_str();
            let known = FIELDS.contains(&path) || keyed(path).is_some();
            ensure(
                known,
                &format!("{field}.valueFrom.fieldRef.fieldPath"),
                "is no field that can be referred to",
            )?;
        }
    }
    Ok(())
}

/// Fields of a pod that variables can refer to, beside single labels and annotations.
const FIELDS: [&str; 6] =
    ["metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "status.podIP", "status.hostIP"];

/// `metadata.labels['KEY']` into `labels` and `KEY`.
pub fn keyed(path: &str) -> Option<(&str, &str)> {
    let (list, rest) = path.strip_prefix("metadata.")?.split_once("['")?;
    let key = rest.strip_suffix("']")?;
    matches!(list, "labels" | "annotations").then_some((list, key))
}

fn check_amounts(container: &Container, field: &str) -> Checked {
    let Container { resources, .. } = container;
    for (list, amounts) in [("limits", &resources.limits), ("requests", &resources.requests)] {
        for (name, quantity, unit) in
            [("cpu", &amounts.cpu, Unit::Milli), ("memory", &amounts.memory, Unit::One)]
        {
            let valid = quantity.as_ref().is_none_or(|quantity| quantity.amount(unit).is_some());
            ensure(
                valid,
                &format!("{field}.resources.{list}.{name}"),
                "is no quantity such as 500m or 64Mi",
            )?;
        }
    }
    let amount =
        |quantity: &Option<super::pod::Quantity>, unit| quantity.as_ref().and_then(|q| q.amount(unit));
    let limits = &resources.limits;
    let requests = &resources.requests;
    let above =
        |limit: Option<u64>, request: Option<u64>| matches!((limit, request), (Some(l), Some(r)) if r > l);
    let cpu = above(amount(&limits.cpu, Unit::Milli), amount(&requests.cpu, Unit::Milli));
    ensure(!cpu, &format!("{field}.resources.requests.cpu"), "is more than the limit")?;
    let memory = above(amount(&limits.memory, Unit::One), amount(&requests.memory, Unit::One));
    ensure(!memory, &format!("{field}.resources.requests.memory"), "is more than the limit")
}

fn check_security(pod: &Pod) -> Checked {
    let spec = &pod.spec;
    let of_pod = spec.security_context.seccomp_profile.iter();
    let all = spec.init_containers.iter().chain(&spec.containers);
    for profile in of_pod.chain(all.clone().filter_map(|one| one.security_context.seccomp_profile.as_ref())) {
        let local = profile.kind == super::pod::SeccompKind::Localhost;
        let given = profile.localhost_profile.as_deref().is_some_and(is_path);
        ensure(
            local == profile.localhost_profile.is_some(),
            "seccompProfile.localhostProfile",
            "is for type Localhost alone",
        )?;
        ensure(!local || given, "seccompProfile.localhostProfile", "is no absolute path")?;
    }
    for container in all {
        let field = format!("container {}: securityContext", container.name);
        let own = &container.security_context;
        let user = own.run_as_user.or(spec.security_context.run_as_user);
        let group = own.run_as_group.or(spec.security_context.run_as_group);
        ensure(user.is_some() || group.is_none(), &field, "has runAsGroup without runAsUser")?;
        let not_root = own.run_as_non_root.or(spec.security_context.run_as_non_root) == Some(true);
        ensure(!(not_root && user == Some(0)), &field, "has runAsUser 0, and runAsNonRoot")?;
        let escalation = own.allow_privilege_escalation != Some(false);
        ensure(
            escalation || !own.privileged,
            &field,
            "is privileged, and allowPrivilegeEscalation is false",
        )?;
    }
    Ok(())
}

/// The image of a container.
///
/// # Errors
/// It is no reference.
pub fn reference(container: &Container, field: &str) -> Result<Reference, ManifestError> {
    container.image.parse().map_err(|source| ManifestError::Image {
        field: format!("{field}.image"),
        image: container.image.clone(),
        source,
    })
}

/// RFC 1123.
fn is_label(text: &str) -> bool {
    (1..=LABEL).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_ip(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

fn is_path(text: &str) -> bool {
    text.starts_with('/') && !text.contains('\0') && !text.split('/').any(|part| part == "..")
}
