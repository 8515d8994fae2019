//! Everything that the ECS door knows, in memory and on disk.
//!
//! ```text
//! <root>/agent/ecs/
//!   instance.json                 the machine as a container instance
//!   clusters/<name>.json
//!   definitions/<family>/<revision>.json
//!   tasks/<id>.json
//! ```
//! A file is written before a client is told of what it says.
use super::arn::Names;
use super::error::EcsError;
use super::machine::Instance;
use super::record::{Cluster, Phase, Registered, Task};
use crate::agent::config::EcsConfig;
use crate::engine::names::is_hex;
use crate::engine::record::{Durability, private_directory, read_json, write_json};
use crate::sys::{SysError, random};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Most clusters.
pub const MAX_CLUSTERS: usize = 100;
/// Most revisions of all families together.
pub const MAX_DEFINITIONS: usize = 5000;
/// Most tasks, the stopped ones that are still described among them.
pub const MAX_TASKS: usize = 2000;
/// Hexadecimal digits of a task's id.
const TASK_ID: usize = 32;

/// Everything that the ECS door knows.
#[derive(Debug)]
pub struct State {
    directory: PathBuf,
    /// Region and account.
    pub names: Names,
    /// This machine.
    pub instance: Instance,
    tables: Mutex<Tables>,
    /// Counts up with each change of a task.
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Tables {
    clusters: BTreeMap<String, Cluster>,
    families: BTreeMap<String, BTreeMap<u32, Arc<Registered>>>,
    tasks: BTreeMap<String, Arc<Task>>,
}

impl State {
    /// Reads what is on disk, and makes the configured cluster if it is not there.
    ///
    /// # Errors
    /// A directory cannot be made or read. A damaged file of a task or definition is told in the log and left alone.
    pub fn load(root: &Path, config: &EcsConfig) -> Result<Self, EcsError> {
        let directory = root.join("agent").join("ecs");
        for name in ["clusters", "definitions", "tasks"] {
            private_directory(&directory.join(name))?;
        }
        let instance = Instance::load(&directory)?;
        let names = Names { region: config.region.clone(), account: config.account.clone() };
        let state =
            Self { directory, names, instance, tables: Mutex::default(), changes: watch::Sender::new(0) };
        state.read_clusters()?;
        state.read_definitions()?;
        state.read_tasks()?;
        if state.cluster(&config.cluster).is_none() {
            state.put_cluster(Cluster { name: config.cluster.clone(), tags: Vec::new() })?;
        }
        Ok(state)
    }

    fn read_clusters(&self) -> Result<(), EcsError> {
        for (stem, path) in json_files(&self.directory.join("clusters"))? {
            if let Some(cluster) = read_or_warn::<Cluster>(&path)
                && cluster.name == stem
            {
                self.lock().clusters.insert(stem, cluster);
            }
        }
        Ok(())
    }

    fn read_definitions(&self) -> Result<(), EcsError> {
        for family in entries(&self.directory.join("definitions"))? {
            for (stem, path) in json_files(&self.directory.join("definitions").join(&family))? {
                if let Some(registered) = read_or_warn::<Registered>(&path)
                    && stem == registered.revision.to_string()
                {
                    let mut tables = self.lock();
                    let revisions = tables.families.entry(family.clone()).or_default();
                    revisions.insert(registered.revision, Arc::new(registered));
                }
            }
        }
        Ok(())
    }

