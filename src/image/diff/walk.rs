//! Walking over stacked directories as overlayfs would show them, or over the top one alone.
use super::{DiffError, Result, at, show};
use crate::image::snapshot::overlay;
use crate::sys::root::open_same_mount;
use crate::sys::{self, SysError};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, SFlag, fstat, fstatat};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// PATH_MAX without its NUL byte: what openat2(2) takes, and what the reader of layers takes.
const PATH_MAX: usize = 4095;
/// Bytes of the names that wait on the way down: some millions in one directory.
const NAMES_MAX: usize = 256 << 20;

/// Which attributes are overlayfs's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marks {
    /// `trusted.overlay.*`; `user.overlay.*` are then a container's own.
    Trusted,
    /// `user.overlay.*`: mounted with `userxattr`.
    User,
    /// None: no overlay, a device 0:0 hides nothing.
    None,
}

impl Marks {
    /// What this process's own overlays are mounted with, and its layers unpacked for.
    pub fn here() -> Marks {
        let in_user_namespace = overlay::opaque_attribute() == c"user.overlay.opaque";
        if in_user_namespace { Marks::User } else { Marks::Trusted }
    }

    fn opaque(self) -> Option<&'static CStr> {
        match self {
            Marks::Trusted => Some(c"trusted.overlay.opaque"),
            Marks::User => Some(c"user.overlay.opaque"),
            Marks::None => None,
        }
    }

    fn whiteout(self) -> Option<&'static CStr> {
        match self {
            Marks::Trusted => Some(c"trusted.overlay.whiteout"),
            Marks::User => Some(c"user.overlay.whiteout"),
            Marks::None => None,
        }
    }

    /// Whether the attribute says that a file's content or a directory's lower part is elsewhere.
    pub(super) fn leads_away(self, name: &[u8]) -> bool {
        match self {
            Marks::Trusted => matches!(name, b"trusted.overlay.redirect" | b"trusted.overlay.metacopy"),
            Marks::User => matches!(name, b"user.overlay.redirect" | b"user.overlay.metacopy"),
            Marks::None => false,
        }
    }
}

/// Directories one above the other.
#[derive(Debug)]
pub struct Stacked {
    /// The top one first.
    roots: Vec<OwnedFd>,
    marks: Marks,
}

impl Stacked {
    /// Takes open directories, the top one first.
    pub fn new(roots: Vec<OwnedFd>, marks: Marks) -> Stacked {
        Stacked { roots, marks }
    }

    /// The top directory.
    pub(super) fn top(&self) -> Option<&OwnedFd> {
        self.roots.first()
    }

    pub(super) fn marks(&self) -> Marks {
        self.marks
    }
}

/// What is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// All directories as one tree, without what is hidden.
    Merged,
    /// The top directory alone, with its whiteouts.
    Top,
}

/// What stands at a path.
#[derive(Debug)]
pub(super) struct Found {
    /// Without a slash at either end.
    pub(super) path: Vec<u8>,
    pub(super) stat: FileStat,
    /// Hides what is below; only in [`View::Top`].
    pub(super) whiteout: bool,
    /// A directory that hides what is in the one below.
    pub(super) opaque: bool,
    /// Index of the directory that has it.
    layer: usize,
}

impl Found {
    pub(super) fn kind(&self) -> SFlag {
        kind(&self.stat)
    }

    pub(super) fn is_dir(&self) -> bool {
        self.kind() == SFlag::S_IFDIR
    }

    pub(super) fn name(&self) -> &[u8] {
        let slash = self.path.iter().rposition(|&byte| byte == b'/');
        &self.path[slash.map_or(0, |at| at + 1)..]
    }
}

pub(super) fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// One directory on the way down.
#[derive(Debug)]
struct Level {
    /// Length of its path.
    path: usize,
    /// The directories that are one here.
    members: Vec<Member>,
    /// What is in it and was not seen yet: the last name first, each with the topmost member that has it.
    names: Vec<(CString, usize)>,
}

#[derive(Debug)]
struct Member {
    layer: usize,
    /// Closed while the walk is further down, so that the depth of a tree costs no descriptors.
    dir: Option<OwnedFd>,
    /// It holds whiteouts that are marked files (`opaque=x`, since Linux 6.7).
    marked: bool,
}

