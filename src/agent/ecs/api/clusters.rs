//! Operations on clusters.
use super::{Answer, Api, Page, check_include, check_tags, page, view, with_token};
use crate::agent::ecs::definition::{Refused, check};
use crate::agent::ecs::error::ApiError;
use crate::agent::ecs::record::{Cluster, Tag};
use serde::Deserialize;
use serde_json::json;

/// Request of CreateCluster.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CreateCluster {
    cluster_name: Option<String>,
    #[serde(default)]
    tags: Vec<Tag>,
    #[serde(default, rename = "settings")]
    _settings: Vec<Refused>,
    #[serde(default, rename = "capacityProviders")]
    _capacity_providers: Vec<Refused>,
    #[serde(default, rename = "defaultCapacityProviderStrategy")]
    _strategy: Vec<Refused>,
}

/// Request of DescribeClusters.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DescribeClusters {
    #[serde(default)]
    clusters: Vec<String>,
    #[serde(default)]
    include: Vec<String>,
}

impl Api {
    /// Creating one that is there answers with it, as ECS.
    pub(super) fn create_cluster(&self, request: CreateCluster) -> Answer {
        check_tags(&request.tags)?;
        let name = request.cluster_name.unwrap_or_else(|| self.node.config.ecs.cluster.clone());
        check::name("clusterName", &name).map_err(|wrong| ApiError::parameter(wrong.to_string()))?;
        if self.state.cluster(&name).is_none() {
            self.state.put_cluster(Cluster { name: name.clone(), tags: request.tags })?;
        }
        let cluster = self.cluster(Some(&name))?;
        Ok(json!({"cluster": view::cluster(&self.state, &cluster, true)}))
    }

    pub(super) fn describe_clusters(&self, request: DescribeClusters) -> Answer {
        check_include(
            &request.include,
            &["ATTACHMENTS", "CONFIGURATIONS", "SETTINGS", "STATISTICS", "TAGS"],
        )?;
        if request.clusters.len() > super::MAX_NAMED {
            return Err(ApiError::parameter("Clusters cannot have more than 100 elements."));
        }
        let tags = request.include.iter().any(|word| word == "TAGS");
        let (mut clusters, mut failures) = (Vec::new(), Vec::new());
        let default = vec![self.node.config.ecs.cluster.clone()];
        for given in if request.clusters.is_empty() { &default } else { &request.clusters } {
            match self.cluster(Some(given)) {
                Ok(cluster) => clusters.push(view::cluster(&self.state, &cluster, tags)),
                Err(_) => failures.push(view::missing(given, |name| self.names().cluster(name))),
            }
        }
        Ok(json!({"clusters": clusters, "failures": failures}))
    }

    pub(super) fn list_clusters(&self, request: Page) -> Answer {
        let all = self.state.clusters().into_iter().map(|cluster| {
            let arn = self.names().cluster(&cluster.name);
            (cluster.name, arn)
        });
        let (arns, token) = page(all.collect(), request.next_token.as_deref(), request.max_results)?;
        Ok(with_token(json!({"clusterArns": arns}), token))
    }
}
