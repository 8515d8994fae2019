//! A container's directory under the state root: its record and what lies beside it.
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use super::{ProcessId, State, StateError};
use crate::runtime::sd_notify;
use crate::sys::SysError;
use crate::sys::lock::Locked;

/// A record or configuration longer than this is refused.
const MAX_RECORD: u64 = 16 * 1024 * 1024;
/// Name of the record.
pub(super) const STATE: &str = "state.json";
/// Name of the file that says who init is.
pub(super) const INIT: &str = "init.json";
/// Name of the copy of the configuration, for exec.
pub(super) const CONFIG: &str = "config.json";
/// The socket at which a created container waits for its start.
pub const START_SOCKET: &str = "start.sock";

/// A container's directory under the state root, open, and locked while this value lives in create or delete.
#[derive(Debug)]
pub struct StateDir {
    pub(super) id: String,
    root: PathBuf,
    dir: Locked<File>,
}

/// Checks an id as runc does: letters, digits and `_+-.`, neither `.` nor `..`, at most 1024 bytes.
pub fn check_id(id: &str) -> Result<(), StateError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    // 255 is the longest name of a directory.
    let fine = !id.is_empty() && id.len() <= 255 && id != "." && id != ".." && id.bytes().all(legal);
    if fine { Ok(()) } else { Err(StateError::InvalidId { id: id.into() }) }
}

