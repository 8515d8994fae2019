//! All that a tree on disk is, to be compared with another one.

use crate::image::digest;
use crate::sys;
use std::collections::{BTreeMap, HashMap};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// One path of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its type.
    pub kind: Kind,
    /// Permissions, set-ID bits and the sticky bit; 0 for a symbolic link, which has none.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub mtime: (i64, i64),
    /// Bytes of a regular file.
    pub size: u64,
    /// SHA-256 of a regular file.
    pub content: Option<String>,
    /// Of a symbolic link.
    pub target: Option<Vec<u8>>,
    /// The first path of the same file, in the order of bytes, if it is another one.
    pub same_as: Option<Vec<u8>>,
    /// Major and minor number of a device.
    pub device: Option<(u64, u64)>,
    /// Names and values; but `security.selinux`, which is the host's.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Paths below a root without a leading slash; the root itself is the empty path.
pub type Tree = BTreeMap<Vec<u8>, Node>;

/// Reads the tree under `root`, without following a link.
pub fn read(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut inodes = HashMap::new();
    let mut found = Vec::new();
    collect(root, Vec::new(), &mut found);
    found.sort();
    for path in found {
        let node = node(&root.join(std::ffi::OsStr::from_bytes(&path)), &path, &mut inodes);
        tree.insert(path, node);
    }
    tree
}

/// All paths below `dir`, without recursion: a tree may be deep.
fn collect(dir: &Path, path: Vec<u8>, found: &mut Vec<Vec<u8>>) {
    let mut waiting = vec![path];
    while let Some(path) = waiting.pop() {
        found.push(path.clone());
        let full = dir.join(std::ffi::OsStr::from_bytes(&path));
        let entries = std::fs::read_dir(&full).unwrap_or_else(|error| panic!("{}: {error}", full.display()));
        for entry in entries {
            let entry = entry.expect("an entry of a directory");
            let name = entry.file_name();
            let below = match path.is_empty() {
                true => name.as_bytes().to_vec(),
                false => [&path, &b"/"[..], name.as_bytes()].concat(),
            };
            match entry.file_type().expect("type of an entry").is_dir() {
                true => waiting.push(below),
                false => found.push(below),
            }
        }
    }
}

fn node(full: &Path, path: &[u8], inodes: &mut HashMap<(u64, u64), Vec<u8>>) -> Node {
    let meta = full.symlink_metadata().unwrap_or_else(|error| panic!("{}: {error}", full.display()));
    let kind = match meta.file_type() {
        kind if kind.is_file() => Kind::File,
        kind if kind.is_dir() => Kind::Dir,
        kind if kind.is_symlink() => Kind::Symlink,
        kind if kind.is_char_device() => Kind::Char,
        kind if kind.is_block_device() => Kind::Block,
        kind if kind.is_fifo() => Kind::Fifo,
        _ => Kind::Socket,
    };
    let mut same_as = None;
    if kind != Kind::Dir && meta.nlink() > 1 {
        let first = inodes.entry((meta.dev(), meta.ino())).or_insert_with(|| path.to_vec());
        same_as = (*first != path).then(|| first.clone());
    }
    let regular = kind == Kind::File;
    let device = matches!(kind, Kind::Char | Kind::Block);
    Node {
        kind,
        mode: if kind == Kind::Symlink { 0 } else { meta.mode() & 0o7777 },
        uid: meta.uid(),
        gid: meta.gid(),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        size: if regular { meta.len() } else { 0 },
        content: regular.then(|| digest(&std::fs::read(full).expect("content of a file"))),
        target: (kind == Kind::Symlink)
            .then(|| std::fs::read_link(full).expect("target of a link").as_os_str().as_bytes().to_vec()),
        same_as,
        device: device.then(|| (nix::sys::stat::major(meta.rdev()), nix::sys::stat::minor(meta.rdev()))),
        xattrs: sys::xattrs(full).into_iter().filter(|(name, _)| name != b"security.selinux").collect(),
    }
}

/// What differs between two trees, one line for each path.
pub fn differences(left: &Tree, right: &Tree) -> Vec<String> {
    let mut lines = Vec::new();
    for (path, node) in left {
        let shown = path.escape_ascii();
        match right.get(path) {
            None => lines.push(format!("/{shown} is missing on the right")),
            Some(other) if other != node => lines.push(format!("/{shown}:\n  {node:?}\n  {other:?}")),
            Some(_) => {}
        }
    }
    let only = right.keys().filter(|path| !left.contains_key(*path));
    lines.extend(only.map(|path| format!("/{} is missing on the left", path.escape_ascii())));
    lines
}

/// Fails the test unless the trees are the same.
#[track_caller]
pub fn assert_same(what: &str, left: &Tree, right: &Tree) {
    let lines = differences(left, right);
    let shown: Vec<_> = lines.iter().take(20).cloned().collect();
    assert!(lines.is_empty(), "{what}: {} paths differ\n{}", lines.len(), shown.join("\n"));
}

/// One line for each path but the root: a letter for the type, the mode, the path, and what is not the usual.
///
/// The letter of a whiteout of overlayfs is `w`. Usual are root as the owner, the second 1,000,000,000 as the time and no attributes.
pub fn lines(root: &Path) -> Vec<String> {
    let tree = read(root);
    let line = |(path, node): (&Vec<u8>, &Node)| {
        // overlayfs's whiteout has nothing else.
        if node.kind == Kind::Char && node.device == Some((0, 0)) {
            return format!("w {}", path.escape_ascii());
        }
        let mut line = match node.kind {
            Kind::File => format!("f {:o} ", node.mode),
            Kind::Dir => format!("d {:o} ", node.mode),
            Kind::Symlink => "l ".to_owned(),
            Kind::Char => format!("c {:o} ", node.mode),
            Kind::Block => format!("b {:o} ", node.mode),
            Kind::Fifo => format!("p {:o} ", node.mode),
            Kind::Socket => format!("s {:o} ", node.mode),
        };
        line += &path.escape_ascii().to_string();
        let mut say = |text: String| line += &format!(" {text}");
        if node.size > 0 {
            say(format!("size={}", node.size));
        }
        if let Some(target) = &node.target {
            say(format!("-> {}", target.escape_ascii()));
        }
        if let Some(first) = &node.same_as {
            say(format!("= {}", first.escape_ascii()));
        }
        if let Some((major, minor)) = node.device {
            say(format!("{major}:{minor}"));
        }
        if (node.uid, node.gid) != (0, 0) {
            say(format!("owner={}:{}", node.uid, node.gid));
        }
        if node.mtime != (1_000_000_000, 0) {
            say(format!("time={}.{:09}", node.mtime.0, node.mtime.1));
        }
        for name in node.xattrs.keys() {
            say(format!("[{}]", name.escape_ascii()));
        }
        line
    };
    tree.iter().filter(|(path, _)| !path.is_empty()).map(line).collect()
}
