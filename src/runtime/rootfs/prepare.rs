//! Builds the tree: everything up to the moment when it becomes "/".
use super::destination::MountTable;
use super::mounts::Builder;
use super::plan::RootfsPlan;
use super::sources::HostSources;
use super::{Result, RootfsError, console, devices};
use crate::runtime::cgroup;
use crate::sys::SysError;
use crate::sys::mount::{self, Change, Propagation, Scope};
use crate::sys::pty::Pty;
use crate::sys::root::Root;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, umask};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Where the root file system comes from.
#[derive(Debug)]
pub enum RootSource {
    /// The directory `root.path` of the bundle.
    Path,
    /// A detached mount, which is attached on the host directory `at`, or on the bundle's `root.path`.
    Detached {
        /// The mount, as `fsmount` or `open_tree` gave it.
        mount: OwnedFd,
        /// An existing directory; only this mount namespace sees what is attached to it.
        at: Option<PathBuf>,
    },
}

/// What the plan cannot know.
#[derive(Debug, Default)]
pub struct MountFacts<'f> {
    /// The container's cgroups, for a mount of type `cgroup`.
    pub cgroup: Option<&'f cgroup::Paths>,
    /// Some of them are not there: a rootless runtime could not make them.
    pub cgroups_refused: bool,
    /// Sources that the host side has opened already ([`RootfsPlan::open_sources`]), for a user namespace
    /// whose root may not walk to them.
    pub sources: HostSources,
    /// For a container without a mount namespace ([`RootfsPlan::shares_mounts`]): an empty directory of the
    /// runtime's own, on which the root is mounted, and which is to be detached with all that is mounted there when
    /// the container is deleted.
    pub mount_point: Option<OwnedFd>,
}

/// A root file system on which only [`super::pivot`] and [`super::seal`] are left to do.
#[derive(Debug)]
pub struct Prepared {
    pub(super) table: MountTable,
    /// The host path on which the root is mounted.
    root_path: PathBuf,
    console: Option<Pty>,
    /// A detached bind mount of the host's null device, for the first masked file.
    pub(super) null: Option<OwnedFd>,
    /// Mounts that become read-only at the end, because the container's set-up still writes to them.
    pub(super) read_only_later: Vec<(PathBuf, OwnedFd)>,
}

impl Prepared {
    /// The handle of the container's root.
    pub fn root(&self) -> &Root {
        &self.table.root
    }

    /// The root of a procfs of this container that the plan mounted: a place to write security attributes
    /// to that nothing is mounted over, if no mount is entered on the way (`RESOLVE_NO_XDEV`).
    pub fn proc(&self) -> Option<BorrowedFd<'_>> {
        self.table.proc()
    }

    /// Both ends of the console, if the process wants a terminal; once.
    pub fn take_console(&mut self) -> Option<Pty> {
        self.console.take()
    }

    pub(super) fn root_path(&self) -> &Path {
        &self.root_path
    }
}

/// Makes all mounts, device nodes, links and the console of the plan. Runs in the container's new mount
/// namespace (and its other namespaces), single-threaded, because it changes the umask for a while.
pub fn prepare(plan: &RootfsPlan, source: RootSource, facts: MountFacts<'_>) -> Result<Prepared> {
    // Modes are as planned; the process's own umask comes with its other attributes.
    let before = umask(Mode::empty());
    let result = build(plan, source, facts);
    umask(before);
    result
}

fn build(plan: &RootfsPlan, source: RootSource, mut facts: MountFacts<'_>) -> Result<Prepared> {
    let (propagation, scope) = match plan.propagation {
        None => (Propagation::Slave, Scope::Tree),
        // Nothing could be bound from it; it becomes unbindable when all mounts are made.
        Some((Propagation::Unbindable, scope)) => (Propagation::Private, scope),
        Some(given) => given,
    };
    let (root, root_path) = if plan.shares_mounts() {
        let point = facts.mount_point.take().ok_or(RootfsError::NoMountNamespace { what: "root" })?;
        attach_among_the_hosts(plan, source, &point)?
    } else {
        mount::set_root_propagation(propagation, scope)
            .map_err(RootfsError::root("set the propagation of", Path::new("/")))?;
        attach_root(plan, source)?
    };
    // Cloned now, because the host's tree is gone after the pivot. Attached to the first masked file, it is
    // the source of all others.
    let null = if plan.masked_paths.is_empty() { None } else { Some(devices::host_null()?) };

    let mut builder = Builder::new(plan, facts, MountTable::new(root));
    for (index, step) in plan.mounts.iter().enumerate() {
        builder.mount(index, step)?;
    }
    let (table, read_only_later) = builder.finish();
    devices::create(plan, &table)?;
    let console = plan.console.map(|wanted| console::create(wanted, &table)).transpose()?;
    Ok(Prepared { console, null, read_only_later, ..Prepared::new(table, root_path) })
}