impl StateDir {
    pub(super) fn io<'a>(id: &'a str) -> impl Fn(SysError) -> StateError + 'a {
        move |source| StateError::Io { id: id.into(), source }
    }

    /// Makes the directory of a new container, which claims its id, and locks it.
    pub fn create(root: &Path, id: &str) -> Result<StateDir, StateError> {
        check_id(id)?;
        let path = root.join(id);
        let mut builder = std::fs::DirBuilder::new();
        builder.mode(0o700);
        let made = builder.create(&path).or_else(|error| {
            if error.kind() != std::io::ErrorKind::NotFound {
                return Err(error);
            }
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root)?;
            builder.create(&path)
        });
        match made {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(StateError::AlreadyExists { id: id.into() });
            }
            other => {
                other.map_err(SysError::io("mkdir", path.display().to_string())).map_err(Self::io(id))?;
            }
        }
        Self::open_locked(root, id)
    }

    pub(super) fn open_dir(root: &Path, id: &str) -> Result<File, StateError> {
        check_id(id)?;
        let path = root.join(id);
        match File::open(&path) {
            Ok(file) => Ok(file),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(StateError::NotFound { id: id.into() })
            }
            Err(error) => Err(Self::io(id)(SysError::io("open", path.display().to_string())(error))),
        }
    }

    /// Opens and locks an existing directory, waiting for another call on this container to end.
    pub fn open_locked(root: &Path, id: &str) -> Result<StateDir, StateError> {
        let file = Self::open_dir(root, id)?;
        let dir = Locked::wait(file).map_err(Self::io(id))?;
        Ok(StateDir { id: id.into(), root: root.into(), dir })
    }

    /// The same without waiting: None when another call has it.
    pub fn try_open_locked(root: &Path, id: &str) -> Result<Option<StateDir>, StateError> {
        let file = Self::open_dir(root, id)?;
        let dir = Locked::try_now(file).map_err(Self::io(id))?;
        Ok(dir.map(|dir| StateDir { id: id.into(), root: root.into(), dir }))
    }

    /// The directory, for its sockets.
    pub fn as_dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Writes the first record, straight into its place: a reader takes one that is still empty for none.
    pub fn write_intent(&self, state: &State) -> Result<(), StateError> {
        self.write_file(STATE, &self.to_json(state, STATE)?)
    }

    /// Writes down who init is, in a file of its own: replacing the record would make some file systems write
    /// it to the disk at once (ext4(5), `auto_da_alloc`).
    pub fn write_init(&self, init: Option<ProcessId>) -> Result<(), StateError> {
        self.write_file(INIT, &self.to_json(&init, INIT)?)
    }

    /// Keeps the configuration for exec.
    pub fn write_config(&self, spec: &Spec) -> Result<(), StateError> {
        self.write_file(CONFIG, &self.to_json(spec, CONFIG)?)
    }

    fn to_json(&self, value: &impl Serialize, file: &'static str) -> Result<Vec<u8>, StateError> {
        serde_json::to_vec(value).map_err(|source| StateError::Damaged { id: self.id.clone(), file, source })
    }

    fn write_file(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let fd = openat(self.as_dir(), name, flags, Mode::from_bits_truncate(0o600))
            .map_err(SysError::on("openat", name))
            .map_err(Self::io(&self.id))?;
        File::from(fd).write_all(bytes).map_err(SysError::io("write", name)).map_err(Self::io(&self.id))
    }

    /// Removes the start socket; whether it was there.
    pub fn remove_start_socket(&self) -> Result<bool, StateError> {
        match unlinkat(self.as_dir(), START_SOCKET, UnlinkatFlags::NoRemoveDir) {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(Self::io(&self.id)(SysError::on("unlinkat", START_SOCKET)(errno))),
        }
    }

    /// Makes the directory of the container's notify socket.
    pub fn make_notify_directory(&self) -> Result<(), StateError> {
        // Whoever is in the container passes through it.
        mkdirat(self.as_dir(), sd_notify::DIRECTORY, Mode::from_bits_truncate(0o755))
            .map_err(SysError::on("mkdirat", sd_notify::DIRECTORY))
            .map_err(Self::io(&self.id))
    }

    /// That directory; None for a container that has none.
    pub fn notify_directory(root: &Path, id: &str) -> Result<Option<OwnedFd>, StateError> {
        let dir = Self::open_dir(root, id)?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(&dir, sd_notify::DIRECTORY, flags, Mode::empty()) {
            Ok(directory) => Ok(Some(directory)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(Self::io(id)(SysError::on("openat", sd_notify::DIRECTORY)(errno))),
        }
    }

    fn remove_notify_directory(&self, path: &Path) -> Result<(), StateError> {
        if let Some(directory) = Self::notify_directory(&self.root, &self.id)? {
            match unlinkat(&directory, sd_notify::SOCKET, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => {
                    return Err(Self::io(&self.id)(SysError::on("unlinkat", sd_notify::SOCKET)(errno)));
                }
            }
            unlinkat(self.as_dir(), sd_notify::DIRECTORY, UnlinkatFlags::RemoveDir)
                .map_err(SysError::on("rmdir", sd_notify::DIRECTORY))
                .map_err(Self::io(&self.id))?;
        }
        std::fs::remove_dir(path)
            .map_err(SysError::io("rmdir", path.display().to_string()))
            .map_err(Self::io(&self.id))
    }

    /// Removes the directory and all that is in it: the container's id is free again.
    pub fn remove(self) -> Result<(), StateError> {
        for name in [START_SOCKET, CONFIG, INIT, STATE] {
            match unlinkat(self.as_dir(), name, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(Self::io(&self.id)(SysError::on("unlinkat", name)(errno))),
            }
        }
        let path = self.root.join(&self.id);
        match std::fs::remove_dir(&path) {
            // Most containers have no notify socket, and are not asked about it.
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
                self.remove_notify_directory(&path)
            }
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Self::io(&self.id)(SysError::io("rmdir", path.display().to_string())(error)))
            }
            _ => Ok(()),
        }
    }
}

pub(super) fn read_json<T: for<'de> Deserialize<'de>>(
    dir: impl AsFd,
    id: &str,
    file: &'static str,
) -> Result<Option<T>, StateError> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let fd: OwnedFd = match openat(dir, file, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(StateDir::io(id)(SysError::on("openat", file)(errno))),
    };
    let mut text = Vec::new();
    File::from(fd)
        .take(MAX_RECORD)
        .read_to_end(&mut text)
        .map_err(SysError::io("read", file))
        .map_err(StateDir::io(id))?;
    if text.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&text).map(Some).map_err(|source| StateError::Damaged {
        id: id.into(),
        file,
        source,
    })
}
