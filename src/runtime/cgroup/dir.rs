//! One cgroup directory, held open: its files are reached through the descriptor alone.
use std::fmt::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::host::{Controller, Version};
use super::paths::Hierarchy;
use super::{Error, Result};
use crate::sys::SysError;

/// `cgroup.procs` of the fullest cgroup: 4 million pids (PID_MAX_LIMIT) of at most 8 bytes.
const MAX_FILE: usize = 32 << 20;
/// Deeper than any container nests its cgroups; ends a walk that a container keeps making deeper.
pub(super) const MAX_DEPTH: usize = 64;

/// An open cgroup directory.
#[derive(Debug)]
pub(super) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
    version: Version,
    controllers: Vec<Controller>,
}

type SysResult<T> = std::result::Result<T, SysError>;

impl Dir {
    /// Opens the cgroup that `hierarchy` names.
    pub(super) fn open(hierarchy: &Hierarchy) -> SysResult<Dir> {
        let path = hierarchy.dir();
        Ok(Dir {
            fd: open_dir(AT_FDCWD, &path)?,
            path,
            version: hierarchy.version,
            controllers: hierarchy.controllers.clone(),
        })
    }

    /// Opens a v2 cgroup by its path of the host.
    pub(super) fn at(path: &Path) -> SysResult<Dir> {
        let fd = open_dir(AT_FDCWD, path)?;
        Ok(Dir { fd, path: path.to_owned(), version: Version::V2, controllers: Vec::new() })
    }

