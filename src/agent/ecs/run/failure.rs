//! Why a task or a container could not be started, in ECS' words.
use crate::agent::pull::PullFailure;
use crate::engine::EngineError;
use crate::error::chain;

/// Why; its text is what `reason` and `stoppedReason` say.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// An image.
    #[error("CannotPullContainerError: {}", chain(.0))]
    Pull(PullFailure),
    /// A malformed name of an image, in a definition of another version of corten.
    #[error("CannotPullContainerError: {image:?} is no reference of an image")]
    Image {
        /// The image.
        image: String,
    },
    /// What the task needs beside its containers.
    #[error("ResourceInitializationError: {reason}")]
    Resource {
        /// What and why.
        reason: String,
    },
    /// The task's namespaces, network or cgroup.
    #[error("ResourceInitializationError: {}", chain(.0))]
    Task(EngineError),
    /// A container's files.
    #[error("CannotCreateContainerError: {}", chain(.0))]
    Create(EngineError),
    /// A container's process.
    #[error("CannotStartContainerError: {}", chain(.0))]
    Start(EngineError),
    /// Somebody stopped it meanwhile.
    #[error("it was stopped before")]
    Stopped,
}
