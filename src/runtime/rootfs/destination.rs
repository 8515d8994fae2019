//! Mount points inside the container, and what is mounted so far.
use super::{Result, RootfsError};
use crate::sys::SysError;
use crate::sys::root::{self, Root};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// As many symbolic links as path_resolution(7) follows.
const MAX_LINKS: usize = 40;
const DIRECTORY: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY);

/// An open place to mount on.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) fd: OwnedFd,
    /// No symbolic link was followed to it: the path is the place's own.
    pub(super) real: bool,
    /// It was made for this mount.
    pub(super) created: bool,
}

/// Who can put something into a file system beside us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// Nobody: a fresh tmpfs that no process of the container has seen.
    Ours,
    /// The root of a procfs.
    Proc,
    /// The image, other containers, the host.
    Theirs,
}

#[derive(Debug)]
struct Mounted {
    path: PathBuf,
    fd: OwnedFd,
    content: Content,
}

/// The root handle and the roots of the mounts that were made in it, so that a place below one of them is
/// opened from there.
#[derive(Debug)]
pub(super) struct MountTable {
    pub(super) root: Root,
    mounted: Vec<Mounted>,
}

impl MountTable {
    pub(super) fn new(root: Root) -> MountTable {
        MountTable { root, mounted: Vec::new() }
    }

    /// Notes a mount. `place` is where it was attached.
    pub(super) fn add(&mut self, path: &Path, place: &Place, fd: OwnedFd, content: Content) {
        // What lies below is hidden now.
        self.mounted.retain(|mounted| !mounted.path.starts_with(path));
        // A path through a symbolic link says nothing about where it is.
        if place.real {
            self.mounted.push(Mounted { path: path.to_owned(), fd, content });
        }
    }

    /// The root of the mount at exactly `path`.
    pub(super) fn at(&self, path: &Path) -> Option<(BorrowedFd<'_>, Content)> {
        let found = self.mounted.iter().find(|mounted| mounted.path == path)?;
        Some((found.fd.as_fd(), found.content))
    }

