//! From a task's record to what the engine is asked for; pure.
use crate::agent::config::NetworkConfig;
use crate::agent::ecs::arn::Names;
use crate::agent::ecs::definition::{
    ContainerDefinition, IpcMode, LinuxParameters, NetworkMode, PidMode, RestartPolicy as Restart, Ulimit,
};
use crate::agent::ecs::limits;
use crate::agent::ecs::record::{Container, Task};
use crate::engine::options::{
    Device, Network, Options, PidNamespace, RestartPolicy, Security, TaskOptions, Tmpfs, Ulimit as Rlimit,
    Volume, VolumeSource,
};
use crate::engine::specgen::process::{Overrides, set};
use crate::engine::task::{Bridge, ContainerRequest, Dns, Door, Port, TaskNetwork, TaskSpec, Which};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Seconds between the stop signal and SIGKILL, as ECS.
pub const STOP_TIMEOUT: u32 = 30;
/// Where containers find metadata and credentials: SDKs know no other address.
const METADATA: &str = "http://169.254.170.2";
/// Seconds that a container must have run to be started again, as ECS.
const RESTART_PERIOD: u32 = 300;
const MIB: u64 = 1024 * 1024;

/// The name of a task among the engine's.
pub fn task_name(id: &str) -> String {
    format!("ecs-{id}")
}

/// The name of a container among the engine's: `ecs-FAMILY-REVISION-NAME-TASK`, as an ECS agent names them.
pub fn container_name(task: &Task, name: &str) -> String {
    let cut = |text: &str| text.chars().take(40).collect::<String>();
    format!("ecs-{}-{}-{}-{}", cut(&task.definition.family), task.revision, cut(name), &task.id[..12])
}

/// The name of a volume that is there as long as the task.
pub fn volume_name(task: &str, volume: &str) -> String {
    format!("ecs-{task}-{volume}")
}

/// The bridge of the configuration.
fn bridge(config: &NetworkConfig) -> Bridge {
    let default = Bridge::default();
    Bridge {
        link: config.bridge.clone().unwrap_or(default.link),
        subnet: config.subnet.clone().unwrap_or(default.subnet),
        subnet6: config.subnet6.clone().or(default.subnet6),
    }
}

/// What the engine is asked for as the task.
pub fn task(task: &Task, names: &Names, config: &NetworkConfig) -> TaskSpec {
    let definition = &task.definition;
    let containers = &definition.container_definitions;
    let mode = task.network_mode();
    let first = |pick: fn(&ContainerDefinition) -> &Vec<String>| {
        containers.iter().map(pick).find(|list| !list.is_empty()).cloned().unwrap_or_default()
    };
    let hosts = containers.iter().flat_map(|known| &known.extra_hosts);
    let controls = containers.iter().flat_map(|known| &known.system_controls);
    let linux = containers.iter().filter_map(|known| known.linux_parameters.as_ref());
    let shm = linux.filter_map(|linux| linux.shared_memory_size).max();
    TaskSpec {
        door: Door::Ecs,
        name: task_name(&task.id),
        hostname: containers.iter().find_map(|known| known.hostname.clone()),
        network: match mode {
            NetworkMode::None => TaskNetwork::None,
            NetworkMode::Host => TaskNetwork::Host,
            NetworkMode::Bridge | NetworkMode::Awsvpc => TaskNetwork::Attached(Which::Bridge(bridge(config))),
        },
        ports: if mode == NetworkMode::Bridge { ports(containers) } else { Vec::new() },
        shares_pid: definition.pid_mode == Some(PidMode::Task),
        host_ipc: definition.ipc_mode == Some(IpcMode::Host),
        dns: Dns {
            servers: first(|known| &known.dns_servers),
            searches: first(|known| &known.dns_search_domains),
            options: Vec::new(),
        },
        hosts: hosts.map(|line| (line.ip_address.clone(), vec![line.hostname.clone()])).collect(),
        cgroup: None,
        limits: limits::of_task(task),
        sysctls: controls.map(|control| (control.namespace.clone(), control.value.clone())).collect(),
        labels: labels(task, names),
        shm_size: shm.and_then(|mib| u64::try_from(mib).ok()).map(|mib| mib.saturating_mul(MIB)),
        data: json!({"ecs": {"task": task.id}}),
    }
}

