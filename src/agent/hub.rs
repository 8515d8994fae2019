//! What happens in all tasks, from their monitors to [`Node::events`].
//!
//! ```text
//! monitor of a task --Events--> watcher of the task --\
//! monitor of a task --Events--> watcher of the task ---+--> Node.events --> doors
//! ```
//! A watcher subscribes first and looks at the records then, so that nothing falls between the two. When it
//! loses its monitor, it compares the records with what it has told, tells the difference, and subscribes again.
use super::{Node, NodeEvent};
use crate::engine::EngineError;
use crate::engine::names::Id;
use crate::engine::record::Status;
use crate::engine::task::{Events, Next, TaskEvent, TaskStatus};
use crate::engine::timestamp::Timestamp;
use crate::error::{ErrorKind, Kind, chain};
use crate::sys::reactor::{self, AsyncFd};
use crate::sys::{SysError, process};
use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::Interest;

/// Between attempts to find a monitor that should be there.
const PAUSE: Duration = Duration::from_millis(500);

/// Which tasks are watched.
#[derive(Debug, Default)]
pub struct Hub {
    watched: Mutex<HashSet<String>>,
}

impl Hub {
    fn watched(&self) -> MutexGuard<'_, HashSet<String>> {
        // Each change is one call, so a panic elsewhere leaves nothing half done.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many tasks have a watcher.
    pub fn count(&self) -> usize {
        self.watched().len()
    }
}

/// A subscription, and its socket as the runtime waits for it.
#[derive(Debug)]
struct Subscription {
    events: Events,
    readable: AsyncFd<OwnedFd>,
}

impl Subscription {
    fn new(events: Events) -> Result<Self, SysError> {
        let readable = reactor::watch(process::duplicate(&events)?, Interest::READABLE)?;
        Ok(Self { events, readable })
    }
}

/// What was told last of a container.
#[derive(Debug, Clone, PartialEq)]
enum Told {
    Started { pid: i32, time: Timestamp },
    Ended { finished: Timestamp },
}

/// What a look at a task's records found.
struct Seen {
    containers: Vec<(String, Told, TaskEvent)>,
    stopped: bool,
}

impl Node {
    /// Lets the events of a task that was just made come to [`Node::events`]; when it returns, none is missed any
    /// more. A task that is watched already stays so.
    pub async fn watch(self: &Arc<Self>, task: &str) {
        let Some(id) = Id::parse(task) else { return };
        if !self.hub.watched().insert(task.to_owned()) {
            return;
        }
        let subscription = self.subscribe(&id).await;
        let mut watcher = Watcher { node: Arc::clone(self), id, told: HashMap::new() };
        watcher.learn().await;
        tokio::spawn(async move {
            watcher.run(subscription).await;
            watcher.node.hub.watched().remove(watcher.id.as_str());
        });
    }

    /// Watches every task that is there.
    ///
    /// # Errors
    /// The tasks' records cannot be read.
    pub async fn watch_all(self: &Arc<Self>) -> Result<(), EngineError> {
        for task in self.blocking(|node| node.engine.tasks()).await? {
            self.watch(&task.id).await;
        }
        Ok(())
    }

    async fn subscribe(self: &Arc<Self>, id: &Id) -> Option<Subscription> {
        let wanted = id.clone();
        let events = match self.blocking(move |node| node.engine.task_events(&wanted)).await {
            Ok(events) => events?,
            Err(error) => {
                tracing::warn!(task = %id, "cannot subscribe to events: {}", chain(&error));
                return None;
            }
        };
        Subscription::new(events)
            .inspect_err(|error| tracing::warn!(task = %id, "cannot wait for events: {error}"))
            .ok()
    }

