//! The node agent: one machine as a node, whose tasks come through three doors.
//!
//! ```text
//! crictl, kubelet  --unix socket, gRPC-->  cri        \
//! aws CLI, boto3   --HTTP, JSON 1.1---->   ecs         > engine::task -- one monitor for each task
//! a folder of Pod YAMLs -- inotify ---->   manifests  /
//! ```
//! The agent holds nothing that is not on disk or with a monitor: it can be killed at any moment. It is the only
//! part of corten that is asynchronous and multi-threaded; whatever blocks runs on a thread of its own
//! ([`Node::blocking`]), and whatever must fork is done by the task's monitor.
use crate::engine::task::TaskEvent;
use crate::engine::{Engine, EngineError};
use crate::image::store::Store;
use std::sync::Arc;
use tokio::sync::broadcast;

pub mod config;
pub mod cri;
pub mod ecs;
pub mod error;
pub mod manifests;
pub mod streaming;

pub use config::Config;
pub use error::AgentError;

/// What the doors share.
#[derive(Debug)]
pub struct Node {
    /// Tasks and containers.
    pub engine: Engine,
    /// Images.
    pub store: Store,
    /// The configuration.
    pub config: Config,
    /// What happens in all tasks; a receiver that falls behind looks at the records.
    pub events: broadcast::Sender<NodeEvent>,
}

/// Something that happened in a task.
#[derive(Debug, Clone)]
pub struct NodeEvent {
    /// Id of the task.
    pub task: String,
    /// What.
    pub event: TaskEvent,
}

impl Node {
    /// Runs something that blocks on a thread for such work.
    ///
    /// # Errors
    /// Those of `work`.
    pub async fn blocking<T, F>(self: &Arc<Self>, work: F) -> Result<T, EngineError>
    where
        T: Send + 'static,
        F: FnOnce(&Node) -> Result<T, EngineError> + Send + 'static,
    {
        let node = Arc::clone(self);
        match tokio::task::spawn_blocking(move || work(&node)).await {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}
