//! Trees written down and read back.
use super::*;
use crate::image::manifest::Compression;
use crate::image::unpack::{self, Limits};
use crate::sys::xattr;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::time::TimeSpec;
use proptest::prelude::*;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    /// `None` where this process may not make devices and trusted attributes.
    fn new() -> Option<Bench> {
        let dir = tempfile::tempdir_in("/var/tmp").ok()?;
        nix::unistd::geteuid().is_root().then_some(Bench { dir })
    }

    fn tree(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    fn unpack(&self, name: &str, stream: &[u8], below: &[&Path]) -> PathBuf {
        let parent = File::open(self.dir.path()).unwrap();
        let root = unpack::root(&parent, name).unwrap();
        let unpacked = unpack::unpack(stream, Compression::None, root, &Limits::default());
        let unpacked = unpacked.unwrap_or_else(|error| panic!("{}", crate::error::chain(&error)));
        let lowers: Vec<File> = below.iter().map(|path| File::open(path).unwrap()).collect();
        unpacked.settle(&lowers).unwrap();
        self.dir.path().join(name)
    }
}

fn stacked(paths: &[&Path], marks: Marks) -> Stacked {
    Stacked::new(paths.iter().map(|path| OwnedFd::from(File::open(path).unwrap())).collect(), marks)
}

fn layer(upper: &Path, below: &[&Path]) -> Result<Vec<u8>> {
    let below: Vec<File> = below.iter().map(|path| File::open(path).unwrap()).collect();
    Ok(write_layer(&stacked(&[upper], Marks::Trusted), &below, &[], Vec::new())?.1)
}

/// Everything of a tree that a layer keeps, one line for each path; links to one file share a number.
fn listing(root: &Path) -> Vec<String> {
    fn visit(dir: &Path, prefix: &str, lines: &mut Vec<(String, Option<u64>)>) {
        let mut names: Vec<_> =
            std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        for name in names {
            let path = dir.join(&name);
            let meta = std::fs::symlink_metadata(&path).unwrap();
            let shown = format!("{prefix}/{}", name.as_bytes().escape_ascii());
            let mut line = format!(
                "{shown} {:o} {}:{} {}.{:09}",
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.mtime(),
                meta.mtime_nsec()
            );
            if meta.is_symlink() {
                line += &format!(" -> {:?}", std::fs::read_link(&path).unwrap());
            } else if meta.is_file() {
                let content = std::fs::read(&path).unwrap();
                line += &format!(" {} {}", meta.len(), crate::image::digest::Digest::of(&content));
            } else if !meta.is_dir() {
                line += &format!(" {:x}", meta.rdev());
            }
            if meta.is_file() || meta.is_dir() {
                let file = File::open(&path).unwrap();
                let mut attributes = xattr::list(&file).unwrap();
                attributes.sort();
                for attribute in attributes {
                    line += &format!(" {attribute:?}={:?}", xattr::get(&file, &attribute).unwrap());
                }
            }
            lines.push((line, (!meta.is_dir() && meta.nlink() > 1).then(|| meta.ino())));
            if meta.is_dir() {
                visit(&path, &shown, lines);
            }
        }
    }
    let mut lines = Vec::new();
    visit(root, "", &mut lines);
    // overlayfs counts names of a lower file that a whiteout hides, too: only those that are seen are links.
    let names = |inode| {
        lines.iter().enumerate().filter(move |(_, (_, other))| *other == Some(inode)).map(|(at, _)| at)
    };
    let linked = |inode: u64| names(inode).nth(1).and_then(|_| names(inode).next());
    let shown = |(line, inode): &(String, Option<u64>)| match inode.and_then(linked) {
        Some(first) => format!("{line} link {first}"),
        None => line.clone(),
    };
    lines.iter().map(shown).collect()
}

fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = TimeSpec::new(seconds, nanoseconds);
    let dir = File::open("/").unwrap();
    utimensat(&dir, path, &time, &time, UtimensatFlags::NoFollowSymlink).unwrap();
}

