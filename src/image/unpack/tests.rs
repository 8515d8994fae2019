//! Layers on disk, by the rows of the table of hostile layers. Entries belong to whoever runs the tests.
use super::testing::{Header, Tar};
use super::*;
use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;

mod model;

/// A directory in which layers are made; those that were made are below the next one.
struct Bench {
    dir: tempfile::TempDir,
    /// The bottom first.
    layers: Vec<PathBuf>,
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

impl Bench {
    fn new() -> Bench {
        // Not on a tmpfs, which may have no users' attributes.
        Bench { dir: tempfile::tempdir_in("/var/tmp").unwrap(), layers: Vec::new() }
    }

    fn try_layer(&mut self, tar: Tar) -> Result<Summary> {
        self.stream(tar.end(), &Limits::default())
    }

    fn stream(&mut self, stream: Vec<u8>, limits: &Limits) -> Result<Summary> {
        let name = format!("layer-{}", self.layers.len());
        let path = self.dir.path().join(&name);
        if path.exists() {
            crate::sys::tree::remove(File::open(self.dir.path()).unwrap().as_fd(), Path::new(&name)).unwrap();
        }
        let root = root(&File::open(self.dir.path()).unwrap(), &name)?;
        let diff_id = Digest::of(&stream);
        let unpacked = unpack(&stream[..], Compression::None, root, limits)?;
        assert_eq!(*unpacked.diff_id(), diff_id);
        let lowers: Vec<File> = self.layers.iter().rev().map(|path| File::open(path).unwrap()).collect();
        let summary = unpacked.settle(&lowers)?;
        self.layers.push(path);
        Ok(summary)
    }

