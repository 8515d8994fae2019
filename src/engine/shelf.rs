//! Directories of records with unique names; containers lie on one shelf, tasks on another.
//!
//! ```text
//! <shelf>/
//!   <id>/           renamed into place from <id>.tmp, and back before it is removed
//!   names/<name>    a symbolic link whose text is the id
//!   making          locked (shared) while a directory is made
//! ```
use super::error::EngineError;
use super::names::{self, Id};
use super::record::{Durability, Lock, private_directory, remove_tree, sync_directory};
use crate::sys::{SysError, lock};
use nix::errno::Errno;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Suffix of a directory that is being made or removed.
const UNFINISHED: &str = ".tmp";

/// What lies on a shelf; for errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Containers.
    Container,
    /// Tasks.
    Task,
}

impl std::fmt::Display for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Container => "container",
            Self::Task => "task",
        })
    }
}

/// A directory of records.
#[derive(Debug, Clone)]
pub(super) struct Shelf {
    path: PathBuf,
    kept: Kept,
}

/// While it lives, nothing unfinished is swept.
#[derive(Debug)]
pub struct Making {
    _lock: File,
}

impl Shelf {
    pub(super) fn new(path: PathBuf, kept: Kept) -> Self {
        Self { path, kept }
    }

    /// The directory of one record.
    pub(super) fn directory(&self, id: &Id) -> PathBuf {
        self.path.join(id.as_str())
    }

    /// The error for what is not there.
    pub(super) fn missing(&self, given: &str) -> EngineError {
        let given = given.to_owned();
        match self.kept {
            Kept::Container => EngineError::NoSuchContainer { given },
            Kept::Task => EngineError::NoSuchTask { given },
        }
    }

    /// The lock file of what is there: a directory that is gone must not come back.
    pub(super) fn existing_lock(&self, id: &Id) -> Result<File, EngineError> {
        open_lock(&self.directory(id).join("lock")).map_err(|error| match error.errno {
            Errno::ENOENT => self.missing(id.as_str()),
            _ => error.into(),
        })
    }

    /// Takes the lock; `None` if somebody has it.
    pub(super) fn try_lock(&self, id: &Id) -> Result<Option<Lock>, EngineError> {
        let file = self.existing_lock(id)?;
        Ok(if lock::try_exclusive(&file)? { Some(Lock(file)) } else { None })
    }

    /// Waits for the lock.
    pub(super) fn wait_lock(&self, id: &Id) -> Result<Lock, EngineError> {
        let file = self.existing_lock(id)?;
        lock::wait_exclusive(&file)?;
        Ok(Lock(file))
    }

