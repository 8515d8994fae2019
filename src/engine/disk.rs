//! What containers and volumes take on the disk.
use super::Engine;
use super::error::EngineError;
use super::names::Id;
use super::options::VolumeSource;
use super::record::Record;
use crate::image::store;
use crate::sys::SysError;
use crate::sys::disk::{self, Used};
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// What lies beside the images under the root. All sizes are bytes on the disk.
#[derive(Debug, Clone, Default)]
pub struct DiskUse {
    pub containers: Vec<ContainerUse>,
    pub volumes: Vec<VolumeUse>,
    /// Directories and records of the engine and the agent, and what somebody else put there.
    pub records: u64,
}

/// What a container takes: what it wrote, its log and its records.
#[derive(Debug, Clone)]
pub struct ContainerUse {
    pub id: String,
    /// Empty if its record is gone or damaged.
    pub name: String,
    /// Processes of it may exist.
    pub live: bool,
    pub bytes: u64,
}

/// What a volume takes.
#[derive(Debug, Clone)]
pub struct VolumeUse {
    pub name: String,
    /// Containers that mount it.
    pub containers: usize,
    pub bytes: u64,
}

impl Engine {
    /// Looks at everything beside the images; what comes or goes meanwhile may be counted or not.
    pub fn disk_use(&self) -> Result<DiskUse, EngineError> {
        let mut all = DiskUse::default();
        let mut mounted: HashMap<String, usize> = HashMap::new();
        for name in names(&self.containers())? {
            let bytes = tree(&self.containers(), &name)?.bytes;
            let Some(id) = name.to_str().and_then(Id::parse) else {
                all.records += bytes;
                continue;
            };
            // One that cannot be read takes its place none the less.
            let record = self.record(&id).ok().flatten();
            for volume in record.iter().flat_map(|record| &record.options.volumes) {
                if let VolumeSource::Named(name) | VolumeSource::Anonymous(Some(name)) = &volume.source {
                    *mounted.entry(name.clone()).or_default() += 1;
                }
            }
            all.containers.push(ContainerUse {
                live: self.status(&id).is_ok_and(|status| status.is_live()),
                name: record.map(|record: Record| record.name).unwrap_or_default(),
                id: id.to_string(),
                bytes,
            });
        }
        for name in names(&self.volumes())? {
            let bytes = tree(&self.volumes(), &name)?.bytes;
            let name = name.to_string_lossy().into_owned();
            let containers = mounted.get(&name).copied().unwrap_or(0);
            all.volumes.push(VolumeUse { name, containers, bytes });
        }
        for path in [&self.root, &self.containers(), &self.volumes()] {
            all.records += disk::own(path)?.bytes;
        }
        for name in names(&self.root)? {
            let known = store::ENTRIES.iter().chain(&["containers", "volumes"]);
            if !known.into_iter().any(|known| name.as_os_str() == *known) {
                all.records += tree(&self.root, &name)?.bytes;
            }
        }
        Ok(all)
    }
}

fn names(dir: &Path) -> Result<Vec<PathBuf>, EngineError> {
    let failed = |error| SysError::io("readdir", dir.display().to_string())(error);
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error).into()),
    };
    let mut names = entries
        .map(|entry| entry.map(|entry| PathBuf::from(entry.file_name())).map_err(failed))
        .collect::<Result<Vec<_>, _>>()?;
    names.sort();
    Ok(names)
}

fn tree(parent: &Path, name: &Path) -> Result<Used, EngineError> {
    let dir = File::open(parent).map_err(SysError::io("open", parent.display().to_string()))?;
    Ok(disk::used(dir.as_fd(), name, u64::MAX)?)
}
