//! Facts of the host that specifications depend on.
use super::error::EngineError;
use super::options::{Device, Limits, Options};
use super::specgen::capabilities;
use super::specgen::{Asked, HostFacts};
use crate::sys::SysError;
use caps::CapSet;
use nix::errno::Errno;
use nix::sys::stat::{FileStat, SFlag, lstat, major, minor, stat};
use oci_spec::runtime::{Capability, LinuxDevice, LinuxDeviceBuilder, LinuxDeviceType};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Only what `options` make necessary is looked at.
pub fn gather(options: &Options) -> Result<HostFacts, EngineError> {
    let held = held_capabilities()?;
    Ok(HostFacts {
        least_oom_score: least_oom_score(&held),
        asked_devices: asked_devices(&options.task.devices)?,
        held,
        counts_swap: counts_swap_for(&options.limits),
        devices: if options.privileged { devices()? } else { Vec::new() },
        thermal_throttle: if options.privileged { Vec::new() } else { thermal_throttle() },
    })
}

/// Whether the kernel counts swap; not asked where `limits` do not depend on it.
pub fn counts_swap_for(limits: &Limits) -> bool {
    limits.memory.is_some() && limits.memory_swap.is_none() && counts_swap()
}

/// The capabilities that we can pass on.
pub fn held_capabilities() -> Result<HashSet<Capability>, EngineError> {
    // The crate hides the errno; capget(2) of oneself fails only on a kernel without capabilities.
    let permitted = caps::read(None, CapSet::Permitted)
        .map_err(|_| SysError::on("capget", "permitted")(Errno::ENOSYS))?;
    // A capability newer than the list of names cannot be named in a specification.
    Ok(permitted.iter().filter_map(|capability| capabilities::parse(&capability.to_string()).ok()).collect())
}

/// Without CAP_SYS_RESOURCE a process can give no `oom_score_adj` below its own (proc_pid_oom_score_adj(5)).
pub fn least_oom_score(held: &HashSet<Capability>) -> Option<i32> {
    if held.contains(&Capability::SysResource) {
        return None;
    }
    std::fs::read_to_string("/proc/self/oom_score_adj").ok()?.trim().parse().ok()
}

/// On v1 the kernel counts swap if it was booted with it; on v2 it does wherever it has memory limits.
pub fn counts_swap() -> bool {
    let v1 = Path::new("/sys/fs/cgroup/memory");
    if v1.is_dir() { v1.join("memory.memsw.limit_in_bytes").exists() } else { true }
}

/// moby masks these for each CPU; many machines have none.
fn thermal_throttle() -> Vec<String> {
    let cpus = Path::new("/sys/devices/system/cpu");
    let of = |number: usize| cpus.join(format!("cpu{number}/thermal_throttle"));
    if !of(0).exists() {
        return Vec::new();
    }
    // CPUs are numbered without holes but for those that are taken out, which have no directory.
    let count = std::fs::read_dir(cpus).map(Iterator::count).unwrap_or(0);
    (0..count).map(of).filter(|path| path.exists()).map(|path| path.to_string_lossy().into_owned()).collect()
}

/// The host's device nodes, without terminals and what every container has of its own.
fn devices() -> Result<Vec<LinuxDevice>, EngineError> {
    let mut found = Vec::new();
    let mut directories = vec![std::path::PathBuf::from("/dev")];
    while let Some(directory) = directories.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            let own = ["pts", "shm", "fd", "mqueue", "console", "ptmx", "core"];
            if directory == Path::new("/dev") && own.iter().any(|name| path.ends_with(name)) {
                continue;
            }
            // It went away since the directory was read.
            let Ok(status) = lstat(&path) else { continue };
            if kind_of(&status) == SFlag::S_IFDIR {
                directories.push(path);
                continue;
            }
            found.extend(node(&path, path.clone(), &status)?);
        }
    }
    found.sort_by(|one, other| one.path().cmp(other.path()));
    Ok(found)
}

fn kind_of(status: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(status.st_mode & SFlag::S_IFMT.bits())
}

/// The device node `source` under another path; `None` if it is none.
fn node(source: &Path, path: PathBuf, status: &FileStat) -> Result<Option<LinuxDevice>, EngineError> {
    let kind = match kind_of(status) {
        SFlag::S_IFCHR => LinuxDeviceType::C,
        SFlag::S_IFBLK => LinuxDeviceType::B,
        _ => return Ok(None),
    };
    let number = |part: u64| {
        i64::try_from(part).map_err(|_| SysError::on("stat", source.display().to_string())(Errno::EOVERFLOW))
    };
    let device = LinuxDeviceBuilder::default()
        .path(path)
        .typ(kind)
        .major(number(major(status.st_rdev))?)
        .minor(number(minor(status.st_rdev))?)
        .file_mode(status.st_mode & 0o7777)
        .uid(status.st_uid)
        .gid(status.st_gid)
        .build();
    device.map(Some).map_err(|source| EngineError::Spec { part: "linux.devices", source })
}

/// More nodes than one container has use for: what lies in a directory of devices is not ours.
const MAX_ASKED: usize = 4096;
/// Directories of devices are flat, or nearly so.
const MAX_DEPTH: usize = 8;

fn asked_devices(asked: &[Device]) -> Result<Vec<Asked>, EngineError> {
    let mut found = Vec::new();
    for device in asked {
        let wrong = |reason| EngineError::Flag {
            flag: "--device",
            value: device.source.display().to_string(),
            reason,
        };
        if device.access.is_empty() || !device.access.bytes().all(|one| b"rwm".contains(&one)) {
            return Err(wrong("its access is some of r, w and m"));
        }
        if !device.destination.starts_with('/') {
            return Err(wrong("its path in the container is not absolute"));
        }
        // A link of udev's leads to the node.
        let status = stat(&device.source).map_err(|errno| match errno {
            Errno::ENOENT => wrong("there is no such path on the host"),
            _ => SysError::on("stat", device.source.display().to_string())(errno).into(),
        })?;
        if kind_of(&status) == SFlag::S_IFDIR {
            let before = found.len();
            walk(&device.source, Path::new(&device.destination), &device.access, 0, &mut found)?;
            if found.len() == before {
                return Err(wrong("there is no device in it"));
            }
        } else {
            let path = PathBuf::from(&device.destination);
            let node = node(&device.source, path, &status)?.ok_or_else(|| wrong("it is no device"))?;
            found.push(Asked { device: node, access: device.access.clone() });
        }
        if found.len() > MAX_ASKED {
            return Err(wrong("there are more than 4096 devices"));
        }
    }
    Ok(found)
}

/// Adds the nodes of a directory.
fn walk(
    directory: &Path,
    destination: &Path,
    access: &str,
    depth: usize,
    found: &mut Vec<Asked>,
) -> Result<(), EngineError> {
    let failed = |error| SysError::io("readdir", directory.display().to_string())(error);
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (path, inside) = (entry.path(), destination.join(entry.file_name()));
        // It went away since the directory was read.
        let Ok(status) = lstat(&path) else { continue };
        if kind_of(&status) == SFlag::S_IFDIR {
            if depth < MAX_DEPTH {
                walk(&path, &inside, access, depth + 1, found)?;
            }
        } else if found.len() <= MAX_ASKED
            && let Some(device) = node(&path, inside, &status)?
        {
            found.push(Asked { device, access: access.to_owned() });
        }
    }
    Ok(())
}
