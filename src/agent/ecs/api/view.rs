//! What answers say of clusters, definitions, tasks and this machine; pure.
use crate::agent::ecs::arn::Names;
use crate::agent::ecs::definition::{ContainerDefinition, NetworkMode};
use crate::agent::ecs::machine::{RESERVED_PORTS, Taken};
use crate::agent::ecs::record::{Cluster, Container, ContainerPhase, Phase, Registered, Task};
use crate::agent::ecs::state::State;
use crate::engine::task::Protocol;
use crate::engine::timestamp::Timestamp;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Seconds since 1970 with milliseconds, as this protocol writes times.
fn seconds(time: Timestamp) -> f64 {
    let since = time.since(Timestamp::from_unix(Duration::ZERO));
    (since.as_secs_f64() * 1000.0).round() / 1000.0
}

fn put(into: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        into.insert(name.to_owned(), value.into());
    }
}

/// A `failures` entry for what is not there; `arn` makes an ARN of a short name.
pub(super) fn missing(given: &str, arn: impl FnOnce(&str) -> String) -> Value {
    let arn = if given.starts_with("arn:") { given.to_owned() } else { arn(given) };
    json!({"arn": arn, "reason": "MISSING"})
}

/// A cluster.
pub(super) fn cluster(state: &State, cluster: &Cluster, tags: bool) -> Value {
    let (pending, running) = counts(&state.tasks(), &cluster.name);
    json!({
        "clusterArn": state.names.cluster(&cluster.name),
        "clusterName": cluster.name,
        "status": "ACTIVE",
        "registeredContainerInstancesCount": 1,
        "runningTasksCount": running,
        "pendingTasksCount": pending,
        "activeServicesCount": 0,
        "statistics": [],
        "settings": [],
        "capacityProviders": [],
        "defaultCapacityProviderStrategy": [],
        "tags": if tags { json!(cluster.tags) } else { json!([]) },
    })
}

/// How many tasks of a cluster are pending and running.
fn counts(tasks: &[Arc<Task>], cluster: &str) -> (usize, usize) {
    let count =
        |phase: Phase| tasks.iter().filter(|task| task.cluster == cluster && task.phase == phase).count();
    (count(Phase::Pending), count(Phase::Running))
}

/// A revision of a family.
pub(super) fn definition(names: &Names, registered: &Registered) -> Value {
    let definition = &registered.definition;
    // A definition is a map of strings and numbers, which JSON can always be written of.
    let mut value = serde_json::to_value(definition).unwrap_or_default();
    if let Value::Object(members) = &mut value {
        let arn = names.definition(&definition.family, registered.revision);
        members.insert("taskDefinitionArn".into(), arn.into());
        members.insert("revision".into(), registered.revision.into());
        let status = if registered.deregistered.is_some() { "INACTIVE" } else { "ACTIVE" };
        members.insert("status".into(), status.into());
        members.insert("compatibilities".into(), json!(["EXTERNAL", "EC2"]));
        members.insert("registeredAt".into(), seconds(registered.registered).into());
        put(members, "deregisteredAt", registered.deregistered.map(seconds));
    }
    value
}

