//! The container's root file system.
//!
//! ```text
//! plan     config.json -> RootfsPlan            pure: every option is parsed before anything is touched
//! prepare  mounts, devices, links, console      in the new mount namespace, the host's root still visible
//! pivot    the prepared tree becomes "/"
//! seal     read-only root, sysctls, read-only and masked paths
//! ```
//! A container that shares the runtime's mount namespace gets its mounts below a directory of the runtime's, and
//! `chroot` instead of the pivot.
//!
//! All three run in the single-threaded container side. Nothing in the tree is touched by a path that the
//! kernel resolves twice: a mount point is opened once inside the root handle, and the finished mount is
//! attached to that descriptor.
mod cgroup;
mod console;
mod copyup;
mod destination;
mod devices;
mod error;
mod idmap;
mod mounts;
pub mod options;
mod pivot;
mod plan;
mod prepare;
mod seal;
mod sources;
pub mod sysctl;

pub use copyup::copy_up;
pub use error::RootfsError;
pub use pivot::pivot;
pub use plan::{PlanFacts, RootfsPlan, plan};
pub use prepare::{MountFacts, Prepared, RootSource, prepare};
pub use seal::seal;
pub use sources::{HostSources, Wanted};

/// The result of everything here.
pub type Result<T> = std::result::Result<T, RootfsError>;
