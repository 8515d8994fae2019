//! Work that may wait for long: for a container to obey its stop signal, for a plugin to answer. Threads that wait
//! so are not taken from those that answer all other requests: a node that stops a hundred pods is still asked for its
//! status.
use super::Cri;
use super::error::{CriError, Result};
use crate::agent::Node;
use crate::sys::SysError;
use std::sync::Arc;
use tokio::sync::{Semaphore, oneshot};

/// At the same time; a node has at most some hundred pods, and each thread takes little but its stack.
const AT_ONCE: usize = 256;
/// The engine's calls are not deep; a stack is only taken as far as it is used.
const STACK: usize = 1024 * 1024;

/// Slots of such threads.
#[derive(Debug, Clone)]
pub struct Patience(Arc<Semaphore>);

impl Default for Patience {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Cri {
    /// Does something that may wait for long on a thread of its own. It goes on when nobody waits for it any more.
    pub async fn patiently<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Node) -> Result<T> + Send + 'static,
    {
        // Never closed.
        let slot = Arc::clone(&self.patience.0).acquire_owned().await;
        let (node, (tell, told)) = (Arc::clone(&self.node), oneshot::channel());
        std::thread::Builder::new()
            .name("waiting".to_owned())
            .stack_size(STACK)
            .spawn(move || {
                let _slot = slot;
                // That nobody waits any more is no error.
                let _ = tell.send(work(&node));
            })
            .map_err(SysError::io("clone", "thread"))?;
        // The sender is dropped unsent only when the work panics.
        told.await.unwrap_or(Err(CriError::Lost))
    }
}
