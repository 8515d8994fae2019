//! Containers from images, without a daemon.
use crate::image::snapshot::Choice;
use std::path::PathBuf;

pub mod attach;
pub mod client;
pub mod commit;
pub mod create;
pub mod disk;
pub mod error;
pub mod exec;
pub mod exit_code;
pub mod facts;
pub mod follow;
mod host_mounts;
pub mod inspect;
pub mod launch;
pub mod lifecycle;
pub mod logs;
pub mod monitor;
pub mod names;
mod network;
pub mod options;
pub mod record;
pub mod seccomp;
pub mod shelf;
pub mod signals;
pub mod specgen;
pub mod task;
pub mod timestamp;
pub mod volumes;

pub use error::EngineError;

/// Where the engine keeps its things; every call works on the files, so that any number of processes can.
#[derive(Debug, Clone)]
pub struct Engine {
    /// What survives the machine's end: images, containers, volumes.
    pub root: PathBuf,
    /// What does not: running containers.
    pub state: PathBuf,
    /// The `corten` executable of which tasks' monitors are started; the one of this process if absent.
    pub monitor_program: Option<PathBuf>,
    /// How the layers of a new container are stacked.
    pub storage: Choice,
}

impl Engine {
    /// Both paths are absolute.
    pub fn new(root: PathBuf, state: PathBuf) -> Self {
        Self { root, state, monitor_program: None, storage: Choice::Auto }
    }
}
