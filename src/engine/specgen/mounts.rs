//! The mounts of a container, and the paths of /proc and /sys that it does not see or may not write.
use crate::engine::error::EngineError;
use crate::engine::options::{HostMount, MountAccess, Propagation};
use oci_spec::runtime::{Mount, MountBuilder};
use std::path::{Path, PathBuf};

/// The union of what runc, containerd and moby mask (moby's per-CPU thermal_throttle is in the host
/// facts, as its paths depend on the machine).
pub const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// What a container sees and may not write.
pub const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A mount that was asked for, with its source resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// Absolute path of the host.
    pub source: PathBuf,
    /// Absolute path in the container.
    pub destination: String,
    /// Options as in `-v`.
    pub options: Vec<String>,
}

pub(super) fn mount(
    destination: &str,
    kind: &str,
    source: &Path,
    options: Vec<String>,
) -> Result<Mount, EngineError> {
    MountBuilder::default()
        .destination(destination)
        .typ(kind)
        .source(source)
        .options(options)
        .build()
        .map_err(|source| EngineError::Spec { part: "mounts", source })
}

fn words(options: &str) -> Vec<String> {
    options.split(',').map(str::to_owned).collect()
}

/// Where shared memory is.
pub(super) const SHM: &str = "/dev/shm";
/// How a task's is mounted.
pub(super) const SHM_OPTIONS: [&str; 3] = ["nosuid", "noexec", "nodev"];

/// docker's default mounts. `privileged` may write sysfs and cgroups; `shm_size` is in bytes.
pub fn defaults(privileged: bool, shm_size: Option<u64>) -> Result<Vec<Mount>, EngineError> {
    let shm = match shm_size {
        Some(bytes) => format!("nosuid,noexec,nodev,mode=1777,size={bytes}"),
        None => "nosuid,noexec,nodev,mode=1777,size=65536k".to_owned(),
    };
    let kernel = if privileged { "nosuid,noexec,nodev" } else { "nosuid,noexec,nodev,ro" };
    let table = [
        ("/proc", "proc", "proc", "nosuid,noexec,nodev"),
        ("/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
        ("/dev/pts", "devpts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
        (SHM, "tmpfs", "shm", shm.as_str()),
        ("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
        ("/sys", "sysfs", "sysfs", kernel),
        ("/sys/fs/cgroup", "cgroup", "cgroup", kernel),
    ];
    table
        .into_iter()
        .map(|(path, kind, source, options)| mount(path, kind, Path::new(source), words(options)))
        .collect()
}

/// A bind mount. It takes what is mounted below its source with it, and propagates nothing, unless the
/// options say otherwise.
pub fn bind(bind: &Bind) -> Result<Mount, EngineError> {
    let has = |names: &[&str]| bind.options.iter().any(|option| names.contains(&option.as_str()));
    let mut options = Vec::with_capacity(bind.options.len() + 2);
    if !has(&["bind", "rbind"]) {
        options.push("rbind".to_owned());
    }
    if !has(&["private", "rprivate", "shared", "rshared", "slave", "rslave"]) {
        options.push("rprivate".to_owned());
    }
    options.extend(bind.options.iter().cloned());
    mount(&bind.destination, "bind", &bind.source, options)
}

/// A path of the host as a task asks for it.
pub fn host(host: &HostMount) -> Result<Mount, EngineError> {
    let mut options = vec!["rbind".to_owned()];
    options.push(
        match host.propagation {
            Propagation::Private => "rprivate",
            Propagation::HostToContainer => "rslave",
            Propagation::Bidirectional => "rshared",
        }
        .to_owned(),
    );
    // Nothing for one that can be written: any flag would take away those that the host's mount has.
    match host.access {
        MountAccess::ReadWrite => {}
        MountAccess::ReadOnly => options.push("ro".to_owned()),
        MountAccess::RecursiveReadOnly => options.push("rro".to_owned()),
    }
    mount(&host.destination, "bind", &host.source, options)
}

/// What the root must be for mounts to come in or go out (runtime-spec, `rootfsPropagation`), if any does.
pub(super) fn root_propagation(mounts: &[HostMount]) -> Option<&'static str> {
    let any = |wanted| mounts.iter().any(|mount| mount.propagation == wanted);
    if any(Propagation::Bidirectional) {
        Some("rshared")
    } else if any(Propagation::HostToContainer) {
        Some("rslave")
    } else {
        None
    }
}

/// Joins the lists: a later mount of the same destination replaces an earlier one, and what lies deeper
/// comes after what it lies in, else the outer mount would cover it.
pub fn merge(lists: [Vec<Mount>; 3]) -> Vec<Mount> {
    let mut all: Vec<Mount> = Vec::new();
    for mount in lists.into_iter().flatten() {
        all.retain(|known| known.destination() != mount.destination());
        all.push(mount);
    }
    all.sort_by_key(|mount| mount.destination().components().count());
    all
}
