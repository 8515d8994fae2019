//! `corten agent status`: what the running agent says of itself, over a socket that only root may open.
//!
//! Whoever connects gets one JSON object and the end of the stream.
use super::log::{self, Failure};
use super::metrics::Process;
use super::serve::{Open, Stop};
use super::{AgentError, Node};
use crate::engine::task::{Door, TaskStatus};
use crate::engine::timestamp::Timestamp;
use crate::engine::{Engine, EngineError};
use crate::error::chain;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;

/// Name of the socket in the engine's state directory.
const SOCKET: &str = "agent.sock";
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer that is read, in bytes.
const ANSWER_MAX: u64 = 16 << 20;

/// What the agent says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// Of the program.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Since when.
    pub started: Timestamp,
    /// Seconds since then.
    pub uptime_seconds: u64,
    /// Where images and containers are.
    pub root: PathBuf,
    /// Where running containers are kept track of.
    pub state: PathBuf,
    /// Open doors.
    pub doors: Vec<DoorReport>,
    /// Number of tasks: door, then state.
    pub tasks: BTreeMap<String, BTreeMap<String, usize>>,
    /// Number of containers by state.
    pub containers: BTreeMap<String, usize>,
    /// Monitors of tasks that are alive.
    pub monitors: usize,
    /// Tasks whose events are followed.
    pub watched: usize,
    /// Bytes that the agent itself has in memory.
    pub resident_bytes: u64,
    /// Its open descriptors.
    pub descriptors: usize,
    /// Files of the folder of static pods.
    pub manifests: Vec<ManifestReport>,
    /// What was logged as a warning or an error last.
    pub failures: Vec<Failure>,
}

/// An open door.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoorReport {
    /// Its name.
    pub name: String,
    /// Socket, folder, or address and port.
    pub address: String,
}

/// A file of the folder of static pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestReport {
    /// Its name.
    pub file: String,
    /// `namespace/name` of its pod, if it could be read.
    pub pod: Option<String>,
    /// Id of the task that it runs as.
    pub task: Option<String>,
    /// `running`, `failed`, `refused`, ….
    pub state: String,
    /// Why it does not run.
    pub error: Option<String>,
}

/// What changes rarely and is told on request.
#[derive(Debug)]
pub struct Board {
    started: Timestamp,
    doors: Mutex<Vec<DoorReport>>,
    manifests: Mutex<BTreeMap<String, ManifestReport>>,
}

impl Default for Board {
    fn default() -> Self {
        Self { started: Timestamp::now(), doors: Mutex::default(), manifests: Mutex::default() }
    }
}

impl Board {
    /// Notes an open door.
    pub fn opened(&self, name: &str, address: &str) {
        let door = DoorReport { name: name.to_owned(), address: address.to_owned() };
        self.doors.lock().unwrap_or_else(PoisonError::into_inner).push(door);
    }

    /// Notes what is known of a static pod, by the name of its task, or of a file that is none, by its name.
    pub fn manifest(&self, key: &str, report: ManifestReport) {
        let mut all = self.manifests.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(key.to_owned(), report);
    }

