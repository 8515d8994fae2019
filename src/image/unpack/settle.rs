//! What a layer takes over from the layers below it.
use super::lower::{self, Found};
use super::path::LayerPath;
use super::tar::{Time, show};
use super::tree::{Meta, Tree};
use super::{EntryError, Result, UnpackError};
use crate::sys::{self, SysError};
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag};
use nix::unistd::{LinkatFlags, linkat};
use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsFd;

/// More warnings of one layer help nobody.
const WARNINGS_MAX: usize = 8;

/// Completes `tree` on top of `lowers`, the roots of the layers below with the top one first.
/// `warnings` gets some words on what a user might not expect.
pub(super) fn settle(tree: &mut Tree, lowers: &[File], warnings: &mut Vec<String>) -> Result<()> {
    let must_seal = tree.must_settle();
    let links = std::mem::take(&mut tree.links);
    let mut copies: HashMap<Vec<u8>, LayerPath> = HashMap::new();
    for (path, target) in &links {
        let linked = copy_up(tree, lowers, &links, &mut copies, path, target);
        linked.map_err(|source| UnpackError::Entry { path: show(path), source })?;
    }
    let whiteouts: Vec<Vec<u8>> = tree.whiteouts.iter().cloned().collect();
    let mut hidden = HiddenDir::default();
    for path in whiteouts {
        let path = LayerPath::part(&path);
        whiteout(tree, lowers, &path, &mut hidden)
            .map_err(|source| UnpackError::Entry { path: show(path.bytes()), source })?;
    }
    if must_seal {
        tree.seal_dirs()?;
    }
    let implicit: Vec<Vec<u8>> =
        tree.dirs.iter().filter(|(_, dir)| dir.meta.is_none()).map(|(path, _)| path.clone()).collect();
    for path in implicit {
        seal_implicit(tree, lowers, &path, warnings)
            .map_err(|source| UnpackError::Entry { path: show(&path), source: source.into() })?;
    }
    Ok(())
}

/// Hides what the layers below have at `path`.
///
/// Where they have nothing no whiteout is made: overlayfs hides whiteouts only while it merges directories,
/// and lists them like files where there is nothing to merge.
fn whiteout(
    tree: &mut Tree,
    lowers: &[File],
    path: &LayerPath,
    hidden: &mut HiddenDir,
) -> std::result::Result<(), EntryError> {
    if let Some(dir) = tree.dirs.get_mut(path.bytes()) {
        // The layer's own directory stays and is no union with the one below.
        dir.opaque = true;
        return Ok(());
    }
    if hidden.holds(tree, path)? || lower::find(lowers, path)?.is_none() {
        return Ok(());
    }
    tree.whiteout(path)
}

/// Whether the layer hides what is in a directory, for the directory that was asked for last: whiteouts come in the
/// order of their paths, and ten thousand in one deep directory took seconds.
#[derive(Debug, Default)]
struct HiddenDir {
    last: Option<(Vec<u8>, bool)>,
}

impl HiddenDir {
    /// Whether `path` is in such a directory.
    fn holds(&mut self, tree: &Tree, path: &LayerPath) -> std::result::Result<bool, SysError> {
        let parent = path.split().map_or(&b""[..], |(parent, _)| parent);
        match &self.last {
            Some((dir, hides)) if dir == parent => Ok(*hides),
            _ => {
                let hides = ancestor_hides(tree, path)?;
                self.last = Some((parent.to_vec(), hides));
                Ok(hides)
            }
        }
    }
}

/// Whether the layer itself hides what the layers below have at `path`.
fn hides(tree: &Tree, path: &LayerPath) -> std::result::Result<bool, SysError> {
    Ok(tree.whiteouts.contains(path.bytes()) || ancestor_hides(tree, path)?)
}

/// Whether it does so with all that is in a directory above `path`.
fn ancestor_hides(tree: &Tree, path: &LayerPath) -> std::result::Result<bool, SysError> {
    if tree.dirs.get(&b""[..]).is_some_and(|root| root.opaque) && !path.is_root() {
        return Ok(true);
    }
    for ancestor in path.ancestors() {
        if tree.whiteouts.contains(ancestor.bytes()) {
            return Ok(true);
        }
        match tree.dirs.get(ancestor.bytes()) {
            Some(dir) if dir.opaque => return Ok(true),
            Some(_) => {}
            // Nothing of this layer is further down.
            None => return Ok(lower::stat_at(tree.root.as_fd(), &ancestor)?.is_some()),
        }
    }
    Ok(false)
}

