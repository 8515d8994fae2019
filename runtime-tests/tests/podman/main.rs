//! Debian's podman drives the binary as its OCI runtime, unchanged. Only on the host: the virtual machine has no
//! podman.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod client;
mod ids;
mod life;
mod ordinary_user;
mod pod;
