//! The OCI runtime: synchronous and single-threaded.

pub mod cgroup;
