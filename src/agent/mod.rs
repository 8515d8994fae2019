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
use crate::engine::Engine;
use crate::engine::task::TaskEvent;
use crate::image::store::Store;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;

pub mod config;
pub mod cri;
pub mod ecs;
pub mod error;
pub mod http;
pub mod hub;
pub mod log;
pub mod manifests;
pub mod metrics;
pub mod notify;
pub mod pull;
pub mod serve;
pub mod status;
pub mod streaming;

pub use config::Config;
pub use error::AgentError;

/// How many events a receiver may be behind before it must look at the records.
const EVENTS: usize = 1024;

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
    /// What is counted.
    pub metrics: metrics::Metrics,
    /// Images on their way.
    pub pulls: pull::Pulls,
    /// Streams of exec, attach and port-forward that clients were promised.
    pub streams: Arc<streaming::Streams>,
    /// Which tasks' events come to `events`.
    pub hub: hub::Hub,
    /// What `corten agent status` tells.
    pub status: status::Board,
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
    /// A node on the engine's files; makes the image store if there is none.
    ///
    /// # Errors
    /// The image store cannot be opened.
    pub fn new(engine: Engine, config: Config) -> Result<Arc<Self>, AgentError> {
        let store = Store::open(&engine.root)?;
        let (events, _) = broadcast::channel(EVENTS);
        let streams = streaming::Streams::new(Duration::from_secs(config.streaming.token_seconds));
        Ok(Arc::new(Self {
            engine,
            store,
            config,
            events,
            metrics: metrics::Metrics::default(),
            pulls: pull::Pulls::default(),
            streams: Arc::new(streams),
            hub: hub::Hub::default(),
            status: status::Board::default(),
        }))
    }

    /// Runs something that blocks on a thread for such work.
    ///
    /// # Errors
    /// Those of `work`.
    pub async fn blocking<T, E, F>(self: &Arc<Self>, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnOnce(&Node) -> Result<T, E> + Send + 'static,
    {
        let node = Arc::clone(self);
        match tokio::task::spawn_blocking(move || work(&node)).await {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}
