//! Copies the content of a directory into another one, with owners, modes, extended attributes and times:
//! what a tmpfs with `tmpcopyup` and a fresh volume start with.
use super::{Result, RootfsError};
use crate::sys::root::open_same_mount;
use crate::sys::{SysError, copy};
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat, mkdirat};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// A tree of directories deeper than this is an error: each level holds three descriptors open.
const MAX_DEPTH: usize = 256;
const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW);

/// Copies what is in the directory `source` into the directory `target`, which has no entries of the same
/// names, and gives `target` the owner, mode and times of `source`. Both may be `O_PATH`.
///
/// Symbolic links are copied, not followed; nothing outside the mount of `source` is read.
///
/// # Errors
/// EXDEV when something is mounted in `source`, ELOOP when it is deeper than 256 directories.
pub fn copy_up(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> std::result::Result<(), SysError> {
    let mut stack = vec![Level::open(source, target, CString::from(c"."))?];
    while let Some(level) = stack.last_mut() {
        match level.next()? {
            Some(name) => {
                if stack.len() >= MAX_DEPTH {
                    return Err(failed("openat2", &name)(Errno::ELOOP));
                }
                let Some(level) = stack.last() else { break };
                match mkdirat(&level.target, name.as_c_str(), Mode::S_IRWXU) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(failed("mkdirat", &name)(errno)),
                }
                let below = Level::open(level.source.as_fd(), level.target.as_fd(), name)?;
                stack.push(below);
            }
            None => {
                let Some(done) = stack.pop() else { break };
                let stat = fstat(&done.source).map_err(failed("fstat", &done.name))?;
                copy::attributes(done.source.as_fd(), done.target.as_fd(), &stat, &done.name, |_| true)?;
            }
        }
    }
    Ok(())
}

/// The same into a mount that is not attached yet, for the errors of this module.
pub(super) fn copy_into_mount(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    destination: &Path,
) -> Result<()> {
    copy_up(source, target)
        .map_err(|source| RootfsError::CopyUp { destination: destination.to_owned(), source })
}

/// A directory that is being copied.
struct Level {
    source: OwnedFd,
    target: OwnedFd,
    entries: nix::dir::OwningIter,
    name: CString,
}

impl Level {
    fn open(
        source: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
        name: CString,
    ) -> std::result::Result<Level, SysError> {
        let source = open(source, &name, DIRECTORY)?;
        let target = open(target, &name, DIRECTORY)?;
        let stream = source.try_clone().map_err(SysError::io("fcntl", "F_DUPFD_CLOEXEC"))?;
        let entries = Dir::from_fd(stream).map_err(failed("fdopendir", &name))?.into_iter();
        Ok(Level { source, target, entries, name })
    }

    /// Copies files up to the first subdirectory, whose name it returns.
    fn next(&mut self) -> std::result::Result<Option<CString>, SysError> {
        for entry in self.entries.by_ref() {
            let entry = entry.map_err(failed("readdir", &self.name))?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if entry.file_type() == Some(Type::Directory) {
                return Ok(Some(name.to_owned()));
            }
            let stat =
                fstatat(&self.source, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(failed("fstatat", name))?;
            match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
                SFlag::S_IFDIR => return Ok(Some(name.to_owned())),
                _ => copy::entry(self.source.as_fd(), self.target.as_fd(), name, &stat, |_| true)?,
            }
        }
        Ok(None)
    }
}

fn open(dir: BorrowedFd<'_>, name: &CStr, flags: OFlag) -> std::result::Result<OwnedFd, SysError> {
    use std::os::unix::ffi::OsStrExt;
    open_same_mount(dir, Path::new(std::ffi::OsStr::from_bytes(name.to_bytes())), flags)
}

fn failed(call: &'static str, name: &CStr) -> impl FnOnce(Errno) -> SysError + use<> {
    SysError::on(call, name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn handle(path: &Path) -> OwnedFd {
        nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).unwrap()
    }

    #[test]
    fn content_modes_links_and_times() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::create_dir_all(from.join("sub/deep")).unwrap();
        std::fs::create_dir(&to).unwrap();
        std::fs::write(from.join("file"), "content").unwrap();
        std::fs::write(from.join("sub/deep/suid"), vec![7_u8; 100_000]).unwrap();
        let mode = |path: &Path, mode| {
            std::fs::File::open(path).unwrap().set_permissions(PermissionsExt::from_mode(mode)).unwrap();
        };
        mode(&from.join("sub/deep/suid"), 0o4755);
        mode(&from.join("sub"), 0o1750);
        mode(&from, 0o711);
        symlink("/etc/shadow", from.join("link")).unwrap();
        nix::unistd::mkfifo(&from.join("fifo"), Mode::S_IRWXU).unwrap();
        let then = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        std::fs::File::options().write(true).open(from.join("file")).unwrap().set_modified(then).unwrap();
        copy_up(handle(&from).as_fd(), handle(&to).as_fd()).unwrap();
        assert_eq!(std::fs::read_to_string(to.join("file")).unwrap(), "content");
        assert_eq!(std::fs::metadata(to.join("file")).unwrap().mtime(), 1_000_000_000);
        assert_eq!(std::fs::read_link(to.join("link")).unwrap(), Path::new("/etc/shadow"));
        for path in ["", "sub", "sub/deep", "sub/deep/suid", "fifo", "file"] {
            let (a, b) = (from.join(path).metadata().unwrap(), to.join(path).metadata().unwrap());
            assert_eq!((a.mode(), a.uid(), a.gid()), (b.mode(), b.uid(), b.gid()), "{path}");
            assert_eq!(a.mtime_nsec(), b.mtime_nsec(), "{path}");
        }
        assert_eq!(std::fs::read(to.join("sub/deep/suid")).unwrap().len(), 100_000);
    }

    #[test]
    fn depth_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("to")).unwrap();
        let mut deep = dir.path().join("from");
        for _ in 0..300 {
            deep.push("d");
        }
        std::fs::create_dir_all(&deep).unwrap();
        let error = copy_up(handle(&dir.path().join("from")).as_fd(), handle(&dir.path().join("to")).as_fd());
        assert_eq!(error.unwrap_err().errno, Errno::ELOOP);
    }
}
