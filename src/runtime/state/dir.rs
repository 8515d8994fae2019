//! A container's directory under the state root: its record and what lies beside it.
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use super::{ProcessId, State, StateError};
use crate::runtime::sd_notify;
use crate::sys::SysError;
use crate::sys::lock::Locked;
use crate::sys::mount::detach_path;
use crate::sys::root::{open_beneath, open_same_mount};

const DIRECTORY: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

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

/// Where the root of a container without a mount namespace is mounted.
const ROOT: &str = "root";

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

    /// Keeps the configuration for exec. A part at a time, because a buffer for all of it would be in pages that the
    /// new process shares and that are copied then.
    pub fn write_config(&self, spec: &Spec) -> Result<(), StateError> {
        let mut writer = BufWriter::with_capacity(8 * 1024, self.create_file(CONFIG)?);
        serde_json::to_writer(&mut writer, spec)
            .map_err(std::io::Error::from)
            .and_then(|()| writer.flush())
            .map_err(SysError::io("write", CONFIG))
            .map_err(Self::io(&self.id))
    }

    fn to_json(&self, value: &impl Serialize, file: &'static str) -> Result<Vec<u8>, StateError> {
        serde_json::to_vec(value).map_err(|source| StateError::Damaged { id: self.id.clone(), file, source })
    }

    fn write_file(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        self.create_file(name)?
            .write_all(bytes)
            .map_err(SysError::io("write", name))
            .map_err(Self::io(&self.id))
    }

    fn create_file(&self, name: &str) -> Result<File, StateError> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        openat(self.as_dir(), name, flags, Mode::from_bits_truncate(0o600))
            .map(File::from)
            .map_err(SysError::on("openat", name))
            .map_err(Self::io(&self.id))
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

    /// Makes the directory on which the root of a container without a mount namespace is mounted.
    pub fn make_root_directory(&self) -> Result<OwnedFd, StateError> {
        mkdirat(self.as_dir(), ROOT, Mode::from_bits_truncate(0o700))
            .map_err(SysError::on("mkdirat", ROOT))
            .map_err(Self::io(&self.id))?;
        open_same_mount(self.as_dir(), Path::new(ROOT), DIRECTORY).map_err(Self::io(&self.id))
    }

    /// The root that is mounted there; None where nothing is, as in another mount namespace.
    pub fn mounted_root(root: &Path, id: &str) -> Result<Option<OwnedFd>, StateError> {
        let dir = Self::open_dir(root, id)?;
        match open_same_mount(dir.as_fd(), Path::new(ROOT), DIRECTORY) {
            Err(SysError { errno: Errno::EXDEV, .. }) => {}
            Err(SysError { errno: Errno::ENOENT, .. }) | Ok(_) => return Ok(None),
            Err(error) => return Err(Self::io(id)(error)),
        }
        open_beneath(dir.as_fd(), Path::new(ROOT), DIRECTORY).map(Some).map_err(Self::io(id))
    }

    /// Detaches what is mounted there, the last one first, and removes it.
    fn remove_root(&self, path: &Path) -> Result<(), StateError> {
        match fstatat(self.as_dir(), ROOT, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => return Ok(()),
            found => found.map_err(SysError::on("fstatat", ROOT)).map_err(Self::io(&self.id))?,
        };
        let point = path.join(ROOT);
        loop {
            match detach_path(&point) {
                Ok(()) => {}
                // No mount is left.
                Err(SysError { errno: Errno::EINVAL, .. }) => break,
                Err(error) => return Err(Self::io(&self.id)(error)),
            }
        }
        unlinkat(self.as_dir(), ROOT, UnlinkatFlags::RemoveDir)
            .map_err(SysError::on("rmdir", ROOT))
            .map_err(Self::io(&self.id))
    }

    fn remove_notify_directory(&self) -> Result<(), StateError> {
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
        Ok(())
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
        let mut removed = std::fs::remove_dir(&path);
        // Most containers have neither, and are not asked about them.
        if removed.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::DirectoryNotEmpty) {
            self.remove_notify_directory()?;
            self.remove_root(&path)?;
            removed = std::fs::remove_dir(&path);
        }
        match removed {
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
