//! Kubernetes' container runtime interface, v1: `RuntimeService` and `ImageService` on a unix socket of root's.
//!
//! ```text
//! socket -- server -- runtime, images (one line for each RPC) -- sandbox container exec stats info image events
//!                                                                  \ sandbox_spec container_spec .. (pure)
//! ```
//! Everything that it knows of pods and containers is in their records (`kept`); what it holds itself is only what
//! makes answers cheaper, and the requests under way.
use super::serve::{Open, Stop};
use super::{AgentError, Node};
use std::sync::Arc;

/// Bindings of `api.proto`.
#[allow(missing_debug_implementations, clippy::all, clippy::pedantic, clippy::unwrap_used)]
pub mod api {
    tonic::include_proto!("runtime.v1");
}

mod container;
mod container_spec;
mod container_status;
mod deadline;
mod error;
mod events;
mod exec;
mod image;
mod images;
mod info;
mod joined;
mod kept;
mod mounts;
mod patient;
mod resources;
mod runtime;
mod sandbox;
mod sandbox_spec;
mod security;
mod server;
mod signal;
mod stats;
mod usage;

pub use error::CriError;

/// The door.
#[derive(Debug)]
struct Cri {
    node: Arc<Node>,
    /// Pods and containers that are being made.
    making: joined::Joined,
    /// Threads that wait.
    patience: patient::Patience,
    /// What goes to clients that watch.
    events: events::Events,
    /// Sizes of writable layers, and CPU times seen last.
    seen: usage::Seen,
    /// Whether the kernel counts swap for each cgroup.
    counts_swap: bool,
    /// Whether the host has SELinux.
    selinux: bool,
}

/// Opens this door.
///
/// # Errors
/// It cannot listen.
pub async fn open(node: &Arc<Node>, stop: Stop) -> Result<Open, AgentError> {
    let cri = Arc::new(Cri {
        node: Arc::clone(node),
        making: joined::Joined::default(),
        patience: patient::Patience::default(),
        events: events::Events::default(),
        seen: usage::Seen::default(),
        counts_swap: crate::engine::facts::counts_swap(),
        selinux: std::path::Path::new("/sys/fs/selinux/enforce").exists(),
    });
    server::open(cri, stop).await
}
