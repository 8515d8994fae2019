//! How new processes get into the cgroups of a container.
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat;

use super::dir::{self, Dir};
use super::host::{Controller, Mode, Version};
use super::paths::clean;
use super::{Cgroup, Error, Manager, Result, Unit, systemd};
use crate::sys::SysError;

/// How a new process gets into the cgroups: both parts apply, in this order.
#[derive(Debug, Default)]
pub struct Placement {
    /// For `clone3` with `CLONE_INTO_CGROUP`: the directory of the v2 cgroup (unified and hybrid hosts).
    ///
    /// Linux 6.18 (not 6.1) kills the new process at once where `cgroup.kill` was written to its cgroup and to its
    /// parent's unequally often: it compares the counters of the two (`kill_seq`, `cgroup_css_set_fork`). See
    /// [`Placement::write_instead`].
    pub clone_into: Option<OwnedFd>,
    /// `tasks` files of v1 (and `cgroup.procs` of v2 where `clone_into` is to be avoided). The new process, while
    /// single-threaded, writes `0` to each. A cgroup namespace of its own is to be made after that: its root is
    /// where the process is at that moment.
    pub tasks: Vec<OwnedFd>,
    /// For an ordinary user's unit: who may not move processes into the part of the tree that is his systemd's asks
    /// that to do it ([`Placement::attach`]). The new process waits until it is there.
    pub unit: Option<Unit>,
}

impl Placement {
    /// Has the new process moved into [`Placement::unit`], if there is one; whether there is.
    ///
    /// # Errors
    /// What systemd says.
    pub fn attach(&self, pid: i32) -> Result<bool> {
        let Some(unit) = &self.unit else { return Ok(false) };
        systemd::attach(unit, pid)?;
        Ok(true)
    }
}

impl Placement {
    /// Does without `CLONE_INTO_CGROUP`, for a process that died of a SIGKILL at birth: nobody sent one, the
    /// kernel did (see [`Placement::clone_into`]). Writing to `cgroup.procs` takes milliseconds.
    ///
    /// # Errors
    /// Those of opening.
    pub fn write_instead(&mut self) -> Result<(), SysError> {
        if let Some(directory) = self.clone_into.take() {
            const FILE: &str = "cgroup.procs";
            let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
            let file =
                openat(&directory, FILE, flags, stat::Mode::empty()).map_err(SysError::on("openat", FILE))?;
            self.tasks.push(file);
        }
        Ok(())
    }
}

impl Cgroup {
    /// Descriptors by which a new process gets into these cgroups.
    ///
    /// # Errors
    /// Those of opening.
    pub fn placement(&self) -> Result<Placement> {
        self.place(!self.reused)
    }

    /// The same without `CLONE_INTO_CGROUP`, for a process that died of a SIGKILL at birth: nobody sent one, the
    /// kernel did (see [`Placement::clone_into`]). Writing to `cgroup.procs` takes milliseconds.
    ///
    /// # Errors
    /// Those of opening.
    pub fn placement_by_writing(&self) -> Result<Placement> {
        self.place(false)
    }

    /// For a process that joins a running container: as [`Cgroup::placement`], but where the container's v2 cgroup
    /// takes no processes any more, because an init as systemd has enabled controllers for cgroups below it,
    /// into the cgroup in which `init` is now (as runc).
    ///
    /// # Errors
    /// Those of opening and reading.
    pub fn placement_beside(&self, init: i32) -> Result<Placement> {
        let Some(v2) = self.v2().filter(|_| self.mode == Mode::Unified) else { return self.placement() };
        if v2.read("cgroup.subtree_control")?.trim_end().is_empty() {
            return self.placement();
        }
        let file = format!("/proc/{init}/cgroup");
        let text = std::fs::read_to_string(&file).map_err(SysError::io("open", file.as_str()))?;
        let place = self.paths.v2().and_then(|own| below(&text, &own.cgroup));
        let Some(place) = place else { return self.placement() };
        Ok(Placement { clone_into: Some(v2.child(&place)?.clone_fd()?), ..Placement::default() })
    }

    fn place(&self, by_clone: bool) -> Result<Placement> {
        let mut placement = Placement::default();
        if let Some(unit) = self.paths.unit.as_ref().filter(|unit| unit.manager == Manager::User) {
            placement.unit = Some(unit.clone());
            return Ok(placement);
        }
        let by_clone = by_clone && !self.full()?;
        for dir in &self.dirs {
            match dir.version() {
                Version::V1 => placement.tasks.push(dir.open_file("tasks", OFlag::O_WRONLY)?),
                Version::V2 if by_clone => placement.clone_into = Some(dir.clone_fd()?),
                Version::V2 => placement.tasks.push(dir.open_file("cgroup.procs", OFlag::O_WRONLY)?),
            }
        }
        Ok(placement)
    }