/// Puts a copy of the file `target` of the layers below at `path`; a second link to it becomes a link to the
/// first copy.
fn copy_up(
    tree: &mut Tree,
    lowers: &[File],
    links: &std::collections::BTreeMap<Vec<u8>, Vec<u8>>,
    copies: &mut HashMap<Vec<u8>, LayerPath>,
    path: &[u8],
    target: &[u8],
) -> std::result::Result<(), EntryError> {
    let (path, target) = (LayerPath::part(path), LayerPath::part(target));
    let shown = || show(target.bytes());
    let (parent, name) = path.split().ok_or(EntryError::Root)?;
    if let Some(copy) = copies.get(target.bytes()) {
        let (copy_parent, copy_name) = copy.split().ok_or(EntryError::Root)?;
        let (from, to) = (tree.dir(copy_parent)?, tree.dir(parent)?);
        linkat(&from, copy_name, &to, name, LinkatFlags::empty())
            .map_err(SysError::on("linkat", show(path.bytes())))?;
        return Ok(());
    }
    let through_link = target.ancestors().any(|ancestor| links.contains_key(ancestor.bytes()));
    if through_link || hides(tree, &target)? {
        return Err(EntryError::LinkWithoutTarget { target: shown() });
    }
    if links.contains_key(target.bytes()) || lower::stat_at(tree.root.as_fd(), &target)?.is_some() {
        return Err(EntryError::LinkBeforeTarget { target: shown() });
    }
    let found =
        lower::find(lowers, &target)?.ok_or_else(|| EntryError::LinkWithoutTarget { target: shown() })?;
    if found.kind() != SFlag::S_IFREG {
        return Err(EntryError::LinkToSpecial { target: shown() });
    }
    let mut source = File::from(lower::open(found.layer.as_fd(), &target, OFlag::O_RDONLY)?);
    let meta = meta_of(&found, &source)?;
    let parent = tree.dir(parent)?;
    let copy =
        sys::root::create_file(parent.as_fd(), name, OFlag::O_WRONLY, Mode::from_bits_truncate(0o600))?;
    let mut copy = File::from(copy);
    std::io::copy(&mut source, &mut copy).map_err(SysError::io("copy_file_range", show(path.bytes())))?;
    tree.set_meta(&copy, &meta, 0o600)?;
    tree.size = tree.size.saturating_add(u64::try_from(found.stat.st_size).unwrap_or(0));
    copies.insert(target.bytes().to_vec(), path);
    Ok(())
}

/// Metadata for a directory that the layer has no entry for.
fn seal_implicit(
    tree: &Tree,
    lowers: &[File],
    path: &[u8],
    warnings: &mut Vec<String>,
) -> std::result::Result<(), SysError> {
    let path = LayerPath::part(path);
    let opaque = tree.dirs.get(path.bytes()).is_some_and(|dir| dir.opaque);
    let mut meta = Meta { mode: 0o755, uid: 0, gid: 0, mtime: Time::default(), xattrs: Vec::new() };
    if tree.creator.0 != 0 {
        // Without root's privileges the tree is its maker's.
        (meta.uid, meta.gid) = tree.creator;
    }
    let below = if hides(tree, &path)? { None } else { lower::find(lowers, &path)? };
    if let Some(found) = below {
        if found.kind() == SFlag::S_IFDIR {
            let dir =
                File::from(lower::open(found.layer.as_fd(), &path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?);
            meta = meta_of(&found, &dir)?;
        } else if found.kind() == SFlag::S_IFLNK && warnings.len() < WARNINGS_MAX {
            warnings.push(format!(
                "a layer replaces the symbolic link /{} of a layer below by a directory",
                show(path.bytes())
            ));
        }
    }
    tree.seal(path.bytes(), &meta, opaque)
}

/// The metadata of an open file of a layer below, but for what steers overlayfs.
fn meta_of(found: &Found<'_>, file: &File) -> std::result::Result<Meta, SysError> {
    let mut xattrs: Vec<(CString, Vec<u8>)> = Vec::new();
    for name in sys::xattr::list(file)? {
        let bytes = name.to_bytes();
        let kept = bytes == b"security.capability"
            || bytes.starts_with(b"user.")
            || bytes.starts_with(b"system.posix_acl_");
        if kept && let Some(value) = sys::xattr::get(file, &name)? {
            xattrs.push((name, value));
        }
    }
    let stat = &found.stat;
    Ok(Meta {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Time { seconds: stat.st_mtime, nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) },
        xattrs,
    })
}
