//! Writing a tree down as a tar stream.
use super::walk::{Found, Stacked, View, Walk};
use super::writer::{PAX_MAX, Writer};
use super::{DiffError, Result, at, show};
use crate::image::unpack::LayerPath;
use crate::image::unpack::lower;
use crate::image::unpack::tar::{Entry, Kind, Time};
use crate::sys;
use nix::sys::stat::{FileStat, SFlag, major, minor};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

/// What the engine gives an upper directory, and what the root of a layer without an entry for it has.
const ROOT_MODE: u32 = 0o755;
const CHUNK: usize = 256 << 10;
/// Bytes of the paths of files with several links.
const LINKS_MAX: usize = 256 << 20;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What went into a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Entries, whiteouts among them.
    pub entries: u64,
    /// Sockets and the like, which no tar archive can hold.
    pub left_out: u64,
}

/// Writes the top directory of `stacked` as a layer over the others, which are the image's layers: with whiteouts.
///
/// `made` are paths that are not the container's: where a runtime mounts, it makes an empty file or directory. Such
/// a one is left out unless a layer below has something there.
///
/// # Errors
/// [`DiffError`]; what was written then is no layer.
pub fn write_layer<W: Write>(
    stacked: &Stacked,
    below: &[File],
    made: &[&[u8]],
    out: W,
) -> Result<(Written, W)> {
    let mut stream = Stream::new(stacked, Purpose::Layer { below, made }, out);
    let mut walk = Walk::new(stacked, View::Top)?;
    stream.root()?;
    while let Some(found) = walk.next()? {
        stream.layer_entry(&mut walk, &found)?;
    }
    stream.end()
}

/// Writes the tree that `stacked` is together.
pub fn write_tree<W: Write>(stacked: &Stacked, out: W) -> Result<(Written, W)> {
    let mut stream = Stream::new(stacked, Purpose::Tree, out);
    let mut walk = Walk::new(stacked, View::Merged)?;
    stream.root()?;
    while let Some(found) = walk.next()? {
        if found.name().starts_with(WHITEOUT) {
            tracing::warn!("/{} has a name that means a whiteout in a layer", show(&found.path));
        }
        stream.entry(&mut walk, &found)?;
    }
    stream.end()
}

enum Purpose<'a> {
    Layer { below: &'a [File], made: &'a [&'a [u8]] },
    Tree,
}

struct Stream<'a, W> {
    stacked: &'a Stacked,
    purpose: Purpose<'a>,
    out: Writer<W>,
    /// Device and inode of files with several links, and where the first of them is.
    links: HashMap<(u64, u64), Vec<u8>>,
    link_names: usize,
    written: Written,
    /// Directories that are written only if something in them is.
    pending: Vec<(Vec<u8>, Entry)>,
    chunk: Vec<u8>,
}