#[test]
fn every_kind_of_file_comes_back() {
    let Some(bench) = Bench::new() else { return };
    let tree = bench.tree("tree");
    let long = "n".repeat(200);
    std::fs::create_dir_all(tree.join(&long).join("deep/er")).unwrap();
    std::fs::write(tree.join("plain"), b"data").unwrap();
    std::fs::write(tree.join("empty"), b"").unwrap();
    std::fs::write(tree.join(OsStr::from_bytes(b"\xff\xfe\nodd")), b"odd").unwrap();
    nix::unistd::linkat(
        nix::fcntl::AT_FDCWD,
        &tree.join("plain"),
        nix::fcntl::AT_FDCWD,
        &tree.join("zlink"),
        nix::unistd::LinkatFlags::empty(),
    )
    .unwrap();
    symlink("/etc/passwd", tree.join("symlink")).unwrap();
    symlink("t".repeat(300), tree.join("long symlink")).unwrap();
    mknod(&tree.join("fifo"), SFlag::S_IFIFO, Mode::from_bits_truncate(0o620), 0).unwrap();
    let device = nix::sys::stat::makedev(0x123, 0x45678);
    mknod(&tree.join("block"), SFlag::S_IFBLK, Mode::from_bits_truncate(0o600), device).unwrap();
    mknod(&tree.join("char"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), nix::sys::stat::makedev(1, 3))
        .unwrap();
    std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();
    let sparse = File::create(tree.join("sparse")).unwrap();
    sparse.set_len(3 << 20).unwrap();
    let owned = File::create(tree.join("owned")).unwrap();
    nix::unistd::fchown(&owned, Some(4_000_000_000.into()), Some(3_000_000_000.into())).unwrap();
    owned.set_permissions(std::fs::Permissions::from_mode(0o6751)).unwrap();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    xattr::set(&owned, c"security.capability", &capability).unwrap();
    xattr::set(&owned, c"user.note", b"a=b\n\0").unwrap();
    set_time(&tree.join("owned"), 1_000_000_000, 123_456_789);
    set_time(&tree.join("symlink"), -5, 250_000_000);
    set_time(&tree.join(&long), 99, 1);

    let stream = layer(&tree, &[]).unwrap();
    assert_eq!(layer(&tree, &[]).unwrap(), stream, "the same bytes");
    let copy = bench.unpack("copy", &stream, &[]);
    let mut want = listing(&tree);
    want.retain(|line| !line.starts_with("/socket "));
    assert_eq!(listing(&copy), want);
    assert_eq!(layer(&copy, &[]).unwrap(), stream, "the copy is the same layer");
}

