//! The ECS task API: JSON 1.1 over HTTP/1.1, signed with Signature Version 4.
//!
//! ```text
//! POST / --> http: bounds --> sigv4: who asks --> api: what is asked --> state: records on disk
//!                                                                          |
//!                             engine <-- run: one orchestration a task <---'
//! ```
use super::serve::{Open, Stop};
use super::{AgentError, Node};
use std::sync::Arc;

pub mod api;
pub mod arn;
pub mod definition;
pub mod error;
mod http;
pub mod keys;
pub mod limits;
pub mod machine;
pub mod metadata;
pub mod overrides;
pub mod record;
pub mod run;
pub mod sigv4;
pub mod state;

pub use error::EcsError;
pub use state::State;

/// Opens this door: the API, and what tasks are told of themselves.
///
/// # Errors
/// It cannot listen, or its files cannot be read.
pub async fn open(node: &Arc<Node>, stop: Stop) -> Result<Vec<Open>, AgentError> {
    let loaded = node
        .blocking(|node| {
            config(&node.config.ecs)?;
            let keys = keys::Keys::load(&node.engine.root.join("agent"))?;
            Ok::<_, EcsError>((keys, State::load(&node.engine.root, &node.config.ecs)?))
        })
        .await;
    let (keys, state) = loaded?;
    let state = Arc::new(state);
    // Before a task is started that asks for its metadata.
    let metadata = metadata::open(node, Arc::clone(&state), stop.clone()).await?;
    let runner = run::Runner::new(Arc::clone(node), Arc::clone(&state));
    runner.resume().await;
    let api = Arc::new(api::Api { node: Arc::clone(node), state, runner });
    Ok(vec![http::open(api, keys, stop).await?, metadata])
}

/// What the API's names are made of must be well-formed.
fn config(config: &super::config::EcsConfig) -> Result<(), EcsError> {
    let wrong = |key, value: &str, reason| Err(EcsError::Config { key, value: value.to_owned(), reason });
    if config.account.len() != 12 || !config.account.bytes().all(|byte| byte.is_ascii_digit()) {
        return wrong("account", &config.account, "is not 12 digits");
    }
    let is_region = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if config.region.is_empty() || config.region.len() > 32 || !config.region.bytes().all(is_region) {
        return wrong("region", &config.region, "is not the name of a region");
    }
    match definition::check::name("cluster", &config.cluster) {
        Ok(()) => Ok(()),
        Err(_) => wrong("cluster", &config.cluster, "must be letters, digits, '-' and '_'"),
    }
}
