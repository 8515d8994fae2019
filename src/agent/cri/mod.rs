//! Kubernetes' container runtime interface, v1.

/// Bindings of `api.proto`.
#[allow(missing_debug_implementations, clippy::all, clippy::pedantic, clippy::unwrap_used)]
pub mod api {
    tonic::include_proto!("runtime.v1");
}

use super::serve::{Open, Stop};
use super::{AgentError, Node};
use std::sync::Arc;

/// Opens this door.
///
/// # Errors
/// It cannot listen.
pub async fn open(_node: &Arc<Node>, _stop: Stop) -> Result<Open, AgentError> {
    Err(AgentError::NotBuilt { door: "cri" })
}