    fn read_tasks(&self) -> Result<(), EcsError> {
        for (stem, path) in json_files(&self.directory.join("tasks"))? {
            if let Some(task) = read_or_warn::<Task>(&path)
                && task.id == stem
            {
                self.lock().tasks.insert(stem, Arc::new(task));
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        // Whoever panicked with it left maps that are whole: each change is one insertion.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory of the files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Counts up with each change of a task.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// All clusters, by name.
    pub fn clusters(&self) -> Vec<Cluster> {
        self.lock().clusters.values().cloned().collect()
    }

    /// The cluster of that name.
    pub fn cluster(&self, name: &str) -> Option<Cluster> {
        self.lock().clusters.get(name).cloned()
    }

    /// Adds a cluster. Its name was checked: it is a file name.
    pub fn put_cluster(&self, cluster: Cluster) -> Result<(), EcsError> {
        let path = self.directory.join("clusters").join(format!("{}.json", cluster.name));
        let mut tables = self.lock();
        if tables.clusters.len() >= MAX_CLUSTERS {
            return Err(EcsError::Full { what: "clusters", limit: MAX_CLUSTERS });
        }
        write_json(&path, &cluster, Durability::Synced)?;
        tables.clusters.insert(cluster.name.clone(), cluster);
        Ok(())
    }

    /// All revisions, by family and number.
    pub fn definitions(&self) -> Vec<Arc<Registered>> {
        self.lock().families.values().flat_map(|revisions| revisions.values().cloned()).collect()
    }

    /// A revision; without a number the newest that is active.
    pub fn definition(&self, family: &str, revision: Option<u32>) -> Option<Arc<Registered>> {
        let tables = self.lock();
        let revisions = tables.families.get(family)?;
        match revision {
            Some(number) => revisions.get(&number).cloned(),
            None => revisions.values().rev().find(|known| known.deregistered.is_none()).cloned(),
        }
    }

    /// Adds a revision, to which `make` gives what depends on its number. The family's name was checked: it is a file
    /// name.
    pub fn register(
        &self,
        family: &str,
        make: impl FnOnce(u32) -> Registered,
    ) -> Result<Arc<Registered>, EcsError> {
        let mut tables = self.lock();
        if tables.families.values().map(BTreeMap::len).sum::<usize>() >= MAX_DEFINITIONS {
            return Err(EcsError::Full { what: "task definitions", limit: MAX_DEFINITIONS });
        }
        let directory = self.directory.join("definitions").join(family);
        private_directory(&directory)?;
        let revisions = tables.families.entry(family.to_owned()).or_default();
        let revision = revisions.last_key_value().map_or(1, |(last, _)| last.saturating_add(1));
        let registered = Arc::new(make(revision));
        write_json(&directory.join(format!("{revision}.json")), &*registered, Durability::Synced)?;
        revisions.insert(revision, Arc::clone(&registered));
        Ok(registered)
    }

    /// Replaces a revision that is there.
    pub fn replace_definition(&self, registered: Registered) -> Result<Arc<Registered>, EcsError> {
        let family = registered.definition.family.clone();
        let path = self.directory.join("definitions").join(&family);
        let mut tables = self.lock();
        let registered = Arc::new(registered);
        write_json(&path.join(format!("{}.json", registered.revision)), &*registered, Durability::Synced)?;
        tables.families.entry(family).or_default().insert(registered.revision, Arc::clone(&registered));
        Ok(registered)
    }

    /// All tasks, by id.
    pub fn tasks(&self) -> Vec<Arc<Task>> {
        self.lock().tasks.values().cloned().collect()
    }

    /// The task with this id.
    pub fn task(&self, id: &str) -> Option<Arc<Task>> {
        self.lock().tasks.get(id).cloned()
    }

    /// The task and the name of its container whose metadata URL has this secret part.
    pub fn by_endpoint(&self, endpoint: &str) -> Option<(Arc<Task>, String)> {
        let tables = self.lock();
        tables.tasks.values().find_map(|task| {
            let container = task.containers.iter().find(|container| container.endpoint == endpoint)?;
            Some((Arc::clone(task), container.name.clone()))
        })
    }

    /// The task whose credentials URL has this secret part; only while it is not stopped.
    pub fn by_credentials(&self, id: &str) -> Option<Arc<Task>> {
        let tables = self.lock();
        let found =
            |task: &&Arc<Task>| task.phase != Phase::Stopped && task.credentials_id.as_deref() == Some(id);
        tables.tasks.values().find(found).cloned()
    }

    /// Adds the tasks that `admit` lets in, seeing those that are there; on an error none. What else `admit` tells is
    /// handed on.
    pub fn add_tasks<T, E: From<EcsError>>(
        &self,
        admit: impl FnOnce(&[Arc<Task>]) -> Result<(Vec<Task>, T), E>,
    ) -> Result<(Vec<Arc<Task>>, T), E> {
        let mut tables = self.lock();
        let present: Vec<Arc<Task>> = tables.tasks.values().cloned().collect();
        let (tasks, told) = admit(&present)?;
        if present.len() + tasks.len() > MAX_TASKS {
            return Err(EcsError::Full { what: "tasks", limit: MAX_TASKS }.into());
        }
        for (at, task) in tasks.iter().enumerate() {
            // It survives the agent; with the machine's power its processes are gone too.
            if let Err(error) = write_json(&self.task_path(&task.id), task, Durability::Volatile) {
                for written in &tasks[..at] {
                    // A file that stays is a task that nobody was told of; the next start runs it.
                    let _ = std::fs::remove_file(self.task_path(&written.id));
                }
                return Err(EcsError::from(error).into());
            }
        }
        let tasks: Vec<Arc<Task>> = tasks.into_iter().map(Arc::new).collect();
        for task in &tasks {
            tables.tasks.insert(task.id.clone(), Arc::clone(task));
        }
        drop(tables);
        self.changes.send_modify(|count| *count += 1);
        Ok((tasks, told))
    }

    /// Changes a task, if it is there. That the file cannot be written is told in the log: what is in memory goes on.
    pub fn update(&self, id: &str, change: impl FnOnce(&mut Task)) -> Option<Arc<Task>> {
        let mut tables = self.lock();
        let slot = tables.tasks.get_mut(id)?;
        let task = Arc::make_mut(slot);
        change(task);
        task.version += 1;
        // A task that has stopped is history that must outlast the machine; until then its processes do not either.
        let durability = if task.phase == Phase::Stopped { Durability::Synced } else { Durability::Volatile };
        if let Err(error) = write_json(&self.task_path(id), &*task, durability) {
            tracing::error!(task = id, "cannot write what became of it: {}", crate::error::chain(&error));
        }
        let task = Arc::clone(slot);
        drop(tables);
        self.changes.send_modify(|count| *count += 1);
        Some(task)
    }

    /// Forgets a task.
    pub fn remove_task(&self, id: &str) -> Result<(), EcsError> {
        let path = self.task_path(id);
        let mut tables = self.lock();
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(SysError::io("unlink", path.display().to_string())(error).into());
            }
            _ => {}
        }
        tables.tasks.remove(id);
        drop(tables);
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    fn task_path(&self, id: &str) -> PathBuf {
        self.directory.join("tasks").join(format!("{id}.json"))
    }
}

/// Whether a text has the form of a task's id.
pub fn is_task_id(text: &str) -> bool {
    text.len() == TASK_ID && is_hex(text)
}

/// Random hexadecimal digits: 32 for ids, 64 for what must not be guessed.
pub fn random_hex(digits: usize) -> Result<String, EcsError> {
    let mut bytes = vec![0u8; digits / 2];
    random::fill(&mut bytes)?;
    Ok(hex(&bytes))
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// A random UUID, version 4.
pub fn random_uuid() -> Result<String, EcsError> {
    let mut bytes = [0u8; 16];
    random::fill(&mut bytes)?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = hex(&bytes);
    Ok([&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-"))
}

fn read_or_warn<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    read_json(path).unwrap_or_else(|error| {
        tracing::error!("ignored: {}", crate::error::chain(&error));
        None
    })
}

fn entries(directory: &Path) -> Result<Vec<String>, EcsError> {
    let failed = |error| SysError::io("readdir", directory.display().to_string())(error);
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        all.extend(entry.map_err(failed)?.file_name().into_string());
    }
    Ok(all)
}

fn json_files(directory: &Path) -> Result<Vec<(String, PathBuf)>, EcsError> {
    let names = entries(directory)?;
    Ok(names
        .iter()
        .filter_map(|name| Some((name.strip_suffix(".json")?.to_owned(), directory.join(name))))
        .collect())
}
