//! A layer's tree on disk, built on directory descriptors.
//!
//! No name of a layer is ever resolved further than one component below a directory that this code made and
//! opened itself; files are created with `O_EXCL`. The cache of parents holds descriptors, not paths:
//! CVE-2025-47290 was a cache of paths.
use super::path::{LayerPath, Meaning, meaning};
use super::tar::{self, Event, Kind, Time, show};
use super::{EntryError, Limits, Result, Summary, UnpackError, xattr};
use crate::image::snapshot::overlay::opaque_attribute;
use crate::sys::{self, SysError};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmod, futimens, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, LinkatFlags, Uid, UnlinkatFlags, fchown, fchownat, linkat, symlinkat, unlinkat};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::ops::Bound;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// Parents that are held open.
const OPEN_DIRS: usize = 64;
/// The longest target of a symbolic link (PATH_MAX without its NUL byte).
const TARGET_MAX: usize = 4095;

type EntryResult<T> = std::result::Result<T, EntryError>;

/// Owner, permissions, time and attributes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Time,
    pub(super) xattrs: Vec<(CString, Vec<u8>)>,
}

/// A directory of this layer.
#[derive(Debug, Default)]
pub(super) struct Dir {
    /// From the layer's entry; a directory without one was made for what is in it.
    pub(super) meta: Option<Meta>,
    pub(super) opaque: bool,
}

/// The file whose data is coming.
#[derive(Debug)]
struct Writing {
    file: File,
    path: LayerPath,
    meta: Meta,
}

/// The tree and what must be remembered of it.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) root: OwnedFd,
    /// By path; the root is the empty path.
    pub(super) dirs: BTreeMap<Vec<u8>, Dir>,
    /// Paths at which the layers below are hidden.
    pub(super) whiteouts: BTreeSet<Vec<u8>>,
    /// Hard links whose targets this layer does not have: they may be in the layers below.
    pub(super) links: BTreeMap<Vec<u8>, Vec<u8>>,
    open: VecDeque<(Vec<u8>, Arc<OwnedFd>)>,
    writing: Option<Writing>,
    limits: Limits,
    names: u64,
    entries: u64,
    pub(super) size: u64,
    /// Who owns what this process creates.
    pub(super) creator: (u32, u32),
}

impl Tree {
    /// An empty tree in the empty directory `root`.
    pub(super) fn new(root: OwnedFd, limits: &Limits) -> Tree {
        Tree {
            root,
            dirs: BTreeMap::from([(Vec::new(), Dir::default())]),
            whiteouts: BTreeSet::new(),
            links: BTreeMap::new(),
            open: VecDeque::with_capacity(OPEN_DIRS),
            writing: None,
            limits: *limits,
            names: 0,
            entries: 0,
            size: 0,
            creator: (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()),
        }
    }

    pub(super) fn summary(&self) -> Summary {
        let opaque_root = self.dirs.get(&b""[..]).is_some_and(|root| root.opaque);
        Summary { size: self.size, entries: self.entries, opaque_root }
    }

    /// Takes the next event of the tar stream.
    pub(super) fn event(&mut self, event: Event<'_>) -> Result<()> {
        match event {
            Event::Entry(entry) => {
                self.entries += 1;
                if self.entries > self.limits.entries {
                    return Err(UnpackError::TooManyEntries { limit: self.limits.entries });
                }
                let path = show(&entry.path);
                self.entry(*entry).map_err(|source| UnpackError::Entry { path, source })
            }
            Event::Data(data) => {
                // A whiteout has no data, every other file is open.
                let Some(writing) = &mut self.writing else { return Ok(()) };
                writing.file.write_all(data).map_err(|error| {
                    let path = show(writing.path.bytes());
                    UnpackError::Entry { source: SysError::io("write", path.clone())(error).into(), path }
                })
            }
            Event::EndOfFile => {
                let Some(writing) = self.writing.take() else { return Ok(()) };
                self.set_meta(&writing.file, &writing.meta, writing.meta.mode & 0o777).map_err(|source| {
                    UnpackError::Entry { path: show(writing.path.bytes()), source: source.into() }
                })
            }
        }
    }

    fn entry(&mut self, entry: tar::Entry) -> EntryResult<()> {
        match meaning(&entry.path).map_err(EntryError::Name)? {
            Meaning::Entry(path) => self.create(path, entry),
            Meaning::Whiteout(_) | Meaning::Opaque(_) if entry.kind != Kind::File || entry.size > 0 => {
                Err(EntryError::Whiteout)
            }
            Meaning::Whiteout(path) => {
                let (parent, _) = path.split().ok_or(EntryError::Root)?;
                self.ensure_dir(parent)?;
                self.count_name(path.bytes())?;
                self.whiteouts.insert(path.bytes().to_vec());
                Ok(())
            }
            Meaning::Opaque(path) => {
                self.ensure_dir(path.bytes())?;
                if let Some(dir) = self.dirs.get_mut(path.bytes()) {
                    dir.opaque = true;
                }
                Ok(())
            }
        }
    }

