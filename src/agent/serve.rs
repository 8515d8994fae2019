//! The agent's life: one on each root, its doors, its end.
//!
//! ```text
//! lock --> doors open (each listens) --> READY=1 --> serving --SIGTERM, SIGINT--> doors end --> done
//! ```
//! Tasks go on whenever and however the agent ends.
use super::{AgentError, Config, Node, cri, ecs, manifests, metrics, notify, status, streaming};
use crate::engine::Engine;
use crate::engine::record::private_directory;
use crate::error::chain;
use crate::sys::{SysError, lock};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The machine does the work, not the agent: two threads keep its doors.
const WORKERS: usize = 2;
/// Calls that block at the same time; more wait.
const BLOCKING: usize = 64;
/// After this long without work, a thread for blocking calls ends.
const IDLE: Duration = Duration::from_secs(5);
/// How long doors may take to answer what they have begun.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// A door that listens already.
pub struct Open {
    /// Its name in logs and in `corten agent status`.
    pub name: &'static str,
    /// Path of its socket, its folder, or its address and port.
    pub address: String,
    /// Serves until [`Stop`] says otherwise.
    pub serving: Serving,
}

/// The future of an [`Open`] door.
pub type Serving = Pin<Box<dyn Future<Output = Result<(), AgentError>> + Send>>;

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Open")
            .field("name", &self.name)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// Tells a door when to end.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Returns when the agent is to end; also when whoever would say so is gone.
    pub async fn asked(&mut self) {
        // An error says that the sender is gone.
        let _ = self.0.wait_for(|stopped| *stopped).await;
    }
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// Another agent has the same root, a door cannot be opened, or one ended by itself.
pub fn run(engine: Engine, config: Config) -> Result<(), AgentError> {
    let _lock = take_lock(&engine)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING)
        .thread_keep_alive(IDLE)
        .thread_name("agent")
        .enable_all()
        .build()
        .map_err(AgentError::Runtime)?;
    let result = runtime.block_on(serve(engine, config));
    // What still blocks belongs to clients that have gone.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// The lock is let go by the kernel however the agent ends.
fn take_lock(engine: &Engine) -> Result<File, AgentError> {
    let directory = engine.root.join("agent");
    private_directory(&directory)?;
    private_directory(&engine.state)?;
    let path = directory.join("lock");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(SysError::io("open", path.display().to_string()))?;
    if lock::try_exclusive(&file)? { Ok(file) } else { Err(AgentError::Busy { root: engine.root.clone() }) }
}

async fn serve(engine: Engine, config: Config) -> Result<(), AgentError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(AgentError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(AgentError::Runtime)?;
    let node = Node::new(engine, config)?;
    if let Err(error) = node.blocking(|node| node.engine.recover_tasks()).await {
        // One task that cannot be cleaned up is no reason to serve none.
        tracing::warn!("cannot recover tasks: {}", chain(&error));
    }
    // Before a door opens: who comes through it finds every event.
    node.watch_all().await?;
    let (tell, stop) = watch::channel(false);
    let mut doors = JoinSet::new();
    for door in open(&node, &Stop(stop)).await? {
        tracing::info!(door = door.name, address = door.address, "open");
        node.status.opened(door.name, &door.address);
        doors.spawn(async move { (door.name, door.serving.await) });
    }
    tell_supervisor("READY=1");
    let result = tokio::select! {
        _ = terminate.recv() => { tracing::info!("SIGTERM: the doors close, tasks go on"); Ok(()) }
        _ = interrupt.recv() => { tracing::info!("SIGINT: the doors close, tasks go on"); Ok(()) }
        Some(ended) = doors.join_next() => Err(why(ended)),
    };
    tell_supervisor("STOPPING=1");
    // Nobody listens if all doors have ended.
    let _ = tell.send(true);
    let last = async {
        while let Some(ended) = doors.join_next().await {
            if let Ok((door, Err(error))) = ended {
                tracing::warn!(door, "{}", chain(&error));
            }
        }
    };
    if tokio::time::timeout(LAST_ANSWERS, last).await.is_err() {
        tracing::warn!("a door did not end within {} s", LAST_ANSWERS.as_secs());
    }
    result
}

/// A supervisor that cannot be told waits in vain, which is for it to say.
fn tell_supervisor(message: &str) {
    if let Err(error) = notify::notify(message) {
        tracing::warn!("cannot send {message} to $NOTIFY_SOCKET: {error}");
    }
}

fn why(ended: Result<(&'static str, Result<(), AgentError>), tokio::task::JoinError>) -> AgentError {
    match ended {
        Ok((_, Err(error))) => error,
        Ok((door, Ok(()))) => AgentError::Closed { door },
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Opens every door that the configuration wants.
async fn open(node: &Arc<Node>, stop: &Stop) -> Result<Vec<Open>, AgentError> {
    let mut doors = vec![status::open(node, stop.clone())?];
    if let Some(address) = &node.config.metrics.listen {
        doors.push(metrics::open(node, address, stop.clone()).await?);
    }
    if node.config.cri.enabled {
        doors.push(streaming::open(node, stop.clone()).await?);
        doors.push(cri::open(node, stop.clone()).await?);
    }
    if node.config.ecs.enabled {
        doors.extend(ecs::open(node, stop.clone()).await?);
    }
    if node.config.manifests.folder.is_some() {
        doors.push(manifests::open(node, stop.clone()).await?);
    }
    Ok(doors)
}
