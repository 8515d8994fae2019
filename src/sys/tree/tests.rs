use super::*;
use nix::sys::stat::Mode;
use std::os::unix::fs::symlink;

fn open(path: &Path) -> OwnedFd {
    nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()).unwrap()
}

#[test]
fn links_are_removed_and_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("keep")).unwrap();
    std::fs::write(dir.path().join("keep/canary"), "").unwrap();
    std::fs::create_dir_all(dir.path().join("tree/a/b")).unwrap();
    symlink("../../keep", dir.path().join("tree/a/link")).unwrap();
    symlink(dir.path().join("keep"), dir.path().join("tree/absolute")).unwrap();
    std::fs::write(dir.path().join("tree/a/b/file"), "").unwrap();
    let parent = open(dir.path());
    remove(parent.as_fd(), Path::new("tree")).unwrap();
    assert!(!dir.path().join("tree").exists());
    assert!(dir.path().join("keep/canary").exists());
}

#[test]
fn absent_and_single_files() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    symlink("/nowhere", dir.path().join("dangling")).unwrap();
    let parent = open(dir.path());
    for name in ["file", "dangling", "absent"] {
        remove(parent.as_fd(), Path::new(name)).unwrap();
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    for name in ["../x", "..", ".", "", "/", "a/b"] {
        assert_eq!(remove(parent.as_fd(), Path::new(name)).unwrap_err().errno, Errno::EINVAL, "{name}");
    }
}

#[test]
fn many_files_in_one_directory() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("tree")).unwrap();
    for number in 0..3000 {
        std::fs::write(dir.path().join(format!("tree/{number}")), "").unwrap();
    }
    remove(open(dir.path()).as_fd(), Path::new("tree")).unwrap();
    assert!(!dir.path().join("tree").exists());
}

/// Deeper than PATH_MAX, than a stack and than the limit of open files.
#[test]
fn depth_has_no_limit() {
    let dir = tempfile::tempdir().unwrap();
    let mut current = open(dir.path());
    for _ in 0..10_000 {
        nix::sys::stat::mkdirat(&current, "d", Mode::from_bits_truncate(0o700)).unwrap();
        current = nix::fcntl::openat(&current, "d", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
    }
    remove(open(dir.path()).as_fd(), Path::new("d")).unwrap();
    assert!(!dir.path().join("d").exists());
}

#[test]
fn threads_remove_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("kept"), b"x").unwrap();
    for (breadth, depth) in [(300, 1), (3, 5), (1, 40), (0, 0)] {
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("link")).unwrap();
        for branch in 0..breadth {
            let mut path = tree.join(branch.to_string());
            for level in 0..depth {
                path.push(level.to_string());
                std::fs::create_dir_all(&path).unwrap();
                std::fs::write(path.join("file"), b"x").unwrap();
                std::os::unix::fs::symlink(&outside, path.join("link")).unwrap();
            }
        }
        remove_with_threads(open(dir.path()).as_fd(), Path::new("tree")).unwrap();
        assert!(!tree.exists() && outside.join("kept").exists());
    }
    let top = open(dir.path());
    assert_eq!(remove_with_threads(top.as_fd(), Path::new("outside/kept")).unwrap_err().errno, Errno::EINVAL);
    remove_with_threads(top.as_fd(), Path::new("absent")).unwrap();
}