fn ports(containers: &[ContainerDefinition]) -> Vec<Port> {
    let mappings = containers.iter().flat_map(|known| &known.port_mappings);
    mappings
        .map(|mapping| Port {
            host_ip: None,
            host_port: mapping.host_port.and_then(|port| u16::try_from(port).ok()).unwrap_or(0),
            container_port: u16::try_from(mapping.container_port).unwrap_or(0),
            protocol: mapping.protocol.into(),
        })
        .collect()
}

fn labels(task: &Task, names: &Names) -> BTreeMap<String, String> {
    let label = |key: &str, value: String| (format!("com.amazonaws.ecs.{key}"), value);
    BTreeMap::from([
        label("cluster", task.cluster.clone()),
        label("task-arn", names.task(&task.cluster, &task.id)),
        label("task-definition-family", task.definition.family.clone()),
        label("task-definition-version", task.revision.to_string()),
    ])
}

/// What the engine is asked for as one of the task's containers. `secrets` are variables beside the definition's.
pub fn container(
    task: &Task,
    definition: &ContainerDefinition,
    known: &Container,
    names: &Names,
    secrets: Vec<String>,
) -> ContainerRequest {
    let list = |words: &Vec<String>| (!words.is_empty()).then(|| words.clone());
    ContainerRequest {
        name: container_name(task, &definition.name),
        image: definition.image.clone(),
        overrides: Overrides {
            entrypoint: list(&definition.entry_point),
            args: definition.command.clone(),
            env: environment(task, definition, known, names, secrets),
            cwd: definition.working_directory.clone(),
            user: definition.user.clone(),
        },
        options: options(task, definition, names),
        stop_signal: None,
        data: json!({"ecs": {"task": task.id, "container": definition.name}}),
    }
}

fn environment(
    task: &Task,
    definition: &ContainerDefinition,
    known: &Container,
    names: &Names,
    secrets: Vec<String>,
) -> Vec<String> {
    // What a definition says wins over the region and the like, but not over where its own metadata are.
    let mut env = vec![
        format!("AWS_EXECUTION_ENV=AWS_ECS_{}", task.launch_type),
        format!("AWS_REGION={}", names.region),
        format!("AWS_DEFAULT_REGION={}", names.region),
    ];
    let given = definition.environment.iter().map(|pair| format!("{}={}", pair.name, pair.value));
    for entry in given.chain(secrets) {
        set(&mut env, &entry);
    }
    set(&mut env, &format!("ECS_CONTAINER_METADATA_URI_V4={METADATA}/v4/{}", known.endpoint));
    set(&mut env, &format!("ECS_AGENT_URI={METADATA}/api/{}", known.endpoint));
    if let Some(id) = &task.credentials_id {
        set(&mut env, &format!("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=/v2/credentials/{id}"));
    }
    env
}