    fn create(&mut self, path: LayerPath, entry: tar::Entry) -> EntryResult<()> {
        let xattrs = xattr::select(&entry.kind, entry.xattrs).map_err(EntryError::Attribute)?;
        let meta = Meta { mode: entry.mode, uid: entry.uid, gid: entry.gid, mtime: entry.mtime, xattrs };
        let Some((parent, name)) = path.split() else {
            if entry.kind != Kind::Directory {
                return Err(EntryError::Root);
            }
            return self.directory(&path, meta);
        };
        if entry.kind == Kind::Directory {
            return self.directory(&path, meta);
        }
        let parent = self.dir(parent)?;
        let create = Mode::from_bits_truncate(meta.mode & 0o777);
        match entry.kind {
            Kind::Directory => {}
            Kind::File => {
                let file = self.make(&path, "openat", || {
                    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
                    let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                    nix::fcntl::openat(&parent, name, flags, create)
                })?;
                self.size = self.size.saturating_add(entry.size);
                self.writing = Some(Writing { file: File::from(file), path: path.clone(), meta });
            }
            Kind::Symlink { target } => {
                if target.is_empty() || target.len() > TARGET_MAX || target.contains(&0) {
                    return Err(EntryError::Target);
                }
                self.make(&path, "symlinkat", || symlinkat(target.as_slice(), &parent, name))?;
                self.set_meta_at(&parent, name, &meta)?;
            }
            Kind::HardLink { target } => self.hard_link(&path, &target)?,
            Kind::Fifo => self.special(&path, SFlag::S_IFIFO, 0, &meta)?,
            Kind::CharDevice { major: 0, minor: 0 } => return Err(EntryError::WhiteoutDevice),
            Kind::CharDevice { major, minor } => {
                let device = nix::sys::stat::makedev(major.into(), minor.into());
                self.special(&path, SFlag::S_IFCHR, device, &meta)?;
            }
            Kind::BlockDevice { major, minor } => {
                let device = nix::sys::stat::makedev(major.into(), minor.into());
                self.special(&path, SFlag::S_IFBLK, device, &meta)?;
            }
        }
        Ok(())
    }

    /// A FIFO or a device.
    fn special(&mut self, path: &LayerPath, kind: SFlag, device: u64, meta: &Meta) -> EntryResult<()> {
        let (parent, name) = path.split().ok_or(EntryError::Root)?;
        let parent = self.dir(parent)?;
        let mode = Mode::from_bits_truncate(meta.mode);
        self.make(path, "mknodat", || mknodat(&parent, name, kind, mode, device))?;
        self.set_meta_at(&parent, name, meta)?;
        if (meta.uid, meta.gid) != self.creator && meta.mode & 0o6000 != 0 {
            // chown(2) has cleared the set-ID bits. It is no link: it has just been made.
            nix::sys::stat::fchmodat(&parent, name, mode, FchmodatFlags::FollowSymlink)
                .map_err(SysError::on("fchmodat", show(path.bytes())))?;
        }
        Ok(())
    }

    fn directory(&mut self, path: &LayerPath, meta: Meta) -> EntryResult<()> {
        if let Some(dir) = self.dirs.get_mut(path.bytes()) {
            dir.meta = Some(meta);
            return Ok(());
        }
        let (parent, name) = path.split().ok_or(EntryError::Root)?;
        let parent = self.dir(parent)?;
        self.count_name(path.bytes())?;
        // The final mode comes last: 0755 lets nothing happen that the root of the store does not forbid.
        self.make(path, "mkdirat", || mkdirat(&parent, name, Mode::from_bits_truncate(0o755)))?;
        self.dirs.insert(path.bytes().to_vec(), Dir { meta: Some(meta), opaque: false });
        Ok(())
    }

