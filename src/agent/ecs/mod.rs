//! The ECS task API.

use super::serve::{Open, Stop};
use super::{AgentError, Node};
use std::sync::Arc;

/// Opens this door.
///
/// # Errors
/// It cannot listen.
pub async fn open(_node: &Arc<Node>, _stop: Stop) -> Result<Open, AgentError> {
    Err(AgentError::NotBuilt { door: "ecs" })
}
