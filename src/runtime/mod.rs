//! The OCI runtime: synchronous and single-threaded.

pub mod cgroup;
pub mod create;
pub mod delete;
pub mod events;
pub mod exec;
pub mod hooks;
mod init;
pub mod kill;
pub mod launch;
pub mod namespaces;
pub mod netdevices;
pub mod notify;
pub mod pause;
pub mod plan;
pub mod processes;
pub mod program;
pub mod protocol;
pub mod rdt;
pub mod records;
pub mod rootfs;
pub mod rootless;
pub mod sd_notify;
pub mod security;
pub mod spec;
pub mod start;
pub mod state;
pub mod validate;
