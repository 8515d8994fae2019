//! Plain copies, for where overlayfs cannot work.
//!
//! The first mount copies what the layers show, merged, into `upper`; the mount is `upper` itself. A copy that was
//! broken off begins again: which it is, a file in `work` says.
//!
//! ```text
//! (nothing) ──▶ work/copying ──▶ copied, synced ──▶ work/copied
//! ```
//! copy_file_range(2) shares the blocks where the file system can (btrfs, XFS).
use super::{SnapshotError, Stack};
use crate::sys::mount::{self, Attr, Change, Scope};
use crate::sys::root::open_same_mount;
use crate::sys::{SysError, copy, tree, xattr};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::{LinkatFlags, linkat};
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// In `work` while the copy is not whole.
const COPYING: &str = "copying";
/// In `work` when it is.
const COPIED: &str = "copied";

/// Whether the snapshot was begun by this driver; then it stays this driver's.
pub(super) fn has_begun(stack: &Stack<'_>) -> bool {
    [COPIED, COPYING].iter().any(|name| stack.work.join(name).exists())
}

pub(super) fn mount(stack: &Stack<'_>) -> Result<OwnedFd, SnapshotError> {
    if stack.lowers.is_empty() {
        return Err(SnapshotError::NoLayers);
    }
    let upper = || open(stack.upper);
    if !stack.work.join(COPIED).exists() {
        begin(stack)?;
        let lowers = stack.lowers.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
        let failed = |source| SnapshotError::Copy { source };
        Merge { lowers: &lowers, target: upper()?, links: HashMap::new() }.run().map_err(failed)?;
        finish(stack).map_err(failed)?;
    }
    let failed = |source| SnapshotError::Mount { layers: stack.lowers.len(), source };
    let mount = mount::clone_fd(upper()?.as_fd(), "snapshot", Scope::Mount).map_err(failed)?;
    // The host may mount its disk more strictly than a container's root: an overlay does not inherit that. In a user
    // namespace the host's word stands.
    let clear = Attr::NOSUID | Attr::NODEV | Attr::NOEXEC;
    match mount::set_attr(mount.as_fd(), &Change { clear, ..Change::default() }, Scope::Mount, "snapshot") {
        Err(error) if error.errno != Errno::EPERM => Err(failed(error)),
        _ => Ok(mount),
    }
}

fn open(path: &Path) -> Result<OwnedFd, SnapshotError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    nix::fcntl::open(path, flags, Mode::empty())
        .map_err(SysError::on("open", path.to_string_lossy()))
        .map_err(|source| SnapshotError::Layer { path: path.to_owned(), source })
}

/// Makes `upper` empty, unless somebody else has written there.
fn begin(stack: &Stack<'_>) -> Result<(), SnapshotError> {
    let upper = open(stack.upper)?;
    let names = entries(upper.as_fd(), Path::new("")).map_err(|source| SnapshotError::Copy { source })?;
    let mark = stack.work.join(COPYING);
    if !names.is_empty() && !mark.exists() {
        return Err(SnapshotError::OtherDriver { path: stack.upper.to_owned() });
    }
    let failed = |source| SnapshotError::Copy { source };
    // On disk before the first file, so that half a copy is never taken for what a container wrote.
    File::create(&mark)
        .and_then(|file| file.sync_all())
        .and_then(|()| File::open(stack.work)?.sync_all())
        .map_err(SysError::io("open", mark.to_string_lossy()))
        .map_err(failed)?;
    for name in names {
        let name = OsStr::from_bytes(name.to_bytes());
        tree::remove(upper.as_fd(), Path::new(name)).map_err(failed)?;
    }
    Ok(())
}

fn finish(stack: &Stack<'_>) -> Result<(), SysError> {
    let work = File::open(stack.work).map_err(SysError::io("open", stack.work.to_string_lossy()))?;
    // Before the mark, because after a power failure it would tell of files that are not there.
    nix::unistd::syncfs(&work).map_err(SysError::on("syncfs", stack.work.to_string_lossy()))?;
    std::fs::rename(stack.work.join(COPYING), stack.work.join(COPIED))
        .map_err(SysError::io("rename", COPIED))?;
    work.sync_all().map_err(SysError::io("fsync", stack.work.to_string_lossy()))
}

/// Layers that become one tree.
struct Merge<'a> {
    /// The top one first.
    lowers: &'a [OwnedFd],
    target: OwnedFd,
    /// The first name of a file that has several, by its layer and inode.
    links: HashMap<(usize, u64), PathBuf>,
}

/// A directory of the merged tree: where it is, and which layers have a part of it, the top one first.
struct Place {
    path: PathBuf,
    layers: Vec<usize>,
}

/// What one name in a directory of the merged tree is.
struct Seen {
    /// The layer whose it is.
    layer: usize,
    stat: FileStat,
    /// If it is a directory: the layers that it is merged of.
    layers: Vec<usize>,
}

