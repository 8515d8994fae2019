//! The host's view of cgroups, the same for v1, hybrid and v2.

use std::path::{Path, PathBuf};

/// One mounted hierarchy.
#[derive(Debug, Clone)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Its v1 controllers (`memory`, or `name=systemd`); empty for the unified one.
    pub controllers: Vec<String>,
}

/// All mounted hierarchies.
pub fn hierarchies() -> Vec<Hierarchy> {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let found: Vec<_> = mountinfo.lines().filter_map(parse).collect();
    assert!(!found.is_empty(), "missing need: a mounted cgroup hierarchy");
    found
}

fn parse(line: &str) -> Option<Hierarchy> {
    let (mount, source) = line.split_once(" - ")?;
    let mount = PathBuf::from(mount.split(' ').nth(4)?);
    let mut source = source.split(' ');
    let kind = source.next()?;
    let options = source.nth(1).unwrap_or_default();
    match kind {
        "cgroup2" => Some(Hierarchy { mount, controllers: Vec::new() }),
        "cgroup" => {
            let general = ["rw", "ro", "xattr", "noprefix", "clone_children"];
            let controllers =
                options.split(',').filter(|word| !general.contains(word)).map(str::to_owned).collect();
            Some(Hierarchy { mount, controllers })
        }
        _ => None,
    }
}

/// True when cgroup v2 alone is mounted.
pub fn is_v2() -> bool {
    hierarchies().iter().all(|hierarchy| hierarchy.controllers.is_empty())
}

/// The mount point of the hierarchy that has this controller.
pub fn of(controller: &str) -> PathBuf {
    let all = hierarchies();
    all.iter()
        .find(|hierarchy| hierarchy.controllers.iter().any(|name| name == controller))
        .or_else(|| all.iter().find(|hierarchy| hierarchy.controllers.is_empty()))
        .unwrap_or_else(|| panic!("missing need: the cgroup controller {controller}"))
        .mount
        .clone()
}

/// A value of a cgroup: file `v1` on a v1 hierarchy, `v2` on the unified one. `path` is as in cgroupsPath.
#[track_caller]
pub fn value(controller: &str, path: &str, v1: &str, v2: &str) -> String {
    let file = if is_v2() { v2 } else { v1 };
    let file = of(controller).join(path.trim_start_matches('/')).join(file);
    std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()))
        .trim()
        .to_owned()
}

/// Every cgroup directory, in any hierarchy, whose name contains `token`.
pub fn named(token: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for hierarchy in hierarchies() {
        walk(&hierarchy.mount, token, 8, &mut found);
    }
    found
}

fn walk(dir: &Path, token: &str, depth: u32, found: &mut Vec<PathBuf>) {
    // A cgroup of another test may go while we look.
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        if entry.file_name().to_string_lossy().contains(token) {
            found.push(entry.path());
        } else if depth > 0 {
            walk(&entry.path(), token, depth - 1, found);
        }
    }
}

/// The pids in a cgroup of any hierarchy and in those below it.
pub fn pids(path: &Path) -> Vec<i32> {
    let text = std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    if let Ok(entries) = std::fs::read_dir(path) {
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            pids.extend(self::pids(&entry.path()));
        }
    }
    pids
}
