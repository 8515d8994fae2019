//! The documents about a task and its containers, field by field as an ECS agent writes them; pure.
use crate::agent::ecs::arn::Names;
use crate::agent::ecs::definition::{ContainerDefinition, NetworkMode};
use crate::agent::ecs::limits;
use crate::agent::ecs::record::{Container, ContainerPhase, Phase, Task};
use crate::engine::task::Port;
use crate::engine::timestamp::Timestamp;
use serde_json::{Map, Value, json};

/// The document of a container; `None` if the task has none of that name.
pub(super) fn container(names: &Names, task: &Task, name: &str) -> Option<Value> {
    let known = task.container(name)?;
    let definition =
        task.definition.container_definitions.iter().find(|definition| definition.name == name)?;
    Some(of_container(names, task, definition, known))
}

/// The document of a task with all its containers.
pub(super) fn task(names: &Names, task: &Task, tags: bool) -> Value {
    let amounts = limits::task_amounts(task);
    let containers: Vec<Value> = task
        .definition
        .container_definitions
        .iter()
        .zip(&task.containers)
        // As of an ECS agent: one that was not made yet is not told.
        .filter(|(_, known)| known.runtime_id.is_some())
        .map(|(definition, known)| of_container(names, task, definition, known))
        .collect();
    let mut members = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            members.insert(name.to_owned(), value);
        }
    };
    put("Cluster", Some(names.cluster(&task.cluster).into()));
    put("TaskARN", Some(names.task(&task.cluster, &task.id).into()));
    put("Family", Some(task.definition.family.clone().into()));
    put("Revision", Some(task.revision.to_string().into()));
    put("DesiredStatus", Some(task.desired().into()));
    put("KnownStatus", Some(task_status(task).into()));
    let mut limits = Map::new();
    if amounts.cpu != 0 {
        // vCPUs, as the agent writes a task's.
        limits.insert("CPU".to_owned(), json!(amounts.cpu as f64 / 1024.0));
    }
    if amounts.memory != 0 {
        limits.insert("Memory".to_owned(), json!(amounts.memory));
    }
    put("Limits", (!limits.is_empty()).then_some(Value::Object(limits)));
    put("PullStartedAt", task.times.pull_started.map(time));
    put("PullStoppedAt", task.times.pull_stopped.map(time));
    put("ExecutionStoppedAt", task.times.execution_stopped.map(time));
    put("AvailabilityZone", Some(format!("{}a", names.region).into()));
    put("LaunchType", Some(task.launch_type.clone().into()));
    put("FaultInjectionEnabled", Some(false.into()));
    put("Containers", Some(containers.into()));
    if tags {
        let all: Map<String, Value> =
            task.tags.iter().map(|tag| (tag.key.clone(), tag.value.clone().into())).collect();
        put("TaskTags", (!all.is_empty()).then_some(Value::Object(all)));
    }
    Value::Object(members)
}

fn task_status(task: &Task) -> &'static str {
    match task.phase {
        Phase::Pending if task.containers.iter().any(|known| known.runtime_id.is_some()) => "CREATED",
        Phase::Pending => "NONE",
        Phase::Running => "RUNNING",
        Phase::Stopped => "STOPPED",
    }
}

fn container_status(known: &Container) -> &'static str {
    match known.phase {
        ContainerPhase::Pending if known.runtime_id.is_some() => "CREATED",
        ContainerPhase::Pending => "NONE",
        ContainerPhase::Running => "RUNNING",
        ContainerPhase::Stopped => "STOPPED",
    }
}

/// With nanoseconds, as Go writes times.
fn time(time: Timestamp) -> Value {
    time.to_string().into()
}

fn of_container(names: &Names, task: &Task, definition: &ContainerDefinition, known: &Container) -> Value {
    let mut members = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            members.insert(name.to_owned(), value);
        }
    };
    put("DockerId", known.runtime_id.clone().map(Value::from));
    put("Name", Some(definition.name.clone().into()));
    put("DockerName", Some(crate::agent::ecs::run::spec::container_name(task, &definition.name).into()));
    put("Image", Some(definition.image.clone().into()));
    put("ImageID", known.image_id.clone().map(Value::from));
    put("Ports", ports(task, definition));
    put("Labels", Some(labels(names, task, definition)));
    put("DesiredStatus", Some(task.desired().into()));
    put("KnownStatus", Some(container_status(known).into()));
    put("ExitCode", known.exit_code.filter(|_| known.phase == ContainerPhase::Stopped).map(Value::from));
    let mut limits = Map::new();
    limits.insert("CPU".to_owned(), definition.cpu.max(2).into());
    if let Some(memory) = definition.memory {
        limits.insert("Memory".to_owned(), memory.into());
    }
    put("Limits", Some(Value::Object(limits)));
    put("CreatedAt", known.created.map(time));
    put("StartedAt", known.started.map(time));
    put("FinishedAt", known.finished.map(time));
    put("Type", Some("NORMAL".into()));
    put("Networks", networks(task));
    put(
        "Health",
        known.health.as_ref().map(|health| {
            json!({
                "status": health.status.as_str(),
                "statusSince": health.since,
                "exitCode": health.exit_code,
                "output": health.output,
            })
        }),
    );
    put("Volumes", volumes(task, definition));
    put("LogDriver", Some("json-file".into()));
    put("ContainerARN", Some(names.container(&task.cluster, &task.id, &known.id).into()));
    put("Snapshotter", Some("overlay".into()));
    put("RestartCount", definition.restart_policy.as_ref().map(|_| known.restarts.into()));
    Value::Object(members)
}

