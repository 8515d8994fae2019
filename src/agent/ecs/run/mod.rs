//! Running tasks: from the record of RunTask to that of a stopped task.
use super::state::State;
use crate::agent::Node;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// Who runs tasks: one asynchronous task for each.
#[derive(Debug)]
pub struct Runner {
    node: Arc<Node>,
    state: Arc<State>,
    runtime: Handle,
    running: Mutex<HashMap<String, Arc<Notify>>>,
}

impl Runner {
    /// Starts nothing yet. Called within the asynchronous runtime.
    pub fn new(node: Arc<Node>, state: Arc<State>) -> Arc<Self> {
        Arc::new(Self { node, state, runtime: Handle::current(), running: Mutex::default() })
    }

    /// Runs a task that was added to the state, or goes on with one that was found there.
    pub fn launch(self: &Arc<Self>, id: &str) {
        let wake = Arc::new(Notify::new());
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), Arc::clone(&wake));
    }

    /// Tells whoever runs a task that its record has changed.
    pub fn wake(&self, id: &str) {
        if let Some(wake) = self.running.lock().unwrap_or_else(PoisonError::into_inner).get(id) {
            wake.notify_one();
        }
    }
}
