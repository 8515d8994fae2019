//! A handle of a directory tree that somebody else controls.
//!
//! Every path is resolved by the kernel with `openat2(2)` and `RESOLVE_IN_ROOT`: absolute paths, `..` and
//! symbolic links stay inside, whatever the tree's owner changes meanwhile. Linux 5.6.
use super::SysError;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag};
use nix::sys::stat::{Mode, SFlag};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// How often a resolution is tried again: the kernel gives up with EAGAIN when a rename or a mount
/// elsewhere on the host happens while it walks over `..` (openat2(2)).
const ATTEMPTS: usize = 128;
/// The most symbolic links, as in path_resolution(7), that [`Root::mkdir_all`] follows itself.
const MAX_LINKS: usize = 40;

/// An open directory that serves as the root of path resolution.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

/// A file below a [`Root`], ready to be created: its parent directory and its own name.
#[derive(Debug)]
pub struct Entry<'p> {
    /// The directory, opened `O_PATH`.
    pub parent: OwnedFd,
    /// One component, neither `.` nor `..`.
    pub name: &'p OsStr,
}

impl Root {
    /// Takes a directory (opened `O_PATH` or otherwise) as root.
    pub fn new(fd: OwnedFd) -> Root {
        Root { fd }
    }

    /// Opens the host directory `path`, following symbolic links: it is the administrator's.
    pub fn open_host(path: &Path) -> Result<Root, SysError> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::open(path, flags, Mode::empty()).map_err(SysError::on("open", text(path)))?;
        Ok(Root { fd })
    }

    /// Opens `path` inside; symbolic links are followed within the root. `O_CLOEXEC` is added.
    pub fn open(&self, path: &Path, flags: OFlag) -> Result<OwnedFd, SysError> {
        resolve(self.fd.as_fd(), path, flags, ResolveFlag::RESOLVE_IN_ROOT)
    }

    /// The same, but the last component is not followed: with `O_PATH` a symbolic link itself is opened,
    /// otherwise it is ELOOP.
    pub fn open_no_follow(&self, path: &Path, flags: OFlag) -> Result<OwnedFd, SysError> {
        resolve(self.fd.as_fd(), path, flags | OFlag::O_NOFOLLOW, ResolveFlag::RESOLVE_IN_ROOT)
    }

    /// Opens `path` inside; any symbolic link on the way is ELOOP.
    pub fn open_no_links(&self, path: &Path, flags: OFlag) -> Result<OwnedFd, SysError> {
        resolve(self.fd.as_fd(), path, flags, ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS)
    }

    /// Opens the directory `path` (`O_PATH`), making what is missing with `mode`. Symbolic links to
    /// directories are followed inside; a dangling link has its target made, inside as well.
    pub fn mkdir_all(&self, path: &Path, mode: Mode) -> Result<OwnedFd, SysError> {
        match self.open(path, OFlag::O_PATH | OFlag::O_DIRECTORY) {
            Err(error) if error.errno == Errno::ENOENT => self.mkdir_walk(path, mode),
            result => result,
        }
    }

    /// One component at a time. Each is made in, and opened from, the directory that is already open, so
    /// that a component which is exchanged meanwhile can only lead to another place inside.
    fn mkdir_walk(&self, path: &Path, mode: Mode) -> Result<OwnedFd, SysError> {
        let directory = OFlag::O_PATH | OFlag::O_DIRECTORY;
        // Components that are yet to come, the last first.
        let mut pending: Vec<PathBuf> = components(path);
        // The directories from the root down to the current one: `..` goes back without asking the tree.
        let mut stack: Vec<OwnedFd> = Vec::new();
        let mut links = 0;
        while let Some(name) = pending.pop() {
            let current = stack.last().map_or(self.fd.as_fd(), AsFd::as_fd);
            if name == Path::new("..") {
                stack.pop();
                continue;
            }
            match nix::sys::stat::mkdirat(current, &name, mode) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(SysError::on("mkdirat", text(path))(errno)),
            }
            let beneath = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
            match resolve(current, &name, directory, beneath) {
                Ok(fd) => stack.push(fd),
                Err(error) if error.errno == Errno::ELOOP => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(SysError::on("mkdirat", text(path))(Errno::ELOOP));
                    }
                    let target = nix::fcntl::readlinkat(current, &name)
                        .map_err(SysError::on("readlinkat", text(path)))?;
                    let target = Path::new(&target);
                    if target.is_absolute() {
                        stack.clear();
                    }
                    pending.extend(components(target));
                }
                Err(error) => return Err(SysError { args: text(path), ..error }),
            }
        }
        match stack.pop() {
            Some(fd) => Ok(fd),
            None => self.open(Path::new("."), directory),
        }
    }

    /// The parent directory of `path` (made with `mode` 0755 where it is missing) and its last component.
    ///
    /// # Errors
    /// EINVAL when `path` ends in `..` or is the root itself.
    pub fn entry<'p>(&self, path: &'p Path) -> Result<Entry<'p>, SysError> {
        let name = path.file_name().ok_or(Errno::EINVAL).map_err(SysError::on("openat2", text(path)))?;
        let parent = path.parent().unwrap_or(Path::new("."));
        Ok(Entry { parent: self.mkdir_all(parent, Mode::from_bits_truncate(0o755))?, name })
    }

    /// Creates the regular file `path`, which must not exist, and opens it for writing. Missing parents are made.
    pub fn create_file(&self, path: &Path, mode: Mode) -> Result<OwnedFd, SysError> {
        self.entry(path)?.create_file(OFlag::O_WRONLY, mode)
    }

    /// Makes the symbolic link `path` with the content `target`. Missing parents are made.
    pub fn symlink(&self, target: &Path, path: &Path) -> Result<(), SysError> {
        self.entry(path)?.symlink(target)
    }

    /// Makes the node `path`. Missing parents are made.
    pub fn mknod(&self, path: &Path, kind: SFlag, mode: Mode, device: u64) -> Result<(), SysError> {
        self.entry(path)?.mknod(kind, mode, device)
    }

    /// The content of the symbolic link `path`.
    pub fn readlink(&self, path: &Path) -> Result<PathBuf, SysError> {
        let link = self.open_no_follow(path, OFlag::O_PATH)?;
        let target = nix::fcntl::readlinkat(&link, "").map_err(SysError::on("readlinkat", text(path)))?;
        Ok(PathBuf::from(target))
    }

    /// The content of the regular file `path`, which has at most `max` bytes.
    ///
    /// # Errors
    /// EINVAL when it is no regular file (a FIFO or a device is not even opened for reading), EFBIG when
    /// it is larger: a hostile /etc/passwd is the reason (CVE-2026-47262).
    pub fn read_file_bounded(&self, path: &Path, max: usize) -> Result<Vec<u8>, SysError> {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = self.open(path, flags)?;
        let stat = nix::sys::stat::fstat(&file).map_err(SysError::on("fstat", text(path)))?;
        if SFlag::from_bits_truncate(stat.st_mode & libc::S_IFMT) != SFlag::S_IFREG {
            return Err(SysError::on("read", format!("{}: not a regular file", path.display()))(
                Errno::EINVAL,
            ));
        }
        read_bounded(&file, max).map_err(SysError::on("read", text(path)))
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Entry<'_> {
    /// Creates a regular file that must not exist.
    pub fn create_file(&self, flags: OFlag, mode: Mode) -> Result<OwnedFd, SysError> {
        create_file(self.parent.as_fd(), Path::new(self.name), flags, mode)
    }

    /// Makes a symbolic link.
    pub fn symlink(&self, target: &Path) -> Result<(), SysError> {
        nix::unistd::symlinkat(target, &self.parent, self.name)
            .map_err(SysError::on("symlinkat", self.name.to_string_lossy()))
    }

    /// Makes a node.
    pub fn mknod(&self, kind: SFlag, mode: Mode, device: u64) -> Result<(), SysError> {
        nix::sys::stat::mknodat(&self.parent, self.name, kind, mode, device)
            .map_err(SysError::on("mknodat", self.name.to_string_lossy()))
    }

    /// Opens what is there, without following it.
    pub fn open(&self, flags: OFlag) -> Result<OwnedFd, SysError> {
        open_beneath(self.parent.as_fd(), Path::new(self.name), flags | OFlag::O_NOFOLLOW)
    }
}