    /// Forgets what is gone.
    pub fn forget_manifest(&self, key: &str) {
        self.manifests.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

/// How many tasks and containers there are; states are words of ours.
#[derive(Debug, Default)]
pub struct Census {
    /// By door and state.
    pub tasks: BTreeMap<(&'static str, &'static str), usize>,
    /// By state.
    pub containers: BTreeMap<&'static str, usize>,
    /// Monitors that are alive.
    pub monitors: usize,
}

impl Node {
    /// Counts tasks and containers.
    ///
    /// # Errors
    /// The records cannot be read.
    pub fn census(&self) -> Result<Census, EngineError> {
        let mut census = Census::default();
        for task in self.engine.tasks()? {
            let door = match task.spec.door {
                Door::Cri => "cri",
                Door::Ecs => "ecs",
                Door::Manifest => "manifest",
            };
            let Some(id) = crate::engine::names::Id::parse(&task.id) else { continue };
            let state = match self.engine.task_status(&id) {
                Ok(TaskStatus::Making) => "making",
                Ok(TaskStatus::Ready(run)) => {
                    census.monitors += usize::from(run.monitor.is_alive().unwrap_or(true));
                    "ready"
                }
                Ok(TaskStatus::Stopped { .. }) => "stopped",
                // It may have been removed since.
                Err(_) => continue,
            };
            *census.tasks.entry((door, state)).or_default() += 1;
        }
        for id in self.engine.ids()? {
            if let Ok(status) = self.engine.status(&id) {
                *census.containers.entry(status.word()).or_default() += 1;
            }
        }
        Ok(census)
    }

    fn report(&self) -> Report {
        let census = self.census().unwrap_or_else(|error| {
            tracing::warn!("cannot count tasks: {}", chain(&error));
            Census::default()
        });
        let mut tasks: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
        for ((door, state), count) in census.tasks {
            tasks.entry(door.to_owned()).or_default().insert(state.to_owned(), count);
        }
        let process = Process::now();
        let doors = self.status.doors.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let manifests = self.status.manifests.lock().unwrap_or_else(PoisonError::into_inner);
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: self.status.started,
            uptime_seconds: Timestamp::now().since(self.status.started).as_secs(),
            root: self.engine.root.clone(),
            state: self.engine.state.clone(),
            doors,
            tasks,
            containers: census
                .containers
                .into_iter()
                .map(|(state, count)| (state.to_owned(), count))
                .collect(),
            monitors: census.monitors,
            watched: self.hub.count(),
            resident_bytes: process.resident,
            descriptors: process.descriptors,
            manifests: manifests.values().cloned().collect(),
            failures: log::recent(),
        }
    }
}

/// Opens the socket that `corten agent status` asks; one that a killed agent left is replaced.
///
/// # Errors
/// It cannot be made.
pub fn open(node: &Arc<Node>, mut stop: Stop) -> Result<Open, AgentError> {
    let path = node.engine.state.join(SOCKET);
    let listener = listen_unix("status", &path)?;
    let node = Arc::clone(node);
    let address = path.display().to_string();
    let serving = Box::pin(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.asked() => break,
            };
            let mut stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    super::http::not_accepted(&error).await;
                    continue;
                }
            };
            let answer = async {
                let report = node.blocking(|node| Ok::<_, AgentError>(node.report())).await?;
                let text = serde_json::to_vec(&report).unwrap_or_default();
                // Who asked may have gone.
                let _ = stream.write_all(&text).await;
                Ok::<_, AgentError>(())
            };
            // One after the other: who asks is root.
            let _ = tokio::time::timeout(PATIENCE, answer).await;
        }
        // The lock still says that no other agent has made its own here.
        let _ = std::fs::remove_file(&path);
        Ok(())
    });
    Ok(Open { name: "status", address, serving })
}

/// Listens on a unix socket of mode 0600 in place of whatever socket is there: the agent's lock tells that nobody
/// uses it any more.
///
/// # Errors
/// The path is no socket's, or cannot be had.
pub fn listen_unix(door: &'static str, path: &Path) -> Result<UnixListener, AgentError> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    let failed = |source| AgentError::Listen { door, address: path.display().to_string(), source };
    match std::fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => std::fs::remove_file(path).map_err(failed)?,
        Ok(_) => return Err(failed(std::io::Error::from(std::io::ErrorKind::AlreadyExists))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    // Bound beside its place: between bind(2) and chmod(2) anybody could connect.
    let beside = path.with_extension("new");
    let _ = std::fs::remove_file(&beside);
    let listener = UnixListener::bind(&beside).map_err(failed)?;
    #[allow(clippy::disallowed_methods)]
    // A socket has no descriptor of its inode, and the directory is ours.
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    std::fs::rename(&beside, path).map_err(failed)?;
    Ok(listener)
}

/// Asks the agent of an engine; `None` if none answers.
///
/// # Errors
/// What answers is no agent, or it does not answer in time.
pub fn ask(engine: &Engine) -> std::io::Result<Option<Report>> {
    let stream = match UnixStream::connect(engine.state.join(SOCKET)) {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut text)?;
    Ok(Some(serde_json::from_slice(&text)?))
}
