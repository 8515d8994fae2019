//! RunTask.
use super::{Answer, Api, check_tags, view};
use crate::agent::ecs::definition::{Definition, NetworkMode, Off, Refused, check};
use crate::agent::ecs::error::{ApiError, EcsError, Exception};
use crate::agent::ecs::machine::{Taken, fixed_ports};
use crate::agent::ecs::overrides::{self, TaskOverride};
use crate::agent::ecs::record::{
    ClientToken, Container, ContainerPhase, Health, HealthStatus, Network, Phase, Registered, Tag, Task,
    Times,
};
use crate::agent::ecs::state::{hex, random_hex, random_uuid};
use crate::engine::task::Protocol;
use crate::engine::timestamp::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::Arc;

/// Most tasks of one request, as ECS.
const MAX_COUNT: i64 = 10;

/// Request of RunTask.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RunTask {
    cluster: Option<String>,
    task_definition: String,
    count: Option<i64>,
    #[serde(default)]
    overrides: TaskOverride,
    started_by: Option<String>,
    group: Option<String>,
    #[serde(default)]
    tags: Vec<Tag>,
    client_token: Option<String>,
    launch_type: Option<String>,
    network_configuration: Option<NetworkConfiguration>,
    propagate_tags: Option<String>,
    #[serde(default, rename = "enableECSManagedTags")]
    _managed_tags: Off,
    #[serde(default, rename = "enableExecuteCommand")]
    _execute_command: Off,
    #[serde(default, rename = "placementConstraints")]
    _constraints: Vec<Refused>,
    #[serde(default, rename = "placementStrategy")]
    _strategy: Vec<Refused>,
    #[serde(default, rename = "capacityProviderStrategy")]
    _capacity: Vec<Refused>,
    #[serde(default, rename = "volumeConfigurations")]
    _volumes: Vec<Refused>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NetworkConfiguration {
    awsvpc_configuration: Option<AwsvpcConfiguration>,
}

/// Subnets and security groups are noted: there is one bridge.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AwsvpcConfiguration {
    subnets: Vec<String>,
    #[serde(default, rename = "securityGroups")]
    _security_groups: Vec<String>,
    assign_public_ip: Option<String>,
}

/// What became of a request under the lock of the state.
enum Outcome {
    /// Tasks of an earlier request with the same token.
    Known(Vec<Arc<Task>>),
    /// Why each task that was not let in was not.
    Refused(Vec<&'static str>),
}

impl Api {
    pub(super) fn run_task(&self, request: RunTask, body: &[u8]) -> Answer {
        let cluster = self.cluster(request.cluster.as_deref())?;
        let count = request.count.unwrap_or(1);
        if !(1..=MAX_COUNT).contains(&count) {
            return Err(ApiError::parameter(format!("count must be between 1 and {MAX_COUNT}.")));
        }
        let registered = self
            .find_definition(&request.task_definition)
            .ok_or_else(|| ApiError::client("TaskDefinition not found."))?;
        if registered.deregistered.is_some() {
            return Err(ApiError::client("TaskDefinition is inactive"));
        }
        let definition = overrides::apply(&registered.definition, &request.overrides)?;
        check(&definition)?;
        let launch_type = self.launch_type(&request)?;
        let subnets = subnets(&definition, request.network_configuration.as_ref())?;
        let tags = tags(&request, &registered)?;
        for (member, text, most) in [
            ("startedBy", &request.started_by, 128),
            ("group", &request.group, 255),
            ("clientToken", &request.client_token, 64),
        ] {
            if text
                .as_ref()
                .is_some_and(|text| text.chars().count() > most || text.contains(char::is_control))
            {
                return Err(ApiError::parameter(format!("{member} must have at most {most} characters.")));
            }
        }
        let token = request
            .client_token
            .clone()
            .map(|token| ClientToken { token, request: hex(&Sha256::digest(body)) });
        let mut wanted = Vec::new();
        for _ in 0..count {
            let mut task = new_task(&cluster.name, &registered, &definition)?;
            task.overrides = request.overrides.clone();
            task.launch_type.clone_from(&launch_type);
            task.group = request.group.clone().unwrap_or_else(|| format!("family:{}", definition.family));
            task.started_by.clone_from(&request.started_by);
            task.client_token.clone_from(&token);
            task.tags.clone_from(&tags);
            task.subnets.clone_from(&subnets);
            wanted.push(task);
        }
        let (added, outcome) = self.state.add_tasks(|present| self.admit(present, token.as_ref(), wanted))?;
        match outcome {
            Outcome::Known(tasks) => Ok(self.answer(&tasks, &[])),
            Outcome::Refused(reasons) => {
                for task in &added {
                    self.runner.launch(&task.id);
                }
                Ok(self.answer(&added, &reasons))
            }
        }
    }