fn ports(task: &Task, definition: &ContainerDefinition) -> Option<Value> {
    let of_port = |mapping: &crate::agent::ecs::definition::PortMapping| {
        let protocol = crate::engine::task::Protocol::from(mapping.protocol);
        let container = u16::try_from(mapping.container_port).unwrap_or(0);
        let same = |port: &&Port| port.container_port == container && port.protocol == protocol;
        let mut members = Map::new();
        members.insert("ContainerPort".to_owned(), container.into());
        members.insert("Protocol".to_owned(), serde_json::to_value(protocol).unwrap_or_default());
        if let Some(port) = task.network.ports.iter().find(same) {
            let ip = port.host_ip.map_or_else(|| "0.0.0.0".to_owned(), |ip| ip.to_string());
            members.insert("HostPort".to_owned(), port.host_port.into());
            members.insert("HostIp".to_owned(), ip.into());
        }
        Value::Object(members)
    };
    let all: Vec<Value> = definition.port_mappings.iter().map(of_port).collect();
    (!all.is_empty()).then(|| all.into())
}

fn labels(names: &Names, task: &Task, definition: &ContainerDefinition) -> Value {
    let mut labels = definition.docker_labels.clone();
    for (key, value) in [
        ("cluster", names.cluster(&task.cluster)),
        ("container-name", definition.name.clone()),
        ("task-arn", names.task(&task.cluster, &task.id)),
        ("task-definition-family", task.definition.family.clone()),
        ("task-definition-version", task.revision.to_string()),
    ] {
        labels.insert(format!("com.amazonaws.ecs.{key}"), value);
    }
    json!(labels)
}

fn networks(task: &Task) -> Option<Value> {
    let mode = task.network_mode();
    let mut members = Map::new();
    members.insert("NetworkMode".to_owned(), mode.as_str().into());
    let of_kind = |v4: bool| -> Vec<String> {
        let all = task.network.addresses.iter().filter(|address| address.ip.is_ipv4() == v4);
        all.map(|address| address.ip.to_string()).collect()
    };
    for (name, addresses) in [("IPv4Addresses", of_kind(true)), ("IPv6Addresses", of_kind(false))] {
        if !addresses.is_empty() {
            members.insert(name.to_owned(), addresses.into());
        }
    }
    if mode == NetworkMode::Awsvpc {
        members.insert("AttachmentIndex".to_owned(), 0.into());
        if let Some(mac) = &task.network.mac {
            members.insert("MACAddress".to_owned(), mac.clone().into());
        }
        if let Some(first) = task.network.addresses.iter().find(|address| address.ip.is_ipv4()) {
            members.insert("IPv4SubnetCIDRBlock".to_owned(), subnet(first.ip, first.prefix).into());
            if let Some(gateway) = first.gateway {
                let text = format!("{gateway}/{}", first.prefix);
                members.insert("SubnetGatewayIpv4Address".to_owned(), text.into());
            }
        }
    }
    Some(vec![Value::Object(members)].into())
}

fn subnet(ip: std::net::IpAddr, prefix: u8) -> String {
    match ip {
        std::net::IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            format!("{}/{prefix}", std::net::Ipv4Addr::from(u32::from(ip) & mask))
        }
        std::net::IpAddr::V6(_) => format!("{ip}/{prefix}"),
    }
}

fn volumes(task: &Task, definition: &ContainerDefinition) -> Option<Value> {
    let of_mount = |mount: &crate::agent::ecs::definition::MountPoint| {
        let volume = task.definition.volumes.iter().find(|volume| volume.name == mount.source_volume)?;
        let mut members = Map::new();
        if volume.host_path().is_none() {
            members.insert("DockerName".to_owned(), volume.name.clone().into());
        }
        // Where it is on the host is not the task's business, as long as it did not say so itself.
        if let Some(path) = volume.host_path() {
            members.insert("Source".to_owned(), path.into());
        }
        members.insert("Destination".to_owned(), mount.container_path.clone().into());
        Some(Value::Object(members))
    };
    let all: Vec<Value> = definition.mount_points.iter().filter_map(of_mount).collect();
    (!all.is_empty()).then(|| all.into())
}
