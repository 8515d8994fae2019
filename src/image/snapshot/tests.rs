//! The contract of snapshots, held against each driver.
use super::*;
use crate::sys::xattr;
use nix::sys::stat::{Mode, SFlag};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

/// Layers (the top one first) and the directories of two snapshots over them.
struct Bench {
    dir: tempfile::TempDir,
    lowers: Vec<PathBuf>,
}

impl Bench {
    fn new(layers: usize) -> Bench {
        // A file system that can carry an overlay.
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let lowers: Vec<PathBuf> = (0..layers).map(|at| dir.path().join(format!("layer,{at}:x"))).collect();
        let places = ["one", "two"]
            .into_iter()
            .flat_map(|name| ["upper", "work"].map(|part| format!("{name}/{part}")));
        for path in lowers.iter().cloned().chain(places.map(|place| dir.path().join(place))) {
            std::fs::create_dir_all(path).unwrap();
        }
        Bench { dir, lowers }
    }

    fn with<T>(&self, name: &str, work: impl FnOnce(&Stack<'_>) -> T) -> T {
        let place = self.dir.path().join(name);
        work(&Stack { lowers: &self.lowers, upper: &place.join("upper"), work: &place.join("work") })
    }

    fn mount(&self, driver: Driver, name: &str) -> Tree {
        self.with(name, |stack| {
            Tree(driver.mount(stack).unwrap_or_else(|error| panic!("{}", crate::error::chain(&error))))
        })
    }

    fn whiteout(&self, layer: usize, path: &str) {
        let path = self.lowers[layer].join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        nix::sys::stat::mknod(&path, SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
    }

    fn opaque(&self, layer: usize, path: &str) {
        let dir = File::open(self.lowers[layer].join(path)).unwrap();
        xattr::set(&dir, overlay::opaque_attribute(), b"y").unwrap();
    }

    fn write(&self, layer: usize, path: &str, content: &str) {
        let path = self.lowers[layer].join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}

/// A mounted snapshot, entered through its descriptor.
struct Tree(OwnedFd);

impl Tree {
    fn path(&self, path: &str) -> PathBuf {
        use std::os::fd::AsRawFd;
        PathBuf::from(format!("/proc/self/fd/{}/{path}", self.0.as_raw_fd()))
    }

    fn read(&self, path: &str) -> Option<String> {
        lookup(self.0.as_fd(), Path::new(path), 1 << 20)
            .unwrap()
            .map(|bytes| String::from_utf8(bytes).unwrap())
    }

    fn names(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(path)).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn write(&self, path: &str, content: &str) {
        std::fs::write(self.path(path), content).unwrap();
    }
}

/// Every name below a directory with what cannot be seen from outside if it changes.
fn listing(dir: &Path) -> BTreeMap<PathBuf, (u64, u32, i64, i64, u64)> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(path) = waiting.pop() {
        let stat = path.symlink_metadata().unwrap();
        if stat.is_dir() {
            waiting.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        found.insert(path, (stat.ino(), stat.mode(), stat.mtime(), stat.mtime_nsec(), stat.size()));
    }
    found
}

/// Whether these tests may mount; in a container without that right they tell nothing.
fn may_mount() -> bool {
    let bench = Bench::new(1);
    !nix::unistd::geteuid().is_root()
        || bench.with("one", |stack| !matches!(Driver::Overlay.mount(stack), Err(SnapshotError::Mount { source, .. }) if source.errno == Errno::EPERM))
}

fn the_layers_are_merged(driver: Driver) {
    let bench = Bench::new(3);
    bench.write(2, "etc/word", "low");
    bench.write(2, "etc/only-low", "low");
    bench.write(2, "gone/file", "low");
    bench.write(2, "hidden/a/b", "low");
    bench.write(2, "becomes-file/x", "low");
    bench.write(2, "becomes-dir", "low");
    bench.write(1, "etc/word", "middle");
    bench.write(1, "hidden/c", "middle");
    bench.opaque(1, "hidden");
    bench.whiteout(1, "gone");
    bench.write(1, "becomes-file", "middle");
    bench.write(1, "becomes-dir/y", "middle");
    bench.write(0, "gone/again", "top");
    bench.write(0, "hidden/d", "top");
    bench.whiteout(0, "etc/only-low");
    let tree = bench.mount(driver, "one");
    assert_eq!(tree.names(""), ["becomes-dir", "becomes-file", "etc", "gone", "hidden"]);
    assert_eq!(tree.names("etc"), ["word"]);
    assert_eq!(tree.read("etc/word").as_deref(), Some("middle"));
    assert_eq!(tree.names("gone"), ["again"]);
    assert_eq!(tree.names("hidden"), ["c", "d"]);
    assert_eq!(tree.read("becomes-file").as_deref(), Some("middle"));
    assert_eq!(tree.names("becomes-dir"), ["y"]);
    let attributes = xattr::list(File::open(tree.path("hidden")).unwrap()).unwrap();
    assert!(!attributes.iter().any(|name| name.to_bytes().ends_with(b"overlay.opaque")), "{attributes:?}");
}

fn everything_of_a_file_is_the_layers(driver: Driver) {
    let bench = Bench::new(2);
    let low = &bench.lowers[1];
    bench.write(1, "dir/file", "content");
    let file = File::options().write(true).open(low.join("dir/file")).unwrap();
    file.set_permissions(PermissionsExt::from_mode(0o4751)).unwrap();
    let has_attributes = xattr::set(&file, c"user.word", b"value").is_ok();
    if !crate::sys::host::in_user_namespace() {
        nix::unistd::fchown(&file, Some(1234.into()), Some(5678.into())).unwrap();
        file.set_permissions(PermissionsExt::from_mode(0o4751)).unwrap();
        nix::sys::stat::mknod(
            &low.join("null"),
            SFlag::S_IFCHR,
            Mode::from_bits_truncate(0o666),
            nix::sys::stat::makedev(1, 3),
        )
        .unwrap();
    }
    std::os::unix::fs::symlink("/dir/file", low.join("link")).unwrap();
    nix::unistd::mkfifo(&low.join("fifo"), Mode::from_bits_truncate(0o622)).unwrap();
    let flags = nix::unistd::LinkatFlags::empty();
    let here = nix::fcntl::AT_FDCWD;
    nix::unistd::linkat(here, &low.join("dir/file"), here, &low.join("second"), flags).unwrap();
    let time = nix::sys::time::TimeSpec::new(1_000_000_000, 123_456_789);
    for path in ["dir/file", "dir"] {
        nix::sys::stat::futimens(File::open(low.join(path)).unwrap(), &time, &time).unwrap();
    }
    let tree = bench.mount(driver, "one");
    let shown = |path: &str| {
        let stat = tree.path(path).symlink_metadata().unwrap();
        (stat.mode(), stat.uid(), stat.gid(), stat.mtime(), stat.mtime_nsec(), stat.rdev(), stat.nlink())
    };
    for name in ["dir/file", "dir", "link", "fifo", "second", "null"] {
        let Ok(stat) = low.join(name).symlink_metadata() else { continue };
        let want =
            (stat.mode(), stat.uid(), stat.gid(), stat.mtime(), stat.mtime_nsec(), stat.rdev(), stat.nlink());
        // A merged directory has a count of links of its own.
        let want = if stat.is_dir() {
            (want.0, want.1, want.2, want.3, want.4, want.5, shown(name).6)
        } else {
            want
        };
        assert_eq!(shown(name), want, "{name}");
    }
    let inode = |path: &str| tree.path(path).symlink_metadata().unwrap().ino();
    assert_eq!(inode("second"), inode("dir/file"));
    assert_eq!(std::fs::read_link(tree.path("link")).unwrap(), Path::new("/dir/file"));
    assert_eq!(tree.read("link").as_deref(), Some("content"), "a link is followed in the tree");
    assert!(tree.path("fifo").symlink_metadata().unwrap().file_type().is_fifo());
    if has_attributes {
        let value = xattr::get(File::open(tree.path("dir/file")).unwrap(), c"user.word").unwrap();
        assert_eq!(value.as_deref(), Some(&b"value"[..]));
    }
}

fn snapshots_do_not_see_each_other_nor_touch_the_layers(driver: Driver) {
    let bench = Bench::new(2);
    bench.write(1, "etc/word", "low");
    bench.write(1, "etc/gone", "low");
    bench.write(0, "dir/a", "top");
    let before: Vec<_> = bench.lowers.iter().map(|lower| listing(lower)).collect();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    {
        let (one, two) = (bench.mount(driver, "one"), bench.mount(driver, "two"));
        one.write("etc/word", "changed");
        one.write("new", "new");
        std::fs::remove_file(one.path("etc/gone")).unwrap();
        std::fs::rename(one.path("dir/a"), one.path("dir/b")).unwrap();
        // Removed and made again it is empty: what the layers have there must not shine through.
        std::fs::remove_file(one.path("dir/b")).unwrap();
        std::fs::remove_dir(one.path("dir")).unwrap();
        std::fs::create_dir(one.path("dir")).unwrap();
        File::open(one.path("etc")).unwrap().set_permissions(PermissionsExt::from_mode(0o700)).unwrap();
        assert_eq!(two.read("etc/word").as_deref(), Some("low"));
        assert_eq!(two.names("etc"), ["gone", "word"]);
        assert_eq!(two.names("dir"), ["a"]);
        assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts);
    }
    // The next mount has what the first one wrote, under `upper` alone.
    let again = bench.mount(driver, "one");
    assert_eq!(again.read("etc/word").as_deref(), Some("changed"));
    assert_eq!(again.names("etc"), ["word"]);
    assert_eq!(again.names(""), ["dir", "etc", "new"]);
    assert_eq!(again.names("dir"), Vec::<String>::new());
    assert_eq!(again.path("etc").metadata().unwrap().mode() & 0o7777, 0o700);
    drop(again);
    assert_eq!(bench.lowers.iter().map(|lower| listing(lower)).collect::<Vec<_>>(), before);
    let upper = bench.dir.path().join("one/upper");
    assert_eq!(std::fs::read_to_string(upper.join("etc/word")).unwrap(), "changed");
    match driver.upper() {
        Upper::Layer => {
            let gone = upper.join("etc/gone").symlink_metadata().unwrap();
            assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
            let opaque =
                xattr::get(File::open(upper.join("dir")).unwrap(), overlay::opaque_attribute()).unwrap();
            assert_eq!(opaque.as_deref(), Some(&b"y"[..]));
        }
        Upper::Whole => assert!(!upper.join("etc/gone").exists()),
    }
    // Nothing of it is anywhere else.
    let dir = File::open(bench.dir.path()).unwrap();
    crate::sys::tree::remove(dir.as_fd(), Path::new("one")).unwrap();
    assert_eq!(bench.mount(driver, "two").read("etc/word").as_deref(), Some("low"));
}

fn many_layers(driver: Driver) {
    let bench = Bench::new(128);
    for at in 0..128 {
        bench.write(at, "top", &at.to_string());
        bench.write(at, &format!("dir/of-{at}"), "");
    }
    let tree = bench.mount(driver, "one");
    assert_eq!(tree.read("top").as_deref(), Some("0"));
    assert_eq!(tree.names("dir").len(), 128);
    tree.write("top", "written");
    drop(tree);
    assert_eq!(bench.mount(driver, "one").read("top").as_deref(), Some("written"));
}

fn what_is_missing_is_named(driver: Driver) {
    let mut bench = Bench::new(1);
    let missing = bench.dir.path().join("absent");
    bench.lowers.push(missing.clone());
    let error = bench.with("one", |stack| driver.mount(stack)).unwrap_err();
    assert!(
        crate::error::chain(&error).contains(missing.to_str().unwrap()),
        "{}",
        crate::error::chain(&error)
    );
    bench.lowers.clear();
    assert!(matches!(bench.with("one", |stack| driver.mount(stack)), Err(SnapshotError::NoLayers)));
    // What failed is no obstacle to the next mount.
    bench.lowers.push(bench.dir.path().join("layer,0:x"));
    bench.write(0, "file", "there");
    assert_eq!(bench.mount(driver, "one").read("file").as_deref(), Some("there"));
}

macro_rules! suite {
    ($($module:ident: $driver:expr;)*) => {$(
        mod $module {
            use super::*;

            suite!(@tests $driver;
                the_layers_are_merged
                everything_of_a_file_is_the_layers
                snapshots_do_not_see_each_other_nor_touch_the_layers
                many_layers
                what_is_missing_is_named
            );
        }
    )*};
    (@tests $driver:expr; $($test:ident)*) => {$(
        #[test]
        fn $test() {
            if may_mount() {
                super::$test($driver);
            }
        }
    )*};
}

suite! {
    by_overlay: Driver::Overlay;
    by_copy: Driver::Copy;
}

/// What a kill left: files of half a copy, under the mark that says so.
#[test]
fn a_copy_that_was_broken_off_begins_again() {
    if !may_mount() {
        return;
    }
    let bench = Bench::new(1);
    bench.write(0, "dir/file", "whole");
    std::fs::write(bench.dir.path().join("one/work/copying"), "").unwrap();
    std::fs::create_dir(bench.dir.path().join("one/upper/dir")).unwrap();
    std::fs::write(bench.dir.path().join("one/upper/dir/file"), "ha").unwrap();
    std::fs::write(bench.dir.path().join("one/upper/other"), "").unwrap();
    let tree = bench.with("one", |stack| Tree(super::mount(Choice::Auto, stack).unwrap()));
    assert_eq!(tree.names(""), ["dir"]);
    assert_eq!(tree.read("dir/file").as_deref(), Some("whole"));
}

#[test]
fn a_snapshot_keeps_the_driver_that_it_began_with() {
    if !may_mount() {
        return;
    }
    let bench = Bench::new(1);
    let (overlay, copy) = (Choice::Only(Driver::Overlay), Choice::Only(Driver::Copy));
    let mount = |name: &str, choice| bench.with(name, |stack| super::mount(choice, stack).map(Tree));
    mount("one", overlay).unwrap().write("file", "kept");
    assert!(matches!(mount("one", copy), Err(SnapshotError::OtherDriver { .. })));
    assert_eq!(mount("one", Choice::Auto).unwrap().read("file").as_deref(), Some("kept"));
    mount("two", copy).unwrap().write("file", "kept");
    assert_eq!(mount("two", overlay).unwrap().read("file").as_deref(), Some("kept"));
    assert_eq!(bench.with("two", Driver::of), Driver::Copy);
}

/// The upper directory of an overlay cannot lie on an overlay; a tmpfs of a user namespace cannot either before 5.11.
#[test]
fn where_overlayfs_cannot_work_the_layers_are_copied() {
    if !may_mount() || crate::sys::host::in_user_namespace() {
        return;
    }
    let bench = Bench::new(1);
    bench.write(0, "file", "there");
    let outer = bench.mount(Driver::Overlay, "two");
    for part in ["upper", "work"] {
        std::fs::create_dir_all(outer.path(part)).unwrap();
    }
    let (upper, work) = (outer.path("upper"), outer.path("work"));
    let stack = Stack { lowers: &bench.lowers, upper: &upper, work: &work };
    assert!(matches!(Driver::Overlay.mount(&stack), Err(error) if overlay::is_unsuitable(&error)));
    let inner = Tree(super::mount(Choice::Auto, &stack).unwrap());
    assert_eq!(inner.read("file").as_deref(), Some("there"));
    assert_eq!(Driver::of(&stack), Driver::Copy);
}

/// The same suite as root of a user namespace, where overlayfs has only attributes that a user may write.
#[test]
fn in_a_user_namespace() {
    if !may_mount() || crate::sys::host::in_user_namespace() {
        return;
    }
    let output = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount"])
        .arg(std::env::current_exe().unwrap())
        .args(["image::snapshot::tests::by_", "--test-threads=1"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    // A host may forbid user namespaces.
    if String::from_utf8_lossy(&output.stderr).contains("unshare failed") {
        return;
    }
    assert!(output.status.success() && told.contains("test result: ok"), "{told}");
}

#[test]
fn choices() {
    for text in ["auto", "overlay", "copy"] {
        assert_eq!(text.parse::<Choice>().unwrap().to_string(), text);
    }
    assert!(matches!("vfs".parse::<Choice>(), Err(SnapshotError::UnknownDriver { .. })));
}
