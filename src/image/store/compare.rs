//! Whether two trees are the same, as far as a container could tell.
use super::Result;
use crate::sys::root::open_same_mount;
use crate::sys::{SysError, xattr};
use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, readlinkat};
use nix::sys::stat::{FileStat, SFlag, fstat, fstatat};
use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The first thing in which two trees differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    /// Below the root of the trees.
    pub(super) path: PathBuf,
    pub(super) what: &'static str,
}

/// Compares names, types, modes, owners, times, links, attributes and contents; not access and change times.
pub(super) fn trees(want: &File, have: &File) -> Result<Option<Difference>> {
    let mut comparison = Comparison { want, have, links: HashMap::new() };
    comparison.all()
}

struct Comparison<'a> {
    want: &'a File,
    have: &'a File,
    /// Inode of a file with several names in one tree, to its inode in the other.
    links: HashMap<u64, u64>,
}

impl Comparison<'_> {
    fn all(&mut self) -> Result<Option<Difference>> {
        let on_root = |errno| SysError::on("fstat", "/")(errno);
        let (want, have) = (fstat(self.want).map_err(on_root)?, fstat(self.have).map_err(on_root)?);
        if let Some(what) = stats(&want, &have) {
            return Ok(Some(Difference { path: PathBuf::new(), what }));
        }
        let mut waiting = vec![PathBuf::from(".")];
        while let Some(path) = waiting.pop() {
            let (want, have) = (open(self.want, &path, true)?, open(self.have, &path, true)?);
            if attributes(&want)? != attributes(&have)? {
                return Ok(Some(Difference { path, what: "has other attributes" }));
            }
            let (names, others) = (names(&want, &path)?, names(&have, &path)?);
            if let Some(name) = names.difference(&others).next() {
                return Ok(Some(Difference { path: path.join(name), what: "is missing" }));
            }
            if let Some(name) = others.difference(&names).next() {
                return Ok(Some(Difference { path: path.join(name), what: "should not be there" }));
            }
            for name in names {
                let below = path.join(&name);
                if let Some(what) = self.entry(&want, &have, &name, &below, &mut waiting)? {
                    return Ok(Some(Difference { path: below, what }));
                }
            }
        }
        Ok(None)
    }

    fn entry(
        &mut self,
        want: &OwnedFd,
        have: &OwnedFd,
        name: &OsStr,
        path: &Path,
        waiting: &mut Vec<PathBuf>,
    ) -> Result<Option<&'static str>> {
        let on_path = |call| SysError::on(call, path.to_string_lossy());
        let stat = |dir| fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(on_path("fstatat"));
        let (one, other) = (stat(want)?, stat(have)?);
        if let Some(what) = stats(&one, &other) {
            return Ok(Some(what));
        }
        match kind(&one) {
            SFlag::S_IFDIR => waiting.push(path.to_owned()),
            SFlag::S_IFLNK => {
                let read = |dir| readlinkat(dir, name).map_err(on_path("readlinkat"));
                if read(want)? != read(have)? {
                    return Ok(Some("leads elsewhere"));
                }
            }
            SFlag::S_IFREG => {
                if one.st_nlink > 1 {
                    let first = *self.links.entry(one.st_ino).or_insert(other.st_ino);
                    if first != other.st_ino {
                        return Ok(Some("is linked to another file"));
                    }
                }
                let (one, other) = (open(want, Path::new(name), false)?, open(have, Path::new(name), false)?);
                if attributes(&one)? != attributes(&other)? {
                    return Ok(Some("has other attributes"));
                }
                if !same_content(one.into(), other.into(), path)? {
                    return Ok(Some("has another content"));
                }
            }
            _ => {}
        }
        Ok(None)
    }
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

fn stats(want: &FileStat, have: &FileStat) -> Option<&'static str> {
    let is_whiteout = |stat: &FileStat| kind(stat) == SFlag::S_IFCHR && stat.st_rdev == 0;
    if is_whiteout(want) && is_whiteout(have) {
        // Nothing of it shows but that it is there.
        return None;
    }
    let is_dir = kind(want) == SFlag::S_IFDIR;
    let times = |stat: &FileStat| (stat.st_mtime, stat.st_mtime_nsec);
    if kind(want) != kind(have) {
        Some("has another type")
    } else if want.st_mode != have.st_mode {
        Some("has another mode")
    } else if (want.st_uid, want.st_gid) != (have.st_uid, have.st_gid) {
        Some("has another owner")
    } else if want.st_rdev != have.st_rdev {
        Some("is another device")
    } else if !is_dir && want.st_size != have.st_size {
        Some("has another size")
    } else if !is_dir && want.st_nlink != have.st_nlink {
        Some("has another number of links")
    } else if times(want) != times(have) {
        Some("was modified at another time")
    } else {
        None
    }
}

fn open(dir: impl AsFd, path: &Path, directory: bool) -> Result<OwnedFd> {
    let kind = if directory { OFlag::O_DIRECTORY } else { OFlag::O_NONBLOCK };
    Ok(open_same_mount(dir.as_fd(), path, OFlag::O_RDONLY | OFlag::O_NOFOLLOW | kind)?)
}

fn names(dir: &OwnedFd, path: &Path) -> Result<BTreeSet<OsString>> {
    let stream = dir.try_clone().map_err(SysError::io("fcntl", "F_DUPFD_CLOEXEC"))?;
    let failed = |call| SysError::on(call, path.to_string_lossy());
    let mut found = BTreeSet::new();
    for entry in Dir::from_fd(stream).map_err(failed("fdopendir"))? {
        let entry = entry.map_err(failed("readdir"))?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            found.insert(name.to_owned());
        }
    }
    Ok(found)
}

fn attributes(file: &OwnedFd) -> Result<Vec<(std::ffi::CString, Option<Vec<u8>>)>> {
    let mut names = xattr::list(file)?;
    names.sort();
    let mut found = Vec::new();
    for name in names {
        let value = xattr::get(file, &name)?;
        found.push((name, value));
    }
    Ok(found)
}

fn same_content(mut one: File, mut other: File, path: &Path) -> Result<bool> {
    const CHUNK: usize = 128 << 10;
    let failed = |error| SysError::io("read", path.to_string_lossy())(error);
    let (mut left, mut right) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let count = fill(&mut one, &mut left).map_err(failed)?;
        let same = fill(&mut other, &mut right).map_err(failed)?;
        if left[..count] != right[..same] {
            return Ok(false);
        }
        if count == 0 {
            return Ok(true);
        }
    }
}

fn fill(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}
