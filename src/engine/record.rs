//! What is on disk about containers.
//!
//! ```text
//! <root>/containers/
//!   <id>/           renamed into place from <id>.tmp, and back before it is removed
//!     record.json   what the container is; only its limits change
//!     exit.json     how it ended last
//!     lock          locked by the monitor while the container runs; see sys::lock
//!     log           what it wrote
//!     upper/ work/  the writable layer
//!     rootfs/       where the container's own mount namespace attaches its root; empty on the host
//!     hostname hosts resolv.conf
//!   names/<name>    a symbolic link whose text is the id
//!   making          locked (shared) while a directory is made
//! <state>/containers/<id>/
//!   run.json        process ids while it runs
//!   attach.sock
//! ```
use super::Engine;
use super::error::EngineError;
use super::names::Id;
use super::options::Options;
pub use super::shelf::Making;
use super::shelf::{Kept, Shelf};
use super::specgen::Command;
use super::timestamp::Timestamp;
use crate::image::store::Store;
use crate::runtime::state::{ProcessId, State};
use crate::sys::{SysError, tree};
use nix::errno::Errno;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Records are a few KiB; an environment may be as large as the kernel's ARG_MAX.
const MAX_RECORD: u64 = 8 * 1024 * 1024;

/// Version of the record's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// The first.
    #[serde(rename = "1")]
    V1,
}

/// What a container is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Form of the record.
    pub version: Version,
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// The image's name as it was given.
    pub image: String,
    /// The image's id.
    pub image_id: String,
    /// What runs.
    pub command: Command,
    /// What was asked for.
    pub options: Options,
    /// The task that it belongs to, whose monitor holds it; a container at a shell has its own monitor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Kept for who launched it.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub data: serde_json::Value,
}

/// A running container's processes; written by the monitor.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Run {
    /// The monitor.
    pub monitor: ProcessId,
    /// The container's init, as the host numbers it.
    pub pid: i32,
    /// When its program was started.
    pub started: Timestamp,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Exit code, or 128 + the signal.
    pub code: u8,
    /// The kernel killed a process of it for want of memory.
    pub oom_killed: bool,
    /// When it was started; absent if it could not be.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Timestamp,
    /// Why it could not be started.
    pub error: Option<String>,
    /// How often the monitor had started it again before.
    #[serde(default)]
    pub restarts: u32,
}

/// Where a container is in its life.
///
/// ```text
/// Created --start--> Starting --> Running --> Exited --start--> Starting …
///                        |           `-- monitor killed --> Unmonitored --> Lost
///                        `-- cannot start --> Created, with the error
/// ```
#[derive(Debug, Clone)]
pub enum Status {
    /// It was never started, or could not be.
    Created(Option<Ended>),
    /// A start is under way.
    Starting,
    /// Its monitor is there.
    Running(Run),
    /// Its process runs, but its monitor was killed: nobody reads its output.
    Unmonitored(Run),
    /// It ended.
    Exited(Ended),
    /// It ended after its monitor was killed, and nobody saw how.
    Lost(Run),
}

impl Status {
    /// The word that `ps` and `inspect` show.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Created(_) => "created",
            Self::Starting => "starting",
            Self::Running(_) => "running",
            Self::Unmonitored(_) => "running (unmonitored)",
            Self::Exited(_) | Self::Lost(_) => "exited",
        }
    }

    /// The processes of a container that has some.
    pub fn run(&self) -> Option<&Run> {
        match self {
            Self::Running(run) | Self::Unmonitored(run) => Some(run),
            _ => None,
        }
    }

    /// Whether processes of it may exist.
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Starting | Self::Running(_) | Self::Unmonitored(_))
    }
}

/// Whether a file must survive the loss of power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It is on disk when the call returns.
    Synced,
    /// It belongs to something that ends with the machine.
    Volatile,
}

impl Record {
    /// What its files need: a container that goes away by itself is not waited for.
    pub fn durability(&self) -> Durability {
        if self.options.auto_remove { Durability::Volatile } else { Durability::Synced }
    }

    /// The id as a checked value.
    pub fn id(&self) -> Result<Id, EngineError> {
        Id::parse(&self.id).ok_or_else(|| EngineError::NoSuchContainer { given: self.id.clone() })
    }
}

/// Writes a file beside its place and renames it there.
pub fn write_json(path: &Path, value: &impl Serialize, durability: Durability) -> Result<(), EngineError> {
    let record = |source| EngineError::Record { path: path.to_owned(), source };
    let mut text = serde_json::to_vec(value).map_err(record)?;
    text.push(b'\n');
    let beside = path.with_extension("new");
    let failed = |call: &'static str| SysError::io(call, path.display().to_string());
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .map_err(failed("open"))?;
    file.write_all(&text).map_err(failed("write"))?;
    if durability == Durability::Synced {
        file.sync_all().map_err(failed("fsync"))?;
    }
    std::fs::rename(&beside, path).map_err(failed("rename"))?;
    if durability == Durability::Synced
        && let Some(directory) = path.parent()
    {
        sync_directory(directory)?;
    }
    Ok(())
}

