//! Containers from images, without a daemon.
pub mod attach;
pub mod error;
pub mod logs;
pub mod names;
pub mod options;
pub mod seccomp;
pub mod specgen;
pub mod timestamp;

pub use error::EngineError;
