//! Rules that a definition must keep beyond its shape; pure.
//!
//! They are those of the ECS developer guide ("task definition parameters"), and what follows from the containers of
//! a task sharing one network namespace here.
use super::Definition;
use super::basics::{amounts, container, volumes};
use super::graph;
use super::network;
use std::collections::BTreeSet;

/// Most containers of a task definition, as ECS.
pub const MAX_CONTAINERS: usize = 10;
/// Most characters of a name, as ECS.
pub const MAX_NAME: usize = 255;

/// What is wrong with a definition, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct Invalid {
    /// As `containerDefinitions[0].memory`.
    pub path: String,
    /// What is wrong there.
    pub reason: String,
}

/// Tells where something is wrong.
pub(super) fn wrong<T>(path: impl Into<String>, reason: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid { path: path.into(), reason: reason.into() })
}

/// Checks a definition.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check(definition: &Definition) -> Result<(), Invalid> {
    name("family", &definition.family)?;
    platform(definition)?;
    roles(definition)?;
    let containers = &definition.container_definitions;
    if containers.is_empty() || containers.len() > MAX_CONTAINERS {
        return wrong("containerDefinitions", format!("must have 1 to {MAX_CONTAINERS} containers"));
    }
    let mut names = BTreeSet::new();
    for (at, known) in containers.iter().enumerate() {
        let path = format!("containerDefinitions[{at}]");
        name(&format!("{path}.name"), &known.name)?;
        if !names.insert(&known.name) {
            return wrong(format!("{path}.name"), format!("two containers are named {:?}", known.name));
        }
        container(&path, known)?;
    }
    if !containers.iter().any(|known| known.essential) {
        return wrong("containerDefinitions", "at least one container must be essential");
    }
    amounts(definition)?;
    volumes(definition)?;
    network::check(definition)?;
    graph::check(containers)
}

/// A name as ECS permits it; it is safe as a file name.
pub fn name(path: &str, text: &str) -> Result<(), Invalid> {
    if text.is_empty() || text.len() > MAX_NAME {
        return wrong(path, format!("must have 1 to {MAX_NAME} characters"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
        return wrong(path, format!("{text:?} has characters other than letters, digits, '-' and '_'"));
    }
    Ok(())
}

/// Checks a role's ARN or name, which is a key of the configuration.
pub fn role(path: &str, text: &str) -> Result<(), Invalid> {
    if text.is_empty() || text.len() > 2048 || text.contains(char::is_control) {
        return wrong(path, "must have 1 to 2048 characters");
    }
    Ok(())
}

fn roles(definition: &Definition) -> Result<(), Invalid> {
    let given =
        [("taskRoleArn", &definition.task_role_arn), ("executionRoleArn", &definition.execution_role_arn)];
    for (path, text) in given {
        if let Some(text) = text {
            role(path, text)?;
        }
    }
    Ok(())
}

fn platform(definition: &Definition) -> Result<(), Invalid> {
    for (at, word) in definition.requires_compatibilities.iter().enumerate() {
        let path = format!("requiresCompatibilities[{at}]");
        match word.as_str() {
            "EC2" | "EXTERNAL" => {}
            "FARGATE" => {
                return wrong(path, "FARGATE is not supported: this is a machine; use EC2 or EXTERNAL");
            }
            _ => return wrong(path, format!("{word:?} is not EC2 or EXTERNAL")),
        }
    }
    let Some(platform) = &definition.runtime_platform else { return Ok(()) };
    if let Some(system) = platform.operating_system_family.as_deref().filter(|system| *system != "LINUX") {
        return wrong(
            "runtimePlatform.operatingSystemFamily",
            format!("{system:?} is not supported: use LINUX"),
        );
    }
    let own = if cfg!(target_arch = "aarch64") { "ARM64" } else { "X86_64" };
    match platform.cpu_architecture.as_deref() {
        Some(given) if given != own => wrong(
            "runtimePlatform.cpuArchitecture",
            format!("{given:?} is not this machine's, which is {own}"),
        ),
        _ => Ok(()),
    }
}
