//! The harness of the privileged tests: they drive the built binary from outside, as a caller would.
//!
//! - [`Fixture`]: one test's own world (temporary directory, state root, ids, cgroups); when it goes, it
//!   deletes what the test made and fails the test if anything of it is left ([`leaks`]).
//! - [`Bundle`]: a root file system with the static probe and busybox, and a `config.json` made by the
//!   runtime's own `spec` and then edited.
//! - [`command`]: running a command with a deadline; [`events`]: waiting for something to happen, never by the clock.
//! - [`cgroup`]: the values of a container's cgroup as the host sees them, on v1 and v2.
//! - [`terminal`]: the caller's end of a console socket. [`user`]: an ordinary user, as whom the runtime runs rootless.
//! - [`kill_point`]: disturbs a command at its n-th system call. [`campaign`]: does so to the runtime's commands.
//! - [`image`]: small images as archives, made without any other tool. [`registry`]: registries, honest and not.
//! - [`corpus`]: hostile layers with their verdicts, made by [`header`]. [`tree`]: all that a tree on disk is, to compare it.
//! - [`agent`]: a node agent with its own directories, network and tasks. [`cri`]: pods on it, made with crictl.
//! - [`daemon`]: dockerd or containerd, with the binary under test as their runtime.
//!
//! A need that the machine does not meet fails the test with its name; nothing is skipped.
#![expect(clippy::disallowed_methods, reason = "the tests own the directories that they work on")]

pub mod agent;
pub mod bundle;
pub mod campaign;
pub mod cgroup;
pub mod command;
pub mod corpus;
pub mod cri;
pub mod daemon;
pub mod events;
pub mod fault_proxy;
pub mod fixture;
pub mod header;
pub mod image;
pub mod kill_point;
pub mod leaks;
pub mod needs;
pub mod registry;
mod sys;
pub mod terminal;
pub mod tree;
pub mod user;

pub use agent::Agent;
pub use bundle::Bundle;
pub use command::{Outcome, run};
pub use fixture::Fixture;
pub use sys::{Answer, answer_notification, ioctl, set_inheritable, wait4, with_groups};