impl Merge<'_> {
    fn run(&mut self) -> Result<(), SysError> {
        // A layer whose root is opaque is the caller's to cut off, as with overlayfs.
        let mut places = vec![Place { path: PathBuf::from("."), layers: (0..self.lowers.len()).collect() }];
        let mut at = 0;
        while let Some(place) = places.get(at) {
            let below = self.fill(place)?;
            places.extend(below);
            at += 1;
        }
        // A directory's times last, because each entry that it gets changes them.
        for place in places.iter().rev() {
            let from = part(self.lowers[place.layers[0]].as_fd(), &place.path)?;
            let to = part(self.target.as_fd(), &place.path)?;
            let stat = fstat(&from).map_err(SysError::on("fstat", place.path.to_string_lossy()))?;
            copy::attributes(from.as_fd(), to.as_fd(), &stat, c"directory", is_content)?;
        }
        Ok(())
    }

    /// Copies what is in a directory but for its directories, which are made empty and returned.
    fn fill(&mut self, place: &Place) -> Result<Vec<Place>, SysError> {
        let target = part(self.target.as_fd(), &place.path)?;
        let mut seen: BTreeMap<CString, Seen> = BTreeMap::new();
        for (nth, &layer) in place.layers.iter().enumerate() {
            let dir = part(self.lowers[layer].as_fd(), &place.path)?;
            for name in entries(dir.as_fd(), &place.path)? {
                // A layer above has it, or hides it.
                if seen.contains_key(&name) {
                    continue;
                }
                let stat = fstatat(&dir, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)
                    .map_err(SysError::on("fstatat", name.to_string_lossy()))?;
                let layers = match kind(&stat) {
                    SFlag::S_IFDIR => self.merged(&place.path, &name, &place.layers[nth..])?,
                    _ => Vec::new(),
                };
                seen.insert(name, Seen { layer, stat, layers });
            }
        }
        let mut below = Vec::new();
        for (name, found) in seen {
            let path = place.path.join(OsStr::from_bytes(name.to_bytes()));
            if kind(&found.stat) == SFlag::S_IFDIR {
                mkdirat(&target, name.as_c_str(), Mode::S_IRWXU)
                    .map_err(SysError::on("mkdirat", path.to_string_lossy()))?;
                below.push(Place { path, layers: found.layers });
            } else if !is_whiteout(&found.stat) {
                self.file(target.as_fd(), &place.path, path, &name, &found)?;
            }
        }
        Ok(below)
    }

    /// The layers that a directory is merged of: from its topmost part down to where something ends it.
    fn merged(&self, parent: &Path, name: &CStr, layers: &[usize]) -> Result<Vec<usize>, SysError> {
        let path = parent.join(OsStr::from_bytes(name.to_bytes()));
        let mut merged = Vec::new();
        for &layer in layers {
            let dir = match part(self.lowers[layer].as_fd(), &path) {
                Ok(dir) => dir,
                // This layer says nothing of it.
                Err(SysError { errno: Errno::ENOENT, .. }) => continue,
                // A file or a whiteout hides what is below.
                Err(SysError { errno: Errno::ENOTDIR | Errno::ELOOP, .. }) => break,
                Err(error) => return Err(error),
            };
            merged.push(layer);
            if is_opaque(dir.as_fd())? {
                break;
            }
        }
        Ok(merged)
    }

    fn file(
        &mut self,
        target: BorrowedFd<'_>,
        parent: &Path,
        path: PathBuf,
        name: &CStr,
        found: &Seen,
    ) -> Result<(), SysError> {
        if found.stat.st_nlink > 1 {
            let inode = (found.layer, found.stat.st_ino);
            if let Some(first) = self.links.get(&inode) {
                return linkat(&self.target, first, target, name, LinkatFlags::empty())
                    .map_err(SysError::on("linkat", path.to_string_lossy()));
            }
            self.links.insert(inode, path);
        }
        let source = part(self.lowers[found.layer].as_fd(), parent)?;
        copy::entry(source.as_fd(), target, name, &found.stat, is_content)
    }
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

fn is_whiteout(stat: &FileStat) -> bool {
    kind(stat) == SFlag::S_IFCHR && stat.st_rdev == 0
}

fn is_opaque(dir: BorrowedFd<'_>) -> Result<bool, SysError> {
    Ok(xattr::get(dir, super::overlay::opaque_attribute())?.is_some_and(|value| value == b"y"))
}

/// Whether an attribute is a file's own, and not a word to overlayfs.
fn is_content(name: &CStr) -> bool {
    let name = name.to_bytes();
    !name.starts_with(b"trusted.overlay.") && !name.starts_with(b"user.overlay.")
}

/// A directory of a layer or of the copy.
fn part(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, SysError> {
    open_same_mount(root, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW)
}

fn entries(dir: BorrowedFd<'_>, path: &Path) -> Result<Vec<CString>, SysError> {
    // Of its own: a duplicate would share the position.
    let stream = part(dir, Path::new("."))?;
    let failed = |call| SysError::on(call, path.to_string_lossy());
    let mut names = Vec::new();
    for entry in Dir::from_fd(stream).map_err(failed("fdopendir"))? {
        let entry = entry.map_err(failed("readdir"))?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}
