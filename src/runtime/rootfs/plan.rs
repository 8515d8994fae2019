//! From config.json to the list of steps. Pure: no system call, no file.
use super::devices::{self, DeviceNode};
use super::idmap::{self, IdMap, Mappings};
use super::options::{MountOptions, propagation};
use super::sysctl::{self, Sysctl};
use super::{Result, RootfsError};
use crate::sys::mount::{Propagation, Scope};
use crate::sys::pty::Size;
use oci_spec::runtime::{LinuxNamespaceType, Mount, Spec};
use std::path::{Component, Path, PathBuf};

/// What the plan cannot read from config.json.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PlanFacts {
    /// `--no-pivot`: move the root instead of pivoting, for a host that runs from its initial ramfs.
    pub no_pivot: bool,
}

/// Everything that [`super::prepare`], [`super::pivot`] and [`super::seal`] will do.
#[derive(Debug, Clone)]
pub struct RootfsPlan {
    pub(super) rootfs: PathBuf,
    pub(super) read_only: bool,
    pub(super) change: RootChange,
    pub(super) propagation: Option<(Propagation, Scope)>,
    pub(super) mounts: Vec<MountStep>,
    /// The caller has checked that the host has SELinux ([`RootfsPlan::has_mount_label`]).
    pub(super) mount_label: Option<String>,
    /// Whether /dev is ours to fill: it is not when the bundle binds a directory there.
    pub(super) fill_dev: bool,
    pub(super) devices: Vec<DeviceNode>,
    pub(super) console: Option<Console>,
    pub(super) sysctls: Vec<Sysctl>,
    pub(super) read_only_paths: Vec<PathBuf>,
    pub(super) masked_paths: Vec<PathBuf>,
    pub(super) user_namespace: bool,
    pub(super) cgroup_namespace: bool,
}

/// How the prepared tree becomes "/".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RootChange {
    Pivot,
    Move,
    /// Without a mount namespace of its own: pivot_root(2) would be the end of the host.
    Chroot,
}

/// A terminal is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Console {
    pub(super) size: Option<Size>,
}

/// One entry of `mounts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MountStep {
    /// Relative to the root, without `.`, `..` and empty components; empty for the root itself.
    pub(super) destination: PathBuf,
    pub(super) kind: MountKind,
    pub(super) options: MountOptions,
    /// A fresh volume: it gets the content of the directory that it covers.
    pub(super) copy_up_volume: bool,
    /// Only of a bind mount.
    pub(super) idmap: Option<IdMap>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MountKind {
    /// A host file or directory.
    Bind { source: PathBuf, scope: Scope },
    /// proc, sysfs, tmpfs, devpts, mqueue and every other type.
    Fresh { fstype: String, source: Option<String> },
    /// The cgroup file systems as the container shall see them.
    Cgroup,
    /// A change of what is mounted there already.
    Remount,
}

/// Files of procfs over which a bundle may mount its own view, as lxcfs does: the list of runc.
const PROC_FILES: &[&str] = &[
    "proc/cpuinfo",
    "proc/diskstats",
    "proc/loadavg",
    "proc/meminfo",
    "proc/slabinfo",
    "proc/stat",
    "proc/swaps",
    "proc/uptime",
    "proc/sys/crypto/fips_enabled",
    "proc/sys/kernel/ns_last_pid",
];

impl MountStep {
    /// Whether it would hide a part of procfs, going by its path alone (CVE-2019-16884). On /proc itself
    /// only a procfs is mounted; a bind mount there is looked at when its source is open.
    fn hides_proc(&self) -> bool {
        let bind = matches!(self.kind, MountKind::Bind { .. });
        let procfs = matches!(&self.kind, MountKind::Fresh { fstype, .. } if fstype == "proc");
        if self.kind == MountKind::Remount || !self.destination.starts_with("proc") {
            false
        } else if self.destination == Path::new("proc") {
            !bind && !procfs
        } else {
            !(bind && self.is_proc_file())
        }
    }

    /// Whether the destination is one of the files of procfs that may be covered.
    pub(super) fn is_proc_file(&self) -> bool {
        PROC_FILES.iter().any(|path| self.destination == Path::new(path))
    }
}

