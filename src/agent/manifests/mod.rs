//! Static pods: a folder of Pod YAMLs that are kept running.
//!
//! ```text
//! folder --inotify--> scan --> one keeper for each file --> pull, volumes, task, init containers, containers
//!                                 ^-- events of the task, changes of the file, back-off after failures
//! ```
pub mod error;
pub mod expand;
pub mod parse;
pub mod pod;
pub mod quantity;
#[cfg(test)]
mod tests;

pub use error::ManifestError;

use super::serve::{Open, Stop};
use super::{AgentError, Node};
use std::sync::Arc;

/// Opens this door.
///
/// # Errors
/// It cannot listen.
pub async fn open(_node: &Arc<Node>, _stop: Stop) -> Result<Open, AgentError> {
    Err(AgentError::NotBuilt { door: "manifests" })
}