/// A walk, depth first, in the order of the names' bytes.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    stacked: &'a Stacked,
    view: View,
    levels: Vec<Level>,
    path: Vec<u8>,
    /// Bytes of all names that wait.
    names: usize,
    /// The last directory that was found, with the member of the level that has it.
    descend: Option<usize>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(stacked: &'a Stacked, view: View) -> Result<Walk<'a>> {
        let mut walk = Walk { stacked, view, levels: Vec::new(), path: Vec::new(), names: 0, descend: None };
        let count = if view == View::Top { 1 } else { stacked.roots.len() };
        let mut members = Vec::new();
        for layer in 0..count.min(stacked.roots.len()) {
            let dir = walk.reopen(layer)?;
            let (opaque, marked) = walk.marks_of(&dir)?;
            members.push(Member { layer, dir: Some(dir), marked });
            if opaque {
                break;
            }
        }
        walk.enter(members)?;
        Ok(walk)
    }

    /// Leaves out what is in the directory that was found last.
    pub(super) fn skip(&mut self) {
        self.descend = None;
    }

    /// The next path; a directory comes before what is in it.
    pub(super) fn next(&mut self) -> Result<Option<Found>> {
        if let Some(member) = self.descend.take() {
            self.down(member)?;
        }
        while let Some(level) = self.levels.last_mut() {
            let Some((name, member)) = level.names.pop() else {
                self.levels.pop();
                continue;
            };
            self.names = self.names.saturating_sub(cost(&name));
            let length = level.path;
            self.path.truncate(length);
            if length > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.to_bytes());
            if self.path.len() > PATH_MAX {
                return Err(DiffError::TooLong { path: show(&self.path) });
            }
            if let Some(found) = self.look(&name, member)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Opens what was found last: its directory, or a regular file for reading.
    ///
    /// # Errors
    /// [`DiffError::Changed`] if something else stands there now.
    pub(super) fn open(&mut self, found: &Found) -> Result<OwnedFd> {
        let flags = match found.is_dir() {
            true => OFlag::O_RDONLY | OFlag::O_DIRECTORY,
            // It may have become a FIFO or a terminal.
            false => OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY,
        };
        let name = Path::new(OsStr::from_bytes(found.name())).to_owned();
        let parent = self.parent_of(found.layer)?;
        let opened = open_same_mount(parent.as_fd(), &name, flags | OFlag::O_NOFOLLOW).and_then(|fd| {
            let stat = fstat(&fd).map_err(SysError::on("fstat", show(&found.path)))?;
            Ok((fd, stat))
        });
        let changed = || DiffError::Changed { path: show(&found.path) };
        match opened {
            Ok((_, stat)) if identity(&stat) != identity(&found.stat) => Err(changed()),
            Ok((fd, _)) => Ok(fd),
            Err(error)
                if matches!(error.errno, Errno::ENOENT | Errno::ELOOP | Errno::ENOTDIR | Errno::ENXIO) =>
            {
                Err(changed())
            }
            Err(error) => Err(at(&found.path)(error)),
        }
    }

    /// The target of the symbolic link that was found last.
    pub(super) fn target(&mut self, found: &Found) -> Result<Vec<u8>> {
        let name = Path::new(OsStr::from_bytes(found.name())).to_owned();
        let parent = self.parent_of(found.layer)?;
        let target = nix::fcntl::readlinkat(parent, &name);
        let target =
            target.map_err(SysError::on("readlinkat", show(&found.path))).map_err(at(&found.path))?;
        Ok(target.as_bytes().to_vec())
    }

    /// What stands at the current path; `None` if it is hidden or gone.
    fn look(&mut self, name: &CStr, member: usize) -> Result<Option<Found>> {
        let path = self.path.clone();
        let (layer, marked) = {
            let level = self.level()?;
            (level.members[member].layer, level.members[member].marked)
        };
        let parent = self.parent_of(layer)?;
        let stat = match stat_at(parent, name) {
            Ok(stat) => stat,
            // Removed since its name was read.
            Err(error) if error.errno == Errno::ENOENT => return Ok(None),
            Err(error) => return Err(at(&path)(error)),
        };
        let whiteout = self.is_whiteout(layer, name, &stat, marked)?;
        if whiteout && self.view == View::Merged {
            return Ok(None);
        }
        let mut found = Found { path, stat, whiteout, opaque: false, layer };
        if found.is_dir() {
            let dir = match self.open(&found) {
                Err(DiffError::Changed { .. }) => return Ok(None),
                opened => opened?,
            };
            found.opaque = self.marks_of(&dir)?.0;
            self.descend = Some(member);
        }
        Ok(Some(found))
    }

    fn is_whiteout(&mut self, layer: usize, name: &CStr, stat: &FileStat, marked: bool) -> Result<bool> {
        let Some(attribute) = self.stacked.marks.whiteout() else { return Ok(false) };
        match kind(stat) {
            SFlag::S_IFCHR => Ok(stat.st_rdev == 0),
            SFlag::S_IFREG if marked && stat.st_size == 0 => {
                let path = self.path.clone();
                let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW;
                let parent = self.parent_of(layer)?;
                let name = Path::new(OsStr::from_bytes(name.to_bytes()));
                let file = open_same_mount(parent.as_fd(), name, flags).map_err(at(&path))?;
                Ok(sys::xattr::get(&file, attribute).map_err(at(&path))?.is_some())
            }
            _ => Ok(false),
        }
    }

    /// Enters the directory at the current path, which `member` of the last level has on top.
    fn down(&mut self, member: usize) -> Result<()> {
        let name = CString::new(self.path.rsplit(|&byte| byte == b'/').next().unwrap_or_default())
            .map_err(|_| DiffError::Changed { path: show(&self.path) })?;
        let candidates: Vec<(usize, bool)> =
            self.level()?.members[member..].iter().map(|member| (member.layer, member.marked)).collect();
        let mut members = Vec::new();
        for (layer, marked) in candidates {
            let path = self.path.clone();
            let parent = self.parent_of(layer)?;
            let stat = match stat_at(parent, &name) {
                Ok(stat) => stat,
                Err(error) if error.errno == Errno::ENOENT => continue,
                Err(error) => return Err(at(&path)(error)),
            };
            if kind(&stat) != SFlag::S_IFDIR || self.is_whiteout(layer, &name, &stat, marked)? {
                break;
            }
            let found = Found { path, stat, whiteout: false, opaque: false, layer };
            let dir = self.open(&found)?;
            let (opaque, marked) = self.marks_of(&dir)?;
            members.push(Member { layer, dir: Some(dir), marked });
            if opaque || self.view == View::Top {
                break;
            }
        }
        if let Some(level) = self.levels.last_mut() {
            level.members.iter_mut().for_each(|member| member.dir = None);
        }
        self.enter(members)
    }

    /// Reads the names of a directory that is `members` together.
    fn enter(&mut self, members: Vec<Member>) -> Result<()> {
        let mut names: BTreeMap<CString, usize> = BTreeMap::new();
        for (at_member, member) in members.iter().enumerate() {
            let Some(dir) = &member.dir else { continue };
            let failed = |errno| at(&self.path)(SysError::on("getdents", show(&self.path))(errno));
            let mut listing = Dir::openat(
                dir,
                ".",
                OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
                nix::sys::stat::Mode::empty(),
            )
            .map_err(failed)?;
            for entry in listing.iter() {
                let name = entry.map_err(failed)?.file_name().to_owned();
                if matches!(name.to_bytes(), b"." | b"..") || names.contains_key(&name) {
                    continue;
                }
                self.names += cost(&name);
                if self.names > NAMES_MAX {
                    return Err(DiffError::TooManyNames { limit: NAMES_MAX });
                }
                names.insert(name, at_member);
            }
        }
        let names = names.into_iter().rev().collect();
        self.levels.push(Level { path: self.path.len(), members, names });
        Ok(())
    }

    /// Whether a directory is opaque, and whether it holds marked whiteouts.
    fn marks_of(&self, dir: &OwnedFd) -> Result<(bool, bool)> {
        let Some(attribute) = self.stacked.marks.opaque() else { return Ok((false, false)) };
        let value = sys::xattr::get(dir, attribute).map_err(at(&self.path))?;
        Ok((value.as_deref() == Some(b"y"), value.as_deref() == Some(b"x")))
    }

    fn level(&self) -> Result<&Level> {
        self.levels.last().ok_or_else(|| DiffError::Changed { path: show(&self.path) })
    }

    /// The open directory of `layer` in the last level.
    fn parent_of(&mut self, layer: usize) -> Result<&OwnedFd> {
        let changed = || DiffError::Changed { path: show(&self.path) };
        let at_member = self.level()?.members.iter().position(|member| member.layer == layer);
        let at_member = at_member.ok_or_else(changed)?;
        let closed = self.level()?.members[at_member].dir.is_none();
        if closed {
            let length = self.level()?.path;
            let whole = std::mem::take(&mut self.path);
            self.path.extend_from_slice(&whole[..length]);
            let dir = self.reopen(layer);
            self.path = whole;
            let dir = dir?;
            if let Some(level) = self.levels.last_mut() {
                level.members[at_member].dir = Some(dir);
            }
        }
        let dir = self.levels.last().and_then(|level| level.members[at_member].dir.as_ref());
        dir.ok_or_else(|| DiffError::Changed { path: show(&self.path) })
    }

    /// Opens the current path, a directory, in a layer.
    fn reopen(&self, layer: usize) -> Result<OwnedFd> {
        let path = Path::new(OsStr::from_bytes(&self.path));
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        open_same_mount(self.stacked.roots[layer].as_fd(), path, flags).map_err(at(&self.path))
    }
}

/// What a name needs in a map, roughly.
fn cost(name: &CStr) -> usize {
    name.count_bytes() + 64
}

fn stat_at(dir: &OwnedFd, name: &CStr) -> std::result::Result<FileStat, SysError> {
    fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(SysError::on("fstatat", name.to_string_lossy()))
}

fn identity(stat: &FileStat) -> (u64, u64, SFlag) {
    (stat.st_dev, stat.st_ino, kind(stat))
}