/// A task.
pub(super) fn task(state: &State, task: &Task, tags: bool) -> Value {
    let names = &state.names;
    let mut members = Map::new();
    let amounts = crate::agent::ecs::limits::task_amounts(task);
    let containers: Vec<Value> = task
        .definition
        .container_definitions
        .iter()
        .zip(&task.containers)
        .map(|(definition, known)| container(names, task, definition, known))
        .collect();
    for (name, value) in [
        ("taskArn", json!(names.task(&task.cluster, &task.id))),
        ("clusterArn", json!(names.cluster(&task.cluster))),
        ("taskDefinitionArn", json!(names.definition(&task.definition.family, task.revision))),
        ("containerInstanceArn", json!(names.instance(&task.cluster, &state.instance.id))),
        ("overrides", serde_json::to_value(&task.overrides).unwrap_or_default()),
        ("lastStatus", json!(task.phase.as_str())),
        ("desiredStatus", json!(task.desired())),
        ("cpu", json!(amounts.cpu.to_string())),
        ("memory", json!(amounts.memory.to_string())),
        ("containers", json!(containers)),
        ("version", json!(task.version)),
        ("connectivity", json!("CONNECTED")),
        ("connectivityAt", json!(seconds(task.times.created))),
        ("createdAt", json!(seconds(task.times.created))),
        ("group", json!(task.group)),
        ("launchType", json!(task.launch_type)),
        ("attachments", json!(attachments(task))),
        ("attributes", json!([])),
        ("availabilityZone", json!(format!("{}a", names.region))),
        ("healthStatus", json!(task.health().as_str())),
        ("enableExecuteCommand", json!(false)),
        ("tags", if tags { json!(task.tags) } else { json!([]) }),
    ] {
        members.insert(name.to_owned(), value);
    }
    let times = &task.times;
    put(&mut members, "pullStartedAt", times.pull_started.map(seconds));
    put(&mut members, "pullStoppedAt", times.pull_stopped.map(seconds));
    put(&mut members, "startedAt", times.started.map(seconds));
    put(&mut members, "stoppingAt", times.stopping.map(seconds));
    put(&mut members, "executionStoppedAt", times.execution_stopped.map(seconds));
    put(&mut members, "stoppedAt", times.stopped.map(seconds));
    put(&mut members, "startedBy", task.started_by.clone());
    if let Some(stop) = &task.stop {
        members.insert("stoppedReason".into(), stop.reason.clone().into());
        members.insert("stopCode".into(), stop.code.as_str().into());
    }
    Value::Object(members)
}

/// The network interface of an awsvpc task, in the form in which ECS shows its own.
fn attachments(task: &Task) -> Vec<Value> {
    let Some(id) = &task.network.attachment_id else { return Vec::new() };
    let mut details: Vec<Value> =
        task.subnets.iter().map(|subnet| json!({"name": "subnetId", "value": subnet})).collect();
    for address in &task.network.addresses {
        let name = if address.ip.is_ipv4() { "privateIPv4Address" } else { "ipv6Address" };
        details.push(json!({"name": name, "value": address.ip.to_string()}));
    }
    if let Some(mac) = &task.network.mac {
        details.push(json!({"name": "macAddress", "value": mac}));
    }
    let status = match task.phase {
        Phase::Stopped => "DELETED",
        _ if task.network.addresses.is_empty() => "ATTACHING",
        _ => "ATTACHED",
    };
    vec![json!({"id": id, "type": "ElasticNetworkInterface", "status": status, "details": details})]
}

fn container(names: &Names, task: &Task, definition: &ContainerDefinition, known: &Container) -> Value {
    let mut members = Map::new();
    let arn = names.container(&task.cluster, &task.id, &known.id);
    members.insert("containerArn".into(), arn.into());
    members.insert("taskArn".into(), names.task(&task.cluster, &task.id).into());
    members.insert("name".into(), known.name.clone().into());
    members.insert("image".into(), definition.image.clone().into());
    members.insert("lastStatus".into(), known.phase.as_str().into());
    members.insert("networkBindings".into(), json!(bindings(task, definition, known)));
    members.insert("networkInterfaces".into(), json!(interfaces(task)));
    let health = known.health.as_ref().map_or("UNKNOWN", |health| health.status.as_str());
    members.insert("healthStatus".into(), health.into());
    members.insert("cpu".into(), definition.cpu.to_string().into());
    put(&mut members, "memory", definition.memory.map(|mib| mib.to_string()));
    put(&mut members, "memoryReservation", definition.memory_reservation.map(|mib| mib.to_string()));
    put(&mut members, "runtimeId", known.runtime_id.clone());
    put(&mut members, "imageDigest", known.image_digest.clone());
    put(&mut members, "exitCode", known.exit_code);
    put(&mut members, "reason", known.reason.clone());
    Value::Object(members)
}

