//! Keeps one pod as its file says.
//!
//! ```text
//! (nothing) --pull, volumes, run_task--> task --init containers, one by one--> --containers--> running
//!     ^                                   |                                                     |
//!     |<-- other content, monitor gone ---+-----------------------------------------------------+--> completed
//! ```
//! There is no state but what the engine's records say: each step looks at them and does the next thing, so that an
//! agent that was killed between two steps goes on where it was.
use super::error::ManifestError;
use super::parse::{Parsed, reference};
use super::plan::{self, Machine, Origin, PodDirectory, Role};
use super::pod::{Container, Pod, PullPolicy, RestartPolicy};
use crate::agent::status::ManifestReport;
use crate::agent::{Node, NodeEvent};
use crate::engine::EngineError;
use crate::engine::names::Id;
use crate::engine::record::{Record, Status};
use crate::engine::task::{TaskRecord, TaskRun, TaskStatus};
use crate::error::{ErrorKind, Kind, chain};
use crate::image::store::Image;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::sync::watch;

/// After the first failure, and at most; each further one doubles it.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(120));
/// Between looks at something of which no event tells.
const PAUSE: Duration = Duration::from_millis(500);

/// What a pod is to be.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// As this file says.
    Pod(Arc<Parsed>, Arc<str>),
    /// Not there.
    Gone,
}

/// What there is to do after a step.
enum Step {
    /// The next one.
    Again,
    /// Nothing until something happens.
    Wait,
    /// Nothing for a while.
    Pause,
}

/// Keeps one pod.
#[derive(Debug)]
pub struct Keeper {
    /// Where it runs.
    pub node: Arc<Node>,
    /// What it is told of that.
    pub machine: Arc<Machine>,
    /// Name of the pod's task.
    pub name: String,
    /// What is wanted of it.
    pub wanted: watch::Receiver<Wanted>,
    /// Says that nothing is left of a pod that is to be gone.
    pub idle: Arc<AtomicBool>,
    /// Of the file that the pod was last of.
    pub file: Arc<str>,
    /// Id of the task, once there is one.
    pub task: Option<String>,
}