/// Plans the root file system of the container that `spec` describes; `bundle` is the directory of its
/// config.json, which relative paths start from.
///
/// # Errors
/// What is malformed, contradicts itself or is not built, with the mount, device or key that it is about.
pub fn plan(spec: &Spec, bundle: &Path, facts: PlanFacts) -> Result<RootfsPlan> {
    let root = spec.root().as_ref().filter(|root| !root.path().as_os_str().is_empty());
    let root = root.ok_or(RootfsError::NoRoot)?;
    let linux = spec.linux().as_ref();
    let namespaces = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    let has = |wanted| namespaces.iter().any(|namespace| namespace.typ() == wanted);

    let own_users = Mappings::of_container(linux);
    let mut mounts = Vec::new();
    for mount in spec.mounts().iter().flatten() {
        mounts.push(plan_mount(mount, bundle, own_users.as_ref())?);
    }
    let fill_dev = !mounts
        .iter()
        .any(|step| step.destination == Path::new("dev") && matches!(step.kind, MountKind::Bind { .. }));
    let change = if !has(LinuxNamespaceType::Mount) {
        RootChange::Chroot
    } else if facts.no_pivot {
        RootChange::Move
    } else {
        RootChange::Pivot
    };
    let planned = RootfsPlan {
        rootfs: bundle.join(root.path()),
        read_only: root.readonly().unwrap_or(false),
        change,
        propagation: plan_propagation(linux.and_then(|linux| linux.rootfs_propagation().as_deref()))?,
        mounts,
        mount_label: linux.and_then(|linux| linux.mount_label().clone()).filter(|label| !label.is_empty()),
        fill_dev,
        devices: devices::plan(linux.and_then(|linux| linux.devices().as_deref()).unwrap_or_default())?,
        console: plan_console(spec),
        sysctls: sysctl::plan(linux.and_then(|linux| linux.sysctl().as_ref()), &namespaces_of(namespaces))?,
        read_only_paths: paths(linux.and_then(|linux| linux.readonly_paths().as_deref())),
        masked_paths: paths(linux.and_then(|linux| linux.masked_paths().as_deref())),
        user_namespace: has(LinuxNamespaceType::User),
        cgroup_namespace: has(LinuxNamespaceType::Cgroup),
    };
    planned.check_shared_mounts()?;
    Ok(planned)
}

impl RootfsPlan {
    /// Lets the bind mount on `destination` (absolute in the container) start with the content of the
    /// directory that it covers: what a fresh volume shows. Returns whether there is such a mount.
    pub fn copy_up_volume(&mut self, destination: &Path) -> bool {
        let destination = clean(destination);
        let found = self
            .mounts
            .iter_mut()
            .rev()
            .find(|step| step.destination == destination && matches!(step.kind, MountKind::Bind { .. }));
        found.map(|step| step.copy_up_volume = true).is_some()
    }

    /// Whether the mounts are made in the runtime's own mount namespace, below a place of the container's
    /// ([`super::MountFacts::mount_point`]).
    pub fn shares_mounts(&self) -> bool {
        self.change == RootChange::Chroot
    }

    /// What cannot be had then: as in runc, nothing is hidden; and nothing is handed on to the host's mounts.
    fn check_shared_mounts(&self) -> Result<()> {
        let shared = matches!(self.propagation, Some((Propagation::Shared | Propagation::Unbindable, _)));
        let needs = [
            (shared, "linux.rootfsPropagation"),
            (!self.masked_paths.is_empty(), "linux.maskedPaths"),
            (!self.read_only_paths.is_empty(), "linux.readonlyPaths"),
        ];
        match needs.into_iter().find(|(asked, _)| *asked && self.shares_mounts()) {
            Some((_, what)) => Err(RootfsError::NoMountNamespace { what }),
            None => Ok(()),
        }
    }

    /// The host path of the root file system.
    pub fn rootfs(&self) -> &Path {
        &self.rootfs
    }

    /// Whether `linux.mountLabel` is given, which needs a host with SELinux.
    pub fn has_mount_label(&self) -> bool {
        self.mount_label.is_some()
    }

    /// Makes the mounts without it.
    pub fn drop_mount_label(&mut self) -> Option<String> {
        self.mount_label.take()
    }

    /// Whether the process gets a terminal, made while the file system is prepared.
    pub fn wants_console(&self) -> bool {
        self.console.is_some()
    }
}

fn plan_propagation(value: Option<&str>) -> Result<Option<(Propagation, Scope)>> {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(None) };
    propagation(value).map(Some).ok_or_else(|| RootfsError::Propagation { value: value.to_owned() })
}