    fn hard_link(&mut self, path: &LayerPath, target: &[u8]) -> EntryResult<()> {
        let target = LayerPath::new(target).map_err(|error| match error {
            super::NameError::Escapes => EntryError::TargetEscapes,
            _ => EntryError::Target,
        })?;
        let shown = || show(target.bytes());
        if self.dirs.contains_key(target.bytes()) {
            return Err(EntryError::LinkToDirectory { target: shown() });
        }
        if target == *path {
            return Err(EntryError::LinkBeforeTarget { target: shown() });
        }
        let (target_parent, target_name) = target.split().ok_or(EntryError::Target)?;
        let (parent, name) = path.split().ok_or(EntryError::Root)?;
        let parent = self.dir(parent)?;
        if self.dirs.contains_key(target_parent) {
            let from = self.dir(target_parent)?;
            // It does not follow a symbolic link, and its metadata is that of its target: an entry that
            // could change it would reach through a link (CVE-2021-32760).
            let linked =
                self.make(path, "linkat", || linkat(&from, target_name, &parent, name, LinkatFlags::empty()));
            match linked {
                Err(EntryError::System(error)) if error.errno == Errno::ENOENT => {}
                done => return done,
            }
        }
        // What a link points to already is what a link to it means.
        let below = self.links.get(target.bytes()).cloned().unwrap_or_else(|| target.bytes().to_vec());
        match unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(_) => self.clear(path)?,
        }
        self.count_name(path.bytes())?;
        self.count_name(&below)?;
        self.links.insert(path.bytes().to_vec(), below);
        Ok(())
    }

    /// Creates something at `path`; what is there goes away, since the last entry of a name wins.
    fn make<T>(
        &mut self,
        path: &LayerPath,
        call: &'static str,
        create: impl Fn() -> nix::Result<T>,
    ) -> EntryResult<T> {
        let made = match create() {
            Err(Errno::EEXIST) => {
                self.clear(path)?;
                create()
            }
            made => made,
        };
        if made.is_ok() && !self.links.is_empty() {
            self.links.remove(path.bytes());
        }
        Ok(made.map_err(SysError::on(call, show(path.bytes())))?)
    }

    /// Removes what is at `path`, with all that is known of it and of what is below it.
    fn clear(&mut self, path: &LayerPath) -> EntryResult<()> {
        let (parent, name) = path.split().ok_or(EntryError::Root)?;
        let parent = self.dir(parent)?;
        self.links.remove(path.bytes());
        if self.dirs.remove(path.bytes()).is_none() {
            return Ok(unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir)
                .map_err(SysError::on("unlinkat", show(path.bytes())))?);
        }
        let below = [path.bytes(), b"/"].concat();
        self.open.retain(|(open, _)| open != path.bytes() && !open.starts_with(&below));
        // '0' is the byte after '/': the range holds exactly the paths below.
        let end = [path.bytes(), b"0"].concat();
        let range: Range = (Bound::Included(below), Bound::Excluded(end));
        remove_range(&mut self.dirs, &range);
        remove_range(&mut self.links, &range);
        let hidden: Vec<Vec<u8>> = self.whiteouts.range(range).cloned().collect();
        for path in hidden {
            self.whiteouts.remove(&path);
        }
        Ok(sys::tree::remove(parent.as_fd(), name)?)
    }

    /// The directory at `path`, opened; made if the layer has had no entry for it.
    pub(super) fn dir(&mut self, path: &[u8]) -> EntryResult<Arc<OwnedFd>> {
        if let Some(at) = self.open.iter().position(|(open, _)| open == path) {
            if at > 0
                && let Some(found) = self.open.remove(at)
            {
                self.open.push_front(found);
            }
            return Ok(Arc::clone(&self.open[0].1));
        }
        self.ensure_dir(path)?;
        let name = LayerPath::part(path);
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let dir = Arc::new(sys::root::open_same_mount(self.root.as_fd(), name.as_path(), flags)?);
        self.open.truncate(OPEN_DIRS - 1);
        self.open.push_front((path.to_vec(), Arc::clone(&dir)));
        Ok(dir)
    }

    /// Makes the directory at `path` and its parents, as far as they are missing.
    fn ensure_dir(&mut self, path: &[u8]) -> EntryResult<()> {
        if self.dirs.contains_key(path) {
            return Ok(());
        }
        let path = LayerPath::part(path);
        let missing: Vec<LayerPath> = path
            .ancestors()
            .chain(std::iter::once(path.clone()))
            .filter(|path| !self.dirs.contains_key(path.bytes()))
            .collect();
        for path in missing {
            let not_a_directory = || EntryError::NotADirectory { ancestor: show(path.bytes()) };
            if self.links.contains_key(path.bytes()) {
                return Err(not_a_directory());
            }
            self.count_name(path.bytes())?;
            let (parent, name) = path.split().ok_or(EntryError::Root)?;
            let parent = self.dir(parent)?;
            match mkdirat(&parent, name, Mode::from_bits_truncate(0o755)) {
                Ok(()) => {}
                Err(Errno::EEXIST) => return Err(not_a_directory()),
                Err(errno) => return Err(SysError::on("mkdirat", show(path.bytes()))(errno).into()),
            }
            self.dirs.insert(path.bytes().to_vec(), Dir::default());
        }
        Ok(())
    }

    fn count_name(&mut self, name: &[u8]) -> EntryResult<()> {
        // What a map needs for an entry, roughly.
        self.names += name.len() as u64 + 64;
        if self.names > self.limits.names {
            return Err(EntryError::TooManyNames { limit: self.limits.names });
        }
        Ok(())
    }

    /// Owner, mode, attributes and time of an open file whose permissions are `made` so far.
    pub(super) fn set_meta(&self, file: &File, meta: &Meta, made: u32) -> std::result::Result<(), SysError> {
        let owned = (meta.uid, meta.gid) == self.creator;
        if !owned {
            fchown(file, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))
                .map_err(SysError::on("fchown", format!("{}:{}", meta.uid, meta.gid)))?;
        }
        // After fchown and the data, because both clear the set-ID bits (chown(2), write(2)).
        if meta.mode != made {
            fchmod(file, Mode::from_bits_truncate(meta.mode))
                .map_err(SysError::on("fchmod", format!("{:o}", meta.mode)))?;
        }
        // After fchown, which removes file capabilities (capabilities(7)).
        for (name, value) in &meta.xattrs {
            sys::xattr::set(file, name, value)?;
        }
        let time = timespec(meta.mtime);
        futimens(file, &time, &time).map_err(SysError::on("futimens", String::new()))
    }

    /// Owner and time of what cannot be opened.
    fn set_meta_at(&self, parent: &OwnedFd, name: &Path, meta: &Meta) -> EntryResult<()> {
        let shown = || name.to_string_lossy().into_owned();
        if (meta.uid, meta.gid) != self.creator {
            let (uid, gid) = (Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)));
            fchownat(parent, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)
                .map_err(|errno| SysError::on("fchownat", shown())(errno))?;
        }
        let time = timespec(meta.mtime);
        utimensat(parent, name, &time, &time, UtimensatFlags::NoFollowSymlink)
            .map_err(|errno| SysError::on("utimensat", shown())(errno))?;
        Ok(())
    }

    /// Gives directories their metadata, unless what waits for the layers below will change them again.
    ///
    /// Last, because their content changes their times, and a default access list would go to their content.
    pub(super) fn finish(&mut self) -> Result<()> {
        if self.must_settle() { Ok(()) } else { self.seal_dirs() }
    }

    /// Whether the layers below decide on entries of this one.
    pub(super) fn must_settle(&self) -> bool {
        !self.links.is_empty() || !self.whiteouts.is_empty()
    }

    /// Marks `path` as absent in the layers below (overlayfs.rst, "whiteouts and opaque directories").
    pub(super) fn whiteout(&mut self, path: &LayerPath) -> EntryResult<()> {
        let (parent, name) = path.split().ok_or(EntryError::Root)?;
        let parent = self.dir(parent)?;
        match mknodat(&parent, name, SFlag::S_IFCHR, Mode::empty(), 0) {
            // The layer's own file hides what is below by itself.
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(SysError::on("mknodat", show(path.bytes()))(errno).into()),
        }
    }

    /// Gives all directories that have an entry their metadata.
    pub(super) fn seal_dirs(&self) -> Result<()> {
        for (path, dir) in &self.dirs {
            let Some(meta) = &dir.meta else { continue };
            self.seal(path, meta, dir.opaque)
                .map_err(|source| UnpackError::Entry { path: show(path), source: source.into() })?;
        }
        Ok(())
    }

    pub(super) fn seal(&self, path: &[u8], meta: &Meta, opaque: bool) -> std::result::Result<(), SysError> {
        let path = LayerPath::part(path);
        let dir = File::from(sys::root::open_same_mount(
            self.root.as_fd(),
            path.as_path(),
            OFlag::O_RDONLY | OFlag::O_DIRECTORY,
        )?);
        if opaque && !path.is_root() {
            sys::xattr::set(&dir, opaque_attribute(), b"y")?;
        }
        self.set_meta(&dir, meta, 0o755)
    }
}

type Range = (Bound<Vec<u8>>, Bound<Vec<u8>>);

fn remove_range<V>(map: &mut BTreeMap<Vec<u8>, V>, range: &Range) {
    let keys: Vec<Vec<u8>> = map.range(range.clone()).map(|(key, _)| key.clone()).collect();
    for key in keys {
        map.remove(&key);
    }
}

fn timespec(time: Time) -> TimeSpec {
    // The kernel clamps seconds to what the file system can hold (inode_set_mtime, since Linux 5.4).
    TimeSpec::new(time.seconds, time.nanoseconds.into())
}
