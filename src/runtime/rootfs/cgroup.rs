//! The mount type `cgroup`: the container's view of its cgroups.
use super::destination::{Content, Place};
use super::mounts::{Builder, Fresh, absolute};
use super::options::MountOptions;
use super::plan::{MountKind, MountStep};
use super::{Result, RootfsError};
use crate::runtime::cgroup::{Hierarchy, Mode, Paths, Version};
use crate::sys::SysError;
use crate::sys::mount::{self, Attr, Scope};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode as FileMode, mkdirat};
use nix::unistd::symlinkat;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// As runc has them on every cgroup mount of v1.
const ATTR: Attr = Attr::NOSUID.union(Attr::NODEV).union(Attr::NOEXEC);

pub(super) fn mount(builder: &mut Builder<'_>, step: &MountStep) -> Result<()> {
    let missing = || RootfsError::UnsupportedMount {
        destination: absolute(step),
        what: "a cgroup mount of a container without cgroups",
    };
    let paths = builder.facts.cgroup.ok_or_else(missing)?;
    match paths.mode {
        Mode::Unified => unified(builder, step, paths.v2()),
        Mode::V1 | Mode::Hybrid => hierarchies(builder, step, paths),
    }
}

/// A cgroup2 file system, or, where a user namespace without a cgroup namespace may not mount one, the
/// host's tree (runc's `mountCgroupV2`). A container without a cgroup of its own would be shown its caller's: it
/// may look at it, but not change it, whatever its configuration says (CVE-2023-25809).
fn unified(builder: &mut Builder<'_>, step: &MountStep, hierarchy: Option<&Hierarchy>) -> Result<()> {
    let place = builder.table.directory(&step.destination)?;
    let data = step.options.data.iter().map(String::as_str).collect();
    let own = hierarchy.filter(|_| !builder.facts.cgroups_refused);
    let foreign = if own.is_none() { Attr::RDONLY } else { Attr::empty() };
    let fresh =
        Fresh { fstype: "cgroup2", source: Some("cgroup"), data, attr: step.options.attr() | foreign };
    match fresh.make(step.options.superblock.names()) {
        Ok(mount) => builder.attach(step, "cgroup2", mount, &place, Content::Theirs),
        Err(error) if matches!(error.errno, Errno::EPERM | Errno::EBUSY) => match own {
            Some(own) => {
                let namespaced = builder.plan.cgroup_namespace;
                let source = if namespaced { own.dir() } else { own.mount_point.clone() };
                builder.bind(step, &source, Scope::Mount, None)
            }
            None => mask(builder, step, &place),
        },
        Err(error) => Err(RootfsError::mount("cgroup2", &absolute(step))(error)),
    }
}

/// Hides what is at the mount point, which may be the host's by a bind mount of its /sys.
fn mask(builder: &mut Builder<'_>, step: &MountStep, place: &Place) -> Result<()> {
    let empty =
        Fresh { fstype: "tmpfs", source: Some("cgroup"), data: vec!["mode=555"], attr: ATTR | Attr::RDONLY };
    let empty = empty.make([].into_iter()).map_err(RootfsError::mount("tmpfs", &absolute(step)))?;
    builder.attach(step, "tmpfs", empty, place, Content::Theirs)
}

