//! One task: what the plan says is done, what happens is recorded.
use super::failure::Failure;
use super::plan::{Action, Doing, Look, plan};
use super::{health, prepare, spec};
use crate::agent::ecs::record::{Container, ContainerPhase, Health, HealthStatus, Phase, StopCode, Task};
use crate::agent::ecs::state::State;
use crate::agent::{Node, NodeEvent};
use crate::engine::EngineError;
use crate::engine::names::Id;
use crate::engine::options::Signal;
use crate::engine::record::Ended;
use crate::engine::task::TaskEvent;
use crate::engine::timestamp::Timestamp;
use crate::error::chain;
use crate::image::store::Image;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, broadcast, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

const SIGKILL: Signal = Signal(9);
/// After a SIGKILL that did not end a container; it hangs in the kernel.
const KILL_AGAIN: Duration = Duration::from_secs(10);

/// What is under way with a container, beside its record.
#[derive(Debug, Default)]
struct Work {
    doing: Doing,
    /// When it is killed.
    kill_at: Option<Instant>,
    /// Its health checks.
    checks: Option<AbortHandle>,
}

/// Something that took its time has ended.
#[derive(Debug)]
enum Done {
    Started(usize, Result<(), Failure>),
    /// It was asked to stop.
    Asked(usize, Result<(), EngineError>),
    /// It was killed.
    Killed(usize, Result<(), EngineError>),
    /// Health checks never end by themselves.
    Checked,
}

/// Runs one task.
#[derive(Debug)]
pub(super) struct Orchestration {
    pub(super) node: Arc<Node>,
    pub(super) state: Arc<State>,
    /// The task's id.
    pub(super) id: String,
    /// The engine's task.
    pub(super) engine: Option<Id>,
    /// By their names.
    pub(super) images: HashMap<String, Arc<Image>>,
    pub(super) wake: Arc<Notify>,
    events: broadcast::Receiver<NodeEvent>,
    work: Vec<Work>,
    jobs: JoinSet<Done>,
    tell: mpsc::Sender<(usize, Health)>,
    told: mpsc::Receiver<(usize, Health)>,
}

impl Orchestration {
    pub(super) fn new(node: &Arc<Node>, state: &Arc<State>, id: &str, wake: Arc<Notify>) -> Self {
        let containers = state.task(id).map_or(0, |task| task.containers.len());
        let (tell, told) = mpsc::channel(16);
        Self {
            node: Arc::clone(node),
            state: Arc::clone(state),
            id: id.to_owned(),
            engine: None,
            images: HashMap::new(),
            wake,
            events: node.events.subscribe(),
            work: std::iter::repeat_with(Work::default).take(containers).collect(),
            jobs: JoinSet::new(),
            tell,
            told,
        }
    }

    /// Until nothing is left of the task.
    pub(super) async fn run(mut self) {
        let Some(task) = self.task() else { return };
        if task.phase != Phase::Stopped {
            match self.begin(&task).await {
                // Why is recorded already.
                Ok(()) | Err(Failure::Stopped) => {}
                Err(failure) => self.fail(None, &failure),
            }
            self.orchestrate().await;
            self.finish().await;
        }
        self.sweep().await;
    }

    async fn begin(&mut self, task: &Task) -> Result<(), Failure> {
        if !self.recover(task).await? {
            self.prepare().await?;
        }
        Ok(())
    }