impl<'a, W: Write> Stream<'a, W> {
    fn new(stacked: &'a Stacked, purpose: Purpose<'a>, out: W) -> Stream<'a, W> {
        Stream {
            stacked,
            purpose,
            out: Writer::new(out),
            links: HashMap::new(),
            link_names: 0,
            written: Written::default(),
            pending: Vec::new(),
            chunk: vec![0; CHUNK],
        }
    }

    fn end(self) -> Result<(Written, W)> {
        Ok((self.written, self.out.finish().map_err(DiffError::Write)?))
    }

    /// The root directory has an entry only if it is not what it is without one.
    fn root(&mut self) -> Result<()> {
        let Some(top) = self.stacked.top() else { return Ok(()) };
        let stat = nix::sys::stat::fstat(top).map_err(sys::SysError::on("fstat", "/")).map_err(at(b""))?;
        let xattrs = self.attributes(b"", top, true)?;
        if (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid) == (ROOT_MODE, 0, 0) && xattrs.is_empty() {
            return Ok(());
        }
        let entry = entry(b"./", Kind::Directory, &stat, xattrs);
        self.put(&entry)
    }

    fn layer_entry(&mut self, walk: &mut Walk<'_>, found: &Found) -> Result<()> {
        if let Purpose::Layer { below, made } = &self.purpose
            && is_made(found, made, below)?
        {
            walk.skip();
            return Ok(());
        }
        if found.name().starts_with(WHITEOUT) {
            return Err(DiffError::Reserved { path: show(&found.path) });
        }
        if found.whiteout {
            return self.mark(&found.path, &[WHITEOUT, found.name()].concat());
        }
        if found.is_dir() && self.carries_made(found)? {
            let entry = self.describe(walk, found)?.0;
            self.pending.push((found.path.clone(), entry));
            return Ok(());
        }
        self.entry(walk, found)?;
        if found.opaque {
            self.mark(&[&found.path[..], b"/."].concat(), OPAQUE)?;
        }
        Ok(())
    }

    /// Whether it may be here only because something was made in it.
    fn carries_made(&self, found: &Found) -> Result<bool> {
        let Purpose::Layer { below, made } = &self.purpose else { return Ok(false) };
        let inside = |path: &&[u8]| {
            path.strip_prefix(found.path.as_slice()).is_some_and(|rest| rest.starts_with(b"/"))
        };
        if found.opaque || !made.iter().any(inside) {
            return Ok(false);
        }
        Ok(match look_below(below, &found.path)? {
            Some(stat) => {
                (stat.st_mode, stat.st_uid, stat.st_gid)
                    == (found.stat.st_mode, found.stat.st_uid, found.stat.st_gid)
            }
            None => true,
        })
    }

    /// Writes an entry that hides something, beside `path`.
    fn mark(&mut self, path: &[u8], name: &[u8]) -> Result<()> {
        let parent = path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        let path = [&path[..parent], name].concat();
        let mtime = Time::default();
        self.put(&Entry {
            path,
            kind: Kind::File,
            size: 0,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime,
            xattrs: Vec::new(),
        })
    }

    fn entry(&mut self, walk: &mut Walk<'_>, found: &Found) -> Result<()> {
        if !self.can_hold(found) {
            self.written.left_out += 1;
            return Ok(());
        }
        let key = (found.stat.st_dev, found.stat.st_ino);
        let several = !found.is_dir() && found.stat.st_nlink > 1;
        if several && let Some(target) = self.links.get(&key) {
            let link = Kind::HardLink { target: target.clone() };
            let entry = entry(&found.path, link, &found.stat, Vec::new());
            return self.put(&entry);
        }
        let (entry, file) = match self.describe(walk, found) {
            // It is gone, as if the walk had come a moment later.
            Err(DiffError::Changed { path }) => {
                tracing::warn!("/{path} was exchanged while it was read: it is left out");
                self.written.left_out += 1;
                walk.skip();
                return Ok(());
            }
            described => described?,
        };
        if several {
            self.link_names += found.path.len() + 64;
            if self.link_names > LINKS_MAX {
                return Err(DiffError::TooManyNames { limit: LINKS_MAX });
            }
            self.links.insert(key, found.path.clone());
        }
        self.put(&entry)?;
        match file {
            Some(file) if entry.kind == Kind::File => self.content(&entry, File::from(file)),
            _ => Ok(()),
        }
    }

    /// Whether a tar archive can say what it is.
    fn can_hold(&self, found: &Found) -> bool {
        let shown = || show(&found.path);
        match found.kind() {
            SFlag::S_IFSOCK => tracing::warn!("/{} is a socket: it is left out", shown()),
            SFlag::S_IFCHR if found.stat.st_rdev == 0 => {
                tracing::warn!("/{} is the device 0:0: it is left out", shown());
            }
            SFlag::S_IFREG
            | SFlag::S_IFDIR
            | SFlag::S_IFLNK
            | SFlag::S_IFCHR
            | SFlag::S_IFBLK
            | SFlag::S_IFIFO => {
                return true;
            }
            _ => tracing::warn!("/{} is of an unknown type: it is left out", shown()),
        }
        false
    }

    /// The entry of what was found, and its open file.
    fn describe(&mut self, walk: &mut Walk<'_>, found: &Found) -> Result<(Entry, Option<OwnedFd>)> {
        let mut file = None;
        let stat = &found.stat;
        let kind = match found.kind() {
            SFlag::S_IFDIR => {
                file = Some(walk.open(found)?);
                Kind::Directory
            }
            SFlag::S_IFREG => {
                file = Some(walk.open(found)?);
                Kind::File
            }
            SFlag::S_IFLNK => Kind::Symlink { target: walk.target(found)? },
            SFlag::S_IFIFO => Kind::Fifo,
            // Linux has 12 and 20 bits.
            kind => {
                let number = |part: u64| u32::try_from(part).unwrap_or(0);
                let (major, minor) = (number(major(stat.st_rdev)), number(minor(stat.st_rdev)));
                match kind {
                    SFlag::S_IFBLK => Kind::BlockDevice { major, minor },
                    _ => Kind::CharDevice { major, minor },
                }
            }
        };
        let xattrs = match &file {
            Some(fd) => self.attributes(&found.path, fd, found.is_dir())?,
            None => Vec::new(),
        };
        Ok((entry(&found.path, kind, stat, xattrs), file))
    }

    /// The attributes that a layer keeps (docs/layers.md), in the order of their names.
    fn attributes(&self, path: &[u8], file: &OwnedFd, directory: bool) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut attributes = Vec::new();
        let mut size = 0;
        for name in sys::xattr::list(file).map_err(at(path))? {
            let bytes = name.to_bytes();
            if self.stacked.marks().leads_away(bytes) {
                let attribute = name.to_string_lossy().into_owned();
                return Err(DiffError::Overlay { path: show(path), attribute });
            }
            let kept = match bytes {
                b"security.capability" => !directory,
                b"system.posix_acl_default" => directory,
                b"system.posix_acl_access" => true,
                _ => bytes.starts_with(b"user.") && !bytes.starts_with(b"user.overlay."),
            };
            if !kept {
                continue;
            }
            if bytes.contains(&b'=') {
                // A record of an extended header ends its key there.
                tracing::warn!("the attribute {name:?} of /{} is left out", show(path));
                continue;
            }
            let Some(value) = sys::xattr::get(file, &name).map_err(at(path))? else { continue };
            size += bytes.len() + value.len() + 32;
            if size > PAX_MAX - (16 << 10) {
                return Err(DiffError::Attributes { path: show(path), limit: PAX_MAX });
            }
            attributes.push((bytes.to_vec(), value));
        }
        attributes.sort();
        Ok(attributes)
    }

    /// Writes an entry, after the directories that waited for one.
    fn put(&mut self, entry: &Entry) -> Result<()> {
        for (path, waiting) in std::mem::take(&mut self.pending) {
            if entry.path.strip_prefix(path.as_slice()).is_some_and(|rest| rest.starts_with(b"/")) {
                self.out.entry(&waiting).map_err(DiffError::Write)?;
                self.written.entries += 1;
            }
        }
        self.written.entries += 1;
        self.out.entry(entry).map_err(DiffError::Write)
    }

    /// Copies as many bytes as the entry says. A file that shrinks meanwhile ends with zeros, as with GNU tar.
    fn content(&mut self, entry: &Entry, mut file: File) -> Result<()> {
        let mut warned = false;
        while self.out.left() > 0 {
            let length = usize::try_from(self.out.left()).map_or(CHUNK, |left| left.min(CHUNK));
            let count = match file.read(&mut self.chunk[..length]) {
                Ok(0) => {
                    if !std::mem::replace(&mut warned, true) {
                        tracing::warn!(
                            "/{} shrank while it was read: zeros stand for the rest",
                            show(&entry.path)
                        );
                    }
                    self.chunk[..length].fill(0);
                    length
                }
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(at(&entry.path)(sys::SysError::io("read", show(&entry.path))(error)));
                }
            };
            self.out.data(&self.chunk[..count]).map_err(DiffError::Write)?;
        }
        Ok(())
    }
}

fn entry(path: &[u8], kind: Kind, stat: &FileStat, xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> Entry {
    let size = if kind == Kind::File { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 };
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    Entry {
        path: path.to_vec(),
        size,
        mode: if matches!(kind, Kind::Symlink { .. }) { 0o777 } else { stat.st_mode & 0o7777 },
        kind,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Time { seconds: stat.st_mtime, nanoseconds },
        xattrs,
    }
}

/// Whether the runtime made it to mount on.
pub(super) fn is_made(found: &Found, made: &[&[u8]], below: &[File]) -> Result<bool> {
    if !made.contains(&found.path.as_slice()) || found.whiteout || found.opaque {
        return Ok(false);
    }
    let empty = found.is_dir() || found.kind() == SFlag::S_IFREG && found.stat.st_size == 0;
    Ok(empty && look_below(below, &found.path)?.is_none())
}

/// What the layers below have at a path.
pub(super) fn look_below(below: &[File], path: &[u8]) -> Result<Option<FileStat>> {
    // A path of a tree on disk is one that a layer may have, unless it is too long.
    let name = LayerPath::new(path).map_err(|_| DiffError::TooLong { path: show(path) })?;
    Ok(lower::find(below, &name).map_err(at(path))?.map(|found| found.stat))
}