    fn answer(&self, tasks: &[Arc<Task>], refused: &[&'static str]) -> Value {
        let tasks: Vec<Value> = tasks.iter().map(|task| view::task(&self.state, task, true)).collect();
        let arn = self.names().instance(&self.node.config.ecs.cluster, &self.state.instance.id);
        let failures: Vec<Value> =
            refused.iter().map(|reason| json!({"arn": arn, "reason": reason})).collect();
        json!({"tasks": tasks, "failures": failures})
    }

    /// Lets in those of `wanted` for which there is room beside `present`.
    fn admit(
        &self,
        present: &[Arc<Task>],
        token: Option<&ClientToken>,
        wanted: Vec<Task>,
    ) -> Result<(Vec<Task>, Outcome), ApiError> {
        if let Some(token) = token {
            let same = |task: &&Arc<Task>| {
                task.client_token.as_ref().is_some_and(|known| known.token == token.token)
            };
            let known: Vec<Arc<Task>> = present.iter().filter(same).cloned().collect();
            if known.iter().any(|task| task.client_token.as_ref() != Some(token)) {
                let message = "The clientToken was used by another request.".to_owned();
                return Err(ApiError { exception: Exception::Conflict, message });
            }
            if !known.is_empty() {
                return Ok((Vec::new(), Outcome::Known(known)));
            }
        }
        let mut taken = Taken::by(present);
        let (mut admitted, mut refused) = (Vec::new(), Vec::new());
        for task in wanted {
            let needs = Taken::of(&task);
            let used = || fixed_ports(&task).into_iter().any(is_used).then_some("RESOURCE:PORTS");
            match taken.refuses(&self.state.instance, &needs).or_else(used) {
                Some(reason) => refused.push(reason),
                None => {
                    taken.take(&needs);
                    admitted.push(task);
                }
            }
        }
        Ok((admitted, Outcome::Refused(refused)))
    }

    fn launch_type(&self, request: &RunTask) -> Result<String, ApiError> {
        match request.launch_type.as_deref() {
            None => Ok("EC2".to_owned()),
            Some(word @ ("EC2" | "EXTERNAL")) => Ok(word.to_owned()),
            Some("FARGATE") => Err(ApiError::client(
                "launchType: FARGATE is not supported: this is a machine; use EC2 or EXTERNAL",
            )),
            Some(word) => Err(ApiError::parameter(format!("launchType: {word:?} is not EC2 or EXTERNAL"))),
        }
    }
}

/// Whether a process of the host, or another runtime, listens on a port.
fn is_used((port, protocol): (u16, Protocol)) -> bool {
    let address = (Ipv4Addr::UNSPECIFIED, port);
    let bound = match protocol {
        Protocol::Udp => UdpSocket::bind(address).map(drop),
        _ => TcpListener::bind(address).map(drop),
    };
    bound.is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
}

fn subnets(definition: &Definition, given: Option<&NetworkConfiguration>) -> Result<Vec<String>, ApiError> {
    let given = given.and_then(|given| given.awsvpc_configuration.as_ref());
    let is_awsvpc = definition.network_mode == Some(NetworkMode::Awsvpc);
    match given {
        None if is_awsvpc => Err(ApiError::parameter(
            "Network Configuration must be provided when networkMode 'awsvpc' is specified.",
        )),
        None => Ok(Vec::new()),
        Some(_) if !is_awsvpc => Err(ApiError::parameter(
            "Network Configuration is not valid for the given networkMode of this task definition.",
        )),
        Some(given) => {
            if given.subnets.is_empty() || given.subnets.len() > 16 {
                return Err(ApiError::parameter("subnets must name 1 to 16 subnets."));
            }
            match given.assign_public_ip.as_deref() {
                None | Some("DISABLED") => Ok(given.subnets.clone()),
                Some(_) => Err(ApiError::client(
                    "networkConfiguration.awsvpcConfiguration.assignPublicIp: only DISABLED is supported",
                )),
            }
        }
    }
}

fn tags(request: &RunTask, registered: &Registered) -> Result<Vec<Tag>, ApiError> {
    let mut tags = request.tags.clone();
    match request.propagate_tags.as_deref() {
        None | Some("NONE") => {}
        Some("TASK_DEFINITION") => {
            let missing = |tag: &&Tag| !request.tags.iter().any(|given| given.key == tag.key);
            tags.extend(registered.tags.iter().filter(missing).cloned());
        }
        Some(word) => {
            return Err(ApiError::parameter(format!(
                "propagateTags: {word:?} is not TASK_DEFINITION or NONE"
            )));
        }
    }
    check_tags(&tags)?;
    Ok(tags)
}

fn new_task(cluster: &str, registered: &Registered, definition: &Definition) -> Result<Task, EcsError> {
    let now = Timestamp::now();
    let containers = definition.container_definitions.iter().map(|known| {
        let checked = known.health_check.as_ref().and_then(|check| check.args()).is_some();
        let health =
            Health { status: HealthStatus::Unknown, since: now, exit_code: None, output: String::new() };
        Ok(Container {
            name: known.name.clone(),
            id: random_uuid()?,
            endpoint: random_hex(64)?,
            runtime_id: None,
            image_digest: None,
            image_id: None,
            phase: ContainerPhase::Pending,
            exit_code: None,
            reason: None,
            health: checked.then_some(health),
            created: None,
            started: None,
            finished: None,
            restarts: 0,
        })
    });
    let is_awsvpc = definition.network_mode == Some(NetworkMode::Awsvpc);
    Ok(Task {
        id: random_hex(32)?,
        cluster: cluster.to_owned(),
        revision: registered.revision,
        overrides: TaskOverride::default(),
        version: 1,
        launch_type: String::new(),
        group: String::new(),
        started_by: None,
        client_token: None,
        tags: Vec::new(),
        subnets: Vec::new(),
        phase: Phase::Pending,
        stop: None,
        times: Times {
            created: now,
            pull_started: None,
            pull_stopped: None,
            started: None,
            stopping: None,
            execution_stopped: None,
            stopped: None,
        },
        containers: containers.collect::<Result<_, EcsError>>()?,
        engine_task: None,
        network: Network {
            attachment_id: if is_awsvpc { Some(random_uuid()?) } else { None },
            ..Network::default()
        },
        credentials_id: if definition.task_role_arn.is_some() { Some(random_hex(64)?) } else { None },
        definition: definition.clone(),
    })
}