    pub(super) fn task(&self) -> Option<Arc<Task>> {
        self.state.task(&self.id)
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Task)) {
        self.state.update(&self.id, change);
    }

    fn update_container(&self, at: usize, change: impl FnOnce(&mut Container)) {
        self.update(|task| {
            if let Some(container) = task.containers.get_mut(at) {
                change(container);
            }
        });
    }

    /// The task, or one of its containers, could not be started.
    pub(super) fn fail(&self, at: Option<usize>, failure: &Failure) {
        let text = failure.to_string();
        tracing::info!(task = self.id, "failed to start: {text}");
        self.update(|task| {
            let essential = at.is_none_or(|at| {
                task.definition.container_definitions.get(at).is_none_or(|known| known.essential)
            });
            if let Some(container) = at.and_then(|at| task.containers.get_mut(at)) {
                container.phase = ContainerPhase::Stopped;
                container.reason = Some(text.clone());
                container.finished = Some(Timestamp::now());
            }
            if essential {
                task.stop(StopCode::TaskFailedToStart, text);
            }
        });
    }

    /// Plans and acts until all containers have ended.
    async fn orchestrate(&mut self) {
        loop {
            let Some(again) = self.act() else { return };
            let kill = self.work.iter().filter_map(|work| work.kill_at).min();
            let again = again.map(|time| Instant::now() + time.since(Timestamp::now()));
            let deadline = kill.into_iter().chain(again).min();
            let late = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.wake.notified() => {}
                event = self.events.recv() => match event {
                    Ok(event) => self.happened(&event).await,
                    // Others were faster; the records know.
                    Err(_) => self.look().await,
                },
                Some(done) = self.jobs.join_next(), if !self.jobs.is_empty() => match done {
                    Ok(done) => self.done(done).await,
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Err(_) => {}
                },
                Some((at, health)) = self.told.recv() => self.checked(at, health),
                () = late => self.kill_late(),
            }
        }
    }

    /// Does what the plan says; tells when to look again, or `None` when all is over.
    fn act(&mut self) -> Option<Option<Timestamp>> {
        loop {
            let task = self.task()?;
            let looks: Vec<Look<'_>> = task
                .definition
                .container_definitions
                .iter()
                .zip(&task.containers)
                .zip(&self.work)
                .map(|((definition, known), work)| Look {
                    definition,
                    phase: known.phase,
                    doing: work.doing,
                    exit_code: known.exit_code,
                    health: known.health.as_ref().map(|health| health.status),
                    started: known.started,
                })
                .collect();
            let plan = plan(&looks, task.stop.is_some(), Timestamp::now());
            let mut changed = false;
            for action in plan.actions {
                match action {
                    Action::Start(at) => self.start(&task, at),
                    Action::Wait(at, why) => {
                        if task.containers[at].reason.as_ref() != Some(&why) {
                            self.update_container(at, |container| container.reason = Some(why));
                        }
                    }
                    Action::Stop(at) => self.stop(&task, at),
                    Action::Never(at) => {
                        self.update_container(at, |container| {
                            container.phase = ContainerPhase::Stopped;
                            container.finished = Some(Timestamp::now());
                            container.reason =
                                container.reason.take().filter(|text| text.contains("Error: "));
                        });
                        changed = true;
                    }
                    Action::Fail(code, reason) => {
                        self.update(|task| task.stop(code, reason));
                        changed = true;
                    }
                    Action::Running => {
                        if task.phase == Phase::Pending {
                            self.update(|task| {
                                task.phase = Phase::Running;
                                task.times.started = Some(Timestamp::now());
                            });
                        }
                    }
                    Action::Over => return None,
                }
            }
            if !changed {
                return Some(plan.again);
            }
        }
    }

    fn start(&mut self, task: &Task, at: usize) {
        let Some(engine) = self.engine.clone() else { return };
        self.work[at].doing = Doing::Starting;
        let image = self.images.get(&task.definition.container_definitions[at].image).cloned();
        let (node, state, id) = (Arc::clone(&self.node), Arc::clone(&self.state), self.id.clone());
        self.jobs.spawn(async move {
            let work = move |node: &Node| prepare::start(node, &state, &id, &engine, at, image.as_deref());
            Done::Started(at, node.blocking(work).await)
        });
    }

    fn stop(&mut self, task: &Task, at: usize) {
        let seconds = spec::stop_timeout(&task.definition.container_definitions[at]);
        self.work[at].doing = Doing::Stopping;
        self.work[at].kill_at = Some(Instant::now() + Duration::from_secs(seconds.into()));
        let Some(runtime) = task.containers[at].runtime_id.clone() else { return };
        let node = Arc::clone(&self.node);
        self.jobs.spawn(async move {
            let sent = node.blocking(move |node| {
                let record = node.engine.find(&runtime)?;
                node.engine.kill(&record, record.options.stop_signal)
            });
            Done::Asked(at, sent.await)
        });
    }

    fn kill(&mut self, task: &Task, at: usize) {
        let Some(runtime) = task.containers[at].runtime_id.clone() else { return };
        let node = Arc::clone(&self.node);
        self.jobs.spawn(async move {
            let sent = node.blocking(move |node| node.engine.kill(&node.engine.find(&runtime)?, SIGKILL));
            Done::Killed(at, sent.await)
        });
    }

    fn kill_late(&mut self) {
        let Some(task) = self.task() else { return };
        let now = Instant::now();
        for at in 0..self.work.len() {
            if self.work[at].kill_at.is_some_and(|time| time <= now) {
                self.work[at].kill_at = None;
                self.kill(&task, at);
            }
        }
    }

    async fn done(&mut self, done: Done) {
        match done {
            Done::Started(at, result) => {
                self.work[at].doing = Doing::Nothing;
                match result {
                    Ok(()) => self.started(at, Timestamp::now()).await,
                    Err(failure) => self.fail(Some(at), &failure),
                }
            }
            // What cannot be signalled has ended, or will be killed.
            Done::Asked(at, Err(error)) => {
                tracing::debug!(task = self.id, container = at, "stop signal: {}", chain(&error));
                self.look().await;
            }
            Done::Killed(at, result) => {
                if let Err(error) = result {
                    tracing::warn!(task = self.id, container = at, "SIGKILL: {}", chain(&error));
                }
                self.look().await;
                let runs = |task: Arc<Task>| task.containers[at].phase == ContainerPhase::Running;
                if self.task().is_some_and(runs) {
                    self.work[at].kill_at = Some(Instant::now() + KILL_AGAIN);
                }
            }
            Done::Asked(..) | Done::Checked => {}
        }
    }

    /// Applies an event of this task.
    async fn happened(&mut self, event: &NodeEvent) {
        if self.engine.as_ref().is_none_or(|id| id.as_str() != event.task) {
            return;
        }
        let Some(task) = self.task() else { return };
        let place = |runtime: &String| {
            task.containers.iter().position(|container| container.runtime_id.as_ref() == Some(runtime))
        };
        match &event.event {
            TaskEvent::Started { container, time, .. } => {
                if let Some(at) = place(container) {
                    self.started(at, *time).await;
                }
            }
            TaskEvent::Exited { container, ended, restarts } => {
                if let Some(at) = place(container) {
                    self.ended(at, ended, *restarts);
                }
            }
            TaskEvent::Stopped => self.look().await,
        }
    }

    /// A container runs; the event and the answer of the engine both say so, in either order.
    pub(super) async fn started(&mut self, at: usize, time: Timestamp) {
        let Some(task) = self.task() else { return };
        let (known, definition) = (&task.containers[at], &task.definition.container_definitions[at]);
        let again = known.phase == ContainerPhase::Running && known.started.is_some_and(|old| old < time);
        if known.phase == ContainerPhase::Pending || again {
            self.update_container(at, |container| {
                container.phase = ContainerPhase::Running;
                container.started = container.started.filter(|_| !again).or(Some(time));
                container.exit_code = None;
                container.reason = None;
            });
        }
        let checked = self.work[at].checks.is_some();
        if let (Some(check), Some(runtime), false) = (&definition.health_check, &known.runtime_id, checked)
            && known.phase != ContainerPhase::Stopped
        {
            let (node, runtime, check) = (Arc::clone(&self.node), runtime.clone(), check.clone());
            let tell = self.tell.clone();
            let checks = self.jobs.spawn(async move {
                if let Ok(record) = node.blocking(move |node| node.engine.find(&runtime)).await {
                    health::watch(node, record, check, at, tell).await;
                }
                Done::Checked
            });
            self.work[at].checks = Some(checks);
        }
    }

    /// A container has ended.
    pub(super) fn ended(&mut self, at: usize, ended: &Ended, restarts: bool) {
        let work = &mut self.work[at];
        if let Some(checks) = work.checks.take() {
            checks.abort();
        }
        if !restarts {
            work.kill_at = None;
        }
        let restarted = ended.restarts;
        self.update_container(at, |container| {
            container.restarts = restarted;
            container.exit_code = Some(i32::from(ended.code));
            container.finished = Some(ended.finished);
            container.started = container.started.or(ended.started);
            container.reason = reason(ended);
            if !restarts {
                container.phase = ContainerPhase::Stopped;
            } else if let Some(health) = &mut container.health {
                health.status = HealthStatus::Unknown;
                health.since = ended.finished;
            }
        });
    }

    fn checked(&mut self, at: usize, health: Health) {
        let Some(task) = self.task() else { return };
        let known = &task.containers[at];
        // One that came late says nothing of a container that has ended.
        if known.phase == ContainerPhase::Running && self.work[at].checks.is_some() {
            self.update_container(at, |container| container.health = Some(health));
        }
    }
}

/// What a client is told of how a container ended.
pub(super) fn reason(ended: &Ended) -> Option<String> {
    if ended.oom_killed {
        return Some("OutOfMemoryError: Container killed due to memory usage".to_owned());
    }
    ended.error.as_ref().map(|error| format!("CannotStartContainerError: {error}"))
}