/// A tmpfs with a directory for each v1 hierarchy (runc's `mountCgroupV1`).
fn hierarchies(builder: &mut Builder<'_>, step: &MountStep, paths: &Paths) -> Result<()> {
    let destination = absolute(step);
    let failed = |error| RootfsError::mount("tmpfs", &destination)(error);
    let top = Fresh { fstype: "tmpfs", source: Some("tmpfs"), data: vec!["mode=755"], attr: ATTR };
    let top = top.make([].into_iter()).map_err(failed)?;
    let dir = top.try_clone().map_err(SysError::io("fcntl", "F_DUPFD_CLOEXEC")).map_err(failed)?;
    let place = builder.table.directory(&step.destination)?;
    let tmpfs = MountStep {
        destination: step.destination.clone(),
        kind: MountKind::Cgroup,
        options: MountOptions { propagation: step.options.propagation.clone(), ..MountOptions::default() },
        copy_up_volume: false,
        idmap: None,
    };
    builder.attach(&tmpfs, "tmpfs", top, &place, Content::Ours)?;
    let read_only = step.options.set & Attr::RDONLY;
    for hierarchy in paths.hierarchies.iter().filter(|one| one.version == Version::V1) {
        let mounted = Mounted::of(hierarchy);
        let name = mounted.name.display().to_string();
        let failed = |error| RootfsError::mount(&name, &destination.join(&mounted.name))(error);
        mkdirat(&dir, &mounted.name, FileMode::from_bits_truncate(0o755))
            .map_err(SysError::on("mkdirat", name.as_str()))
            .map_err(failed)?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let place = crate::sys::root::open_beneath(dir.as_fd(), &mounted.name, flags).map_err(failed)?;
        let place = Place { fd: place, real: true, created: true };
        let mount = mounted.mount(builder, step).map_err(failed)?;
        let below = MountStep { destination: step.destination.join(&mounted.name), ..tmpfs.clone() };
        builder.attach(&below, &name, mount, &place, Content::Theirs)?;
        // `cpu,cpuacct` is found under either name.
        for alias in mounted.aliases() {
            match symlinkat(&mounted.name, &dir, alias) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(failed(SysError::on("symlinkat", alias)(errno))),
            }
        }
    }
    if !read_only.is_empty() {
        let change = mount::Change { set: Attr::RDONLY, ..mount::Change::default() };
        mount::set_attr(dir.as_fd(), &change, Scope::Mount, "tmpfs").map_err(failed)?;
    }
    Ok(())
}

/// A cgroup of the host's hierarchy.
fn bound(source: &Path, step: &MountStep, more: Attr) -> std::result::Result<OwnedFd, SysError> {
    let name = source.display().to_string();
    let mount = mount::clone_tree(nix::fcntl::AT_FDCWD, source, Scope::Tree)?;
    let with = |change: mount::Change| mount::Change { set: change.set | more, ..change };
    let change = with(step.options.bind_change());
    if !change.is_empty() {
        match mount::set_attr(mount.as_fd(), &change, Scope::Mount, &name) {
            Err(error) if error.errno == Errno::EPERM => {
                let change = with(step.options.bind_change_locked());
                mount::set_attr(mount.as_fd(), &change, Scope::Mount, &name)?;
            }
            result => result?,
        }
    }
    Ok(mount)
}

/// A v1 hierarchy as it will be seen.
struct Mounted<'h> {
    hierarchy: &'h Hierarchy,
    /// The last component of the host's mount point: `cpu,cpuacct`, `systemd`.
    name: PathBuf,
}

impl<'h> Mounted<'h> {
    fn of(hierarchy: &'h Hierarchy) -> Mounted<'h> {
        let name = hierarchy.mount_point.file_name().unwrap_or_default();
        Mounted { hierarchy, name: PathBuf::from(name) }
    }

    fn mount(&self, builder: &Builder<'_>, step: &MountStep) -> std::result::Result<OwnedFd, SysError> {
        let dir = self.hierarchy.dir();
        let (place, foreign) = if builder.facts.cgroups_refused && !dir.is_dir() {
            // Without one of its own it is in its caller's, above: to look at, but not to change.
            (dir.parent().unwrap_or(&self.hierarchy.mount_point), Attr::RDONLY)
        } else {
            (dir.as_path(), Attr::empty())
        };
        if !builder.plan.cgroup_namespace {
            return bound(place, step, foreign);
        }
        match self.fresh(ATTR | (step.options.set & Attr::RDONLY) | foreign) {
            Err(error) if error.errno == Errno::EPERM => bound(place, step, foreign),
            result => result,
        }
    }

    /// A mount of the hierarchy: its root is the cgroup namespace's (cgroup_namespaces(7)).
    fn fresh(&self, attr: Attr) -> std::result::Result<OwnedFd, SysError> {
        let data = self.hierarchy.controllers.iter().map(|controller| controller.v1_name()).collect();
        Fresh { fstype: "cgroup", source: Some("cgroup"), data, attr }.make([].into_iter())
    }

    fn aliases(&self) -> impl Iterator<Item = &str> {
        let name = self.name.to_str().unwrap_or_default();
        name.split(',').filter(move |alias| name.contains(',') && !alias.is_empty())
    }
}