/// Creates the regular file `name` in `dir`; it must not exist, not even as a dangling link.
pub fn create_file(dir: BorrowedFd<'_>, name: &Path, flags: OFlag, mode: Mode) -> Result<OwnedFd, SysError> {
    let flags = flags | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    nix::fcntl::openat(dir, name, flags, mode).map_err(SysError::on("openat", text(name)))
}

/// Opens `path` below `dir` without leaving it and without following any symbolic link.
pub fn open_beneath(dir: BorrowedFd<'_>, path: &Path, flags: OFlag) -> Result<OwnedFd, SysError> {
    resolve(dir, path, flags, ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS)
}

/// The same, without entering another mount: what is found belongs to the file system of `dir`.
pub fn open_same_mount(dir: BorrowedFd<'_>, path: &Path, flags: OFlag) -> Result<OwnedFd, SysError> {
    let resolution =
        ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV;
    resolve(dir, path, flags, resolution)
}

/// Opens `path` of this process's own root, not through a magic link: `/proc/self/fd/N` names a descriptor,
/// whatever it is of (CVE-2024-21626).
pub fn open_own(path: &Path, flags: OFlag) -> Result<OwnedFd, SysError> {
    resolve(nix::fcntl::AT_FDCWD, path, flags, ResolveFlag::empty())
}

/// Reads `file` to its end.
///
/// # Errors
/// EFBIG when it holds more than `max` bytes.
pub fn read_bounded(file: impl AsFd, max: usize) -> Result<Vec<u8>, Errno> {
    let mut content = Vec::new();
    let mut chunk = [0_u8; 16 * 1024];
    loop {
        match nix::unistd::read(&file, &mut chunk) {
            Ok(0) => return Ok(content),
            Ok(length) if content.len() + length > max => return Err(Errno::EFBIG),
            Ok(length) => content.extend_from_slice(&chunk[..length]),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// The components of `path` that a walk has to take, the last first; "/" and "." vanish.
fn components(path: &Path) -> Vec<PathBuf> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(PathBuf::from(name)),
            Component::ParentDir => Some(PathBuf::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .rev()
        .collect()
}

fn resolve(
    dir: BorrowedFd<'_>,
    path: &Path,
    flags: OFlag,
    resolution: ResolveFlag,
) -> Result<OwnedFd, SysError> {
    // RESOLVE_IN_ROOT takes "" for a missing file; here it is the root itself.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(resolution | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    for _ in 0..ATTEMPTS {
        match nix::fcntl::openat2(dir, path, how) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(Errno::ENOSYS) => {
                let args = format!("{} (corten needs Linux 5.12 or later)", path.display());
                return Err(SysError::on("openat2", args)(Errno::ENOSYS));
            }
            result => return result.map_err(SysError::on("openat2", text(path))),
        }
    }
    Err(SysError::on("openat2", text(path))(Errno::EAGAIN))
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned()
}

/// Whether `path` has a component `..`.
pub fn has_parent_component(path: &Path) -> bool {
    path.components().any(|component| component == Component::ParentDir)
}

#[cfg(test)]
mod tests;