    fn layer(&mut self, tar: Tar) -> PathBuf {
        self.try_layer(tar).unwrap_or_else(|error| panic!("{}", crate::error::chain(&error)));
        self.layers.last().unwrap().clone()
    }
}

/// One layer that is accepted.
fn good(tar: Tar) -> (Bench, PathBuf) {
    let mut bench = Bench::new();
    let layer = bench.layer(tar);
    (bench, layer)
}

/// The error of one layer's entry; nothing may appear outside of the layer.
fn bad(tar: Tar) -> EntryError {
    let mut bench = Bench::new();
    let error = bench.try_layer(tar).unwrap_err();
    let left: Vec<_> = std::fs::read_dir(bench.dir.path()).unwrap().collect();
    assert!(left.len() <= 1, "{left:?}");
    match error {
        UnpackError::Entry { source, .. } => source,
        error => panic!("{}", crate::error::chain(&error)),
    }
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn is_whiteout(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.file_type().is_char_device() && meta.rdev() == 0)
}

fn is_opaque(path: &Path) -> bool {
    let dir = File::open(path).unwrap();
    crate::sys::xattr::get(&dir, c"trusted.overlay.opaque").unwrap().as_deref() == Some(b"y")
}

#[test]
fn row_1_names_that_lead_out() {
    for name in ["../x", "a/../../x", "/../x", "a/.."] {
        assert!(matches!(bad(Tar::new().file(name, b"")), EntryError::Name(NameError::Escapes)), "{name}");
    }
}

#[test]
fn row_2_absolute_names_are_the_layers() {
    let (_bench, layer) = good(Tar::new().file("/etc/motd", b"x"));
    assert_eq!(read(layer.join("etc/motd")), "x");
}

#[test]
fn row_3_link_targets_are_verbatim() {
    let (_bench, layer) = good(Tar::new().symlink("a", "/etc/shadow").symlink("b", "../../x/./y//"));
    assert_eq!(std::fs::read_link(layer.join("a")).unwrap().to_str(), Some("/etc/shadow"));
    assert_eq!(std::fs::read_link(layer.join("b")).unwrap().as_os_str(), "../../x/./y//");
    assert!(matches!(bad(Tar::new().symlink("a", "")), EntryError::Target));
}

#[test]
fn row_4_nothing_is_written_through_a_link() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    for tar in [
        Tar::new().symlink("d", target).file("d/x", b""),
        Tar::new().symlink("d", target).dir("d/x"),
        Tar::new().symlink("d", target).file("d/.wh.x", b""),
        Tar::new().symlink("d", target).file("d/.wh..wh..opq", b""),
        Tar::new().dir("r").symlink("d", "r").file("d/x", b""),
        Tar::new().file("d", b"").file("d/x", b""),
        Tar::new().file("f", b"").hard_link("d", "f").file("d/x", b""),
        // The parent is in the cache when it is exchanged.
        Tar::new().dir("d").file("d/x", b"").symlink("d", target).file("d/y", b""),
    ] {
        assert!(matches!(bad(tar), EntryError::NotADirectory { .. }));
    }
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn row_5_a_file_replaces_a_link() {
    let outside = tempfile::NamedTempFile::new().unwrap();
    let (_bench, layer) = good(Tar::new().symlink("a", outside.path().to_str().unwrap()).file("a", b"mine"));
    assert_eq!(read(layer.join("a")), "mine");
    assert!(layer.join("a").symlink_metadata().unwrap().is_file());
    assert_eq!(read(outside.path()), "");
}

#[test]
fn row_6_hard_links_stay_in_the_image() {
    for target in ["../../etc/shadow", "/../etc/shadow"] {
        assert!(matches!(bad(Tar::new().hard_link("a", target)), EntryError::TargetEscapes));
    }
    let absolute = bad(Tar::new().hard_link("a", "/etc/shadow"));
    assert!(matches!(absolute, EntryError::LinkWithoutTarget { .. }));
    let through = bad(Tar::new().symlink("l", "/etc").hard_link("a", "l/shadow"));
    assert!(matches!(through, EntryError::LinkWithoutTarget { .. }));
}

#[test]
fn row_6_hard_link_to_a_layer_below_is_a_copy() {
    let mut bench = Bench::new();
    let mut header = Header::new(b'0', b"dir/file", 4);
    header.mode(0o640);
    let low = bench.layer(Tar::new().dir("dir").raw(header, b"data").symlink("link", "dir/file"));
    let high = bench.layer(Tar::new().dir("new").hard_link("new/a", "dir/file").hard_link("b", "new/a"));
    let (a, b) = (high.join("new/a").metadata().unwrap(), high.join("b").metadata().unwrap());
    assert_eq!(read(high.join("b")), "data");
    assert_eq!((a.ino(), a.nlink(), a.mode() & 0o7777), (b.ino(), 2, 0o640));
    assert_ne!(a.ino(), low.join("dir/file").metadata().unwrap().ino());
    // The directory's own time is put back.
    assert_eq!(high.join("new").metadata().unwrap().mtime(), 1_000_000_000);

    let gone = bench.try_layer(Tar::new().file(".wh.dir", b"").hard_link("c", "dir/file")).unwrap_err();
    assert!(matches!(gone, UnpackError::Entry { source: EntryError::LinkWithoutTarget { .. }, .. }));
    let gone = bench.try_layer(Tar::new().file("dir/.wh..wh..opq", b"").hard_link("c", "dir/file"));
    assert!(gone.is_err());
    let link = bench.try_layer(Tar::new().hard_link("c", "link")).unwrap_err();
    assert!(matches!(link, UnpackError::Entry { source: EntryError::LinkToSpecial { .. }, .. }));
    let dir = bench.try_layer(Tar::new().hard_link("c", "dir")).unwrap_err();
    assert!(matches!(dir, UnpackError::Entry { source: EntryError::LinkToSpecial { .. }, .. }));
}

#[test]
fn row_7_a_hard_link_changes_no_metadata() {
    let outside = tempfile::NamedTempFile::new().unwrap();
    outside.as_file().set_permissions(std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut link = Header::new(b'1', b"b", 0);
    link.link(b"a").mode(0o4777);
    let (_bench, layer) = good(
        Tar::new()
            .symlink("a", outside.path().to_str().unwrap())
            .pax(b'x', &[("SCHILY.xattr.user.evil", b"1")])
            .raw(link.clone(), b""),
    );
    assert!(layer.join("b").symlink_metadata().unwrap().is_symlink());
    assert_eq!(outside.path().metadata().unwrap().mode() & 0o7777, 0o600);
    let (_bench, layer) = good(Tar::new().file("a", b"").raw(link, b""));
    assert_eq!(layer.join("b").metadata().unwrap().mode() & 0o7777, 0o644);
}

#[test]
fn row_8_hard_links_that_make_no_sense() {
    for (tar, want) in [
        (Tar::new().hard_link("a", "b").file("b", b""), "after it"),
        (Tar::new().hard_link("a", "a"), "after it"),
        (Tar::new().file("a", b"").hard_link("a", "a"), "after it"),
        (Tar::new().hard_link("a", "b").hard_link("b", "a"), "after it"),
        (Tar::new().dir("d").hard_link("a", "d"), "directory"),
        (Tar::new().file("d/x", b"").hard_link("a", "d"), "directory"),
        (Tar::new().hard_link("a", "/"), "directory"),
        (Tar::new().hard_link("a", "b"), "not there"),
        (Tar::new().file(".wh.b", b"").hard_link("a", "b"), "not there"),
        (Tar::new().hard_link("a", ".wh.b").file(".wh.b", b""), "not there"),
        (Tar::new().file("d/x", b"").hard_link("d", "d/x"), "not there"),
    ] {
        let error = bad(tar).to_string();
        assert!(error.contains(want), "{error}");
    }
}

#[test]
fn row_9_the_root_stays_a_directory() {
    for name in [".", "/", "./", "//"] {
        assert!(matches!(bad(Tar::new().symlink(name, "/etc")), EntryError::Root));
        assert!(matches!(bad(Tar::new().hard_link(name, "x")), EntryError::Root));
        assert!(matches!(bad(Tar::new().node(b'6', name, 0, 0)), EntryError::Root));
    }
    let mut root = Header::new(b'5', b"./", 0);
    root.mode(0o750);
    let (_bench, layer) = good(Tar::new().raw(root, b""));
    assert_eq!(layer.metadata().unwrap().mode() & 0o7777, 0o750);
    assert_eq!(layer.metadata().unwrap().mtime(), 1_000_000_000);
}

#[test]
fn rows_10_11_15_names_of_whiteouts() {
    for name in [".wh.", ".wh..", ".wh...", "a/.wh.", ".wh..wh.plnk", ".wh..wh.aufs", ".wh.a/b"] {
        let error = bad(Tar::new().file(name, b""));
        assert!(matches!(error, EntryError::Name(NameError::Reserved)), "{name}");
    }
}

#[test]
fn row_13_whiteouts_mean_the_layers_below() {
    for first in [true, false] {
        let tar = |own: Tar, whiteout: &str| match first {
            true => Tar(own.0).file(whiteout, b""),
            false => {
                let mut tar = Tar::new().file(whiteout, b"");
                tar.0.extend_from_slice(&own.0);
                tar
            }
        };
        let (_bench, layer) = good(tar(Tar::new().file("x", b"mine"), ".wh.x"));
        assert_eq!(read(layer.join("x")), "mine");
        if is_root() {
            let (_bench, layer) = good(tar(Tar::new().file("d/x", b"mine"), ".wh.d"));
            assert_eq!(read(layer.join("d/x")), "mine");
            assert!(is_opaque(&layer.join("d")));
        }
    }
    let mut bench = Bench::new();
    bench.layer(Tar::new().file("gone/x", b""));
    let layer =
        bench.layer(Tar::new().file("gone/.wh.x", b"").file("gone/.wh.x", b"").file("d/.wh.none", b""));
    assert!(is_whiteout(&layer.join("gone/x")));
    // overlayfs would list it.
    assert!(layer.join("d").is_dir() && layer.join("d/none").symlink_metadata().is_err());
}

#[test]
fn row_14_opaque_directories() {
    if !is_root() {
        return;
    }
    let (_bench, layer) = good(
        Tar::new()
            .file("late/x", b"")
            .file("late/.wh..wh..opq", b"")
            .file("early/.wh..wh..opq", b"")
            .file("early/a/b", b"")
            .file("absent/deep/.wh..wh..opq", b""),
    );
    for dir in ["late", "early", "absent/deep"] {
        assert!(is_opaque(&layer.join(dir)), "{dir}");
    }
    assert!(!is_opaque(&layer.join("absent")) && !is_opaque(&layer.join("early/a")));
    assert!(layer.join("late/x").exists());
    let on_a_file = bad(Tar::new().file("f", b"").file("f/.wh..wh..opq", b""));
    assert!(matches!(on_a_file, EntryError::NotADirectory { .. }));
    let mut bench = Bench::new();
    assert!(bench.try_layer(Tar::new().file(".wh..wh..opq", b"")).unwrap().opaque_root);
    assert!(!bench.try_layer(Tar::new().dir("d")).unwrap().opaque_root);
}

#[test]
fn row_16_a_whiteout_is_an_empty_file() {
    for tar in [
        Tar::new().file(".wh.x", b"1"),
        Tar::new().dir(".wh.x"),
        Tar::new().symlink(".wh.x", "y"),
        Tar::new().dir("a/.wh..wh..opq"),
        Tar::new().file("a", b"").hard_link(".wh.x", "a"),
    ] {
        assert!(matches!(bad(tar), EntryError::Whiteout));
    }
}

#[test]
fn rows_17_18_19_special_files() {
    assert!(matches!(bad(Tar::new().node(b'3', "x", 0, 0)), EntryError::WhiteoutDevice));
    let (_bench, layer) = good(Tar::new().node(b'6', "fifo", 0, 0));
    assert!(layer.join("fifo").metadata().unwrap().file_type().is_fifo());
    if is_root() {
        let mut null = Header::new(b'3', b"dev/null", 0);
        null.octal(329, 8, 1).octal(337, 8, 3).mode(0o666);
        let (_bench, layer) = good(Tar::new().raw(null, b"").node(b'4', "disk", 8, 1));
        let meta = layer.join("dev/null").metadata().unwrap();
        assert!(meta.file_type().is_char_device());
        assert_eq!((meta.rdev(), meta.mode() & 0o7777), (nix::sys::stat::makedev(1, 3), 0o666));
        assert!(layer.join("disk").metadata().unwrap().file_type().is_block_device());
    }
}

#[test]
fn special_files_lost_their_set_id_bits() {
    let owner = if is_root() { 70_000 } else { nix::unistd::geteuid().as_raw().into() };
    let mut own = Header::new(b'6', b"own", 0);
    own.mode(0o6711);
    let mut others = Header::new(b'6', b"others", 0);
    others.mode(0o7644).octal(108, 8, owner);
    let (_bench, layer) = good(Tar::new().raw(own, b"").raw(others, b""));
    assert_eq!(layer.join("own").metadata().unwrap().mode() & 0o7777, 0o6711);
    assert_eq!(layer.join("others").metadata().unwrap().mode() & 0o7777, 0o7644);
}

#[test]
fn row_20_modes_owners_and_times() {
    let mut tar = Tar::new();
    let owner = if is_root() { 70_000 } else { nix::unistd::geteuid().as_raw().into() };
    for (name, kind, mode) in [
        ("suid", b'0', 0o4755),
        ("sgid", b'0', 0o2711),
        ("none", b'0', 0),
        ("all", b'0', 0o777),
        ("tmp", b'5', 0o1777),
        ("shared", b'5', 0o2775),
        ("closed", b'5', 0o500),
    ] {
        let mut header = Header::new(kind, name.as_bytes(), 0);
        header.mode(mode).octal(108, 8, owner);
        tar = tar.raw(header, b"");
    }
    let (_bench, layer) = good(tar.file("shared/x", b"1").file("closed/x", b"1"));
    for (name, mode) in [
        ("suid", 0o4755),
        ("sgid", 0o2711),
        ("none", 0),
        ("all", 0o777),
        ("tmp", 0o1777),
        ("shared", 0o2775),
        ("closed", 0o500),
    ] {
        let meta = layer.join(name).metadata().unwrap();
        assert_eq!(meta.mode() & 0o7777, mode, "{name}");
        assert_eq!(u64::from(meta.uid()), owner, "{name}");
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_000_000_000, 0), "{name}");
    }
    assert_eq!(layer.join("shared/x").metadata().unwrap().gid(), nix::unistd::getegid().as_raw());
}

