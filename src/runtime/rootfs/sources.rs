//! The host's side of bind mounts: what they show, opened before the container's side begins.
use super::idmap::UserNamespaces;
use super::mounts::absolute;
use super::plan::{MountKind, MountStep, RootfsPlan};
use super::{Result, RootfsError};
use crate::sys::SysError;
use crate::sys::mount::{self, Change, Propagation, Scope};
use nix::fcntl::AT_FDCWD;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Which sources the host's side opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// All, for a user namespace whose root may not walk to them.
    All,
    /// Those that only the host's side can prepare: with mapped owners.
    Mapped,
}

/// Detached copies of the sources of bind mounts, made by the host side.
#[derive(Debug, Default)]
pub struct HostSources {
    /// With the numbers of their mounts: there are few, and a hash table would ask the kernel for its seed.
    by_step: Vec<(usize, OwnedFd)>,
}

impl HostSources {
    /// The source of the mount with this number, once.
    pub(super) fn take(&mut self, index: usize) -> Option<OwnedFd> {
        let at = self.by_step.iter().position(|(number, _)| *number == index)?;
        Some(self.by_step.swap_remove(at).1)
    }
}

impl RootfsPlan {
    /// Opens sources of bind mounts, before the process enters its user namespace. Needs CAP_SYS_ADMIN over the
    /// current mount namespace, and mapped owners need it over the user namespace that the source's file system
    /// belongs to.
    pub fn open_sources(&self, wanted: Wanted) -> Result<HostSources> {
        let mut sources = HostSources::default();
        let mut users = UserNamespaces::default();
        for (index, step) in self.mounts.iter().enumerate() {
            let MountKind::Bind { source, scope } = &step.kind else { continue };
            if (wanted == Wanted::Mapped && step.idmap.is_none()) || step.options.copy_symlink {
                continue;
            }
            let destination = absolute(step);
            let failed = |error| RootfsError::mount(&source.display().to_string(), &destination)(error);
            let fd = open(step, source, *scope).map_err(failed)?;
            // A copy of a shared mount is its peer: what the container mounts below would reach the host.
            let slave = Change { propagation: Some(Propagation::Slave), ..Change::default() };
            mount::set_attr(fd.as_fd(), &slave, Scope::Tree, "source").map_err(failed)?;
            if let Some(idmap) = &step.idmap {
                users.apply(idmap, fd.as_fd(), source, &destination)?;
            }
            sources.by_step.push((index, fd));
        }
        Ok(sources)
    }
}

/// A detached copy of what `source` is.
pub(super) fn open(step: &MountStep, source: &Path, scope: Scope) -> std::result::Result<OwnedFd, SysError> {
    if step.options.source_no_follow {
        mount::clone_tree_no_follow(AT_FDCWD, source, scope)
    } else {
        mount::clone_tree(AT_FDCWD, source, scope)
    }
}
