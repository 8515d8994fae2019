//! The cgroup of a task, above those of its containers.
use super::TaskSpec;
use crate::engine::error::EngineError;
use crate::engine::names::Id;
use crate::engine::record::{Durability, read_json, write_json};
use crate::runtime::cgroup::{self, Cgroup, Driver, Host, Paths, remove_empty};
use crate::runtime::rootless::Rootless;
use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Where a task's cgroups are, by its specification: absolute from the hierarchies' roots.
pub fn path(id: &Id, spec: &TaskSpec) -> String {
    spec.cgroup.clone().unwrap_or_else(|| format!("/corten/{id}"))
}

/// `cgroup.json`: the cgroups of a task, written before they are made.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TaskCgroup {
    /// Of the task.
    own: Paths,
    /// Of the pause process: a child of the task's, because on v2 no process can be in one that has children.
    pause: Paths,
    /// It was there before: somebody else made it, and will remove it.
    found: bool,
    /// Nobody else can have anything in it.
    private: bool,
}

const FILE: &str = "cgroup.json";

impl TaskCgroup {
    /// Decides where they will be.
    pub(super) fn plan(id: &Id, spec: &TaskSpec) -> Result<Self, EngineError> {
        let host = Host::detect()?;
        let own_path = path(id, spec);
        let at = |path: &str| cgroup::plan(&host, Some(Path::new(path)), id.as_str(), Driver::Cgroupfs);
        let own = at(&own_path)?;
        Ok(Self {
            found: own.hierarchies.iter().any(|hierarchy| hierarchy.dir().is_dir()),
            own,
            // Two tasks may name the same cgroup.
            pause: at(&format!("{own_path}/{id}"))?,
            private: spec.cgroup.is_none(),
        })
    }

    pub(super) fn write(&self, directory: &Path) -> Result<(), EngineError> {
        write_json(&directory.join(FILE), self, Durability::Volatile)
    }

    pub(super) fn read(directory: &Path) -> Result<Option<Self>, EngineError> {
        read_json(&directory.join(FILE))
    }

    /// Makes the task's cgroups with its limits; in one that is there the limits are set.
    pub(super) fn make(&self, limits: Option<&LinuxResources>) -> Result<(), EngineError> {
        let host = Host::detect()?;
        Cgroup::create(&host, &self.own, limits, None, Rootless::No)?;
        Ok(())
    }

    /// Makes those of the pause process.
    pub(super) fn make_pause(&self) -> Result<Cgroup, EngineError> {
        Ok(Cgroup::create(&Host::detect()?, &self.pause, None, None, Rootless::No)?)
    }

    /// The task's cgroups, as far as they are there.
    pub(super) fn open(&self) -> Result<Cgroup, EngineError> {
        Ok(Cgroup::open(&self.own)?)
    }

    /// Ends the pause process and removes its cgroups.
    pub(super) fn remove_pause(&self) -> Result<(), EngineError> {
        if remove_empty(&self.pause) {
            return Ok(());
        }
        let pause = Cgroup::open(&self.pause)?;
        pause.kill_all()?;
        Ok(pause.remove()?)
    }

    /// Removes the task's cgroups, unless somebody else made them or has something in them. Those of the containers
    /// are gone.
    pub(super) fn remove(&self) -> Result<(), EngineError> {
        if self.found || remove_empty(&self.own) || !self.private {
            return Ok(());
        }
        let own = self.open()?;
        own.kill_all()?;
        Ok(own.remove()?)
    }
}