    /// The root of a procfs mount of ours.
    pub(super) fn proc(&self) -> Option<BorrowedFd<'_>> {
        self.mounted.iter().find(|mounted| mounted.content == Content::Proc).map(|mounted| mounted.fd.as_fd())
    }

    /// The innermost mount above `path`, and the rest of the path.
    fn above<'p>(&self, path: &'p Path) -> Option<(&Mounted, &'p Path)> {
        self.mounted
            .iter()
            .filter_map(|mounted| Some((mounted, path.strip_prefix(&mounted.path).ok()?)))
            .filter(|(_, rest)| !rest.as_os_str().is_empty())
            .min_by_key(|(_, rest)| rest.as_os_str().len())
    }

    /// The directory `path`, made with its parents where it is missing.
    pub(super) fn directory(&self, path: &Path) -> Result<Place> {
        self.find_directory(path).map_err(RootfsError::destination(path))
    }

    fn find_directory(&self, path: &Path) -> std::result::Result<Place, SysError> {
        if let Some((mounted, rest)) = self.above(path)
            && let Some(place) = in_mount(mounted, rest)?
        {
            return Ok(place);
        }
        match self.root.open_no_links(path, DIRECTORY) {
            Ok(fd) => Ok(Place { fd, real: true, created: false }),
            Err(error) if error.errno == Errno::ENOENT => {
                let made = self.root.mkdir_all(path, Mode::from_bits_truncate(0o755))?;
                // Links may have been on the way.
                Ok(match self.root.open_no_links(path, DIRECTORY) {
                    Ok(fd) => Place { fd, real: true, created: true },
                    Err(_) => Place { fd: made, real: false, created: true },
                })
            }
            Err(error) if matches!(error.errno, Errno::ELOOP | Errno::ENOTDIR) => {
                let fd = self.root.mkdir_all(path, Mode::from_bits_truncate(0o755))?;
                Ok(Place { fd, real: false, created: false })
            }
            Err(error) => Err(error),
        }
    }

    /// The same, but a symbolic link on the way, or something else than a directory, is an error.
    pub(super) fn real_directory(&self, path: &Path, fstype: &'static str) -> Result<Place> {
        let refuse = || RootfsError::NotRealDirectory { fstype, destination: Path::new("/").join(path) };
        if let Some((mounted, rest)) = self.above(path)
            && let Some(place) = in_mount(mounted, rest).map_err(RootfsError::destination(path))?
        {
            return Ok(place);
        }
        // A second try, because the directory may have to be made.
        for created in [false, true] {
            match self.root.open_no_links(path, DIRECTORY) {
                Ok(fd) => return Ok(Place { fd, real: true, created }),
                Err(error) if error.errno == Errno::ENOENT && !created => {
                    self.root
                        .mkdir_all(path, Mode::from_bits_truncate(0o755))
                        .map_err(RootfsError::destination(path))?;
                }
                Err(error) if matches!(error.errno, Errno::ELOOP | Errno::ENOTDIR) => return Err(refuse()),
                Err(error) => return Err(RootfsError::destination(path)(error)),
            }
        }
        Err(refuse())
    }

    /// The file `path`, made empty (with its parents) where it is missing.
    pub(super) fn file(&self, path: &Path) -> Result<Place> {
        self.find_file(path).map_err(RootfsError::destination(path))
    }

    fn find_file(&self, path: &Path) -> std::result::Result<Place, SysError> {
        match self.root.open_no_links(path, OFlag::O_PATH) {
            Ok(fd) => return Ok(Place { fd, real: true, created: false }),
            Err(error) if matches!(error.errno, Errno::ENOENT | Errno::ELOOP) => {}
            Err(error) => return Err(error),
        }
        match self.root.open(path, OFlag::O_PATH) {
            Err(error) if error.errno == Errno::ENOENT => {}
            result => return result.map(|fd| Place { fd, real: false, created: false }),
        }
        // Missing, or a dangling link whose target is made, inside: /etc/resolv.conf is often one.
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            let entry = self.root.entry(&path)?;
            match entry.create_file(OFlag::O_WRONLY, Mode::from_bits_truncate(0o644)) {
                Ok(fd) => return Ok(Place { fd, real: false, created: true }),
                Err(error) if error.errno == Errno::EEXIST => {}
                Err(error) => return Err(error),
            }
            let found = entry.open(OFlag::O_PATH)?;
            let stat = fstat(&found).map_err(SysError::on("fstat", path.display().to_string()))?;
            if SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) != SFlag::S_IFLNK {
                return Ok(Place { fd: found, real: false, created: false });
            }
            let target = nix::fcntl::readlinkat(&found, "")
                .map_err(SysError::on("readlinkat", path.display().to_string()))?;
            path = path.parent().unwrap_or(Path::new("")).join(target);
        }
        Err(SysError::on("openat2", path.display().to_string())(Errno::ELOOP))
    }

    /// What lies at `path`, a symbolic link itself too; made empty, as directory or file, where it is missing.
    pub(super) fn no_follow(&self, path: &Path, directory: bool) -> Result<Place> {
        let failed = |error| RootfsError::destination(path)(error);
        let entry = self.root.entry(path).map_err(failed)?;
        let mode = Mode::from_bits_truncate(if directory { 0o755 } else { 0o644 });
        let made = match directory {
            true => mkdirat(&entry.parent, entry.name, mode)
                .map_err(SysError::on("mkdirat", path.display().to_string())),
            false => entry.create_file(OFlag::O_WRONLY, mode).map(drop),
        };
        let created = match made {
            Err(error) if error.errno == Errno::EEXIST => false,
            result => result.map(|()| true).map_err(failed)?,
        };
        Ok(Place { fd: entry.open(OFlag::O_PATH).map_err(failed)?, real: false, created })
    }

    /// What lies at `path`. Below a mount that was made here it is looked for from that mount's root: whoever shares
    /// the tree may have renamed the directory that it is on and put a decoy there, which would then be masked in
    /// its place.
    pub(super) fn find(&self, path: &Path) -> std::result::Result<OwnedFd, SysError> {
        if let Some((mounted, rest)) = self.above(path) {
            match root::open_beneath(mounted.fd.as_fd(), rest, OFlag::O_PATH) {
                // /proc/net is a link.
                Err(error) if matches!(error.errno, Errno::ELOOP | Errno::ENOTDIR) => {}
                result => return result,
            }
        }
        self.root.open(path, OFlag::O_PATH)
    }

    /// What is mounted at `path` or lies there, without making anything.
    pub(super) fn existing(&self, path: &Path) -> Result<OwnedFd> {
        self.root.open(path, OFlag::O_PATH).map_err(RootfsError::destination(path))
    }
}

/// The directory `rest` below the root of a mount of ours; `None` where the way leads through a link, or
/// into what is not there and could be anywhere.
fn in_mount(mounted: &Mounted, rest: &Path) -> std::result::Result<Option<Place>, SysError> {
    let dir = mounted.fd.as_fd();
    let mut created = false;
    // In a tmpfs of ours the directory is almost certainly missing; to make it first spares one call.
    if mounted.content == Content::Ours && rest.components().count() == 1 {
        created = match mkdirat(dir, rest, Mode::from_bits_truncate(0o755)) {
            Ok(()) => true,
            Err(Errno::EEXIST) => false,
            Err(errno) => return Err(SysError::on("mkdirat", rest.display().to_string())(errno)),
        };
    }
    match root::open_beneath(dir, rest, DIRECTORY) {
        Ok(fd) => Ok(Some(Place { fd, real: true, created })),
        Err(error) if matches!(error.errno, Errno::ENOENT | Errno::ELOOP | Errno::ENOTDIR) => Ok(None),
        Err(error) => Err(error),
    }
}
