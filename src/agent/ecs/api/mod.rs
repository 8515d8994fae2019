//! Operations of the API: from a JSON body to a JSON answer. They change the state and tell the orchestration, and
//! wait for nothing but files.
use super::arn::Names;
use super::error::{ApiError, Exception};
use super::record::{Cluster, Tag};
use super::run::Runner;
use super::state::State;
use crate::agent::Node;
use base64::Engine as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

mod clusters;
mod definitions;
mod instances;
mod run_task;
mod tasks;
mod view;

/// Most names in a request that describes things, as ECS.
const MAX_NAMED: usize = 100;
/// Most tags, as ECS.
const MAX_TAGS: usize = 50;
/// Most items of a page, as ECS.
const MAX_PAGE: i64 = 100;
/// What is built.
const OPERATIONS: [&str; 14] = [
    "CreateCluster",
    "DescribeClusters",
    "ListClusters",
    "RegisterTaskDefinition",
    "DescribeTaskDefinition",
    "ListTaskDefinitions",
    "ListTaskDefinitionFamilies",
    "DeregisterTaskDefinition",
    "RunTask",
    "StopTask",
    "DescribeTasks",
    "ListTasks",
    "DescribeContainerInstances",
    "ListContainerInstances",
];

/// What operations work on.
#[derive(Debug)]
pub struct Api {
    /// The machine.
    pub node: Arc<Node>,
    /// What is known.
    pub state: Arc<State>,
    /// Who runs tasks.
    pub runner: Arc<Runner>,
}

type Answer = Result<Value, ApiError>;

impl Api {
    /// Does one operation. It may block on files.
    ///
    /// # Errors
    /// What is to be answered instead.
    pub fn call(&self, operation: &str, body: &[u8]) -> Answer {
        match operation {
            "CreateCluster" => self.create_cluster(parse(body)?),
            "DescribeClusters" => self.describe_clusters(parse(body)?),
            "ListClusters" => self.list_clusters(parse(body)?),
            "RegisterTaskDefinition" => self.register_task_definition(parse(body)?),
            "DescribeTaskDefinition" => self.describe_task_definition(parse(body)?),
            "ListTaskDefinitions" => self.list_task_definitions(parse(body)?),
            "ListTaskDefinitionFamilies" => self.list_families(parse(body)?),
            "DeregisterTaskDefinition" => self.deregister_task_definition(parse(body)?),
            "RunTask" => self.run_task(parse(body)?, body),
            "StopTask" => self.stop_task(parse(body)?),
            "DescribeTasks" => self.describe_tasks(parse(body)?),
            "ListTasks" => self.list_tasks(parse(body)?),
            "DescribeContainerInstances" => self.describe_instances(parse(body)?),
            "ListContainerInstances" => self.list_instances(parse(body)?),
            _ => Err(ApiError {
                exception: Exception::UnknownOperation,
                message: format!("{operation:?} is not an operation that corten has built"),
            }),
        }
    }

    fn names(&self) -> &Names {
        &self.state.names
    }

    /// The cluster that a request names; the configured one if it names none.
    fn cluster(&self, given: Option<&str>) -> Result<Cluster, ApiError> {
        let name = match given {
            None | Some("") => Some(self.node.config.ecs.cluster.as_str()),
            Some(text) => self.names().strip("cluster", text),
        };
        name.and_then(|name| self.state.cluster(name)).ok_or_else(ApiError::no_cluster)
    }
}

/// The word of an operation for logs and metrics: one of a few, whatever the client sent.
pub fn known_name(operation: &str) -> &'static str {
    OPERATIONS.into_iter().find(|known| *known == operation).unwrap_or("unknown")
}

/// Reads a request. A null is as good as nothing; a member that is not known is told by its path.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let body = if body.is_empty() { b"{}" } else { body };
    let mut value: Value = serde_json::from_slice(body).map_err(|error| ApiError {
        exception: Exception::Serialization,
        message: format!("the body is not JSON: {error}"),
    })?;
    drop_nulls(&mut value);
    from_value(value)
}

fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let (path, inner) = (error.path().to_string(), error.inner().to_string());
        let reason = if inner.starts_with("unknown field") {
            "this parameter is not known or not supported".to_owned()
        } else {
            inner
        };
        ApiError::client(if path == "." { reason } else { format!("{path}: {reason}") })
    })
}

/// The depth is bounded by the parser of JSON.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Which part of a list is wanted.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Page {
    next_token: Option<String>,
    max_results: Option<i64>,
}

/// Cuts a page out of items in the ascending order of their keys, and tells the token of the next one.
fn page<T>(
    items: Vec<(String, T)>,
    next_token: Option<&str>,
    max_results: Option<i64>,
) -> Result<(Vec<T>, Option<String>), ApiError> {
    const CODE: base64::engine::GeneralPurpose = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let most = match max_results {
        None => MAX_PAGE,
        Some(number) if (1..=MAX_PAGE).contains(&number) => number,
        Some(_) => return Err(ApiError::parameter(format!("maxResults must be between 1 and {MAX_PAGE}."))),
    };
    let most = usize::try_from(most).unwrap_or(1);
    let first = match next_token {
        None => 0,
        Some(token) => {
            let bad = || ApiError::parameter("Invalid token in the request: nextToken.");
            let last = CODE.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let last = last.ok_or_else(bad)?;
            match items.iter().position(|(key, _)| *key == last) {
                Some(at) => at + 1,
                // What the last page ended with is gone.
                None => items.iter().position(|(key, _)| *key > last).unwrap_or(items.len()),
            }
        }
    };
    let more = items.len() > first + most;
    let page: Vec<(String, T)> = items.into_iter().skip(first).take(most).collect();
    let token = page.last().filter(|_| more).map(|(key, _)| CODE.encode(key));
    Ok((page.into_iter().map(|(_, item)| item).collect(), token))
}

/// Adds the token of the next page to an answer.
fn with_token(mut answer: Value, token: Option<String>) -> Value {
    if let (Some(token), Value::Object(members)) = (token, &mut answer) {
        members.insert("nextToken".to_owned(), token.into());
    }
    answer
}

fn check_tags(tags: &[Tag]) -> Result<(), ApiError> {
    let is_plain = |text: &str| {
        text.chars().all(|character| character.is_alphanumeric() || " _.:/=+-@".contains(character))
    };
    let mut keys = BTreeSet::new();
    if tags.len() > MAX_TAGS {
        return Err(ApiError::parameter(format!("tags: there are more than {MAX_TAGS}")));
    }
    for (at, tag) in tags.iter().enumerate() {
        let (key, value) = (tag.key.chars().count(), tag.value.chars().count());
        if !(1..=128).contains(&key) || value > 256 || !is_plain(&tag.key) || !is_plain(&tag.value) {
            return Err(ApiError::parameter(format!("tags[{at}]: the key or the value is malformed")));
        }
        if tag.key.to_lowercase().starts_with("aws:") {
            return Err(ApiError::parameter(format!("tags[{at}]: keys that begin with aws: are reserved")));
        }
        if !keys.insert(&tag.key) {
            return Err(ApiError::parameter(format!("tags[{at}]: the key {:?} is there twice", tag.key)));
        }
    }
    Ok(())
}

/// Checks what `include` may name.
fn check_include(include: &[String], known: &[&str]) -> Result<(), ApiError> {
    match include.iter().find(|word| !known.contains(&word.as_str())) {
        Some(word) => {
            Err(ApiError::parameter(format!("include: {word:?} is not one of {}", known.join(", "))))
        }
        None => Ok(()),
    }
}

fn check_named(member: &str, names: &[String]) -> Result<(), ApiError> {
    if names.is_empty() || names.len() > MAX_NAMED {
        return Err(ApiError::parameter(format!("{member} must name 1 to {MAX_NAMED} things.")));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