    /// Whether somebody holds the lock; what is not there is not held.
    pub(super) fn is_held(&self, id: &Id) -> Result<bool, EngineError> {
        match open_lock(&self.directory(id).join("lock")) {
            Ok(file) => Ok(lock::is_held(&file)?),
            Err(SysError { errno: Errno::ENOENT, .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whose the name is, if it is one that was given.
    pub(super) fn holder(&self, name: &str) -> Option<Id> {
        names::validate(name).ok()?;
        let target = std::fs::read_link(self.name_link(name)).ok()?;
        target.to_str().and_then(Id::parse)
    }

    /// The one id that begins like this.
    pub(super) fn by_prefix(&self, given: &str) -> Result<Id, EngineError> {
        if given.is_empty() || !names::is_hex(given) {
            return Err(self.missing(given));
        }
        let mut matching = self.ids()?;
        matching.retain(|id| id.as_str().starts_with(given));
        match matching.len() {
            1 => Ok(matching.remove(0)),
            0 => Err(self.missing(given)),
            count => Err(EngineError::Ambiguous { given: given.to_owned(), count, kept: self.kept }),
        }
    }

    /// The ids of all, in no order.
    pub(super) fn ids(&self) -> Result<Vec<Id>, EngineError> {
        Ok(self.entries()?.iter().filter_map(|name| Id::parse(name)).collect())
    }

    pub(super) fn entries(&self) -> Result<Vec<String>, EngineError> {
        let failed = || SysError::io("readdir", self.path.display().to_string());
        let entries = match std::fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed()(error).into()),
        };
        let mut all = Vec::new();
        for entry in entries {
            all.extend(entry.map_err(failed())?.file_name().into_string());
        }
        Ok(all)
    }

    /// Keeps [`Shelf::sweep`] away from what is being made, until it is dropped.
    pub(super) fn begin_making(&self) -> Result<Making, EngineError> {
        private_directory(&self.names())?;
        let making = open_lock(&self.path.join("making"))?;
        lock::wait_shared(&making)?;
        Ok(Making { _lock: making })
    }

    /// Makes a directory, has `fill` write what is in it, and claims its name; until it returns, it is not
    /// there. Its lock is held.
    pub(super) fn make(
        &self,
        id: &Id,
        name: &str,
        durability: Durability,
        fill: impl FnOnce(&Path) -> Result<(), EngineError>,
    ) -> Result<Lock, EngineError> {
        let unfinished = self.path.join(format!("{id}{UNFINISHED}"));
        private_directory(&unfinished)?;
        let made = new_lock(&unfinished).and_then(|lock| {
            fill(&unfinished)?;
            self.claim(id, name)?;
            let path = self.directory(id);
            std::fs::rename(&unfinished, &path)
                .map_err(SysError::io("rename", path.display().to_string()))?;
            if durability == Durability::Synced {
                sync_directory(&self.path)?;
            }
            Ok(lock)
        });
        if made.is_err() {
            // The first error is the one to tell; a rest is swept later.
            let _ = self.withdraw(id).and_then(|()| self.discard(id, name));
        }
        made
    }

    /// Claims a name: symlink(2) is atomic. A link to what is not there is what a killed call left behind and
    /// is replaced.
    fn claim(&self, id: &Id, name: &str) -> Result<(), EngineError> {
        let link = self.name_link(name);
        let failed = |call: &'static str| SysError::io(call, link.display().to_string());
        for _ in 0..8 {
            match std::os::unix::fs::symlink(id.as_str(), &link) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(failed("symlink")(error).into());
                }
                Err(_) => {}
            }
            let Ok(target) = std::fs::read_link(&link) else { continue };
            let holder = target.to_string_lossy().into_owned();
            let there = |suffix: &str| self.path.join(format!("{holder}{suffix}")).exists();
            if there("") || there(UNFINISHED) {
                return Err(EngineError::NameInUse { name: name.to_owned(), id: holder, kept: self.kept });
            }
            match std::fs::remove_file(&link) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(failed("unlink")(error).into());
                }
                _ => {}
            }
        }
        Err(SysError::on("symlink", link.display().to_string())(Errno::EBUSY).into())
    }

    /// Takes a record away from where it is found; [`Shelf::discard`] is to follow. That it is gone already is
    /// no error.
    pub(super) fn withdraw(&self, id: &Id) -> Result<(), EngineError> {
        match std::fs::rename(self.directory(id), self.path.join(format!("{id}{UNFINISHED}"))) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(SysError::io("rename", id.as_str())(error).into())
            }
            _ => Ok(()),
        }
    }

    /// Removes what was withdrawn, and its name.
    pub(super) fn discard(&self, id: &Id, name: &str) -> Result<(), EngineError> {
        let link = self.name_link(name);
        if std::fs::read_link(&link).is_ok_and(|target| target.as_os_str() == id.as_str()) {
            // Another process may remove the same.
            let _ = std::fs::remove_file(&link);
        }
        remove_tree(&self.path, Path::new(&format!("{id}{UNFINISHED}")))
    }

    /// Whether anything is half-made or half-removed.
    pub(super) fn has_unfinished(&self) -> Result<bool, EngineError> {
        Ok(self.entries()?.iter().any(|name| name.ends_with(UNFINISHED)))
    }

    /// Removes what killed calls left unfinished, and returns its lock, under which nothing is made; `None`,
    /// and nothing is removed, while something is being made.
    pub(super) fn sweep(&self) -> Result<Option<Lock>, EngineError> {
        let making = match open_lock(&self.path.join("making")) {
            Err(SysError { errno: Errno::ENOENT, .. }) => {
                private_directory(&self.path)?;
                open_lock(&self.path.join("making"))?
            }
            other => other?,
        };
        if !lock::try_exclusive(&making)? {
            return Ok(None);
        }
        // Asked again: what was unfinished before the lock may be finished now.
        let mut unfinished = self.entries()?;
        unfinished.retain(|name| name.ends_with(UNFINISHED));
        if !unfinished.is_empty() {
            // First, because the directories tell which names are to go.
            self.free_names(&unfinished)?;
        }
        for name in unfinished {
            remove_tree(&self.path, Path::new(&name))?;
        }
        Ok(Some(Lock(making)))
    }

    /// Takes the names away that directories which are not finished have already.
    fn free_names(&self, unfinished: &[String]) -> Result<(), EngineError> {
        let names = self.names();
        let entries = match std::fs::read_dir(&names) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(SysError::io("readdir", names.display().to_string()))?,
        };
        for entry in entries.flatten() {
            let link = entry.path();
            let Ok(id) = std::fs::read_link(&link) else { continue };
            if unfinished.iter().any(|name| name.strip_suffix(UNFINISHED) == id.to_str()) {
                // Whoever discards it may have taken it away.
                let _ = std::fs::remove_file(&link);
            }
        }
        Ok(())
    }

    pub(super) fn names(&self) -> PathBuf {
        self.path.join("names")
    }

    pub(super) fn name_link(&self, name: &str) -> PathBuf {
        self.names().join(name)
    }
}

fn new_lock(directory: &Path) -> Result<Lock, EngineError> {
    let file = open_lock(&directory.join("lock"))?;
    if !lock::try_exclusive(&file)? {
        return Err(SysError::on("fcntl", "lock")(Errno::EBUSY).into());
    }
    Ok(Lock(file))
}

fn open_lock(path: &Path) -> Result<File, SysError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(SysError::io("open", path.display().to_string()))
}