impl Keeper {
    /// Keeps the pod until nobody wants anything of it any more.
    pub async fn run(mut self) {
        let mut events = self.node.events.subscribe();
        let mut failures = 0;
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            self.idle.store(false, Ordering::Release);
            let result = match &wanted {
                Wanted::Pod(parsed, file) => {
                    self.file = Arc::clone(file);
                    self.advance(parsed).await
                }
                Wanted::Gone => self.remove("stopping").await.map(|()| {
                    self.node.status.forget_manifest(&self.name);
                    self.idle.store(true, Ordering::Release);
                    Step::Wait
                }),
            };
            let pause = match result {
                Ok(Step::Again) => continue,
                Ok(Step::Wait) => {
                    failures = 0;
                    None
                }
                Ok(Step::Pause) => Some(PAUSE),
                Err(error) => {
                    let pause = BACK_OFF.0.saturating_mul(1 << failures.min(16)).min(BACK_OFF.1);
                    failures += 1;
                    tracing::warn!(file = &*self.file, "pod {}: {}", self.name, chain(&error));
                    self.report("failing", Some(chain(&error)));
                    Some(pause)
                }
            };
            let pause = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.wanted.changed() => match changed {
                    Ok(()) => failures = 0,
                    Err(_) => return,
                },
                () = of_task(&mut events, self.task.as_deref()) => {}
                () = pause => {}
            }
        }
    }

    fn report(&self, state: &str, error: Option<String>) {
        let pod = self.name.strip_prefix("static_").map(|name| name.replacen('_', "/", 1));
        self.node.status.manifest(
            &self.name,
            ManifestReport {
                file: self.file.to_string(),
                pod,
                task: self.task.clone(),
                state: state.to_owned(),
                error,
            },
        );
    }

    fn directory(&self) -> PodDirectory {
        PodDirectory(self.node.engine.root.join("agent/pods").join(&self.name))
    }

    async fn find(&self) -> Result<Option<TaskRecord>, EngineError> {
        let name = self.name.clone();
        match self.node.blocking(move |node| node.engine.find_task(&name)).await {
            Ok(task) => Ok(Some(task)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Does the next thing for a pod that is wanted.
    async fn advance(&mut self, parsed: &Arc<Parsed>) -> Result<Step, ManifestError> {
        let Some(task) = self.find().await? else { return self.make(parsed).await };
        self.task = Some(task.id.clone());
        let id = task.id()?;
        let origin: Option<Origin> = serde_json::from_value(task.spec.data.clone()).ok();
        if origin.is_none_or(|origin| origin.hash != parsed.hash) {
            self.remove("replacing").await?;
            return Ok(Step::Again);
        }
        // Of an agent before us; one that is watched already stays so.
        self.node.watch(&task.id).await;
        let looked = id.clone();
        let status = self.node.blocking(move |node| node.engine.task_status(&looked)).await?;
        match status {
            TaskStatus::Making => Ok(Step::Pause),
            TaskStatus::Ready(run) => self.progress(parsed, &id, &run).await,
            TaskStatus::Stopped { .. } => {
                let containers = self.containers(&id).await?;
                if let Some(state) = ended(&parsed.pod, &containers) {
                    self.report(state, None);
                    return Ok(Step::Wait);
                }
                self.remove("restarting").await?;
                // A failure: what ends at once again and again is not made at once again and again.
                Err(EngineError::MonitorLost { id: task.id }.into())
            }
        }
    }

    /// Pulls the images, makes the volumes and the task.
    async fn make(&mut self, parsed: &Arc<Parsed>) -> Result<Step, ManifestError> {
        self.task = None;
        self.report("pulling", None);
        let pod = &parsed.pod;
        let mut wanted = self.wanted.clone();
        let pulls = async {
            for (_, container) in plan::sequence(pod) {
                self.pull(container).await?;
            }
            Ok::<_, ManifestError>(())
        };
        tokio::select! {
            pulled = pulls => pulled?,
            // The pull goes on for whoever else waits for it.
            _ = wanted.changed() => return Ok(Step::Again),
        }
        self.report("starting", None);
        let origin = Origin { file: self.file.to_string(), hash: parsed.hash.clone() };
        let spec = plan::task(pod, &origin, &self.machine, &self.node.config.network)?;
        let (parsed, directory) = (Arc::clone(parsed), self.directory());
        let began = Instant::now();
        let task = self
            .node
            .blocking(move |node| {
                // Of a pod before this one.
                directory.remove().map_err(EngineError::from)?;
                directory.prepare(&parsed.pod)?;
                Ok::<_, ManifestError>(node.engine.run_task(spec)?)
            })
            .await?;
        self.node.metrics.phase("task", began.elapsed());
        self.node.watch(&task.id).await;
        self.task = Some(task.id);
        Ok(Step::Again)
    }

    async fn pull(&self, container: &Container) -> Result<(), ManifestError> {
        let name = reference(container, &container.name)?;
        let failed = |source| ManifestError::Pull { image: container.image.clone(), source };
        match plan::pull_policy(container) {
            PullPolicy::Always => self.node.pull(&name, None).await.map_err(failed).map(drop),
            PullPolicy::IfNotPresent => self.node.pull_missing(&name).await.map_err(failed).map(drop),
            PullPolicy::Never => {
                let present = self.node.blocking(move |node| node.store.resolve(&name.to_string())).await;
                present.map(drop).map_err(|_| ManifestError::Absent { image: container.image.clone() })
            }
        }
    }

    /// Goes on with the first container that is not where it is to be.
    async fn progress(
        &mut self,
        parsed: &Arc<Parsed>,
        id: &Id,
        run: &TaskRun,
    ) -> Result<Step, ManifestError> {
        let pod = &parsed.pod;
        let containers = self.containers(id).await?;
        if let Some(state) = ended(pod, &containers) {
            let id = id.clone();
            self.node.blocking(move |node| node.engine.stop_task(&id, None)).await?;
            self.report(state, None);
            return Ok(Step::Wait);
        }
        let address =
            run.attachment.as_ref().and_then(|network| network.addresses.first()).map(|first| first.ip);
        for (role, container) in plan::sequence(pod) {
            let status = containers.get(&container.name);
            match (status, role) {
                (None, _) => {
                    self.report("starting", None);
                    let record = self.create(parsed, id, role, container, address).await?;
                    self.start(record).await?;
                    return Ok(Step::Again);
                }
                (Some((record, Status::Created(_))), _) => {
                    self.start(record.clone()).await?;
                    return Ok(Step::Again);
                }
                (Some((_, Status::Starting)), _) => return Ok(Step::Pause),
                (Some((_, Status::Exited(end))), Role::Init) if end.code == 0 => {}
                // An event tells when it ends, or is started again by the monitor.
                (Some(_), Role::Init) => {
                    self.report(
                        "starting",
                        Some(format!("init container {} has not succeeded", container.name)),
                    );
                    return Ok(Step::Wait);
                }
                (Some(_), Role::Sidecar | Role::Main) => {}
            }
        }
        self.report("running", down(&containers));
        Ok(Step::Wait)
    }

    async fn create(
        &self,
        parsed: &Arc<Parsed>,
        task: &Id,
        role: Role,
        container: &Container,
        address: Option<IpAddr>,
    ) -> Result<Record, ManifestError> {
        let name = reference(container, &container.name)?;
        let image = match plan::pull_policy(container) {
            PullPolicy::Never => {
                let present = self.node.blocking(move |node| node.store.resolve(&name.to_string())).await;
                Arc::new(present.map_err(|_| ManifestError::Absent { image: container.image.clone() })?)
            }
            // What is to be pulled always was pulled before the task was made.
            _ => self
                .node
                .pull_missing(&name)
                .await
                .map_err(|source| ManifestError::Pull { image: container.image.clone(), source })?,
        };
        refuse_root(&parsed.pod, container, &image)?;
        let request = plan::request(&parsed.pod, role, container, &self.machine, &self.directory(), address);
        let task = task.clone();
        let began = Instant::now();
        let record = self
            .node
            .blocking(move |node| node.engine.create_in_task(&node.store, &task, &image, request))
            .await?;
        self.node.metrics.phase("create", began.elapsed());
        Ok(record)
    }

    async fn start(&self, record: Record) -> Result<(), ManifestError> {
        let began = Instant::now();
        self.node.blocking(move |node| node.engine.start_in_task(&record)).await?;
        self.node.metrics.phase("start", began.elapsed());
        Ok(())
    }

    /// The containers of the pod that there are, by their names in it.
    async fn containers(&self, task: &Id) -> Result<HashMap<String, (Record, Status)>, EngineError> {
        let task = task.clone();
        self.node
            .blocking(move |node| {
                let mut all = HashMap::new();
                for record in node.engine.task_containers(&task)? {
                    let status = node.engine.status(&record.id()?)?;
                    let name = record.data.as_str().unwrap_or_default().to_owned();
                    all.insert(name, (record, status));
                }
                Ok(all)
            })
            .await
    }

    /// Stops what there is of the pod, as its containers ask for, and removes it.
    async fn remove(&mut self, state: &str) -> Result<(), ManifestError> {
        let task = self.find().await?;
        let directory = self.directory();
        if task.is_some() {
            self.report(state, None);
        }
        self.node
            .blocking(move |node| {
                if let Some(task) = task {
                    let id = task.id()?;
                    node.engine.stop_task(&id, None)?;
                    node.engine.remove_task(&node.store, &id)?;
                }
                directory.remove().map_err(EngineError::from)
            })
            .await?;
        self.task = None;
        Ok(())
    }
}

/// Returns when something happened in the task, or may have.
async fn of_task(events: &mut Receiver<NodeEvent>, task: Option<&str>) {
    loop {
        match events.recv().await {
            Ok(event) if Some(event.task.as_str()) != task => {}
            Ok(_) | Err(RecvError::Lagged(_)) => return,
            // The node lives as long as we.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Whether a pod has come to its end by itself, and how.
fn ended(pod: &Pod, containers: &HashMap<String, (Record, Status)>) -> Option<&'static str> {
    let policy = pod.spec.restart_policy;
    // The code with which it ended for good.
    let code = |container: &Container, policy: RestartPolicy| match &containers.get(&container.name)?.1 {
        Status::Exited(ended) if policy == RestartPolicy::Never || ended.code == 0 => Some(ended.code),
        Status::Created(Some(ended)) if policy == RestartPolicy::Never => Some(ended.code),
        Status::Lost(_) if policy == RestartPolicy::Never => Some(255),
        _ => None,
    };
    let failed_first = pod.spec.init_containers.iter().any(|container| {
        Role::of_init(container) == Role::Init && code(container, policy).is_some_and(|code| code != 0)
    });
    if failed_first {
        return Some("failed");
    }
    if policy == RestartPolicy::Always {
        return None;
    }
    let codes: Option<Vec<u8>> =
        pod.spec.containers.iter().map(|container| code(container, policy)).collect();
    Some(if codes?.iter().all(|code| *code == 0) { "succeeded" } else { "failed" })
}

/// Which containers do not run now, if any.
fn down(containers: &HashMap<String, (Record, Status)>) -> Option<String> {
    let mut all: Vec<String> = containers
        .iter()
        .filter_map(|(name, (_, status))| match status {
            Status::Exited(ended) if ended.code != 0 => Some(format!("{name} ended with {}", ended.code)),
            _ => None,
        })
        .collect();
    all.sort();
    (!all.is_empty()).then(|| all.join(", "))
}

/// `runAsNonRoot` where only the image knows its user.
fn refuse_root(pod: &Pod, container: &Container, image: &Image) -> Result<(), ManifestError> {
    let own = &container.security_context;
    let of_pod = &pod.spec.security_context;
    if own.run_as_non_root.or(of_pod.run_as_non_root) != Some(true)
        || own.run_as_user.or(of_pod.run_as_user).is_some()
    {
        return Ok(());
    }
    let user = image.config.config().as_ref().and_then(|config| config.user().clone()).unwrap_or_default();
    let number = user.split(':').next().and_then(|user| user.parse::<u32>().ok());
    if number.is_some_and(|number| number != 0) {
        return Ok(());
    }
    let reason =
        format!("runAsNonRoot, but the image's user is {user:?}: set runAsUser to a number that is not 0");
    Err(ManifestError::value(format!("container {}", container.name), reason))
}
