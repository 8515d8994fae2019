//! Where networks keep what must be known to undo them: `<state>/net`.
//!
//! ```text
//! lock                      held while the bridge, the firewall or ports change
//! attached/<id>.json        what an id has: the intent first, then all of it
//! bridges/<link>/           settings.json, firewall.nft, last4, last6
//! bridges/<link>/addresses/ a symbolic link for each address in use, which names its owner's id
//! ports/                    likewise for each published port of the host
//! cni/<id>.*                what CNI plugins were given, and what they answered
//! ```
use super::NetworkError;
use crate::sys::{SysError, lock, root};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Whoever holds the lock runs nft, which has a deadline of its own.
const LOCK_DEADLINE: Duration = Duration::from_secs(30);
/// A record is a few kB; results of plugins are bounded where they are read.
const MAX_RECORD: usize = 4 << 20;

/// `<state>/net`.
#[derive(Debug, Clone)]
pub(super) struct State {
    root: PathBuf,
}

impl State {
    /// Makes what is missing of the directories.
    pub(super) fn new(state: &Path) -> Result<Self, NetworkError> {
        let root = state.join("net");
        for part in ["attached", "bridges", "ports", "cni"] {
            make_directory(&root.join(part))?;
        }
        Ok(Self { root })
    }

    /// For looking only: `None` if there never was a network here.
    pub(super) fn existing(state: &Path) -> Option<Self> {
        let root = state.join("net");
        root.join("attached").is_dir().then_some(Self { root })
    }

    pub(super) fn record(&self, id: &str) -> PathBuf {
        self.root.join("attached").join(format!("{id}.json"))
    }

    pub(super) fn attached(&self) -> PathBuf {
        self.root.join("attached")
    }

    pub(super) fn ports(&self) -> PathBuf {
        self.root.join("ports")
    }

    pub(super) fn bridge(&self, link: &str) -> PathBuf {
        self.root.join("bridges").join(link)
    }

    pub(super) fn cni(&self, id: &str, what: &str) -> PathBuf {
        self.root.join("cni").join(format!("{id}.{what}"))
    }

    /// Waits for the lock. A child that is given a copy of it keeps it until it ends.
    pub(super) fn lock(&self) -> Result<File, NetworkError> {
        lock_file(&self.root.join("lock"))
    }
}

/// Takes the lock of a file, which is made if it is not there.
pub(super) fn lock_file(path: &Path) -> Result<File, NetworkError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(SysError::io("open", path.display().to_string()))?;
    let deadline = Instant::now() + LOCK_DEADLINE;
    let mut pause = Duration::from_micros(200);
    // The kernel has no lock with a deadline and no event for one that is let go, so this has to look again.
    while !lock::try_exclusive(&file)? {
        if Instant::now() >= deadline {
            return Err(NetworkError::Locked { path: path.to_owned(), seconds: LOCK_DEADLINE.as_secs() });
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
    Ok(file)
}

pub(super) fn make_directory(path: &Path) -> Result<(), NetworkError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(SysError::io("mkdir", path.display().to_string()))?;
    Ok(())
}

/// Writes beside and renames: a reader sees the old or the new one. Not synced: after a loss of power the links are
/// gone too.
pub(super) fn write(path: &Path, content: &[u8]) -> Result<(), NetworkError> {
    let beside = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .map_err(SysError::io("open", beside.display().to_string()))?;
    file.write_all(content)
        .and_then(|()| std::fs::rename(&beside, path))
        .map_err(SysError::io("write", path.display().to_string()))?;
    Ok(())
}

pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), NetworkError> {
    let text =
        serde_json::to_vec(value).map_err(|source| NetworkError::Record { path: path.to_owned(), source })?;
    write(path, &text)
}

/// `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, NetworkError> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    match root::open_own(path, flags) {
        Ok(file) => {
            let text = root::read_bounded(&file, MAX_RECORD)
                .map_err(SysError::on("read", path.display().to_string()))?;
            Ok(Some(text))
        }
        Err(SysError { errno: Errno::ENOENT, .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, NetworkError> {
    read(path)?
        .map(|text| serde_json::from_slice(&text))
        .transpose()
        .map_err(|source| NetworkError::Record { path: path.to_owned(), source })
}

/// Removes a file; that there is none is no error.
pub(super) fn remove(path: &Path) -> Result<(), NetworkError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(SysError::io("unlink", path.display().to_string())(error).into())
        }
        _ => Ok(()),
    }
}

/// Claims a name in a directory for an owner; false if somebody has it. A symbolic link is made with its content in
/// one step, so that there is no moment at which a claim has no owner.
pub(super) fn claim(directory: &Path, name: &str, owner: &str) -> Result<bool, NetworkError> {
    match std::os::unix::fs::symlink(owner, directory.join(name)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(SysError::io("symlink", directory.join(name).display().to_string())(error).into()),
    }
}

/// All claims in a directory: names and owners. None if there is no directory.
pub(super) fn claims(directory: &Path) -> Result<Vec<(String, String)>, NetworkError> {
    let failed = || SysError::io("readdir", directory.display().to_string());
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed()(error).into()),
    };
    let mut all = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed())?;
        // One that was given up meanwhile is no claim.
        if let (Ok(name), Ok(owner)) = (entry.file_name().into_string(), std::fs::read_link(entry.path())) {
            all.push((name, owner.to_string_lossy().into_owned()));
        }
    }
    Ok(all)
}

/// Gives up a claim if it is the owner's.
pub(super) fn release(directory: &Path, name: &str, owner: &str) -> Result<(), NetworkError> {
    let path = directory.join(name);
    match std::fs::read_link(&path) {
        Ok(target) if target == Path::new(owner) => remove(&path),
        _ => Ok(()),
    }
}
