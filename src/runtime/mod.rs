//! The OCI runtime: synchronous and single-threaded.

pub mod cgroup;
pub mod delete;
pub mod hooks;
pub mod kill;
pub mod launch;
pub mod namespaces;
pub mod pause;
pub mod program;
pub mod protocol;
pub mod rootfs;
pub mod security;
pub mod spec;
pub mod start;
pub mod state;
pub mod validate;
