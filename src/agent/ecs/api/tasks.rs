//! StopTask, DescribeTasks, ListTasks.
use super::{Answer, Api, check_include, check_named, page, view, with_token};
use crate::agent::ecs::error::ApiError;
use crate::agent::ecs::record::{Cluster, StopCode, Task};
use crate::agent::ecs::state::is_task_id;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

/// Most characters of a reason, as ECS.
const MAX_REASON: usize = 1024;

/// Request of StopTask.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct StopTask {
    cluster: Option<String>,
    task: String,
    reason: Option<String>,
}

/// Request of DescribeTasks.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DescribeTasks {
    cluster: Option<String>,
    #[serde(default)]
    tasks: Vec<String>,
    #[serde(default)]
    include: Vec<String>,
}

/// Request of ListTasks.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ListTasks {
    cluster: Option<String>,
    container_instance: Option<String>,
    family: Option<String>,
    started_by: Option<String>,
    desired_status: Option<String>,
    launch_type: Option<String>,
    next_token: Option<String>,
    max_results: Option<i64>,
}

impl Api {
    /// The task is told to stop; a stopped one is answered as it is.
    pub(super) fn stop_task(&self, request: StopTask) -> Answer {
        let cluster = self.cluster(request.cluster.as_deref())?;
        let reason = request.reason.filter(|reason| !reason.is_empty());
        if reason.as_ref().is_some_and(|reason| reason.chars().count() > MAX_REASON) {
            return Err(ApiError::parameter(format!("reason must have at most {MAX_REASON} characters.")));
        }
        let task = self
            .find_task(&cluster, &request.task)?
            .ok_or_else(|| ApiError::parameter("The referenced task was not found."))?;
        let reason = reason.unwrap_or_else(|| "Task stopped by user".to_owned());
        let changed = self.state.update(&task.id, |task| task.stop(StopCode::UserInitiated, reason));
        self.runner.wake(&task.id);
        Ok(json!({"task": view::task(&self.state, changed.as_deref().unwrap_or(&task), false)}))
    }

    pub(super) fn describe_tasks(&self, request: DescribeTasks) -> Answer {
        let cluster = self.cluster(request.cluster.as_deref())?;
        check_include(&request.include, &["TAGS"])?;
        check_named("tasks", &request.tasks)?;
        let tags = !request.include.is_empty();
        let (mut tasks, mut failures) = (Vec::new(), Vec::new());
        for given in &request.tasks {
            match self.find_task(&cluster, given)? {
                Some(task) => tasks.push(view::task(&self.state, &task, tags)),
                None => failures.push(view::missing(given, |id| self.names().task(&cluster.name, id))),
            }
        }
        Ok(json!({"tasks": tasks, "failures": failures}))
    }

    pub(super) fn list_tasks(&self, request: ListTasks) -> Answer {
        let cluster = self.cluster(request.cluster.as_deref())?;
        let desired = match request.desired_status.as_deref() {
            None => "RUNNING",
            Some(word @ ("RUNNING" | "PENDING" | "STOPPED")) => word,
            Some(word) => {
                let reason = format!("desiredStatus: {word:?} is not RUNNING, PENDING or STOPPED");
                return Err(ApiError::parameter(reason));
            }
        };
        if let Some(word) = request.launch_type.as_deref()
            && !["EC2", "FARGATE", "EXTERNAL"].contains(&word)
        {
            return Err(ApiError::parameter(format!("launchType: {word:?} is not EC2, FARGATE or EXTERNAL")));
        }
        if let Some(given) = request.container_instance.as_deref()
            && !self.is_instance(&cluster.name, given)
        {
            return Err(ApiError::parameter("The specified container instance does not exist."));
        }
        let same =
            |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
        let wanted = |task: &Arc<Task>| {
            task.cluster == cluster.name
                // As ECS: no task is ever wanted PENDING.
                && task.desired() == desired
                && same(&request.family, &task.definition.family)
                && same(&request.launch_type, &task.launch_type)
                && same(&request.started_by, task.started_by.as_deref().unwrap_or_default())
        };
        let all = self.state.tasks();
        let arn = |task: &Arc<Task>| (task.id.clone(), self.names().task(&task.cluster, &task.id));
        let items = all.iter().filter(|task| wanted(task)).map(arn).collect();
        let (arns, token) = page(items, request.next_token.as_deref(), request.max_results)?;
        Ok(with_token(json!({"taskArns": arns}), token))
    }

    /// The task of a cluster that an id or an ARN names.
    fn find_task(&self, cluster: &Cluster, given: &str) -> Result<Option<Arc<Task>>, ApiError> {
        let invalid = || {
            let text: String = given.chars().take(128).collect();
            ApiError::parameter(format!("Invalid identifier: {text}"))
        };
        let (of, id) = self.names().strip_id("task", given).ok_or_else(invalid)?;
        if !is_task_id(id) {
            return Err(invalid());
        }
        if of.is_some_and(|of| of != cluster.name) {
            return Err(ApiError::parameter("The identifier names another cluster than the request."));
        }
        Ok(self.state.task(id).filter(|task| task.cluster == cluster.name))
    }
}
