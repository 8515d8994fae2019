//! What trees take on the disk, as du(1) counts it.
use super::SysError;
use super::root::open_same_mount;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, SFlag, fstatat};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What a tree takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// Bytes of its blocks, a file of several names once.
    pub bytes: u64,
    /// Files and directories, a file of several names once.
    pub inodes: u64,
}

impl Used {
    fn add(&mut self, stat: &FileStat) {
        // st_blocks counts 512 bytes whatever the file system's block (stat(2)).
        self.bytes = self.bytes.saturating_add(u64::try_from(stat.st_blocks).unwrap_or(0) * 512);
        self.inodes += 1;
    }
}

impl std::ops::AddAssign for Used {
    fn add_assign(&mut self, other: Used) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.inodes += other.inodes;
    }
}

/// What `name` in `parent` takes, a tree or a single file, while others may write to it: no link is followed, no
/// mount entered, and what goes away meanwhile is not there. Stops at `most` entries.
///
/// A directory whose path below `parent` is longer than 4095 bytes is counted without what is in it.
pub fn used(parent: BorrowedFd<'_>, name: &Path, most: u64) -> Result<Used, SysError> {
    let mut used = Used::default();
    let Some(top) = stat(parent, name.as_os_str())? else { return Ok(used) };
    used.add(&top);
    let mut linked = HashSet::new();
    let mut waiting: Vec<PathBuf> = is_dir(&top).then(|| name.to_owned()).into_iter().collect();
    while let Some(path) = waiting.pop() {
        let Some(dir) = open(parent, &path)? else { continue };
        let stream = dir.try_clone().map_err(SysError::io("fcntl", "F_DUPFD_CLOEXEC"))?;
        let entries = Dir::from_fd(stream).map_err(SysError::on("fdopendir", path.to_string_lossy()))?;
        for entry in entries {
            let entry = entry.map_err(SysError::on("readdir", path.to_string_lossy()))?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let Some(stat) = stat(dir.as_fd(), name)? else { continue };
            if used.inodes >= most {
                return Ok(used);
            }
            if is_dir(&stat) {
                waiting.push(path.join(name));
            } else if stat.st_nlink > 1 && !linked.insert((stat.st_dev, stat.st_ino)) {
                continue;
            }
            used.add(&stat);
        }
    }
    Ok(used)
}

/// What the file or directory itself takes, without what is in it.
pub fn own(path: &Path) -> Result<Used, SysError> {
    let mut used = Used::default();
    if let Some(stat) = stat(nix::fcntl::AT_FDCWD, path.as_os_str())? {
        used.add(&stat);
    }
    Ok(used)
}

fn is_dir(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR
}

fn stat(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Option<FileStat>, SysError> {
    match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(errno) => Err(SysError::on("fstatat", name.to_string_lossy())(errno)),
    }
}

/// `None` if it is gone, is no directory any more, or cannot be named.
fn open(parent: BorrowedFd<'_>, path: &Path) -> Result<Option<OwnedFd>, SysError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    match open_same_mount(parent, path, flags) {
        Ok(dir) => Ok(Some(dir)),
        Err(SysError {
            errno: Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV | Errno::ENAMETOOLONG,
            ..
        }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn a_tree_is_counted_once_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        std::fs::create_dir_all(top.join("a/b")).unwrap();
        std::fs::write(top.join("a/b/c"), vec![1; 10_000]).unwrap();
        let parent = File::open(dir.path()).unwrap();
        let alone = used(parent.as_fd(), Path::new("top"), u64::MAX).unwrap();
        assert_eq!(alone.inodes, 4);
        assert!(alone.bytes >= 10_000, "{alone:?}");
        nix::unistd::linkat(&parent, "top/a/b/c", &parent, "top/d", nix::unistd::LinkatFlags::empty())
            .unwrap();
        std::os::unix::fs::symlink("/usr", top.join("link")).unwrap();
        let linked = used(parent.as_fd(), Path::new("top"), u64::MAX).unwrap();
        assert_eq!(linked.inodes, 5);
        assert!(linked.bytes < alone.bytes + 10_000);
        assert_eq!(used(parent.as_fd(), Path::new("top"), 2).unwrap().inodes, 2);
        assert_eq!(used(parent.as_fd(), Path::new("absent"), 2).unwrap(), Used::default());
        assert_eq!(own(&top).unwrap().inodes, 1);
    }
}