    /// With the placeholder in it, a cgroup of one process is full for a clone, though not for who moves there.
    fn full(&self) -> Result<bool> {
        let Some(v2) = self.v2().filter(|_| self.placeholder.is_some()) else { return Ok(false) };
        match v2.read("pids.max") {
            Ok(text) => Ok(text.trim_end() == "1"),
            Err(error) if dir::gone(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Cgroups below the container's, as `exec --cgroup` names them; they must be there. A hierarchy that none of
    /// `places` is about keeps the container's own.
    ///
    /// # Errors
    /// [`Error::BadPath`] for controllers that are not there (on v2 none can be named); those of opening.
    pub fn below(&self, places: &[Below]) -> Result<Cgroup> {
        for place in places {
            let known = |controller: &Controller| self.dirs.iter().any(|dir| dir.has(*controller));
            if !place.controllers.iter().all(known) {
                let reason = "this host has no v1 hierarchy of such a controller";
                return Err(Error::BadPath { path: place.path.clone(), reason });
            }
        }
        let place_of = |dir: &Dir| {
            let named = places.iter().find(|place| place.controllers.iter().any(|one| dir.has(*one)));
            named.or_else(|| places.iter().find(|place| place.controllers.is_empty()))
        };
        let mut dirs = Vec::with_capacity(self.dirs.len());
        for dir in &self.dirs {
            let path = place_of(dir).map_or(Path::new("."), |place| &place.path);
            dirs.push(dir.child(path)?);
        }
        Ok(Cgroup {
            mode: self.mode,
            dirs,
            paths: self.paths.clone(),
            reused: self.reused,
            refused: None,
            placeholder: None,
        })
    }
}

/// A value of `exec --cgroup`: `[CONTROLLER[,CONTROLLER..]:]PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Below {
    /// Empty for all hierarchies.
    controllers: Vec<Controller>,
    /// Relative and clean.
    path: PathBuf,
}

impl Below {
    /// `path` below the cgroups of `controllers`, a list separated by commas, or of all.
    ///
    /// # Errors
    /// [`Error::BadPath`] for a controller that does not exist.
    pub fn new(controllers: Option<&str>, path: &Path) -> Result<Self> {
        let names = controllers.unwrap_or_default().split(',').filter(|name| !name.is_empty());
        let controllers = names.map(Controller::from_v1_name).collect::<Option<Vec<_>>>();
        let reason = "there is no such cgroup controller";
        let controllers = controllers.ok_or_else(|| Error::BadPath { path: path.to_owned(), reason })?;
        let cleaned = clean(path);
        let path = if cleaned.as_os_str().is_empty() { ".".into() } else { cleaned };
        Ok(Self { controllers, path })
    }
}

/// Where a process with this `/proc/PID/cgroup` is below `own`; `None` where it is in `own` itself or elsewhere.
fn below(text: &str, own: &Path) -> Option<PathBuf> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let path = Path::new(path).strip_prefix(own).ok()?;
    // A removed cgroup is listed as `/path (deleted)`, and one outside of our namespace with `..`.
    let normal = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    (normal && !path.as_os_str().is_empty()).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exec_cgroup_names_controllers_or_all() {
        let below = |controllers, path: &str| Below::new(controllers, Path::new(path));
        let all = Below { controllers: vec![], path: "leaf".into() };
        assert_eq!(below(None, "/sub/../leaf").unwrap(), all);
        let some = Below { controllers: vec![Controller::Cpu, Controller::Memory], path: "x".into() };
        assert_eq!(below(Some("cpu,memory"), "../../x").unwrap(), some);
        assert_eq!(below(None, "/").unwrap().path, Path::new("."));
        assert!(below(Some("gpu"), "x").is_err());
    }

    #[test]
    fn init_is_found_only_below_the_own_cgroup() {
        let own = Path::new("pod/ctr");
        assert_eq!(below("1:cpu:/x\n0::/pod/ctr/init.scope\n", own), Some("init.scope".into()));
        assert_eq!(below("0::/pod/ctr\n", own), None);
        assert_eq!(below("0::/pod/ctr2/x\n", own), None);
        assert_eq!(below("0::/pod/ctr/../../x\n", own), None);
    }
}
