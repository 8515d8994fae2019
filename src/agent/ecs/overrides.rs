//! What RunTask says otherwise than the definition.
use super::definition::{Definition, Pair, Refused};
use super::error::ApiError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// `overrides` of RunTask.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TaskOverride {
    /// For some containers.
    #[serde(default)]
    pub container_overrides: Vec<ContainerOverride>,
    /// In place of the task's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// In place of the task's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// In place of the task's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_role_arn: Option<String>,
    /// Noted only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_role_arn: Option<String>,
    /// Empty.
    #[serde(default)]
    pub inference_accelerator_overrides: Vec<Refused>,
}

/// `overrides.containerOverrides[]` of RunTask.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContainerOverride {
    /// Which container.
    pub name: String,
    /// In place of the definition's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Beside, or in place of, the definition's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<Pair>,
    /// Empty.
    #[serde(default, skip_serializing)]
    pub environment_files: Vec<Refused>,
    /// In place of the definition's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<i64>,
    /// In place of the definition's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<i64>,
    /// In place of the definition's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_reservation: Option<i64>,
    /// Empty.
    #[serde(default, skip_serializing)]
    pub resource_requirements: Vec<Refused>,
}

/// The definition as it is to run.
///
/// # Errors
/// A container is named that is not there, or twice.
pub fn apply(definition: &Definition, overrides: &TaskOverride) -> Result<Definition, ApiError> {
    let mut changed = definition.clone();
    let mut seen = BTreeSet::new();
    for (at, given) in overrides.container_overrides.iter().enumerate() {
        let known = changed.container_definitions.iter_mut().find(|known| known.name == given.name);
        let Some(known) = known else {
            return Err(ApiError::parameter(format!(
                "Override for container named {} is not a container in the TaskDefinition.",
                given.name
            )));
        };
        if !seen.insert(&given.name) {
            let path = format!("overrides.containerOverrides[{at}].name");
            return Err(ApiError::parameter(format!("{path}: {:?} is there more than once", given.name)));
        }
        if let Some(command) = &given.command {
            known.command.clone_from(command);
        }
        for pair in &given.environment {
            known.environment.retain(|old| old.name != pair.name);
            // As ECS: a variable that RunTask gives is no secret any more.
            known.secrets.retain(|old| old.name != pair.name);
            known.environment.push(pair.clone());
        }
        known.cpu = given.cpu.unwrap_or(known.cpu);
        known.memory = given.memory.or(known.memory);
        known.memory_reservation = given.memory_reservation.or(known.memory_reservation);
    }
    for (old, given) in [
        (&mut changed.cpu, &overrides.cpu),
        (&mut changed.memory, &overrides.memory),
        (&mut changed.task_role_arn, &overrides.task_role_arn),
        (&mut changed.execution_role_arn, &overrides.execution_role_arn),
    ] {
        if given.is_some() {
            old.clone_from(given);
        }
    }
    Ok(changed)
}