    /// The cgroup `name` below this one.
    pub(super) fn child(&self, name: &Path) -> SysResult<Dir> {
        let path = self.path.join(name);
        let fd = openat(&self.fd, name, DIRECTORY, Mode::empty())
            .map_err(SysError::on("openat", path.to_string_lossy()))?;
        Ok(Dir { fd, path, version: self.version, controllers: self.controllers.clone() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    pub(super) fn has(&self, controller: Controller) -> bool {
        self.controllers.contains(&controller)
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Another descriptor of the same directory.
    pub(super) fn clone_fd(&self) -> SysResult<OwnedFd> {
        self.fd.try_clone().map_err(SysError::io("fcntl(F_DUPFD_CLOEXEC)", self.name("")))
    }

    /// The same cgroup once more.
    pub(super) fn reopen(&self) -> SysResult<Dir> {
        let fd = self.clone_fd()?;
        Ok(Dir { fd, path: self.path.clone(), version: self.version, controllers: self.controllers.clone() })
    }

    /// How errors call a file of this cgroup.
    pub(super) fn name(&self, file: &str) -> String {
        self.path.join(file).to_string_lossy().into_owned()
    }

    /// Opens a file of this cgroup.
    pub(super) fn open_file(&self, file: &str, flags: OFlag) -> SysResult<OwnedFd> {
        openat(&self.fd, file, flags | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|errno| SysError::on("openat", self.name(file))(errno))
    }

    /// Writes a whole value with one call, as cgroup files want it.
    pub(super) fn write(&self, file: &str, value: &str) -> SysResult<()> {
        let fd = self.open_file(file, OFlag::O_WRONLY)?;
        self.write_to(&fd, file, value)
    }

    /// The same to a file that is open already: a list of rules goes one write each.
    pub(super) fn write_to(&self, fd: &OwnedFd, file: &str, value: &str) -> SysResult<()> {
        loop {
            match nix::unistd::write(fd, value.as_bytes()) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    let args = format!("{value:?} to {}", self.name(file));
                    return Err(SysError { call: "write", args, errno });
                }
            }
        }
    }

    /// Reads a whole file.
    pub(super) fn read(&self, file: &str) -> SysResult<String> {
        let fd = self.open_file(file, OFlag::O_RDONLY)?;
        self.read_from(&fd, file)
    }

    /// Reads from the current position of an open file to its end.
    pub(super) fn read_from(&self, fd: &OwnedFd, file: &str) -> SysResult<String> {
        let failed = |errno| SysError { call: "read", args: self.name(file), errno };
        let mut bytes = Vec::new();
        let mut page = [0_u8; 4096];
        loop {
            match nix::unistd::read(fd, &mut page) {
                Ok(0) => break,
                Ok(count) if bytes.len() + count > MAX_FILE => return Err(failed(Errno::EFBIG)),
                Ok(count) => bytes.extend_from_slice(&page[..count]),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        String::from_utf8(bytes).map_err(|_| failed(Errno::EILSEQ))
    }

    /// The processes in this cgroup itself. A pid of 0 is a process outside of our pid namespace.
    pub(super) fn pids(&self) -> SysResult<Vec<i32>> {
        let text = match self.read("cgroup.procs") {
            // A threaded cgroup of v2 lists threads alone (cgroup-v2.rst, "Threads").
            Err(error) if error.errno == Errno::EOPNOTSUPP => self.read("cgroup.threads")?,
            other => other?,
        };
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// The processes in this cgroup and all below it.
    pub(super) fn all_pids(&self) -> SysResult<Vec<i32>> {
        let mut pids = Vec::new();
        self.walk(0, &mut |dir| {
            pids.extend(dir.pids()?);
            Ok(())
        })?;
        Ok(pids)
    }

    /// Calls `visit` for this cgroup and all below it, parents after their children. A cgroup that goes away
    /// meanwhile is passed over.
    pub(super) fn walk(&self, depth: usize, visit: &mut dyn FnMut(&Dir) -> SysResult<()>) -> SysResult<()> {
        if depth >= MAX_DEPTH {
            return Err(SysError { call: "openat", args: self.name(""), errno: Errno::ELOOP });
        }
        for name in self.children()? {
            match self.child(&name) {
                Ok(child) => child.walk(depth + 1, visit)?,
                Err(error) if gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        match visit(self) {
            Err(error) if gone(&error) => Ok(()),
            other => other,
        }
    }

    /// Names of the cgroups directly below.
    pub(super) fn children(&self) -> SysResult<Vec<PathBuf>> {
        use std::os::unix::ffi::OsStrExt;
        let failed = |errno| SysError { call: "getdents64", args: self.name(""), errno };
        // A descriptor of its own: the directory's position belongs to the open file description.
        let fd = openat(&self.fd, ".", DIRECTORY, Mode::empty()).map_err(failed)?;
        let mut names = Vec::new();
        let mut listing = nix::dir::Dir::from_fd(fd).map_err(failed)?;
        for entry in listing.iter() {
            let entry = match entry {
                // The kernel says ENODEV or ENOENT for a directory removed meanwhile: it has no children.
                Err(Errno::ENODEV | Errno::ENOENT) => break,
                other => other.map_err(failed)?,
            };
            let name = entry.file_name().to_bytes();
            let is_dir = entry.file_type() == Some(nix::dir::Type::Directory);
            if is_dir && name != b"." && name != b".." {
                names.push(PathBuf::from(std::ffi::OsStr::from_bytes(name)));
            }
        }
        Ok(names)
    }

    /// # Errors
    /// [`Error::NotEmpty`] where a process is in this cgroup.
    pub(super) fn check_empty(&self) -> Result<()> {
        self.check_empty_but(None)
    }

    /// The same, where one process is ours.
    ///
    /// # Errors
    /// [`Error::NotEmpty`] where another process is in this cgroup.
    pub(super) fn check_empty_but(&self, own: Option<i32>) -> Result<()> {
        match self.pids()?.into_iter().filter(|pid| Some(*pid) != own).count() {
            0 => Ok(()),
            count => Err(Error::NotEmpty { path: self.path.clone(), count }),
        }
    }
}

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

fn open_dir(at: BorrowedFd<'_>, path: &Path) -> SysResult<OwnedFd> {
    openat(at, path, DIRECTORY, Mode::empty()).map_err(|errno| SysError {
        call: "openat",
        args: path.to_string_lossy().into_owned(),
        errno,
    })
}

/// Makes one cgroup; `false` where it is there already.
pub(super) fn make(path: &Path) -> SysResult<bool> {
    match mkdirat(AT_FDCWD, path, Mode::from_bits_truncate(0o755)) {
        Ok(()) => Ok(true),
        Err(Errno::EEXIST) => Ok(false),
        Err(errno) => Err(SysError { call: "mkdirat", args: path.to_string_lossy().into_owned(), errno }),
    }
}

/// Removes one empty cgroup; one that is gone already is fine.
pub(super) fn unmake(path: &Path) -> SysResult<()> {
    match unlinkat(AT_FDCWD, path, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(SysError { call: "unlinkat", args: path.to_string_lossy().into_owned(), errno }),
    }
}

/// A file or directory of a cgroup that was removed: ENOENT by name, ENODEV through a descriptor.
pub(super) fn gone(error: &SysError) -> bool {
    matches!(error.errno, Errno::ENOENT | Errno::ENODEV)
}

/// `1 2 3` for a reader.
pub(super) fn list(pids: &[i32]) -> String {
    let mut text = String::new();
    for pid in pids.iter().take(8) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{}{pid}", if text.is_empty() { "" } else { " " });
    }
    if pids.len() > 8 {
        text.push_str(" ...");
    }
    text
}
