//! What a container or an image has changed, as `docker diff` lists it.
use super::stream::{is_made, look_below};
use super::walk::{Found, Stacked, View, Walk};
use super::{DiffError, Result, at, show};
use crate::sys;
use nix::sys::stat::{FileStat, SFlag};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;

/// The most changes that are kept.
const CHANGES_MAX: usize = 5_000_000;

/// What happened at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// `A`.
    Added,
    /// `C`: its content or its metadata, or of a directory what is in it.
    Changed,
    /// `D`; what was in a directory is not listed.
    Deleted,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Without a slash at either end.
    pub path: Vec<u8>,
    pub kind: ChangeKind,
}

/// What the top directory of `stacked` changes of the layers below it, `below` (the top one first). What the
/// runtime made to mount on (`made`) is left out, as in [`write_layer`](super::write_layer).
pub fn of_upper(stacked: &Stacked, below: &[File], made: &[&[u8]]) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    let mut walk = Walk::new(stacked, View::Top)?;
    let mut pending: Vec<Vec<u8>> = Vec::new();
    while let Some(found) = walk.next()? {
        if is_made(&found, made, below)? {
            walk.skip();
            continue;
        }
        let old = look_below(below, &found.path)?;
        let kind = match (&old, found.whiteout) {
            (None, true) => continue,
            (Some(_), true) => ChangeKind::Deleted,
            (None, false) => ChangeKind::Added,
            (Some(_), false) => ChangeKind::Changed,
        };
        pending.retain(|path| within(&found.path, path));
        let carries = made.iter().any(|path| within(path, &found.path));
        if found.is_dir() && kind == ChangeKind::Changed && carries && !found.opaque {
            // It may be here only because something was made in it.
            pending.push(found.path.clone());
            continue;
        }
        changes.extend(pending.drain(..).map(|path| Change { path, kind: ChangeKind::Changed }));
        changes.push(Change { path: found.path.clone(), kind });
        if found.opaque && old.is_some_and(|old| super::walk::kind(&old) == SFlag::S_IFDIR) {
            hidden(stacked, below, &found.path, &mut changes)?;
        }
        if changes.len() > CHANGES_MAX {
            return Err(DiffError::TooManyNames { limit: CHANGES_MAX });
        }
    }
    changes.sort_by(|one, other| order(&one.path, &other.path));
    Ok(changes)
}

/// What an opaque directory hides of the one below.
fn hidden(stacked: &Stacked, below: &[File], dir: &[u8], changes: &mut Vec<Change>) -> Result<()> {
    let copy = |file: &File| -> Result<OwnedFd> {
        Ok(OwnedFd::from(file.try_clone().map_err(sys::SysError::io("dup", show(dir))).map_err(at(dir))?))
    };
    let lowers = Stacked::new(below.iter().map(copy).collect::<Result<_>>()?, stacked.marks());
    let top: Vec<File> = stacked
        .top()
        .map(|top| {
            top.try_clone().map(File::from).map_err(sys::SysError::io("dup", show(dir))).map_err(at(dir))
        })
        .transpose()?
        .into_iter()
        .collect();
    let mut walk = Walk::new(&lowers, View::Merged)?;
    while let Some(found) = walk.next()? {
        // Only the way to the directory, and what is in it.
        if within(dir, &found.path) || found.path == dir {
            continue;
        }
        walk.skip();
        if within(&found.path, dir) && look_below(&top, &found.path)?.is_none() {
            changes.push(Change { path: found.path.clone(), kind: ChangeKind::Deleted });
        }
    }
    Ok(())
}

/// What `new` has otherwise than `old`.
pub fn compare(old: &Stacked, new: &Stacked) -> Result<Vec<Change>> {
    let (mut olds, mut news) = (Walk::new(old, View::Merged)?, Walk::new(new, View::Merged)?);
    let (mut one, mut other) = (olds.next()?, news.next()?);
    let mut changes: Vec<Change> = Vec::new();
    loop {
        let place = match (&one, &other) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(one), Some(other)) => order(&one.path, &other.path),
        };
        let (path, kind) = match (place, &one, &other) {
            (Ordering::Less, Some(found), _) => {
                olds.skip();
                (Some(found.path.clone()), ChangeKind::Deleted)
            }
            (Ordering::Greater, _, Some(found)) => (Some(found.path.clone()), ChangeKind::Added),
            (_, Some(before), Some(after)) => {
                if before.is_dir() && !after.is_dir() {
                    olds.skip();
                }
                let same = same(&mut olds, before, &mut news, after)?;
                ((!same).then(|| after.path.clone()), ChangeKind::Changed)
            }
            _ => (None, ChangeKind::Changed),
        };
        changes.extend(path.map(|path| Change { path, kind }));
        if changes.len() > CHANGES_MAX {
            return Err(DiffError::TooManyNames { limit: CHANGES_MAX });
        }
        if place != Ordering::Greater {
            one = olds.next()?;
        }
        if place != Ordering::Less {
            other = news.next()?;
        }
    }
    Ok(with_parents(&changes))
}

/// docker lists a directory as changed when something in it is. One that is only in one of two trees is listed
/// already.
fn with_parents(changes: &[Change]) -> Vec<Change> {
    let mut known: BTreeMap<&[u8], ChangeKind> =
        changes.iter().map(|change| (change.path.as_slice(), change.kind)).collect();
    for change in changes {
        let mut path = change.path.as_slice();
        while let Some(slash) = path.iter().rposition(|&byte| byte == b'/') {
            path = &path[..slash];
            known.entry(path).or_insert(ChangeKind::Changed);
        }
    }
    let mut all: Vec<Change> =
        known.into_iter().map(|(path, kind)| Change { path: path.to_vec(), kind }).collect();
    all.sort_by(|one, other| order(&one.path, &other.path));
    all
}

/// Whether two files are the same as far as an image shows.
fn same(olds: &mut Walk<'_>, before: &Found, news: &mut Walk<'_>, after: &Found) -> Result<bool> {
    let owner = |stat: &FileStat| (stat.st_mode, stat.st_uid, stat.st_gid);
    if owner(&before.stat) != owner(&after.stat) {
        return Ok(false);
    }
    let (a, b) = (&before.stat, &after.stat);
    if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino) {
        return Ok(true);
    }
    Ok(match after.kind() {
        SFlag::S_IFDIR => true,
        SFlag::S_IFLNK => olds.target(before)? == news.target(after)?,
        SFlag::S_IFREG => {
            (a.st_size, a.st_mtime, a.st_mtime_nsec) == (b.st_size, b.st_mtime, b.st_mtime_nsec)
                && capability(olds, before)? == capability(news, after)?
        }
        _ => a.st_rdev == b.st_rdev,
    })
}

fn capability(walk: &mut Walk<'_>, found: &Found) -> Result<Option<Vec<u8>>> {
    let file = walk.open(found)?;
    sys::xattr::get(&file, c"security.capability").map_err(at(&found.path))
}

/// Whether `path` lies in the directory `dir`.
fn within(path: &[u8], dir: &[u8]) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.starts_with(b"/"))
}

/// The order of a walk: by components.
fn order(one: &[u8], other: &[u8]) -> Ordering {
    one.split(|&byte| byte == b'/').cmp(other.split(|&byte| byte == b'/'))
}