fn bindings(task: &Task, definition: &ContainerDefinition, known: &Container) -> Vec<Value> {
    if known.phase == ContainerPhase::Pending {
        return Vec::new();
    }
    let binding = |container: i64, host: i64, protocol: Protocol| {
        let protocol = if protocol == Protocol::Udp { "udp" } else { "tcp" };
        json!({"bindIP": "0.0.0.0", "containerPort": container, "hostPort": host, "protocol": protocol})
    };
    let mappings = definition.port_mappings.iter();
    match task.network_mode() {
        NetworkMode::Host => mappings
            .map(|port| binding(port.container_port, port.container_port, port.protocol.into()))
            .collect(),
        NetworkMode::Bridge => mappings
            .filter_map(|port| {
                let protocol = Protocol::from(port.protocol);
                let wanted = port.host_port.filter(|host| *host != 0);
                let published = task.network.ports.iter().find(|known| {
                    i64::from(known.container_port) == port.container_port
                        && known.protocol == protocol
                        && wanted.is_none_or(|host| host == i64::from(known.host_port))
                })?;
                Some(binding(port.container_port, published.host_port.into(), protocol))
            })
            .collect(),
        NetworkMode::Awsvpc | NetworkMode::None => Vec::new(),
    }
}

fn interfaces(task: &Task) -> Vec<Value> {
    let Some(id) = &task.network.attachment_id else { return Vec::new() };
    let mut interface = json!({"attachmentId": id});
    for address in &task.network.addresses {
        let name = if address.ip.is_ipv4() { "privateIpv4Address" } else { "ipv6Address" };
        interface[name] = address.ip.to_string().into();
    }
    vec![interface]
}

/// This machine as an instance of a cluster.
pub(super) fn instance(state: &State, cluster: &Cluster) -> Value {
    let machine = &state.instance;
    let tasks = state.tasks();
    let taken = Taken::by(&tasks);
    let (pending, running) = counts(&tasks, &cluster.name);
    let resources = |cpu: u64, memory: u64, taken: &[(u16, Protocol)]| {
        let number = |name: &str, value: u64| json!({"name": name, "type": "INTEGER", "integerValue": value});
        let ports = |protocol: Protocol, reserved: &[u16]| {
            let mut all: Vec<u16> = taken
                .iter()
                .filter(|port| port.1 == protocol)
                .map(|port| port.0)
                .chain(reserved.iter().copied())
                .collect();
            all.sort_unstable();
            all.dedup();
            all.iter().map(u16::to_string).collect::<Vec<_>>()
        };
        let (tcp, udp) = (ports(Protocol::Tcp, &RESERVED_PORTS), ports(Protocol::Udp, &[]));
        json!([
            number("CPU", cpu),
            number("MEMORY", memory),
            {"name": "PORTS", "type": "STRINGSET", "stringSetValue": tcp},
            {"name": "PORTS_UDP", "type": "STRINGSET", "stringSetValue": udp},
        ])
    };
    let attribute = |name: &str, value: &str| json!({"name": name, "value": value});
    json!({
        "containerInstanceArn": state.names.instance(&cluster.name, &machine.id),
        "version": 1,
        "versionInfo": {"agentVersion": env!("CARGO_PKG_VERSION"), "dockerVersion": "corten"},
        "remainingResources":
            resources(machine.cpu.saturating_sub(taken.cpu), machine.memory.saturating_sub(taken.memory), &taken.ports),
        "registeredResources": resources(machine.cpu, machine.memory, &[]),
        "status": "ACTIVE",
        "agentConnected": true,
        "runningTasksCount": running,
        "pendingTasksCount": pending,
        "attributes": [
            attribute("ecs.os-type", "linux"),
            attribute("ecs.cpu-architecture", if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" }),
        ],
        "registeredAt": seconds(machine.registered),
        "attachments": [],
        "tags": [],
    })
}