#[test]
fn rows_21_to_25_attributes() {
    let capability: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let tar = Tar::new()
        .pax(
            b'x',
            &[
                ("SCHILY.xattr.user.kept", b"\0\xff"),
                ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
                ("SCHILY.xattr.user.overlay.opaque", b"y"),
                ("SCHILY.xattr.security.selinux", b"x"),
            ],
        )
        .file("file", b"");
    let tar = if is_root() {
        let mut owned = Header::new(b'0', b"cap", 0);
        owned.octal(108, 8, 5);
        tar.pax(b'x', &[("SCHILY.xattr.security.capability", &capability)]).raw(owned, b"")
    } else {
        tar
    };
    let (_bench, layer) = good(tar);
    let names = |name: &str| crate::sys::xattr::list(File::open(layer.join(name)).unwrap()).unwrap();
    let mut kept = names("file");
    // Where the host labels every file.
    kept.retain(|name| name.as_c_str() != c"security.selinux");
    assert_eq!(kept, [c"user.kept".to_owned()]);
    if is_root() {
        let file = File::open(layer.join("cap")).unwrap();
        assert_eq!(
            crate::sys::xattr::get(&file, c"security.capability").unwrap().as_deref(),
            Some(&capability[..])
        );
    }
    let broken = bad(Tar::new().pax(b'x', &[("SCHILY.xattr.security.capability", b"x")]).file("a", b""));
    assert!(matches!(broken, EntryError::Attribute(_)));
}

