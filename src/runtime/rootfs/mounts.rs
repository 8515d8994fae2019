//! Makes the mounts of the plan, each detached first and attached to an open place when it is finished.
use super::destination::{Content, MountTable, Place};
use super::plan::{MountKind, MountStep, RootfsPlan};
use super::prepare::MountFacts;
use super::{Result, RootfsError, cgroup, copyup, sources};
use crate::runtime::rootless::in_user_namespace;
use crate::sys::SysError;
use crate::sys::mount::{self, Attr, Change, FsContext, Propagation, Scope};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, readlinkat};
use nix::sys::stat::{SFlag, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// File systems without a device behind them: `ro` concerns the mount. Their superblock may be the host's
/// own, which must not become read-only.
const VIRTUAL: &[&str] = &[
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "proc",
    "pstore",
    "ramfs",
    "securityfs",
    "selinuxfs",
    "sysfs",
    "tmpfs",
    "tracefs",
];

/// A file system to be made.
pub(super) struct Fresh<'m> {
    pub(super) fstype: &'m str,
    pub(super) source: Option<&'m str>,
    /// `key` or `key=value`.
    pub(super) data: Vec<&'m str>,
    pub(super) attr: Attr,
}

impl Fresh<'_> {
    /// A detached mount of it.
    pub(super) fn make(
        &self,
        flags: impl Iterator<Item = &'static str>,
    ) -> std::result::Result<OwnedFd, SysError> {
        let context = FsContext::open(self.fstype)?;
        if let Some(source) = self.source {
            context.set_string("source", source)?;
        }
        if self.attr.contains(Attr::RDONLY) && !VIRTUAL.contains(&self.fstype) {
            context.set_flag("ro")?;
        }
        for flag in flags {
            context.set_flag(flag)?;
        }
        for option in &self.data {
            match option.split_once('=') {
                Some((key, value)) => context.set_string(key, value)?,
                None => context.set_flag(option)?,
            }
        }
        context.mount(self.attr)
    }
}

/// Makes the mounts one after the other.
pub(super) struct Builder<'p> {
    pub(super) plan: &'p RootfsPlan,
    pub(super) facts: MountFacts<'p>,
    pub(super) table: MountTable,
    read_only_later: Vec<(PathBuf, OwnedFd)>,
}

