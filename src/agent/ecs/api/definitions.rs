//! Operations on task definitions.
use super::{Answer, Api, check_include, check_tags, from_value, page, view, with_token};
use crate::agent::ecs::definition::{Definition, check};
use crate::agent::ecs::error::ApiError;
use crate::agent::ecs::record::{Registered, Tag};
use crate::engine::timestamp::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Request of DescribeTaskDefinition and DeregisterTaskDefinition.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct OneDefinition {
    task_definition: String,
    #[serde(default)]
    include: Vec<String>,
}

/// Request of ListTaskDefinitions and ListTaskDefinitionFamilies.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ListDefinitions {
    family_prefix: Option<String>,
    status: Option<String>,
    sort: Option<String>,
    next_token: Option<String>,
    max_results: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct Tags {
    tags: Vec<Tag>,
}

impl Api {
    /// The request is a definition with `tags` beside its members.
    pub(super) fn register_task_definition(&self, mut request: Map<String, Value>) -> Answer {
        let tags = request.remove("tags").unwrap_or_else(|| json!([]));
        let Tags { tags } = from_value(json!({ "tags": tags }))?;
        check_tags(&tags)?;
        let definition: Definition = from_value(Value::Object(request))?;
        check(&definition)?;
        let family = definition.family.clone();
        let registered = self.state.register(&family, |revision| Registered {
            definition,
            revision,
            registered: Timestamp::now(),
            deregistered: None,
            tags,
        })?;
        let definition = view::definition(self.names(), &registered);
        Ok(json!({"taskDefinition": definition, "tags": registered.tags}))
    }

    pub(super) fn describe_task_definition(&self, request: OneDefinition) -> Answer {
        check_include(&request.include, &["TAGS"])?;
        let registered = self
            .find_definition(&request.task_definition)
            .ok_or_else(|| ApiError::client("Unable to describe task definition."))?;
        let definition = view::definition(self.names(), &registered);
        let tags = if request.include.is_empty() { json!([]) } else { json!(registered.tags) };
        Ok(json!({"taskDefinition": definition, "tags": tags}))
    }

    pub(super) fn deregister_task_definition(&self, request: OneDefinition) -> Answer {
        if !request.include.is_empty() {
            return Err(ApiError::client("include: this parameter is not known or not supported"));
        }
        let name = self.names().strip("task-definition", &request.task_definition);
        if !name.is_some_and(|name| name.contains(':')) {
            return Err(ApiError::client("Invalid revision number. Give FAMILY:REVISION."));
        }
        let registered = self
            .find_definition(&request.task_definition)
            .ok_or_else(|| ApiError::client("The specified task definition does not exist."))?;
        let mut changed = Registered::clone(&registered);
        changed.deregistered = changed.deregistered.or_else(|| Some(Timestamp::now()));
        let registered = self.state.replace_definition(changed)?;
        Ok(json!({"taskDefinition": view::definition(self.names(), &registered)}))
    }

    pub(super) fn list_task_definitions(&self, request: ListDefinitions) -> Answer {
        let inactive = match request.status.as_deref() {
            None | Some("ACTIVE") => false,
            Some("INACTIVE") => true,
            Some(word) => {
                return Err(ApiError::parameter(format!("status: {word:?} is not ACTIVE or INACTIVE")));
            }
        };
        let descending = match request.sort.as_deref() {
            None | Some("ASC") => false,
            Some("DESC") => true,
            Some(word) => return Err(ApiError::parameter(format!("sort: {word:?} is not ASC or DESC"))),
        };
        let wanted = |known: &Arc<Registered>| {
            known.deregistered.is_some() == inactive
                && request.family_prefix.as_ref().is_none_or(|family| *family == known.definition.family)
        };
        let mut all: Vec<Arc<Registered>> = self.state.definitions();
        all.retain(wanted);
        if descending {
            all.reverse();
        }
        // Keys ascend in the order that is asked for.
        let items = all.iter().enumerate().map(|(at, known)| {
            let family = &known.definition.family;
            let key =
                if descending { format!("{at:06}") } else { format!("{family}:{:010}", known.revision) };
            (key, self.names().definition(family, known.revision))
        });
        let (arns, token) = page(items.collect(), request.next_token.as_deref(), request.max_results)?;
        Ok(with_token(json!({"taskDefinitionArns": arns}), token))
    }

    pub(super) fn list_families(&self, request: ListDefinitions) -> Answer {
        if request.sort.is_some() {
            return Err(ApiError::client("sort: this parameter is not known or not supported"));
        }
        let all = self.state.definitions();
        let family = |known: &Arc<Registered>| known.definition.family.clone();
        let active: BTreeSet<String> =
            all.iter().filter(|known| known.deregistered.is_none()).map(family).collect();
        let every: BTreeSet<String> = all.iter().map(family).collect();
        let families: BTreeSet<String> = match request.status.as_deref() {
            Some("ACTIVE") => active,
            Some("INACTIVE") => every.difference(&active).cloned().collect(),
            None | Some("ALL") => every,
            Some(word) => {
                return Err(ApiError::parameter(format!("status: {word:?} is not ACTIVE, INACTIVE or ALL")));
            }
        };
        let prefix = request.family_prefix.unwrap_or_default();
        let wanted = families.into_iter().filter(|family| family.starts_with(&prefix));
        let items = wanted.map(|family| (family.clone(), family)).collect();
        let (families, token) = page(items, request.next_token.as_deref(), request.max_results)?;
        Ok(with_token(json!({"families": families}), token))
    }

    /// `FAMILY`, `FAMILY:REVISION` or an ARN.
    pub(super) fn find_definition(&self, given: &str) -> Option<Arc<Registered>> {
        let name = self.names().strip("task-definition", given)?;
        match name.split_once(':') {
            None => self.state.definition(name, None),
            Some((family, revision)) => self.state.definition(family, Some(revision.parse().ok()?)),
        }
    }
}