#[test]
fn row_31_names_that_are_too_long() {
    let long = |path: Vec<u8>| bad(Tar::new().pax(b'x', &[("path", &path)]).dir("x"));
    assert!(matches!(long(vec![b'a'; 256]), EntryError::Name(NameError::ComponentTooLong)));
    assert!(matches!(long(b"a/".repeat(10_000)), EntryError::Name(NameError::TooLong)));
    let deepest = b"d/".repeat(2000);
    let (_bench, layer) =
        good(Tar::new().pax(b'x', &[("path", &[&deepest[..], b"f"].concat())]).file("x", b""));
    assert!(layer.join("d/d/d").is_dir());
    let mut bench = Bench::new();
    let limits = Limits { names: 100_000, ..Limits::default() };
    let error =
        bench.stream(Tar::new().pax(b'x', &[("path", &deepest)]).dir("x").end(), &limits).unwrap_err();
    assert!(matches!(error, UnpackError::Entry { source: EntryError::TooManyNames { .. }, .. }));
}

#[test]
fn row_33_the_last_entry_of_a_name_wins() {
    let (_bench, layer) = good(
        Tar::new()
            .file("a", b"1")
            .dir("a")
            .file("a/below", b"2")
            .symlink("a", "x")
            .file("a", b"3")
            .file("twice", b"longer")
            .file("twice", b"short")
            .dir("dir")
            .file("dir/kept", b"")
            .dir("dir")
            .file("gone/x/y", b"")
            .file("gone", b"file")
            .dir("gone")
            .node(b'6', "pipe", 0, 0)
            .symlink("pipe", "y"),
    );
    assert_eq!(read(layer.join("a")), "3");
    assert_eq!(read(layer.join("twice")), "short");
    assert!(layer.join("dir/kept").exists());
    assert_eq!(std::fs::read_dir(layer.join("gone")).unwrap().count(), 0);
    assert!(layer.join("pipe").symlink_metadata().unwrap().is_symlink());
    // A link that was pending is replaced, and so is what waited below a directory.
    let (_bench, layer) = good(
        Tar::new().hard_link("l", "nowhere").file("l", b"x").hard_link("d/l", "nowhere").file("d", b"y"),
    );
    assert_eq!((read(layer.join("l")), read(layer.join("d"))), ("x".into(), "y".into()));
}

