//! Making the cgroups of a container, all at once or those first in which its first process is born.
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use oci_spec::runtime::LinuxResources;

use super::create::limit;
use super::dir::{self, Dir};
use super::host::{Controller, Mode, Version};
use super::paths::Hierarchy;
use super::{Cgroup, Error, Paths, Placement, Result};
use crate::runtime::rootless::Rootless;
use crate::sys::SysError;

/// Cgroups made so far; dropped before [`Made::keep`], it removes them again, the youngest first.
#[derive(Debug, Default)]
struct Made {
    dirs: Vec<PathBuf>,
}

impl Made {
    /// Makes `path` unless it is there; says whether it was made.
    fn dir(&mut self, path: &Path) -> Result<bool, SysError> {
        let made = dir::make(path)?;
        if made {
            self.dirs.push(path.to_owned());
        }
        Ok(made)
    }

    fn keep(mut self) {
        self.dirs.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in self.dirs.iter().rev() {
            // Best effort: the error that led here is the one to tell.
            let _ = dir::unmake(path);
        }
    }
}

/// Cgroups that are being made. Dropped before [`Begun::keep`], it removes those that it made; no process may be in
/// them then.
#[derive(Debug)]
pub struct Begun<'a> {
    paths: &'a Paths,
    resources: Option<&'a LinuxResources>,
    rootless: Rootless,
    /// systemd has made some of the cgroups, or all, with this process in them.
    placeholder: Option<i32>,
    /// Each with whether it is new. A unit of systemd is new, and so are its cgroups.
    dirs: Vec<(Dir, bool)>,
    refused: Option<SysError>,
    made: Made,
}

impl<'a> Begun<'a> {
    pub(super) fn new(
        paths: &'a Paths,
        resources: Option<&'a LinuxResources>,
        rootless: Rootless,
        placeholder: Option<i32>,
    ) -> Self {
        let dirs = Vec::with_capacity(paths.hierarchies.len());
        Self { paths, resources, rootless, placeholder, dirs, refused: None, made: Made::default() }
    }

    /// Makes the v2 cgroup, if it is one of them; how a process is born in it. Into the others it gets by the
    /// [`Placement`] of the whole, once that is there.
    ///
    /// # Errors
    /// As [`Cgroup::create`].
    pub fn birthplace(&mut self) -> Result<Placement> {
        let mut placement = Placement::default();
        if let Some(hierarchy) = self.paths.v2() {
            self.make(hierarchy)?;
        }
        // Why not one that was there: `Placement::clone_into`.
        if let Some((dir, true)) = self.dirs.first() {
            placement.clone_into = Some(dir.clone_fd()?);
        }
        Ok(placement)
    }

    /// Makes the cgroups that are not there yet, and sets the limits. They go with this value before
    /// [`Begun::keep`].
    ///
    /// # Errors
    /// As [`Cgroup::create`].
    pub fn complete(&mut self) -> Result<Cgroup> {
        let born = !self.dirs.is_empty();
        for hierarchy in &self.paths.hierarchies {
            if !born || hierarchy.version == Version::V1 {
                self.make(hierarchy)?;
            }
        }
        let reused = self.dirs.iter().any(|(_, new)| !new);
        let cgroup = Cgroup {
            mode: self.paths.mode,
            dirs: std::mem::take(&mut self.dirs).into_iter().map(|(dir, _)| dir).collect(),
            paths: self.paths.clone(),
            reused,
            refused: self.refused.take(),
            placeholder: None,
        };
        if let Some(cpuset) = cgroup.dirs.iter().find(|dir| dir.has(Controller::Cpuset)) {
            let cpu = self.resources.and_then(|resources| resources.cpu().as_ref());
            let given = |list: Option<&Option<String>>| {
                list.is_some_and(|list| list.as_ref().is_some_and(|list| !list.is_empty()))
            };
            let (cpus, mems) = (given(cpu.map(|cpu| cpu.cpus())), given(cpu.map(|cpu| cpu.mems())));
            inherit_cpuset(cpuset, reused, cpus, mems)?;
        }
        if let Some(resources) = self.resources {
            limit(&cgroup, resources)?;
        }
        Ok(cgroup)
    }

    /// The cgroups stay.
    pub fn keep(self) {
        self.made.keep();
    }