/// Writes a file that every user of a container reads, whatever the caller's umask.
pub(super) fn write_public(path: &Path, content: &[u8]) -> Result<(), EngineError> {
    let failed = |call: &'static str| SysError::io(call, path.display().to_string());
    let mut file = File::create(path).map_err(failed("open"))?;
    file.write_all(content).map_err(failed("write"))?;
    Ok(file.set_permissions(Permissions::from_mode(0o644)).map_err(failed("fchmod"))?)
}

pub(super) fn sync_directory(path: &Path) -> Result<(), EngineError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| SysError::io("fsync", path.display().to_string())(error).into())
}

/// Reads a file; `None` if there is none.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, EngineError> {
    let failed = |call: &'static str| SysError::io(call, path.display().to_string());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.raw_os_error(), Some(code) if is_absent(code)) => return Ok(None),
        Err(error) => return Err(failed("open")(error).into()),
    };
    let mut text = Vec::new();
    file.take(MAX_RECORD + 1).read_to_end(&mut text).map_err(failed("read"))?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > MAX_RECORD {
        return Err(EngineError::TooLarge { path: path.to_owned(), limit: MAX_RECORD });
    }
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|source| EngineError::Record { path: path.to_owned(), source })
}

fn is_absent(code: i32) -> bool {
    matches!(Errno::from_raw(code), Errno::ENOENT | Errno::ENOTDIR)
}

/// Makes a directory that only its owner enters, and what it lies in; that it is there is no error.
pub fn private_directory(path: &Path) -> Result<(), EngineError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| SysError::io("mkdir", path.display().to_string())(error).into()),
        Err(error) => Err(SysError::io("mkdir", path.display().to_string())(error).into()),
    }
}

/// Makes a directory with a mode, whatever the umask; that it is there is no error.
pub fn directory_with_mode(path: &Path, mode: u32) -> Result<(), EngineError> {
    let failed = |call: &'static str| SysError::io(call, path.display().to_string());
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        result => result.map_err(failed("mkdir"))?,
    }
    let directory = File::open(path).map_err(failed("open"))?;
    Ok(directory.set_permissions(Permissions::from_mode(mode)).map_err(failed("fchmod"))?)
}

/// A lock file that is held; it is let go when the last copy of it in any process is closed.
#[derive(Debug)]
pub struct Lock(pub(super) File);

impl AsFd for Lock {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Engine {
    /// Takes the container's lock; `None` if somebody has it.
    pub fn try_lock(&self, id: &Id) -> Result<Option<Lock>, EngineError> {
        self.container_shelf().try_lock(id)
    }

    /// Waits for the container's lock.
    pub fn wait_lock(&self, id: &Id) -> Result<Lock, EngineError> {
        self.container_shelf().wait_lock(id)
    }

    /// Finds a container by its id, its name or the beginning of its id.
    pub fn find(&self, given: &str) -> Result<Record, EngineError> {
        let shelf = self.container_shelf();
        if let Some(id) = Id::parse(given) {
            return self.record(&id)?.ok_or_else(|| shelf.missing(given));
        }
        if let Some(id) = shelf.holder(given)
            && let Some(record) = self.record(&id)?
        {
            return Ok(record);
        }
        self.record(&shelf.by_prefix(given)?)?.ok_or_else(|| shelf.missing(given))
    }

    /// The record of a container; `None` if it is gone.
    pub fn record(&self, id: &Id) -> Result<Option<Record>, EngineError> {
        read_json(&self.directory(id).join("record.json"))
    }

    /// The ids of all containers, in no order.
    pub fn ids(&self) -> Result<Vec<Id>, EngineError> {
        self.container_shelf().ids()
    }

    /// All containers, the newest first.
    pub fn records(&self) -> Result<Vec<Record>, EngineError> {
        let mut records = Vec::new();
        for id in self.ids()? {
            // It may have been removed since the directory was read.
            records.extend(self.record(&id)?);
        }
        records.sort_by_key(|record| std::cmp::Reverse(record.created));
        Ok(records)
    }