#[test]
fn row_35_extreme_times_are_clamped() {
    for time in ["9223372036854775807", "-9223372036854775808", "99999999999999999999.9", "-1.5"] {
        let (_bench, layer) =
            good(Tar::new().pax(b'x', &[("mtime", time.as_bytes())]).file("a", b"").dir("d"));
        assert!(layer.join("a").exists(), "{time}");
    }
}

#[test]
fn row_36_entries_are_counted() {
    let mut tar = Tar::new();
    for at in 0..20 {
        tar = tar.file(format!("{at}"), b"");
    }
    let mut bench = Bench::new();
    let limits = Limits { entries: 19, ..Limits::default() };
    let error = bench.stream(tar.clone().end(), &limits).unwrap_err();
    assert!(matches!(error, UnpackError::TooManyEntries { limit: 19 }));
    let summary = bench.stream(tar.end(), &Limits { entries: 20, ..Limits::default() }).unwrap();
    assert_eq!(summary, Summary { size: 0, entries: 20, opaque_root: false });
}

#[test]
fn row_40_a_layer_truncated_at_every_byte() {
    let stream = Tar::new().dir("a").file("a/b", b"data").symlink("a/c", "d").file(".wh.e", b"").end();
    let mut bench = Bench::new();
    for length in 0..stream.len() {
        let error = bench.stream(stream[..length].to_vec(), &Limits::default()).unwrap_err();
        assert!(matches!(error, UnpackError::Tar(tar::TarError::Truncated)), "{length}: {error}");
    }
    bench.stream(stream, &Limits::default()).unwrap();
}

