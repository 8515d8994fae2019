use super::*;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A host directory with a canary file, and a root below it.
struct Tree {
    host: tempfile::TempDir,
    root: Root,
}

impl Tree {
    fn new() -> Tree {
        let host = tempfile::tempdir().unwrap();
        std::fs::write(host.path().join("canary"), "host").unwrap();
        std::fs::create_dir(host.path().join("root")).unwrap();
        let root = Root::open_host(&host.path().join("root")).unwrap();
        Tree { host, root }
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.host.path().join("root").join(inside)
    }

    /// What lies beside the root on the host.
    fn outside(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.host.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn rwx() -> Mode {
    Mode::from_bits_truncate(0o755)
}

#[test]
fn paths_stay_inside() {
    let tree = Tree::new();
    symlink("../../../../canary", tree.path("up")).unwrap();
    symlink(tree.host.path().join("canary"), tree.path("absolute")).unwrap();
    for path in ["up", "absolute", "../canary", "/../../canary", "x/../../canary"] {
        let error = tree.root.open(Path::new(path), OFlag::O_RDONLY).unwrap_err();
        assert_eq!(error.errno, Errno::ENOENT, "{path}");
    }
    assert!(tree.root.open(Path::new(""), OFlag::O_PATH | OFlag::O_DIRECTORY).is_ok());
    assert!(tree.root.open(Path::new("/.."), OFlag::O_PATH | OFlag::O_DIRECTORY).is_ok());
}

#[test]
fn magic_links_are_refused() {
    let proc = Root::open_host(Path::new("/proc")).unwrap();
    let error = proc.open(Path::new("self/root"), OFlag::O_PATH).unwrap_err();
    assert_eq!(error.errno, Errno::ELOOP);
}

#[test]
fn last_component_is_not_followed_where_asked() {
    let tree = Tree::new();
    std::fs::write(tree.path("file"), "inside").unwrap();
    symlink("/file", tree.path("link")).unwrap();
    assert_eq!(tree.root.read_file_bounded(Path::new("link"), 10).unwrap(), b"inside");
    let error = tree.root.open_no_follow(Path::new("link"), OFlag::O_RDONLY).unwrap_err();
    assert_eq!(error.errno, Errno::ELOOP);
    assert_eq!(tree.root.readlink(Path::new("link")).unwrap(), Path::new("/file"));
    let error = tree.root.open_no_links(Path::new("link"), OFlag::O_PATH).unwrap_err();
    assert_eq!(error.errno, Errno::ELOOP);
}

#[test]
fn mkdir_all_stays_inside() {
    let tree = Tree::new();
    symlink("../../../evil", tree.path("dangling")).unwrap();
    symlink("/deep/er", tree.path("absolute")).unwrap();
    symlink("loop", tree.path("loop")).unwrap();
    let cases = [
        ("a/b/c", "a/b/c"),
        ("/x", "x"),
        ("dangling/y", "evil/y"),
        ("absolute/z", "deep/er/z"),
        ("../../../../q", "q"),
        ("a/../../../../r", "r"),
        ("a/./s/", "a/s"),
    ];
    for (asked, made) in cases {
        let fd = tree.root.mkdir_all(Path::new(asked), rwx()).unwrap();
        let (there, opened) =
            (std::fs::metadata(tree.path(made)).unwrap(), nix::sys::stat::fstat(&fd).unwrap());
        assert_eq!(std::os::unix::fs::MetadataExt::ino(&there), opened.st_ino, "{asked}");
    }
    assert_eq!(tree.root.mkdir_all(Path::new("loop/x"), rwx()).unwrap_err().errno, Errno::ELOOP);
    std::fs::write(tree.path("file"), "").unwrap();
    assert_eq!(tree.root.mkdir_all(Path::new("file/x"), rwx()).unwrap_err().errno, Errno::ENOTDIR);
    assert_eq!(tree.outside(), ["canary", "root"]);
}

#[test]
fn create_file_never_follows_or_truncates() {
    let tree = Tree::new();
    symlink(tree.host.path().join("evil"), tree.path("link")).unwrap();
    std::fs::write(tree.path("there"), "content").unwrap();
    for name in ["link", "there"] {
        let error = tree.root.create_file(Path::new(name), rwx()).unwrap_err();
        assert_eq!(error.errno, Errno::EEXIST, "{name}");
    }
    tree.root.create_file(Path::new("new/dir/file"), Mode::from_bits_truncate(0o600)).unwrap();
    assert_eq!(std::fs::metadata(tree.path("new/dir/file")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(tree.root.create_file(Path::new("a/.."), rwx()).unwrap_err().errno, Errno::EINVAL);
    assert_eq!(tree.outside(), ["canary", "root"]);
}

#[test]
fn nodes_and_links_are_made() {
    let tree = Tree::new();
    tree.root.symlink(Path::new("/proc/self/fd"), Path::new("dev/fd")).unwrap();
    assert_eq!(std::fs::read_link(tree.path("dev/fd")).unwrap(), Path::new("/proc/self/fd"));
    tree.root.mknod(Path::new("dev/fifo"), SFlag::S_IFIFO, rwx(), 0).unwrap();
    assert!(std::fs::metadata(tree.path("dev/fifo")).unwrap().file_type().is_fifo());
}

/// CVE-2026-47262: a hostile /etc/passwd that is huge, a FIFO or a link to the host's.
#[test]
fn reading_is_bounded_and_regular() {
    let tree = Tree::new();
    std::fs::write(tree.path("ten"), "0123456789").unwrap();
    std::fs::File::create(tree.path("sparse")).unwrap().set_len(4 << 30).unwrap();
    nix::unistd::mkfifo(&tree.path("fifo"), Mode::from_bits_truncate(0o600)).unwrap();
    symlink("/etc/shadow", tree.path("shadow")).unwrap();
    let read = |name: &str, max| tree.root.read_file_bounded(Path::new(name), max);
    assert_eq!(read("ten", 10).unwrap(), b"0123456789");
    assert_eq!(read("ten", 9).unwrap_err().errno, Errno::EFBIG);
    assert_eq!(read("sparse", 1 << 20).unwrap_err().errno, Errno::EFBIG);
    assert_eq!(read("fifo", 10).unwrap_err().errno, Errno::EINVAL);
    assert_eq!(read(".", 10).unwrap_err().errno, Errno::EINVAL);
    assert_eq!(read("shadow", 1 << 20).unwrap_err().errno, Errno::ENOENT);
}

/// CVE-2021-30465 and CVE-2024-45310: somebody exchanges a directory with a link to the host all the time.
#[test]
fn mkdir_all_survives_an_exchanging_racer() {
    let tree = Tree::new();
    std::fs::create_dir(tree.host.path().join("outside")).unwrap();
    std::fs::create_dir(tree.path("swap")).unwrap();
    symlink("../../outside", tree.path("other")).unwrap();
    std::fs::create_dir(tree.path("outside")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let racer = {
        let (stop, dir) = (Arc::clone(&stop), tree.path(""));
        std::thread::spawn(move || {
            let dir = std::fs::File::open(dir).unwrap();
            let flags = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
            while !stop.load(Ordering::Relaxed) {
                nix::fcntl::renameat2(&dir, "swap", &dir, "other", flags).unwrap();
            }
        })
    };
    for number in 0..2000 {
        let path = PathBuf::from(format!("swap/{number}/x"));
        // The racer may win and make it fail; it must not make it escape.
        let _ = tree.root.mkdir_all(&path, rwx());
        let _ = tree.root.create_file(&PathBuf::from(format!("swap/file{number}")), rwx());
    }
    stop.store(true, Ordering::Relaxed);
    racer.join().unwrap();
    assert_eq!(std::fs::read_dir(tree.host.path().join("outside")).unwrap().count(), 0);
    assert_eq!(tree.outside(), ["canary", "outside", "root"]);
}