fn options(task: &Task, definition: &ContainerDefinition, names: &Names) -> Options {
    let is = |switch: Option<bool>| switch == Some(true);
    let none = LinuxParameters::default();
    let linux = definition.linux_parameters.as_ref().unwrap_or(&none);
    let capabilities = linux.capabilities.clone().unwrap_or_default();
    let mut labels = labels(task, names);
    labels.insert("com.amazonaws.ecs.container-name".to_owned(), definition.name.clone());
    labels.extend(definition.docker_labels.clone());
    Options {
        tty: is(definition.pseudo_terminal),
        interactive: is(definition.interactive),
        read_only: is(definition.readonly_root_filesystem),
        privileged: is(definition.privileged),
        network: Network::Task,
        cap_add: capabilities.add,
        cap_drop: capabilities.drop,
        security: Security {
            no_new_privileges: !definition.docker_security_options.is_empty(),
            ..Security::default()
        },
        limits: limits::of_container(definition),
        ulimits: definition.ulimits.iter().map(rlimit).collect(),
        volumes: volumes(task, definition),
        tmpfs: linux.tmpfs.iter().map(tmpfs).collect(),
        stop_timeout: Some(stop_timeout(definition)),
        labels,
        task: TaskOptions {
            pid: match task.definition.pid_mode {
                None => PidNamespace::Container,
                Some(PidMode::Task) => PidNamespace::Task,
                Some(PidMode::Host) => PidNamespace::Host,
            },
            devices: linux.devices.iter().map(device).collect(),
            restart: restart(definition.restart_policy.as_ref()),
            // Not the agent's own, which the kernel is to spare.
            oom_score_adj: Some(0),
            ..TaskOptions::default()
        },
        ..Options::default()
    }
}

/// Seconds between the stop signal and SIGKILL.
pub fn stop_timeout(definition: &ContainerDefinition) -> u32 {
    definition.stop_timeout.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(STOP_TIMEOUT)
}

fn rlimit(limit: &Ulimit) -> Rlimit {
    // -1 is unlimited.
    let number = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    Rlimit {
        name: format!("RLIMIT_{}", limit.name.to_uppercase()),
        soft: number(limit.soft_limit),
        hard: number(limit.hard_limit),
    }
}

fn tmpfs(given: &crate::agent::ecs::definition::Tmpfs) -> Tmpfs {
    let mut options: Vec<String> = ["nosuid", "nodev", "noexec"]
        .into_iter()
        .filter(|default| {
            !given.mount_options.iter().any(|option| option == default.trim_start_matches("no"))
        })
        .map(str::to_owned)
        .collect();
    for option in &given.mount_options {
        if !options.contains(option) {
            options.push(option.clone());
        }
    }
    options.push(format!("size={}m", given.size));
    Tmpfs { destination: given.container_path.clone(), options }
}

fn device(given: &crate::agent::ecs::definition::Device) -> Device {
    let letter = |word: &String| match word.as_str() {
        "read" => 'r',
        "write" => 'w',
        _ => 'm',
    };
    let access: String = given.permissions.iter().map(letter).collect();
    Device {
        source: PathBuf::from(&given.host_path),
        destination: given.container_path.clone().unwrap_or_else(|| given.host_path.clone()),
        access: if access.is_empty() { "rwm".to_owned() } else { access },
    }
}

fn volumes(task: &Task, definition: &ContainerDefinition) -> Vec<Volume> {
    let known = |name: &str| task.definition.volumes.iter().find(|volume| volume.name == name);
    definition
        .mount_points
        .iter()
        .filter_map(|mount| {
            // The definition was checked: the volume is there.
            let volume = known(&mount.source_volume)?;
            let source = match volume.host_path() {
                Some(path) => VolumeSource::Host(PathBuf::from(path)),
                None => VolumeSource::Named(volume_name(&task.id, &volume.name)),
            };
            Some(Volume {
                source,
                destination: mount.container_path.clone(),
                options: if mount.read_only == Some(true) { vec!["ro".to_owned()] } else { Vec::new() },
                copy_up: volume.host_path().is_none(),
            })
        })
        .collect()
}

fn restart(policy: Option<&Restart>) -> RestartPolicy {
    match policy {
        Some(policy) if policy.enabled => RestartPolicy::AfterRunning {
            ignored: policy.ignored_exit_codes.iter().filter_map(|code| u8::try_from(*code).ok()).collect(),
            period: policy
                .restart_attempt_period
                .and_then(|seconds| u32::try_from(seconds).ok())
                .unwrap_or(RESTART_PERIOD),
        },
        _ => RestartPolicy::Never,
    }
}