    fn look(&self, id: &Id) -> Result<Seen, EngineError> {
        let stopped = matches!(self.engine.task_status(id)?, TaskStatus::Stopped { .. });
        let mut containers = Vec::new();
        for record in self.engine.task_containers(id)? {
            let container = record.id.clone();
            match self.engine.status(&record.id()?)? {
                Status::Running(run) | Status::Unmonitored(run) => {
                    let told = Told::Started { pid: run.pid, time: run.started };
                    let event =
                        TaskEvent::Started { container: container.clone(), pid: run.pid, time: run.started };
                    containers.push((container, told, event));
                }
                Status::Exited(ended) => {
                    let told = Told::Ended { finished: ended.finished };
                    let event = TaskEvent::Exited { container: container.clone(), ended, restarts: false };
                    containers.push((container, told, event));
                }
                Status::Created(_) | Status::Starting | Status::Lost(_) => {}
            }
        }
        Ok(Seen { containers, stopped })
    }
}

/// Follows one task.
struct Watcher {
    node: Arc<Node>,
    id: Id,
    told: HashMap<String, Told>,
}

impl Watcher {
    /// Follows subscriptions until the task is stopped or removed.
    async fn run(&mut self, mut subscription: Option<Subscription>) {
        loop {
            if let Some(events) = subscription.take()
                && self.follow(events).await
            {
                return;
            }
            subscription = self.node.subscribe(&self.id).await;
            if self.catch_up().await {
                return;
            }
            // Not at once again and again where a monitor lets us in and then goes; what happens meanwhile waits in
            // the socket.
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Tells what comes; `true` after the last event of the task, `false` when the monitor has gone.
    async fn follow(&mut self, mut subscription: Subscription) -> bool {
        loop {
            let Ok(mut ready) = subscription.readable.readable().await else { return false };
            match subscription.events.try_next() {
                Ok(Next::Event(event)) => {
                    let last = event == TaskEvent::Stopped;
                    self.remember(&event);
                    self.tell(event);
                    if last {
                        return true;
                    }
                }
                Ok(Next::Later) => ready.clear_ready(),
                Ok(Next::Gone) => return false,
                Err(error) => {
                    tracing::warn!(task = %self.id, "events: {}", chain(&error));
                    return false;
                }
            }
        }
    }

    /// Takes what the records say as told: who asks for events from now on has read them.
    async fn learn(&mut self) {
        if let Ok(seen) = self.look().await {
            self.told = seen.containers.into_iter().map(|(id, told, _)| (id, told)).collect();
        }
    }

    /// Tells what the records say and was not told; `true` if the task is stopped or gone.
    async fn catch_up(&mut self) -> bool {
        // If its monitor was killed, what it left is cleaned up and recorded.
        if let Err(error) = self.node.blocking(|node| node.engine.recover_tasks()).await {
            tracing::warn!(task = %self.id, "cannot recover tasks: {}", chain(&error));
        }
        let seen = match self.look().await {
            Ok(seen) => seen,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.tell(TaskEvent::Stopped);
                return true;
            }
            Err(error) => {
                tracing::warn!(task = %self.id, "cannot read the records: {}", chain(&error));
                return false;
            }
        };
        for (container, told, event) in seen.containers {
            if self.told.get(&container) != Some(&told) {
                self.told.insert(container, told);
                self.tell(event);
            }
        }
        if seen.stopped {
            self.tell(TaskEvent::Stopped);
        }
        seen.stopped
    }

    async fn look(&self) -> Result<Seen, EngineError> {
        let id = self.id.clone();
        self.node.blocking(move |node| node.look(&id)).await
    }

    fn remember(&mut self, event: &TaskEvent) {
        match event {
            TaskEvent::Started { container, pid, time } => {
                self.told.insert(container.clone(), Told::Started { pid: *pid, time: *time });
            }
            TaskEvent::Exited { container, ended, .. } => {
                self.told.insert(container.clone(), Told::Ended { finished: ended.finished });
            }
            TaskEvent::Stopped => {}
        }
    }

    fn tell(&self, event: TaskEvent) {
        self.node.metrics.happened(&event);
        // Nobody need listen.
        let _ = self.node.events.send(NodeEvent { task: self.id.to_string(), event });
    }
}
