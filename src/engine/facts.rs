//! Facts of the host that specifications depend on.
use super::error::EngineError;
use super::options::Options;
use super::specgen::HostFacts;
use super::specgen::capabilities;
use crate::sys::SysError;
use caps::CapSet;
use nix::errno::Errno;
use nix::sys::stat::{SFlag, lstat, major, minor};
use oci_spec::runtime::{Capability, LinuxDevice, LinuxDeviceBuilder, LinuxDeviceType};
use std::collections::HashSet;
use std::path::Path;

/// Only what `options` make necessary is looked at.
pub fn gather(options: &Options) -> Result<HostFacts, EngineError> {
    Ok(HostFacts {
        held: held_capabilities()?,
        counts_swap: options.limits.memory.is_some() && options.limits.memory_swap.is_none() && counts_swap(),
        devices: if options.privileged { devices()? } else { Vec::new() },
        thermal_throttle: if options.privileged { Vec::new() } else { thermal_throttle() },
    })
}

/// The capabilities that we can pass on.
pub fn held_capabilities() -> Result<HashSet<Capability>, EngineError> {
    // The crate hides the errno; capget(2) of oneself fails only on a kernel without capabilities.
    let permitted = caps::read(None, CapSet::Permitted)
        .map_err(|_| SysError::on("capget", "permitted")(Errno::ENOSYS))?;
    // A capability newer than the list of names cannot be named in a specification.
    Ok(permitted.iter().filter_map(|capability| capabilities::parse(&capability.to_string()).ok()).collect())
}

/// On v1 the kernel counts swap if it was booted with it; on v2 it does wherever it has memory limits.
fn counts_swap() -> bool {
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
            let kind = SFlag::from_bits_truncate(status.st_mode & SFlag::S_IFMT.bits());
            let kind = match kind {
                SFlag::S_IFDIR => {
                    directories.push(path);
                    continue;
                }
                SFlag::S_IFCHR => LinuxDeviceType::C,
                SFlag::S_IFBLK => LinuxDeviceType::B,
                _ => continue,
            };
            let number = |part: u64| i64::try_from(part).unwrap_or(i64::MAX);
            found.push(
                LinuxDeviceBuilder::default()
                    .path(path)
                    .typ(kind)
                    .major(number(major(status.st_rdev)))
                    .minor(number(minor(status.st_rdev)))
                    .file_mode(status.st_mode & 0o7777)
                    .uid(status.st_uid)
                    .gid(status.st_gid)
                    .build()
                    .map_err(|source| EngineError::Spec { part: "linux.devices", source })?,
            );
        }
    }
    found.sort_by(|one, other| one.path().cmp(other.path()));
    Ok(found)
}
