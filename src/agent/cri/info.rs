//! What the runtime is and whether it is ready.
use super::api::*;
use super::error::{Result, invalid};
use super::{Cri, sandbox_spec};
use crate::engine::seccomp::file::parse_kernel;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// More of a text is not put into a log.
const MAX_CIDR: usize = 256;

impl Cri {
    /// `Version`
    pub async fn version(self: &Arc<Self>, _: VersionRequest) -> Result<VersionResponse> {
        Ok(VersionResponse {
            // Of the kubelet's runtime API, which has been this since there is CRI.
            version: "0.1.0".to_owned(),
            runtime_name: "corten".to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime_api_version: "v1".to_owned(),
        })
    }

    /// `Status`
    pub async fn status(self: &Arc<Self>, request: StatusRequest) -> Result<StatusResponse> {
        let network = self.node.blocking(|node| Ok::<_, super::CriError>(network(node))).await?;
        let ready =
            RuntimeCondition { r#type: "RuntimeReady".to_owned(), status: true, ..Default::default() };
        let recursive = sets_attributes_recursively();
        let handler = |name: &str| RuntimeHandler {
            name: name.to_owned(),
            features: Some(RuntimeHandlerFeatures {
                recursive_read_only_mounts: recursive,
                user_namespaces: false,
            }),
        };
        let mut info = BTreeMap::new();
        if request.verbose {
            info.insert("config".to_owned(), serde_json::json!(self.node.config).to_string());
        }
        Ok(StatusResponse {
            status: Some(RuntimeStatus { conditions: vec![ready, network] }),
            info,
            runtime_handlers: sandbox_spec::HANDLERS.map(handler).into(),
            features: Some(RuntimeFeatures {
                supplemental_groups_policy: true,
                user_namespaces_host_network: false,
                mount_options: false,
            }),
        })
    }

    /// `RuntimeConfig`
    pub async fn runtime_config(self: &Arc<Self>, _: RuntimeConfigRequest) -> Result<RuntimeConfigResponse> {
        let linux = LinuxRuntimeConfiguration { cgroup_driver: CgroupDriver::Cgroupfs as i32 };
        Ok(RuntimeConfigResponse { linux: Some(linux) })
    }

    /// `UpdateRuntimeConfig`: the only thing in it is the subnet that a kubelet has for its pods, which is the
    /// business of the CNI configuration, or of `[network]`.
    pub async fn update_runtime_config(
        self: &Arc<Self>,
        request: UpdateRuntimeConfigRequest,
    ) -> Result<UpdateRuntimeConfigResponse> {
        let network = request.runtime_config.and_then(|config| config.network_config).unwrap_or_default();
        if network.pod_cidr.len() > MAX_CIDR {
            return invalid("pod_cidr", "", "it is too long");
        }
        tracing::info!(
            pod_cidr = network.pod_cidr,
            "cri: a subnet was told; the network's own setting holds"
        );
        Ok(UpdateRuntimeConfigResponse {})
    }
}

/// Whether pods can get a network.
fn network(node: &crate::agent::Node) -> RuntimeCondition {
    let condition = |status, reason: &str, message: String| RuntimeCondition {
        r#type: "NetworkReady".to_owned(),
        status,
        reason: reason.to_owned(),
        message,
    };
    match &node.config.network.cni_configuration {
        Some(folder) if !has_configuration(folder) => condition(
            false,
            "NetworkPluginNotReady",
            format!("there is no CNI configuration in {}", folder.display()),
        ),
        // The embedded bridge needs nothing.
        _ => condition(true, "", String::new()),
    }
}

fn has_configuration(folder: &Path) -> bool {
    let known = |path: &Path| {
        path.extension().is_some_and(|extension| ["conf", "conflist", "json"].iter().any(|k| extension == *k))
    };
    std::fs::read_dir(folder)
        .is_ok_and(|mut entries| entries.any(|entry| entry.is_ok_and(|entry| known(&entry.path()))))
}

/// `mount_setattr` of Linux 5.12.
fn sets_attributes_recursively() -> bool {
    nix::sys::utsname::uname()
        .ok()
        .and_then(|uname| parse_kernel(uname.release().to_str()?))
        .is_some_and(|version| version >= (5, 12))
}
