//! Running tasks: from the record of RunTask to that of a stopped task, and its end.
//!
//! ```text
//! Runner --one asynchronous task each--> Orchestration: prepare or recover --> plan, act, wait --> finish --> sweep
//! ```
use super::state::State;
use crate::agent::Node;
use crate::engine::task::Door;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::runtime::Handle;
use tokio::sync::Notify;

mod failure;
mod finish;
mod health;
mod orchestrate;
mod plan;
mod prepare;
mod recover;
mod secrets;
pub mod spec;

use orchestrate::Orchestration;

/// Who runs tasks.
#[derive(Debug)]
pub struct Runner {
    node: Arc<Node>,
    state: Arc<State>,
    runtime: Handle,
    running: Mutex<HashMap<String, Arc<Notify>>>,
}

impl Runner {
    /// Runs nothing yet. Called within the asynchronous runtime.
    pub fn new(node: Arc<Node>, state: Arc<State>) -> Arc<Self> {
        Arc::new(Self { node, state, runtime: Handle::current(), running: Mutex::default() })
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, Arc<Notify>>> {
        // Each change is one call, so a panic elsewhere leaves nothing half done.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a task that was added to the state, or goes on with one that was found there.
    pub fn launch(self: &Arc<Self>, id: &str) {
        let wake = Arc::new(Notify::new());
        if self.running().insert(id.to_owned(), Arc::clone(&wake)).is_some() {
            return;
        }
        let runner = Arc::clone(self);
        let id = id.to_owned();
        self.runtime.spawn(async move {
            let orchestration = Orchestration::new(&runner.node, &runner.state, &id, wake);
            orchestration.run().await;
            runner.running().remove(&id);
        });
    }

    /// Tells whoever runs a task that its record has changed.
    pub fn wake(&self, id: &str) {
        if let Some(wake) = self.running().get(id) {
            wake.notify_one();
        }
    }

    /// Goes on with all tasks that are recorded, and removes from the engine what has no record here: a task that
    /// was being made or removed when the agent was killed.
    pub async fn resume(self: &Arc<Self>) {
        for task in self.state.tasks() {
            self.launch(&task.id);
        }
        let state = Arc::clone(&self.state);
        let swept = self.node.blocking(move |node| {
            for record in node.engine.tasks()? {
                let known =
                    record.spec.data["ecs"]["task"].as_str().is_some_and(|id| state.task(id).is_some());
                if record.spec.door == Door::Ecs && !known {
                    tracing::warn!(task = record.id, "removed: it has no record");
                    node.engine.remove_task(&node.store, &record.id()?)?;
                }
            }
            Ok::<_, crate::engine::EngineError>(())
        });
        if let Err(error) = swept.await {
            tracing::warn!("tasks without a record: {}", crate::error::chain(&error));
        }
    }
}
