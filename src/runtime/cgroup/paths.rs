//! Where the cgroups of a container will be: decided before any is made, and written to its state first,
//! so that whoever cleans up after a crash knows all of them.
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::dir::Dir;
use super::host::{Controller, Host, Mode, Version};
use super::{Driver, Error, Result, Unit, systemd};

/// PATH_MAX of Linux; the kernel refuses longer paths, we say so before anything is made.
const MAX_PATH: usize = 4096;

/// The cgroups of one container, one for each hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paths {
    /// v1, hybrid or v2.
    pub mode: Mode,
    /// Who makes the cgroups.
    pub driver: Driver,
    /// `cgroupsPath` was given. What is asked for by name and cannot be made is an error; without a name,
    /// a rootless runtime does without what it may not make (as runc).
    pub explicit: bool,
    /// The unit whose cgroups these are, of the systemd driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
    /// None where cgroups are disabled.
    pub hierarchies: Vec<Hierarchy>,
}

/// One container's cgroup in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    pub version: Version,
    /// Empty on v2.
    pub controllers: Vec<Controller>,
    pub mount_point: PathBuf,
    /// Below `mount_point`; not empty, relative, of normal components only.
    pub cgroup: PathBuf,
}

impl Hierarchy {
    /// The cgroup as a path of the host.
    pub fn dir(&self) -> PathBuf {
        self.mount_point.join(&self.cgroup)
    }
}

impl Paths {
    /// The hierarchy of a v1 controller.
    pub fn of(&self, controller: Controller) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|one| one.controllers.contains(&controller))
    }

    /// The v2 hierarchy, of a unified or hybrid host.
    pub fn v2(&self) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|one| one.version == Version::V2)
    }

    /// Whether nobody lives in these cgroups yet. To be asked before the paths are written to a state:
    /// cleaning up kills everybody in the cgroups that a state names.
    ///
    /// # Errors
    /// [`Error::NotEmpty`] where a process is in one of them.
    pub fn check_unused(&self) -> Result<()> {
        // A cgroup of this name is in all hierarchies or in none, unless somebody made some of them by hand;
        // `create` looks into each that it does not make itself.
        match self.hierarchies.first().map(Dir::open) {
            Some(Ok(dir)) => dir.check_empty(),
            Some(Err(error)) if error.errno == Errno::ENOENT => Ok(()),
            Some(Err(error)) => Err(error.into()),
            None => Ok(()),
        }
    }
}

/// Where the cgroups of container `id` go, as runc's cgroupfs driver has it:
///
/// - an absolute `cgroups_path` is below the mount point of each hierarchy;
/// - a relative one, or `id` where there is none, is below our own cgroup on v1, and beside our own cgroup
///   on v2 (which has processes, so that no controller can be enabled for cgroups below it).
///
/// The systemd driver has them where systemd has the container's scope: `cgroups_path` is `slice:prefix:name`.
///
/// # Errors
/// [`Error::BadPath`] for a path that names no cgroup; those of the systemd driver, also where no systemd answers.
pub fn plan(host: &Host, cgroups_path: Option<&Path>, id: &str, driver: Driver) -> Result<Paths> {
    if driver == Driver::Systemd {
        return plan_unit(host, cgroups_path.unwrap_or(Path::new("")), id);
    }
    let given = cgroups_path.filter(|path| !path.as_os_str().is_empty());
    let asked = given.unwrap_or(Path::new(id));
    let name = clean(asked);
    let bad = |reason| Error::BadPath { path: asked.to_owned(), reason };
    if name.as_os_str().is_empty() {
        return Err(bad("it names the root of the hierarchy, not a cgroup of the container"));
    }
    if name.as_os_str().as_encoded_bytes().iter().any(|byte| matches!(byte, b'\n' | b'\0')) {
        return Err(bad("a cgroup's name holds no newline and no NUL"));
    }
    let hierarchies = host.hierarchies().iter().map(|mounted| {
        let base = match (asked.is_absolute(), host.mode()) {
            (true, _) => Path::new(""),
            (false, Mode::Unified) => mounted.own.parent().unwrap_or(Path::new("")),
            (false, Mode::V1 | Mode::Hybrid) => &mounted.own,
        };
        Hierarchy {
            version: mounted.version,
            controllers: mounted.controllers.clone(),
            mount_point: mounted.mount_point.clone(),
            cgroup: base.join(&name),
        }
    });
    let hierarchies: Vec<_> = hierarchies.collect();
    if hierarchies.iter().any(|one| one.dir().as_os_str().len() >= MAX_PATH) {
        return Err(bad("it is longer than the kernel's 4095 bytes"));
    }
    Ok(Paths { mode: host.mode(), driver, explicit: given.is_some(), unit: None, hierarchies })
}

/// systemd's own cgroup is the root of each hierarchy, for the host's, and the same in all.
fn plan_unit(host: &Host, cgroups_path: &Path, id: &str) -> Result<Paths> {
    let reason = "it is no UTF-8";
    let bad = || Error::BadPath { path: cgroups_path.to_owned(), reason };
    let version = if host.mode() == Mode::Unified { Version::V2 } else { Version::V1 };
    let (unit, cgroup) = systemd::plan(cgroups_path.to_str().ok_or_else(bad)?, id, version)?;
    let hierarchies = host.hierarchies().iter().map(|mounted| Hierarchy {
        version: mounted.version,
        controllers: mounted.controllers.clone(),
        mount_point: mounted.mount_point.clone(),
        cgroup: cgroup.clone(),
    });
    Ok(Paths {
        mode: host.mode(),
        driver: Driver::Systemd,
        // What systemd has made for us must be there.
        explicit: true,
        unit: Some(unit),
        hierarchies: hierarchies.collect(),
    })
}

/// Lexically clean and relative: `..` never climbs above the start (`/../../x` and `../x` are `x`).
/// cgroupfs has no symbolic links, so that the lexical parent is the real one.
pub(super) fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => {
                cleaned.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    cleaned
}

#[cfg(test)]
#[path = "paths/tests.rs"]
mod tests;