fn plan_console(spec: &Spec) -> Option<Console> {
    let process = spec.process().as_ref().filter(|process| process.terminal() == Some(true))?;
    // A side that does not fit into the kernel's u16, or is 0, is as good as none.
    let side = |value: u64| u16::try_from(value).ok().filter(|value| *value > 0);
    let size = process
        .console_size()
        .and_then(|size| Some(Size { rows: side(size.height())?, columns: side(size.width())? }));
    Some(Console { size })
}

fn plan_mount(mount: &Mount, bundle: &Path, own_users: Option<&Mappings>) -> Result<MountStep> {
    let destination = mount.destination();
    let invalid = |reason| RootfsError::InvalidMount { destination: destination.clone(), reason };
    if destination.as_os_str().is_empty() {
        return Err(invalid("the destination is empty"));
    }
    let options = mount.options().iter().flatten().map(String::as_str);
    let mut options = MountOptions::parse(options);
    let idmap = idmap::plan(mount, &options, own_users)?;
    let fstype = mount.typ().as_deref().filter(|fstype| !fstype.is_empty());
    let scope = options.bind.or(match fstype {
        Some("bind") => Some(Scope::Mount),
        Some("rbind") => Some(Scope::Tree),
        _ => None,
    });
    let kind = match (options.remount, scope, fstype) {
        (true, ..) => MountKind::Remount,
        (false, Some(scope), _) => {
            let source = mount.source().as_ref().filter(|source| !source.as_os_str().is_empty());
            let source = source.ok_or_else(|| invalid("a bind mount needs a source"))?;
            MountKind::Bind { source: bundle.join(source), scope }
        }
        (false, None, None | Some("none")) => return Err(invalid("neither a type nor bind is given")),
        (false, None, Some("cgroup")) => MountKind::Cgroup,
        (false, None, Some(fstype)) => {
            let source = mount.source().as_ref().map(|source| {
                source.to_str().map(str::to_owned).ok_or_else(|| invalid("the source is not UTF-8"))
            });
            MountKind::Fresh { fstype: fstype.to_owned(), source: source.transpose()? }
        }
    };
    let is_tmpfs = matches!(&kind, MountKind::Fresh { fstype, .. } if fstype == "tmpfs");
    if options.copy_up && !is_tmpfs {
        return Err(invalid("tmpcopyup is for a tmpfs"));
    }
    if let MountKind::Bind { .. } = kind {
        // The kernel ignores them on a bind mount, and so do crun and runc 1.1, with which such bundles work; runc 1.2
        // refuses.
        for option in options.data.drain(..) {
            tracing::warn!(destination = %destination.display(), %option, "a bind mount ignores the option");
        }
    } else if idmap.is_some() {
        return Err(invalid("mapped owners (idmap, uidMappings, gidMappings) are for bind mounts only"));
    }
    let destination = clean(destination);
    if destination.as_os_str().is_empty() && kind != MountKind::Remount {
        return Err(invalid("nothing can be mounted over the root of the container"));
    }
    let step = MountStep { destination, kind, options, copy_up_volume: false, idmap };
    if step.hides_proc() {
        return Err(RootfsError::InsideProc { destination: mount.destination().clone() });
    }
    Ok(step)
}

/// Whether the namespaces that sysctls belong to are the container's own.
fn namespaces_of(namespaces: &[oci_spec::runtime::LinuxNamespace]) -> sysctl::Namespaces {
    let own = |wanted, host: &str| {
        namespaces.iter().any(|namespace| {
            namespace.typ() == wanted && namespace.path().as_deref() != Some(Path::new(host))
        })
    };
    sysctl::Namespaces {
        ipc: own(LinuxNamespaceType::Ipc, "/proc/self/ns/ipc"),
        network: own(LinuxNamespaceType::Network, "/proc/self/ns/net"),
        uts: own(LinuxNamespaceType::Uts, "/proc/self/ns/uts"),
        user: own(LinuxNamespaceType::User, "/proc/self/ns/user"),
    }
}

fn paths(list: Option<&[String]>) -> Vec<PathBuf> {
    list.unwrap_or_default().iter().map(|path| clean(Path::new(path))).collect()
}

/// `path` relative to the root, with `.` and `..` resolved lexically as runc does.
pub(super) fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests;
