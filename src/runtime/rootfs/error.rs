//! What can go wrong with a container's root file system.
use crate::error::{ErrorKind, Kind};
use crate::sys::SysError;
use std::path::{Path, PathBuf};

/// A failure of planning, building or sealing a root file system.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootfsError {
    /// `root` is missing in config.json, or its path is empty.
    #[error("config.json names no root.path")]
    NoRoot,
    /// It cannot be had among the host's own mounts.
    #[error("{what} needs a mount namespace in linux.namespaces")]
    NoMountNamespace {
        /// The field of config.json.
        what: &'static str,
    },
    /// A mount of config.json contradicts itself.
    #[error("mount {}: {reason}", destination.display())]
    InvalidMount {
        /// Where it was to go.
        destination: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// A mount asks for what this version does not build.
    #[error("mount {}: {what} is not supported", destination.display())]
    UnsupportedMount {
        /// Where it was to go.
        destination: PathBuf,
        /// The feature.
        what: &'static str,
    },
    /// The owners of files could not be mapped.
    #[error("cannot map the owners of {} on {}{hint}", source_path.display(), destination.display())]
    IdMap {
        /// The source of the bind mount.
        source_path: PathBuf,
        /// Where it was to go.
        destination: PathBuf,
        /// What the errno means, after a colon.
        hint: &'static str,
        /// Why.
        #[source]
        source: SysError,
    },
    /// `linux.rootfsPropagation` has an unknown value.
    #[error(
        "linux.rootfsPropagation {value:?} is not one of private, shared, slave, unbindable, or these with an r before"
    )]
    Propagation {
        /// The value.
        value: String,
    },
    /// A device of config.json is malformed.
    #[error("device {}: {reason}", path.display())]
    InvalidDevice {
        /// Its path in the container.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// A sysctl that config.json may not set.
    #[error("sysctl {key}: {reason}")]
    Sysctl {
        /// The key as written.
        key: String,
        /// Why not.
        reason: &'static str,
    },
    /// A step on the root file system as a whole failed.
    #[error("cannot {action} {}", path.display())]
    Root {
        /// What was tried.
        action: &'static str,
        /// The path of the root file system, or of what else is named.
        path: PathBuf,
        /// Why.
        #[source]
        source: SysError,
    },
    /// A mount could not be made.
    #[error("cannot mount {what} on {}", destination.display())]
    Mount {
        /// The file system type, or the source of a bind mount.
        what: String,
        /// Where, inside the container.
        destination: PathBuf,
        /// Why.
        #[source]
        source: SysError,
    },
    /// The place of a mount could not be opened or made.
    #[error("cannot open or make the mount point {}", destination.display())]
    Destination {
        /// Where, inside the container.
        destination: PathBuf,
        /// Why.
        #[source]
        source: SysError,
    },
    /// proc and sysfs are mounted on a real directory only: writes of security attributes would go through
    /// a symbolic link of the image otherwise (CVE-2019-19921, CVE-2023-27561).
    #[error("{fstype} must be mounted on a real directory, and {} leads through a symbolic link or is something else", destination.display())]
    NotRealDirectory {
        /// The file system type.
        fstype: &'static str,
        /// Where, inside the container.
        destination: PathBuf,
    },
    /// Something would hide a part of /proc (CVE-2019-16884).
    #[error("{} cannot be mounted because it is inside /proc", destination.display())]
    InsideProc {
        /// Where, inside the container.
        destination: PathBuf,
    },
    /// A device node could not be made.
    #[error("cannot make the device {}", path.display())]
    Device {
        /// Its path in the container.
        path: PathBuf,
        /// Why.
        #[source]
        source: SysError,
    },
    /// At the place of a device node lies something else (CVE-2025-31133, CVE-2026-88265).
    #[error("{} is there already and is not the device {kind} {major}:{minor}", path.display())]
    WrongDevice {
        /// Its path.
        path: PathBuf,
        /// `c`, `b` or `p`.
        kind: char,
        /// The major number that it should have.
        major: u64,
        /// The minor number that it should have.
        minor: u64,
    },
    /// The console could not be made.
    #[error("cannot make the console")]
    Console {
        /// Why.
        #[source]
        source: SysError,
    },
    /// Copying the content of a directory into a fresh volume or tmpfs failed.
    #[error("cannot copy the content of {} into the mount on it", destination.display())]
    CopyUp {
        /// Where, inside the container.
        destination: PathBuf,
        /// Why.
        #[source]
        source: SysError,
    },
    /// A path could not be hidden or made read-only.
    #[error("cannot {action} {}", path.display())]
    Seal {
        /// What was tried.
        action: &'static str,
        /// The path inside the container.
        path: PathBuf,
        /// Why.
        #[source]
        source: SysError,
    },
    /// A sysctl could not be written.
    #[error("cannot set sysctl {key}")]
    WriteSysctl {
        /// The key as written in config.json.
        key: String,
        /// Why.
        #[source]
        source: SysError,
    },
}

impl Kind for RootfsError {
    fn kind(&self) -> ErrorKind {
        match self {
            RootfsError::NoRoot
            | RootfsError::NoMountNamespace { .. }
            | RootfsError::InvalidMount { .. }
            | RootfsError::Propagation { .. }
            | RootfsError::InvalidDevice { .. }
            | RootfsError::Sysctl { .. }
            | RootfsError::NotRealDirectory { .. }
            | RootfsError::InsideProc { .. }
            | RootfsError::WrongDevice { .. } => ErrorKind::InvalidInput,
            RootfsError::UnsupportedMount { .. } => ErrorKind::Unsupported,
            RootfsError::Root { source, .. }
            | RootfsError::IdMap { source, .. }
            | RootfsError::Mount { source, .. }
            | RootfsError::Destination { source, .. }
            | RootfsError::Device { source, .. }
            | RootfsError::Console { source }
            | RootfsError::CopyUp { source, .. }
            | RootfsError::Seal { source, .. }
            | RootfsError::WriteSysctl { source, .. } => source.kind(),
        }
    }
}

impl RootfsError {
    /// For `map_err` on a step that concerns the whole root file system.
    pub(super) fn root(action: &'static str, path: &Path) -> impl FnOnce(SysError) -> RootfsError {
        move |source| RootfsError::Root { action, path: path.to_owned(), source }
    }

    /// For `map_err` on a mount.
    pub(super) fn mount(what: &str, destination: &Path) -> impl FnOnce(SysError) -> RootfsError {
        move |source| RootfsError::Mount { what: what.to_owned(), destination: absolute(destination), source }
    }

    /// For `map_err` on a mount point.
    pub(super) fn destination(destination: &Path) -> impl FnOnce(SysError) -> RootfsError {
        move |source| RootfsError::Destination { destination: absolute(destination), source }
    }

    /// For `map_err` on a device.
    pub(super) fn device(path: &Path) -> impl FnOnce(SysError) -> RootfsError {
        move |source| RootfsError::Device { path: path.to_owned(), source }
    }

    /// For `map_err` on a masked or read-only path.
    pub(super) fn seal(action: &'static str, path: &Path) -> impl FnOnce(SysError) -> RootfsError {
        move |source| RootfsError::Seal { action, path: path.to_owned(), source }
    }
}

/// A path as the container sees it.
fn absolute(path: &Path) -> PathBuf {
    Path::new("/").join(path)
}