impl Prepared {
    fn new(table: MountTable, root_path: PathBuf) -> Prepared {
        Prepared { table, root_path, console: None, null: None, read_only_later: Vec::new() }
    }
}

/// Makes the root a mount of its own, which pivot_root(2) asks for.
fn attach_root(plan: &RootfsPlan, source: RootSource) -> Result<(Root, PathBuf)> {
    let (mount, at) = match source {
        RootSource::Path => (None, None),
        RootSource::Detached { mount, at } => (Some(mount), at),
    };
    let at = at.unwrap_or_else(|| plan.rootfs.clone());
    let failed = |action| RootfsError::root(action, &at);
    let target = Root::open_host(&at).map_err(failed("open the root file system"))?;
    make_parent_private(plan, &target).map_err(failed("make private the mount above"))?;
    let name = at.display().to_string();
    let mount = match mount {
        Some(mount) => mount,
        None => mount::clone_fd(target.as_fd(), &name, Scope::Tree).map_err(failed("bind-mount"))?,
    };
    mount::move_mount(mount.as_fd(), target.as_fd(), &name)
        .map_err(failed("mount the root file system on"))?;
    Ok((Root::new(mount), at))
}

/// Mounts the root on `point`, in the runtime's own mount namespace, so that nothing that is mounted in it reaches
/// the host's mounts: it hears of them at most.
fn attach_among_the_hosts(plan: &RootfsPlan, source: RootSource, point: &OwnedFd) -> Result<(Root, PathBuf)> {
    let failed = |action| RootfsError::root(action, &plan.rootfs);
    let name = plan.rootfs.display().to_string();
    let root = match source {
        RootSource::Detached { mount, .. } => mount,
        RootSource::Path => {
            let target = Root::open_host(&plan.rootfs).map_err(failed("open the root file system"))?;
            mount::clone_fd(target.as_fd(), &name, Scope::Tree).map_err(failed("bind-mount"))?
        }
    };
    let change = |propagation| Change { propagation: Some(propagation), ..Change::default() };
    let own = match plan.propagation {
        Some((Propagation::Private, _)) => Propagation::Private,
        _ => Propagation::Slave,
    };
    mount::set_attr(root.as_fd(), &change(own), Scope::Tree, &name).map_err(failed("separate"))?;
    // What is attached below a shared mount, as the host's /run often is, goes to all its peers: a mount alone
    // first, which takes it all back when it is detached, and below which nothing goes anywhere once it is private.
    let base = mount::clone_fd(point.as_fd(), "mount point", Scope::Mount).map_err(failed("bind-mount"))?;
    mount::move_mount(base.as_fd(), point.as_fd(), "mount point").map_err(failed("mount"))?;
    mount::set_attr(base.as_fd(), &change(Propagation::Private), Scope::Mount, "mount point")
        .map_err(failed("make private the mount above"))?;
    mount::move_mount(root.as_fd(), base.as_fd(), &name).map_err(failed("mount"))?;
    Ok((Root::new(root), plan.rootfs.clone()))
}

/// pivot_root(2) refuses a root whose parent mount is shared. After the default, a recursive slave, none is.
fn make_parent_private(plan: &RootfsPlan, target: &Root) -> std::result::Result<(), SysError> {
    match plan.propagation {
        None | Some((Propagation::Slave | Propagation::Private, Scope::Tree)) => return Ok(()),
        Some(_) => {}
    }
    let private = Change { propagation: Some(Propagation::Private), ..Change::default() };
    let mut dir = target.as_fd().try_clone_to_owned().map_err(SysError::io("fcntl", "F_DUPFD_CLOEXEC"))?;
    loop {
        // EINVAL: not the root of a mount. "/" is one, so that the walk ends there at the latest.
        match mount::set_attr(dir.as_fd(), &private, Scope::Mount, "..") {
            Err(error) if error.errno == Errno::EINVAL => {}
            result => return result,
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        dir = nix::fcntl::openat(&dir, "..", flags, Mode::empty()).map_err(SysError::on("openat", ".."))?;
    }
}