impl<'p> Builder<'p> {
    pub(super) fn new(plan: &'p RootfsPlan, facts: MountFacts<'p>, table: MountTable) -> Builder<'p> {
        Builder { plan, facts, table, read_only_later: Vec::new() }
    }

    pub(super) fn finish(self) -> (MountTable, Vec<(PathBuf, OwnedFd)>) {
        (self.table, self.read_only_later)
    }

    /// Makes the mount `step`, number `index` of the plan.
    pub(super) fn mount(&mut self, index: usize, step: &MountStep) -> Result<()> {
        match &step.kind {
            MountKind::Bind { source, scope } => {
                let opened = self.facts.sources.take(index);
                self.bind(step, source, *scope, opened)
            }
            MountKind::Fresh { fstype, source } => self.fresh(step, fstype, source.as_deref()),
            MountKind::Cgroup => cgroup::mount(self, step),
            MountKind::Remount => self.remount(step),
        }
    }

    fn fresh(&mut self, step: &MountStep, fstype: &str, source: Option<&str>) -> Result<()> {
        let destination = absolute(step);
        let failed = |error| RootfsError::mount(fstype, &destination)(error);
        let place = match fstype {
            "proc" => self.table.real_directory(&step.destination, "proc")?,
            "sysfs" => self.table.real_directory(&step.destination, "sysfs")?,
            _ => self.table.directory(&step.destination)?,
        };
        if fstype != "proc" {
            check_not_in_proc(step, &place)?;
        }
        let mut data: Vec<&str> = step.options.data.iter().map(String::as_str).collect();
        let mode;
        if fstype == "tmpfs" && !place.created && !step.options.has_data("mode") {
            // A tmpfs on a directory of the image keeps its mode, as in runc.
            let stat = fstat(&place.fd).map_err(SysError::on("fstat", "mount point")).map_err(failed)?;
            mode = format!("mode={:o}", stat.st_mode & 0o7777);
            data.push(&mode);
        }
        let label;
        // Procfs and sysfs have labels of their own; a message queue's root gets its label when it is made.
        if let Some(context) = self.plan.mount_label.as_deref()
            && !matches!(fstype, "proc" | "sysfs" | "mqueue")
        {
            label = format!("context={context}");
            data.push(&label);
        }
        // The container's set-up still makes nodes in /dev and mount points in other tmpfs.
        let later = step.options.set.contains(Attr::RDONLY) && is_set_up_later(step, fstype);
        let attr = if later { step.options.attr() & !Attr::RDONLY } else { step.options.attr() };
        let made = Fresh { fstype, source, data, attr }.make(step.options.superblock.names());
        let mount = match made {
            Err(error)
                if error.errno == Errno::EPERM
                    && fstype == "sysfs"
                    && (self.plan.user_namespace || in_user_namespace()) =>
            {
                // A user namespace without a network namespace of its own may not mount sysfs, and the
                // host's is what it would show anyway: crun's fallback, and what `runc spec --rootless` has.
                // A fresh sysfs has nothing mounted in it, so that its flags are meant for all of this.
                let mut bind = step.clone();
                bind.options.recursive.set |= step.options.set;
                return self.bind(&bind, Path::new("/sys"), Scope::Tree, None);
            }
            result => result.map_err(failed)?,
        };
        if let Some(label) = self.plan.mount_label.as_deref().filter(|_| fstype == "mqueue") {
            set_label(&mount, label).map_err(failed)?;
        }
        if step.options.copy_up {
            copyup::copy_into_mount(place.fd.as_fd(), mount.as_fd(), &destination)?;
        }
        let content = match fstype {
            "proc" => Content::Proc,
            "tmpfs" if !step.options.copy_up => Content::Ours,
            _ => Content::Theirs,
        };
        if later {
            let fd = mount.try_clone().map_err(SysError::io("fcntl", "F_DUPFD_CLOEXEC")).map_err(failed)?;
            self.read_only_later.push((destination.clone(), fd));
        }
        self.attach(step, fstype, mount, &place, content)
    }

    /// Binds the host's `source`; `opened` is a copy of it that the host side has made.
    pub(super) fn bind(
        &mut self,
        step: &MountStep,
        source: &Path,
        scope: Scope,
        opened: Option<OwnedFd>,
    ) -> Result<()> {
        let what = source.display().to_string();
        let destination = absolute(step);
        let failed = |error| RootfsError::mount(&what, &destination)(error);
        if step.options.copy_symlink && self.copy_symlink(step, source)? {
            return Ok(());
        }
        let mount = match opened {
            Some(fd) => fd,
            None => sources::open(step, source, scope).map_err(failed)?,
        };
        let stat = fstat(&mount).map_err(SysError::on("fstat", what.as_str())).map_err(failed)?;
        let is_directory = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR;
        let place = if step.options.destination_no_follow {
            self.table.no_follow(&step.destination, is_directory)?
        } else if is_directory {
            self.table.directory(&step.destination)?
        } else {
            self.table.file(&step.destination)?
        };
        if step.destination == Path::new("proc") {
            check_is_proc(mount.as_fd(), &destination)?;
        } else {
            check_not_in_proc(step, &place)?;
        }
        if step.copy_up_volume {
            copyup::copy_into_mount(place.fd.as_fd(), mount.as_fd(), &destination)?;
        }
        let change = step.options.bind_change();
        if !change.is_empty() {
            match mount::set_attr(mount.as_fd(), &change, Scope::Mount, &what) {
                Err(error) if error.errno == Errno::EPERM => {
                    let change = step.options.bind_change_locked();
                    mount::set_attr(mount.as_fd(), &change, Scope::Mount, &what).map_err(failed)?;
                }
                result => result.map_err(failed)?,
            }
        }
        self.attach(step, &what, mount, &place, Content::Theirs)
    }

    /// Makes the symbolic link that `source` is at the destination; false if it is none.
    fn copy_symlink(&self, step: &MountStep, source: &Path) -> Result<bool> {
        let target = match readlinkat(AT_FDCWD, source) {
            Err(Errno::EINVAL) => return Ok(false),
            result => result.map_err(SysError::on("readlinkat", source.display().to_string())),
        };
        let target = target.map_err(RootfsError::mount("copy-symlink", &step.destination))?;
        let failed = |error| RootfsError::destination(&step.destination)(error);
        let entry = self.table.root.entry(&step.destination).map_err(failed)?;
        match entry.symlink(Path::new(&target)) {
            Err(error) if error.errno == Errno::EEXIST => {
                // One that is the same, of an earlier start, is as good.
                let found = readlinkat(&entry.parent, entry.name).map_err(|_| error).map_err(failed)?;
                if found == target {
                    Ok(true)
                } else {
                    Err(failed(SysError::on("symlinkat", step.destination.display().to_string())(
                        Errno::EEXIST,
                    )))
                }
            }
            result => result.map(|()| true).map_err(failed),
        }
    }

    /// The last steps that all kinds share.
    pub(super) fn attach(
        &mut self,
        step: &MountStep,
        what: &str,
        mount: OwnedFd,
        place: &Place,
        content: Content,
    ) -> Result<()> {
        let destination = absolute(step);
        let failed = |error| RootfsError::mount(what, &destination)(error);
        if self.plan.shares_mounts() {
            // A copy of one of the host's mounts would be its peer. In a mount namespace of the container's own, the
            // propagation of its root has seen to that.
            let slave = Change { propagation: Some(Propagation::Slave), ..Change::default() };
            mount::set_attr(mount.as_fd(), &slave, Scope::Tree, what).map_err(failed)?;
        }
        if !step.options.recursive.is_empty() {
            mount::set_attr(mount.as_fd(), &step.options.recursive, Scope::Tree, what).map_err(failed)?;
        }
        mount::move_mount(mount.as_fd(), place.fd.as_fd(), what).map_err(failed)?;
        for (propagation, scope) in &step.options.propagation {
            let change = Change { propagation: Some(*propagation), ..Change::default() };
            mount::set_attr(mount.as_fd(), &change, *scope, what).map_err(failed)?;
        }
        self.table.add(&step.destination, place, mount, content);
        Ok(())
    }

    /// Changes the mount that is there: with `bind` its attributes, else its superblock too (mount(2),
    /// MS_REMOUNT).
    fn remount(&mut self, step: &MountStep) -> Result<()> {
        let destination = absolute(step);
        let failed = |error| RootfsError::mount("remount", &destination)(error);
        let mount = self.table.existing(&step.destination)?;
        if step.options.bind.is_none() {
            let context = FsContext::pick(mount.as_fd(), "remount").map_err(failed)?;
            let read_only = if step.options.set.contains(Attr::RDONLY) { "ro" } else { "rw" };
            for flag in step.options.superblock.names().chain([read_only]) {
                context.set_flag(flag).map_err(failed)?;
            }
            for option in &step.options.data {
                match option.split_once('=') {
                    Some((key, value)) => context.set_string(key, value),
                    None => context.set_flag(option),
                }
                .map_err(failed)?;
            }
            context.reconfigure().map_err(failed)?;
        }
        let change = step.options.bind_change();
        if !change.is_empty() {
            mount::set_attr(mount.as_fd(), &change, Scope::Mount, "remount").map_err(failed)?;
        }
        if !step.options.recursive.is_empty() {
            mount::set_attr(mount.as_fd(), &step.options.recursive, Scope::Tree, "remount")
                .map_err(failed)?;
        }
        for (propagation, scope) in &step.options.propagation {
            let change = Change { propagation: Some(*propagation), ..Change::default() };
            mount::set_attr(mount.as_fd(), &change, *scope, "remount").map_err(failed)?;
        }
        Ok(())
    }
}

