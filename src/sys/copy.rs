//! Copies of files with all that a container can see of them.
use super::root::open_same_mount;
use super::{SysError, xattr};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, symlinkat};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Copies `name`, which is no directory and was found to be `stat`, from one directory into another, where it must
/// not exist: content, owner, mode, times, and the extended attributes that `keeps` says. A socket is left out:
/// without its process it is nothing.
///
/// Symbolic links are copied, not followed.
pub fn entry(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    name: &CStr,
    stat: &FileStat,
    keeps: impl Fn(&CStr) -> bool,
) -> Result<(), SysError> {
    let entry = Entry { source, target };
    match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFREG => entry.copy_file(name, keeps),
        SFlag::S_IFLNK => entry.copy_link(name, stat),
        SFlag::S_IFSOCK => Ok(()),
        kind => entry.copy_node(name, kind, stat),
    }
}

struct Entry<'a> {
    source: BorrowedFd<'a>,
    target: BorrowedFd<'a>,
}

impl Entry<'_> {
    fn copy_file(&self, name: &CStr, keeps: impl Fn(&CStr) -> bool) -> Result<(), SysError> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let from = open(self.source, name, flags)?;
        let stat = fstat(&from).map_err(failed("fstat", name))?;
        if SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) != SFlag::S_IFREG {
            return Err(failed("openat2", name)(Errno::EINVAL));
        }
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let to = nix::fcntl::openat(self.target, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(failed("openat", name))?;
        let mut from = std::fs::File::from(from);
        let mut to = std::fs::File::from(to);
        // copy_file_range(2) or sendfile(2) where both file systems can.
        std::io::copy(&mut from, &mut to).map_err(SysError::io("write", name.to_string_lossy()))?;
        attributes(from.as_fd(), to.as_fd(), &stat, name, keeps)
    }

    fn copy_link(&self, name: &CStr, stat: &FileStat) -> Result<(), SysError> {
        let content = nix::fcntl::readlinkat(self.source, name).map_err(failed("readlinkat", name))?;
        symlinkat(content.as_os_str(), self.target, name).map_err(failed("symlinkat", name))?;
        self.copy_owner_and_times(name, stat)
    }

    fn copy_node(&self, name: &CStr, kind: SFlag, stat: &FileStat) -> Result<(), SysError> {
        let mode = Mode::from_bits_truncate(stat.st_mode & 0o7777);
        mknodat(self.target, name, kind, mode, stat.st_rdev).map_err(failed("mknodat", name))?;
        // What mknod(2) makes loses what the umask takes.
        fchmodat(self.target, name, mode, FchmodatFlags::FollowSymlink).map_err(failed("fchmodat", name))?;
        self.copy_owner_and_times(name, stat)
    }

    fn copy_owner_and_times(&self, name: &CStr, stat: &FileStat) -> Result<(), SysError> {
        let (owner, group) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        fchownat(self.target, name, Some(owner), Some(group), AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(failed("fchownat", name))?;
        let (access, modification) = times(stat);
        utimensat(self.target, name, &access, &modification, UtimensatFlags::NoFollowSymlink)
            .map_err(failed("utimensat", name))
    }
}

/// Gives the open file `to` the owner, mode, times and kept extended attributes of `from`, which is `stat`; `name` is
/// for errors.
pub fn attributes(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    stat: &FileStat,
    name: &CStr,
    keeps: impl Fn(&CStr) -> bool,
) -> Result<(), SysError> {
    // Owner before mode and capabilities, because chown(2) takes set-user-ID bits and capabilities away.
    nix::unistd::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
        .map_err(failed("fchown", name))?;
    fchmod(to, Mode::from_bits_truncate(stat.st_mode & 0o7777)).map_err(failed("fchmod", name))?;
    for attribute in xattr::list(from)?.into_iter().filter(|name| keeps(name)) {
        let Some(value) = xattr::get(from, &attribute)? else { continue };
        match xattr::set(to, &attribute, &value) {
            // A tmpfs has no user attributes before Linux 6.6; labels are the target's own.
            Err(error) if matches!(error.errno, Errno::EOPNOTSUPP | Errno::EPERM) => {}
            result => result?,
        }
    }
    let (access, modification) = times(stat);
    nix::sys::stat::futimens(to, &access, &modification).map_err(failed("futimens", name))
}

fn times(stat: &FileStat) -> (TimeSpec, TimeSpec) {
    (TimeSpec::new(stat.st_atime, stat.st_atime_nsec), TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec))
}

fn open(dir: BorrowedFd<'_>, name: &CStr, flags: OFlag) -> Result<OwnedFd, SysError> {
    open_same_mount(dir, Path::new(std::ffi::OsStr::from_bytes(name.to_bytes())), flags)
}

fn failed(call: &'static str, name: &CStr) -> impl FnOnce(Errno) -> SysError + use<> {
    SysError::on(call, name.to_string_lossy().into_owned())
}