    /// Where the container is in its life, as seen now.
    pub fn status(&self, id: &Id) -> Result<Status, EngineError> {
        let directory = self.directory(id);
        let held = self.container_shelf().is_held(id)?;
        let run: Option<Run> = read_json(&self.run_directory(id).join("run.json"))?;
        if held {
            return Ok(run.map_or(Status::Starting, Status::Running));
        }
        let ended: Option<Ended> = read_json(&directory.join("exit.json"))?;
        Ok(match (ended, run) {
            (Some(ended), _) if ended.started.is_none() => Status::Created(Some(ended)),
            (Some(ended), _) => Status::Exited(ended),
            (None, Some(run)) if self.known_init(id).map_or(Ok(false), ProcessId::is_alive)? => {
                Status::Unmonitored(run)
            }
            (None, Some(run)) => Status::Lost(run),
            // Its monitor was killed before it could write who runs.
            (None, None) => match self.known_init(id) {
                Some(init) if init.is_alive()? => {
                    Status::Unmonitored(Run { monitor: init, pid: init.pid, started: Timestamp::now() })
                }
                _ => Status::Created(None),
            },
        })
    }

    /// The container's init, as the runtime recorded it.
    fn known_init(&self, id: &Id) -> Option<ProcessId> {
        State::load(&self.runtime_root(), id.as_str()).ok()?.init
    }

    /// Keeps [`Engine::sweep`] away from what is being made, until it is dropped.
    pub fn begin_making(&self) -> Result<Making, EngineError> {
        self.container_shelf().begin_making()
    }

    /// Makes the directory of a container and claims its name; until it returns, the container is not there.
    pub fn make(&self, record: &Record, _making: &Making) -> Result<Lock, EngineError> {
        self.container_shelf().make(&record.id()?, &record.name, record.durability(), |directory| {
            // The writable layer's root is the container's root directory: everybody may enter it. The
            // directory above lets nobody in from the host (CVE-2021-41091).
            for (name, mode) in [("upper", 0o755), ("work", 0o700), ("rootfs", 0o700)] {
                directory_with_mode(&directory.join(name), mode)?;
            }
            write_json(&directory.join("record.json"), record, record.durability())
        })
    }

    /// Removes a container's files and its name; what is gone already is no error. The caller has its lock.
    pub fn discard(&self, id: &Id, name: &str) -> Result<(), EngineError> {
        let shelf = self.container_shelf();
        shelf.withdraw(id)?;
        self.discard_run(id)?;
        shelf.discard(id, name)
    }

    /// Removes what is there only while a container runs.
    pub fn discard_run(&self, id: &Id) -> Result<(), EngineError> {
        // First: its namespace is mounted in what goes next.
        self.disconnect(id)?;
        remove_tree(&self.state.join("containers"), Path::new(id.as_str()))
    }

    /// Removes what killed calls left unfinished: directories, and leases without a container. Does nothing
    /// while a container is being made.
    pub fn sweep(&self, store: &Store) -> Result<(), EngineError> {
        let shelf = self.container_shelf();
        let without = |holder: &String| Id::parse(holder).is_some_and(|id| !self.directory(&id).exists());
        if !shelf.has_unfinished()? && !store.holders()?.iter().any(without) {
            return Ok(());
        }
        let Some(_nothing_is_made) = shelf.sweep()? else { return Ok(()) };
        for holder in store.holders()?.into_iter().filter(without) {
            store.release(&holder)?;
        }
        Ok(())
    }
}

impl Engine {
    /// The same, and writes leases anew that a loss of power has damaged, from what containers' records say.
    pub fn sweep_leases(&self, store: &Store) -> Result<(), EngineError> {
        self.sweep(store)?;
        for holder in store.damaged_leases()? {
            // A record that is lost with its lease was one of a container that was to remove itself.
            match Id::parse(&holder).and_then(|id| self.record(&id).ok().flatten()) {
                Some(record) => store.lease(&store.resolve(&record.image_id)?, &holder)?,
                None => store.release(&holder)?,
            }
        }
        Ok(())
    }
}

/// Removes a tree whose content may be a container's.
pub fn remove_tree(parent: &Path, name: &Path) -> Result<(), EngineError> {
    let directory = match File::open(parent) {
        Ok(directory) => directory,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(SysError::io("open", parent.display().to_string())(error).into()),
    };
    Ok(tree::remove(directory.as_fd(), name)?)
}

/// Paths.
impl Engine {
    /// The directory of all containers.
    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// The directory of one container.
    pub fn directory(&self, id: &Id) -> PathBuf {
        self.containers().join(id.as_str())
    }

    /// Where its output is kept.
    pub fn log_path(&self, record: &Record) -> Result<PathBuf, EngineError> {
        match &record.options.task.log_path {
            Some(path) => Ok(path.clone()),
            None => Ok(self.directory(&record.id()?).join("log")),
        }
    }

    /// What is there only while it runs.
    pub fn run_directory(&self, id: &Id) -> PathBuf {
        self.state.join("containers").join(id.as_str())
    }

    /// The state root of the runtime.
    pub fn runtime_root(&self) -> PathBuf {
        self.state.join("oci")
    }

    pub(super) fn container_shelf(&self) -> Shelf {
        Shelf::new(self.containers(), Kept::Container)
    }
}

#[cfg(test)]
mod tests;