/// What SELinux keeps its label in, for a file system whose mount option `context` old kernels do not know.
fn set_label(mount: &OwnedFd, label: &str) -> std::result::Result<(), SysError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let root = crate::sys::root::open_beneath(mount.as_fd(), Path::new("."), flags)?;
    crate::sys::xattr::set(&root, c"security.selinux", label.as_bytes())
}

/// Whether the container's set-up writes into the mount after it was made (runc's rule).
fn is_set_up_later(step: &MountStep, fstype: &str) -> bool {
    fstype == "tmpfs" || step.destination == Path::new("dev")
}

/// Nothing may hide a part of procfs from those who write security attributes to it (CVE-2019-16884), the
/// files of lxcfs excepted. What counts is where the path led to.
fn check_not_in_proc(step: &MountStep, place: &Place) -> Result<()> {
    let destination = absolute(step);
    let inside = is_proc(place.fd.as_fd()).map_err(RootfsError::destination(&destination))?;
    let bind = matches!(step.kind, MountKind::Bind { .. });
    let excepted = bind && place.real && step.is_proc_file();
    if inside && !excepted { Err(RootfsError::InsideProc { destination }) } else { Ok(()) }
}

/// Only a procfs is bound on /proc.
fn check_is_proc(mount: BorrowedFd<'_>, destination: &Path) -> Result<()> {
    match is_proc(mount) {
        Ok(true) => Ok(()),
        Ok(false) => Err(RootfsError::InsideProc { destination: destination.to_owned() }),
        Err(source) => Err(RootfsError::destination(destination)(source)),
    }
}

fn is_proc(fd: BorrowedFd<'_>) -> std::result::Result<bool, SysError> {
    fstatfs(fd)
        .map(|stat| stat.filesystem_type() == PROC_SUPER_MAGIC)
        .map_err(SysError::on("fstatfs", "mount point"))
}

/// The destination as the container sees it.
pub(super) fn absolute(step: &MountStep) -> PathBuf {
    Path::new("/").join(&step.destination)
}