#[test]
fn whiteouts_and_opaque_directories() {
    let Some(bench) = Bench::new() else { return };
    let below = bench.tree("below");
    for path in ["gone", "dir/old", "kept/a", "opaque/old", "opaque/both"] {
        std::fs::create_dir_all(below.join(path).parent().unwrap()).unwrap();
        std::fs::write(below.join(path), b"below").unwrap();
    }
    let upper = bench.tree("upper");
    let hide = |path: &str| mknod(&upper.join(path), SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
    hide("gone");
    hide("dir");
    std::fs::create_dir_all(upper.join("opaque")).unwrap();
    std::fs::write(upper.join("opaque/both"), b"upper directory").unwrap();
    xattr::set(File::open(upper.join("opaque")).unwrap(), c"trusted.overlay.opaque", b"y").unwrap();
    std::fs::create_dir(upper.join("kept")).unwrap();
    std::fs::write(upper.join("kept/b"), b"upper").unwrap();
    // A container's own attribute means nothing to overlayfs.
    xattr::set(File::open(upper.join("kept")).unwrap(), c"user.overlay.opaque", b"y").unwrap();

    let stream = layer(&upper, &[&below]).unwrap();
    let copy = bench.unpack("copy", &stream, &[&below]);
    let seen = |paths: &[&Path]| write_tree(&stacked(paths, Marks::Trusted), Vec::new()).unwrap().1;
    let merged = bench.unpack("merged", &seen(&[&copy, &below]), &[]);
    let names: Vec<String> =
        listing(&merged).iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(names, ["/kept", "/kept/a", "/kept/b", "/opaque", "/opaque/both"]);
    assert_eq!(seen(&[&copy, &below]), seen(&[&upper, &below]), "the layer is what the upper directory was");

    let lowers = [File::open(&below).unwrap()];
    let changes = of_upper(&stacked(&[&upper], Marks::Trusted), &lowers, &[]).unwrap();
    let shown: Vec<String> = changes
        .iter()
        .map(|change| format!("{:?} {}", change.kind, String::from_utf8_lossy(&change.path)))
        .collect();
    let want = [
        "Deleted dir",
        "Deleted gone",
        "Changed kept",
        "Added kept/b",
        "Changed opaque",
        "Changed opaque/both",
        "Deleted opaque/old",
    ];
    assert_eq!(shown, want);
    let other =
        compare(&stacked(&[&below], Marks::Trusted), &stacked(&[&copy, &below], Marks::Trusted)).unwrap();
    assert_eq!(other, changes);
}

#[test]
fn marked_files_are_whiteouts_in_a_marked_directory() {
    let Some(bench) = Bench::new() else { return };
    let (below, upper) = (bench.tree("below/dir"), bench.tree("upper/dir"));
    std::fs::write(below.join("gone"), b"").unwrap();
    std::fs::write(below.join("kept"), b"").unwrap();
    std::fs::write(upper.join("gone"), b"").unwrap();
    xattr::set(File::open(upper.join("gone")).unwrap(), c"trusted.overlay.whiteout", b"").unwrap();
    xattr::set(File::open(&upper).unwrap(), c"trusted.overlay.opaque", b"x").unwrap();
    let (below, upper) = (below.parent().unwrap(), upper.parent().unwrap());
    let merged = write_tree(&stacked(&[upper, below], Marks::Trusted), Vec::new()).unwrap().1;
    let merged = bench.unpack("merged", &merged, &[]);
    assert!(merged.join("dir/kept").exists() && !merged.join("dir/gone").exists());
    let copy = bench.unpack("copy", &layer(upper, &[below]).unwrap(), &[below]);
    assert_eq!(std::fs::symlink_metadata(copy.join("dir/gone")).unwrap().rdev(), 0);
}

#[test]
fn what_no_layer_can_say_is_refused() {
    let Some(bench) = Bench::new() else { return };
    let tree = bench.tree("reserved");
    std::fs::write(tree.join(".wh.x"), b"").unwrap();
    assert!(matches!(layer(&tree, &[]), Err(DiffError::Reserved { .. })));
    for attribute in [c"trusted.overlay.redirect", c"trusted.overlay.metacopy"] {
        let tree = bench.tree(attribute.to_str().unwrap());
        std::fs::create_dir(tree.join("dir")).unwrap();
        xattr::set(File::open(tree.join("dir")).unwrap(), attribute, b"/etc").unwrap();
        assert!(matches!(layer(&tree, &[]), Err(DiffError::Overlay { .. })));
    }
    // As deep as a path may be, and one more; descriptors do not limit it.
    let deep = bench.tree("deep");
    let mut dir = OwnedFd::from(File::open(&deep).unwrap());
    for level in 0..2100 {
        nix::sys::stat::mkdirat(&dir, "d", Mode::S_IRWXU).unwrap();
        let flags = nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_DIRECTORY;
        dir = nix::fcntl::openat(&dir, "d", flags, Mode::empty()).unwrap();
        if level == 2000 {
            assert!(layer(&deep, &[]).is_ok());
        }
    }
    assert!(matches!(layer(&deep, &[]), Err(DiffError::TooLong { .. })));
    let parent = File::open(bench.dir.path()).unwrap();
    crate::sys::tree::remove(std::os::fd::AsFd::as_fd(&parent), Path::new("deep")).unwrap();
}

#[test]
fn what_the_runtime_made_is_no_change() {
    let Some(bench) = Bench::new() else { return };
    let (below, upper) = (bench.tree("below"), bench.tree("upper"));
    std::fs::create_dir(below.join("etc")).unwrap();
    std::fs::create_dir(upper.join("etc")).unwrap();
    std::fs::create_dir(upper.join("proc")).unwrap();
    std::fs::write(upper.join("etc/hosts"), b"").unwrap();
    let made: &[&[u8]] = &[b"etc/hosts", b"proc"];
    let lowers = [File::open(&below).unwrap()];
    let write = || write_layer(&stacked(&[&upper], Marks::Trusted), &lowers, made, Vec::new()).unwrap();
    assert_eq!(write().0, Written::default());
    assert_eq!(of_upper(&stacked(&[&upper], Marks::Trusted), &lowers, made).unwrap(), []);
    std::fs::write(upper.join("etc/own"), b"").unwrap();
    assert_eq!(write().0.entries, 2);
    let changes = of_upper(&stacked(&[&upper], Marks::Trusted), &lowers, made).unwrap();
    assert_eq!(changes.len(), 2);
}

#[derive(Debug, Clone)]
enum Op {
    File(String, Vec<u8>, u32),
    Dir(String, u32),
    Link(String),
    Hard(String, String),
    Fifo(String),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let path = || {
        proptest::collection::vec(
            prop_oneof![Just("a"), Just("b"), Just("ü"), Just("long-name-of-a-file")],
            1..5,
        )
        .prop_map(|parts| parts.join("/"))
    };
    let op = prop_oneof![
        4 => (path(), proptest::collection::vec(any::<u8>(), 0..700), 0..0o10000_u32).prop_map(|(a, b, c)| Op::File(a, b, c)),
        3 => (path(), 0..0o10000_u32).prop_map(|(path, mode)| Op::Dir(path, mode)),
        1 => path().prop_map(Op::Link),
        2 => (path(), path()).prop_map(|(a, b)| Op::Hard(a, b)),
        1 => path().prop_map(Op::Fifo),
    ];
    proptest::collection::vec(op, 0..25)
}

/// Makes what can be made; the rest is left out.
fn build(root: &Path, ops: &[Op]) {
    for (at, op) in ops.iter().enumerate() {
        let (Op::File(path, ..) | Op::Dir(path, _) | Op::Link(path) | Op::Hard(path, _) | Op::Fifo(path)) =
            op;
        let path = root.join(path);
        if std::fs::create_dir_all(path.parent().unwrap()).is_err() || path.symlink_metadata().is_ok() {
            continue;
        }
        match op {
            Op::File(_, data, mode) => {
                std::fs::write(&path, data).unwrap();
                File::open(&path).unwrap().set_permissions(std::fs::Permissions::from_mode(*mode)).unwrap();
            }
            Op::Dir(_, mode) => {
                std::fs::create_dir(&path).unwrap();
                File::open(&path).unwrap().set_permissions(std::fs::Permissions::from_mode(*mode)).unwrap();
            }
            Op::Link(_) => symlink("../somewhere", &path).unwrap(),
            Op::Hard(_, target) => {
                let at = nix::fcntl::AT_FDCWD;
                // A directory, or nothing.
                let _ =
                    nix::unistd::linkat(at, &root.join(target), at, &path, nix::unistd::LinkatFlags::empty());
                if path.symlink_metadata().is_err() {
                    continue;
                }
            }
            Op::Fifo(_) => mknod(&path, SFlag::S_IFIFO, Mode::S_IRUSR, 0).unwrap(),
        }
        set_time(&path, 1_000_000_000 + at as i64, at as i64 * 1001);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_random_tree_comes_back(ops in ops()) {
        let Some(bench) = Bench::new() else { return Ok(()) };
        let tree = bench.tree("tree");
        build(&tree, &ops);
        let stream = layer(&tree, &[]).unwrap();
        let copy = bench.unpack("copy", &stream, &[]);
        prop_assert_eq!(listing(&copy), listing(&tree));
        prop_assert_eq!(layer(&copy, &[]).unwrap(), stream);
    }

    #[test]
    fn merging_is_what_overlayfs_shows(lower in ops(), upper in ops()) {
        let Some(bench) = Bench::new() else { return Ok(()) };
        let (below, above, work) = (bench.tree("below"), bench.tree("above"), bench.tree("work"));
        build(&below, &lower);
        let stack = crate::image::snapshot::Stack { lowers: std::slice::from_ref(&below), upper: &above, work: &work };
        let Ok(mount) = crate::image::snapshot::Driver::Overlay.mount(&stack) else {
            return Ok(());
        };
        // The kernel makes the whiteouts and the copies.
        use std::os::fd::AsRawFd;
        let merged = PathBuf::from(format!("/proc/self/fd/{}/", mount.as_raw_fd()));
        let parent = File::open(&merged).unwrap();
        for name in ["a/a", "a/b", "b"] {
            let (dir, name) = name.rsplit_once('/').unwrap_or((".", name));
            if let Ok(dir) = crate::sys::root::open_beneath(std::os::fd::AsFd::as_fd(&parent), Path::new(dir), nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_DIRECTORY) {
                crate::sys::tree::remove(std::os::fd::AsFd::as_fd(&dir), Path::new(name)).unwrap();
            }
        }
        build(&merged, &upper);
        let want = listing(&merged);
        let tree = write_tree(&stacked(&[&above, &below], Marks::Trusted), Vec::new()).unwrap().1;
        let copy = bench.unpack("copy", &tree, &[]);
        prop_assert_eq!(&listing(&copy), &want);
        let stream = layer(&above, &[&below]).unwrap();
        let again = bench.unpack("again", &stream, &[&below]);
        let tree = write_tree(&stacked(&[&again, &below], Marks::Trusted), Vec::new()).unwrap().1;
        let merged = bench.unpack("both", &tree, &[]);
        prop_assert_eq!(listing(&merged), want);
    }
}