#[test]
fn implicit_parents_take_after_the_layers_below() {
    let mut bench = Bench::new();
    let mut dir = Header::new(b'5', b"dir", 0);
    dir.mode(0o1770);
    let low = Tar::new()
        .pax(b'x', &[("mtime", b"1234.5"), ("SCHILY.xattr.user.kept", b"1")])
        .raw(dir, b"")
        .dir("usr")
        .dir("usr/bin")
        .symlink("bin", "usr/bin")
        .dir("hidden");
    bench.layer(low);
    bench.layer(Tar::new().file(".wh.hidden", b""));
    let high = bench
        .layer(Tar::new().file("dir/sub/x", b"").file("new/x", b"").file("bin/x", b"").file("hidden/x", b""));
    let meta = high.join("dir").metadata().unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.mtime(), meta.mtime_nsec()), (0o1770, 1234, 500_000_000));
    let attribute = crate::sys::xattr::get(File::open(high.join("dir")).unwrap(), c"user.kept").unwrap();
    assert_eq!(attribute.as_deref(), Some(&b"1"[..]));
    for fresh in ["new", "dir/sub", "bin", "hidden"] {
        let meta = high.join(fresh).symlink_metadata().unwrap();
        assert!(meta.is_dir());
        assert_eq!((meta.mode() & 0o7777, meta.mtime()), (0o755, 0), "{fresh}");
    }
}

#[test]
fn content_survives_any_size_around_the_buffers() {
    let mut tar = Tar::new();
    let sizes = [0, 1, 511, 512, 513, (256 << 10) - 1024, 256 << 10, (256 << 10) + 1, 600_000];
    let content = |size: usize| (0..size).map(|at| (at % 251) as u8).collect::<Vec<u8>>();
    for size in sizes {
        tar = tar.file(format!("{size}"), content(size));
    }
    let (_bench, layer) = good(tar);
    for size in sizes {
        assert!(std::fs::read(layer.join(format!("{size}"))).unwrap() == content(size), "{size}");
    }
}

#[test]
fn the_umask_of_the_process_does_not_matter() {
    // Threads of the unpacker have their own; the test's stays as it is.
    let before = nix::sys::stat::umask(Mode::from_bits_truncate(0o077));
    let (_bench, layer) = good(Tar::new().file("a", b"").dir("d"));
    let after = nix::sys::stat::umask(before);
    assert_eq!(after.bits(), 0o077);
    assert_eq!(layer.join("a").metadata().unwrap().mode() & 0o777, 0o644);
    assert_eq!(layer.join("d").metadata().unwrap().mode() & 0o777, 0o755);
}

#[test]
fn a_blob_that_breaks_off_is_the_cause() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("the network is gone"))
        }
    }
    let stream = Tar::new().file("a", [0; 4096]).end();
    let dir = tempfile::tempdir().unwrap();
    let root = root(&File::open(dir.path()).unwrap(), "fs").unwrap();
    let blob = stream[..2000].chain(Broken);
    let error = unpack(blob, Compression::None, root, &Limits::default()).unwrap_err();
    assert!(crate::error::chain(&error).contains("the network is gone"));
}
