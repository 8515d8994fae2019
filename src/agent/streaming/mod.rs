//! Streams of exec, attach and port-forward: SPDY/3.1 and WebSocket.

use super::serve::{Open, Stop};
use super::{AgentError, Node};
use std::sync::Arc;

/// Opens this door.
///
/// # Errors
/// It cannot listen.
pub async fn open(_node: &Arc<Node>, _stop: Stop) -> Result<Open, AgentError> {
    Err(AgentError::NotBuilt { door: "streaming" })
}