    fn make(&mut self, hierarchy: &Hierarchy) -> Result<()> {
        let outcome = match hierarchy.version {
            Version::V2 if self.paths.mode == Mode::Unified => {
                make_v2(&mut self.made, &hierarchy.mount_point, &hierarchy.cgroup, self.resources)
            }
            _ => make_below(&mut self.made, &hierarchy.mount_point, &hierarchy.dir()).map_err(Error::from),
        };
        match outcome {
            Ok(new) => {
                let dir = Dir::open(hierarchy)?;
                if !new {
                    dir.check_empty_but(self.placeholder)?;
                }
                self.dirs.push((dir, new || self.placeholder.is_some()));
                Ok(())
            }
            Err(Error::System(error))
                if !self.paths.explicit && is_refusal(&error) && self.rootless.forgives() =>
            {
                tracing::debug!(%error, "do without a cgroup that a rootless runtime may not make");
                self.refused = Some(error);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// What the host says to those who may not make cgroups.
fn is_refusal(error: &SysError) -> bool {
    matches!(error.errno, Errno::EPERM | Errno::EACCES | Errno::EROFS)
}
/// Makes `path` with its parents below `mount_point`. One call where the parent is there.
fn make_below(made: &mut Made, mount_point: &Path, path: &Path) -> Result<bool, SysError> {
    match made.dir(path) {
        Err(error) if error.errno == Errno::ENOENT => match path.parent() {
            Some(parent) if parent != mount_point && parent.starts_with(mount_point) => {
                make_below(made, mount_point, parent)?;
                made.dir(path)
            }
            _ => Err(error),
        },
        other => other,
    }
}

/// A v1 cpuset takes no process before it has processors and memory nodes: fills those of `leaf` that will
/// not be given, and all empty ones above it, with what their parents have.
fn inherit_cpuset(leaf: &Dir, reused: bool, cpus_given: bool, mems_given: bool) -> Result<(), SysError> {
    for (file, given) in [("cpuset.cpus", cpus_given), ("cpuset.mems", mems_given)] {
        // From the leaf up to the first cpuset that has something; above the root there is no such file.
        let up = |levels: usize| format!("{}{file}", "../".repeat(levels));
        let mut levels = 1;
        let value = loop {
            match leaf.read(&up(levels)) {
                Ok(text) if text.trim_end().is_empty() && levels < dir::MAX_DEPTH => levels += 1,
                Ok(text) => break text.trim_end().to_owned(),
                Err(error) if dir::gone(&error) => break String::new(),
                Err(error) => return Err(error),
            }
        };
        if value.is_empty() {
            continue;
        }
        // From the top down, because a cpuset is a subset of its parent's.
        for level in (0..levels).rev().filter(|level| *level > 0 || !given) {
            let name = up(level);
            // One that was there before may be narrower on purpose.
            if level > 0 || !reused || leaf.read(&name)?.trim_end().is_empty() {
                leaf.write(&name, &value)?;
            }
        }
    }
    Ok(())
}

/// Makes a v2 cgroup, with every controller of the host enabled from the root down to its parent, as runc does:
/// the limits, statistics and OOM counts of a container need them, whichever are set now.
fn make_v2(
    made: &mut Made,
    mount_point: &Path,
    cgroup: &Path,
    resources: Option<&LinuxResources>,
) -> Result<bool> {
    let root = Dir::at(mount_point)?;
    let available = root.read("cgroup.controllers")?;
    let mut all = String::with_capacity(available.len() + 16);
    for name in available.split_ascii_whitespace() {
        all.push_str(if all.is_empty() { "+" } else { " +" });
        all.push_str(name);
    }
    let mut whole = enable(&root, &all);
    let mut path = mount_point.to_owned();
    let mut parts = cgroup.components().peekable();
    let mut new = false;
    while let Some(part) = parts.next() {
        path.push(part);
        new = made.dir(&path)?;
        if parts.peek().is_some() {
            whole = enable(&Dir::at(&path)?, &all);
        }
    }
    if new && !whole {
        settle_type(&Dir::at(&path)?, resources)?;
    }
    Ok(new)
}

/// Enables as many of `all` (`+cpu +memory`) as possible for the children of `dir`; says whether it was all.
/// A limit that needs a missing one tells the user.
fn enable(dir: &Dir, all: &str) -> bool {
    const FILE: &str = "cgroup.subtree_control";
    if all.is_empty() || dir.write(FILE, all).is_ok() {
        return true;
    }
    for one in all.split(' ') {
        // The kernel takes a list whole or not at all; one may be refused (processes in `dir`: EBUSY; not enabled
        // above: ENOENT; not ours: EACCES) where others are not.
        let _ = dir.write(FILE, one);
    }
    false
}

/// A cgroup below one with processes cannot be a domain: it takes processes only when threaded, and then
/// memory and io have no limits in it (cgroups(7), "Thread mode").
fn settle_type(dir: &Dir, resources: Option<&LinuxResources>) -> Result<()> {
    let kind = dir.read("cgroup.type")?;
    let invalid = kind.trim_end() == "domain invalid";
    if !invalid && kind.trim_end() == "domain" {
        return Ok(());
    }
    if resources.is_some_and(|resources| {
        resources.memory().is_some()
            || resources.block_io().is_some()
            || resources.hugepage_limits().is_some()
    }) {
        return Err(Error::Threaded { path: dir.path().to_owned() });
    }
    if invalid {
        dir.write("cgroup.type", "threaded")?;
    }
    Ok(())
}
