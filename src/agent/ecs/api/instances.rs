//! Operations on container instances: this machine, which is one of every cluster.
use super::{Answer, Api, check_include, check_named, page, view, with_token};
use crate::agent::ecs::error::ApiError;
use serde::Deserialize;
use serde_json::json;

/// Request of DescribeContainerInstances.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DescribeInstances {
    cluster: Option<String>,
    container_instances: Vec<String>,
    #[serde(default)]
    include: Vec<String>,
}

/// Request of ListContainerInstances.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ListInstances {
    cluster: Option<String>,
    status: Option<String>,
    next_token: Option<String>,
    max_results: Option<i64>,
}

impl Api {
    pub(super) fn describe_instances(&self, request: DescribeInstances) -> Answer {
        let cluster = self.cluster(request.cluster.as_deref())?;
        check_named("containerInstances", &request.container_instances)?;
        check_include(&request.include, &["TAGS", "CONTAINER_INSTANCE_HEALTH"])?;
        let (mut found, mut failures) = (Vec::new(), Vec::new());
        for given in &request.container_instances {
            if self.is_instance(&cluster.name, given) {
                found.push(view::instance(&self.state, &cluster));
            } else {
                failures.push(view::missing(given, |id| self.names().instance(&cluster.name, id)));
            }
        }
        Ok(json!({"containerInstances": found, "failures": failures}))
    }

    pub(super) fn list_instances(&self, request: ListInstances) -> Answer {
        const KNOWN: [&str; 5] =
            ["ACTIVE", "DRAINING", "REGISTERING", "DEREGISTERING", "REGISTRATION_FAILED"];
        let cluster = self.cluster(request.cluster.as_deref())?;
        let mut all = Vec::new();
        match request.status.as_deref() {
            None | Some("ACTIVE") => {
                let arn = self.names().instance(&cluster.name, &self.state.instance.id);
                all.push((self.state.instance.id.clone(), arn));
            }
            Some(word) if KNOWN.contains(&word) => {}
            Some(word) => {
                return Err(ApiError::parameter(format!(
                    "status: {word:?} is not one of {}",
                    KNOWN.join(", ")
                )));
            }
        }
        let (arns, token) = page(all, request.next_token.as_deref(), request.max_results)?;
        Ok(with_token(json!({"containerInstanceArns": arns}), token))
    }

    /// Whether an id or ARN is this machine's in that cluster.
    pub(super) fn is_instance(&self, cluster: &str, given: &str) -> bool {
        self.names()
            .strip_id("container-instance", given)
            .is_some_and(|(of, id)| id == self.state.instance.id && of.is_none_or(|of| of == cluster))
    }
}
