//! What can go wrong with containers.
use super::shelf::Kept;
use crate::error::{ErrorKind, Kind};
use crate::image::build::BuildError;
use crate::image::snapshot::SnapshotError;
use crate::image::store::StoreError;
use crate::network::NetworkError;
use crate::runtime::cgroup;
use crate::runtime::delete::DeleteError;
use crate::runtime::kill::KillError;
use crate::runtime::pause::PauseError;
use crate::sys::SysError;
use std::path::PathBuf;

/// An error of the engine; its fields name the container, flag or file.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A name outside the permitted set.
    #[error("container name {name:?} {reason}")]
    InvalidName {
        /// What was given.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No container has this name, id or beginning of an id.
    #[error("no such container: {given}")]
    NoSuchContainer {
        /// What was given.
        given: String,
    },
    /// No task has this name, id or beginning of an id.
    #[error("no such task: {given}")]
    NoSuchTask {
        /// What was given.
        given: String,
    },
    /// More than one id begins like this.
    #[error("{given} is the beginning of {count} {kept} ids; give more of it")]
    Ambiguous {
        /// What was given.
        given: String,
        /// How many.
        count: usize,
        /// Of what.
        kept: Kept,
    },
    /// Another container or task has the name.
    #[error("the name {name:?} is in use by {kept} {id}; {}", remedy(*kept, name))]
    NameInUse {
        /// The name.
        name: String,
        /// Who has it.
        id: String,
        /// What that is.
        kept: Kept,
    },
    /// A task is not in the state that the operation needs.
    #[error("task {id} is {status}; {needed}")]
    TaskState {
        /// The task.
        id: String,
        /// Its status.
        status: &'static str,
        /// What to do about it.
        needed: &'static str,
    },
    /// A task cannot be what it is asked to be.
    #[error("task: {field} {value:?}: {reason}")]
    Task {
        /// Which field of its specification.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A flag's value is malformed.
    #[error("invalid value {value:?} for {flag}: {reason}")]
    Flag {
        /// The flag as it is written on the command line.
        flag: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Something that corten does not do yet.
    #[error("{flag} {value}: {reason}")]
    NotBuilt {
        /// The flag or feature.
        flag: &'static str,
        /// Its value.
        value: String,
        /// What to do instead.
        reason: &'static str,
    },
    /// Neither the image nor the command line says what to run.
    #[error("image {image} names no command; give one after the image")]
    NoCommand {
        /// The image.
        image: String,
    },
    /// The image is not there and may not be pulled.
    #[error("image {image} is not in the store and --pull is never")]
    ImageMissing {
        /// The image.
        image: String,
    },
    /// The child that pulls the image failed; it has told why.
    #[error("pulling image {image} failed")]
    PullFailed {
        /// The image.
        image: String,
    },
    /// The user of the container cannot be found or is out of range.
    #[error("user {user:?}: {reason}")]
    User {
        /// As in the image or after -u.
        user: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A container is not in the state that the operation needs.
    #[error("container {id} is {status}; {needed}")]
    WrongState {
        /// The container.
        id: String,
        /// Its status.
        status: String,
        /// What to do about it.
        needed: &'static str,
    },
    /// A record cannot be read.
    #[error("record {}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Where it is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A seccomp profile cannot be read.
    #[error("seccomp profile {path}")]
    SeccompProfile {
        /// The file.
        path: String,
        /// Where it is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A part of the container's specification cannot be built.
    #[error("specification of the container, {part}")]
    Spec {
        /// Which part.
        part: &'static str,
        /// Why.
        #[source]
        source: oci_spec::OciSpecError,
    },
    /// The monitor could not set the container up: its chain of errors came over the socket.
    #[error("{failure}")]
    Start {
        /// What it told.
        failure: super::error::Failure,
    },
    /// The monitor went away before it told how the start went.
    #[error("the monitor of container {id} ended before the container was started")]
    MonitorLost {
        /// The container.
        id: String,
    },
    /// A task has no monitor any more.
    #[error("task {id} has ended, or its monitor was killed")]
    TaskLost {
        /// The task.
        id: String,
    },
    /// The container's monitor was killed while the container ran.
    #[error("nobody saw how container {id} ended: its monitor was killed")]
    ExitUnknown {
        /// The container.
        id: String,
    },
    /// A frame of the attach protocol is malformed.
    #[error("malformed frame from {peer}: {reason}")]
    Frame {
        /// Who sent it.
        peer: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The container did not end within the time given after SIGKILL.
    #[error("container {id} did not end within {seconds} s of SIGKILL")]
    WontDie {
        /// The container.
        id: String,
        /// How long was waited.
        seconds: u64,
    },
    /// A file is larger than the engine reads.
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// A task could not be made or removed.
    #[error("task {id}: {step}")]
    TaskStep {
        /// The task.
        id: String,
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        #[source]
        source: SysError,
    },
    /// The cgroup of a task or container.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// The network of a task.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The image store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An image or an archive could not be made of a container.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A container could not be frozen.
    #[error(transparent)]
    Pause(#[from] PauseError),
    /// Layers could not be stacked.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The runtime could not remove a container.
    #[error(transparent)]
    Delete(#[from] DeleteError),
    /// The runtime could not send a signal.
    #[error(transparent)]
    Kill(#[from] KillError),
    /// A system call.
    #[error(transparent)]
    Sys(#[from] SysError),
}

/// What to do about a name that is in use.
fn remedy(kept: Kept, name: &str) -> String {
    match kept {
        Kept::Container => format!("remove it with `corten rm {name}` or choose another name"),
        Kept::Task => "remove it or choose another name".to_owned(),
    }
}

impl Kind for EngineError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSuchContainer { .. } | Self::NoSuchTask { .. } | Self::ImageMissing { .. } => {
                ErrorKind::NotFound
            }
            Self::NameInUse { .. } => ErrorKind::AlreadyExists,
            Self::InvalidName { .. }
            | Self::Ambiguous { .. }
            | Self::Flag { .. }
            | Self::Task { .. }
            | Self::NoCommand { .. }
            | Self::User { .. }
            | Self::SeccompProfile { .. }
            | Self::Spec { .. }
            | Self::Frame { .. } => ErrorKind::InvalidInput,
            Self::NotBuilt { .. } => ErrorKind::Unsupported,
            Self::WrongState { .. } | Self::TaskState { .. } | Self::TaskLost { .. } => ErrorKind::WrongState,
            Self::Record { .. } | Self::TooLarge { .. } => ErrorKind::Corrupt,
            Self::PullFailed { .. } => ErrorKind::Network,
            Self::Start { failure } => failure.kind,
            Self::MonitorLost { .. } | Self::ExitUnknown { .. } => ErrorKind::System,
            Self::WontDie { .. } => ErrorKind::TimedOut,
            Self::TaskStep { source, .. } => source.kind(),
            Self::Cgroup(error) => error.kind(),
            Self::Network(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Build(error) => error.kind(),
            Self::Pause(error) => error.kind(),
            Self::Snapshot(error) => error.kind(),
            Self::Delete(error) => error.kind(),
            Self::Kill(error) => error.kind(),
            Self::Sys(error) => error.kind(),
        }
    }
}

/// How a start failed, as the monitor tells it to whoever waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What can be done about it.
    pub kind: ErrorKind,
    /// docker's exit code: 125, 126 or 127.
    pub exit_code: u8,
    /// The monitor's chain of errors on one line.
    pub chain: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.chain)
    }
}
