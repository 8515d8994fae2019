//! Which cgroup hierarchies this host has, where they are mounted, and where we are in them.
use std::io::Read;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use serde::{Deserialize, Serialize};

use super::{Error, Result};
use crate::sys::SysError;

/// Where every distribution mounts cgroups (systemd's file hierarchy requirements).
const MOUNT_POINT: &str = "/sys/fs/cgroup";
/// `/proc/self/cgroup` has a line of a path (4 KiB at most) for each of at most 15 hierarchies.
const MAX_SELF_CGROUP: u64 = 64 << 10;
/// Ends the search in a mount table that hides the hierarchies behind a flood of other mounts.
const MAX_MOUNTINFO: u64 = 32 << 20;

/// How the host arranges its controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// One v1 hierarchy for each controller or set of controllers.
    V1,
    /// v1 hierarchies, and beside them a v2 hierarchy whose controllers are bound to v1.
    Hybrid,
    /// The v2 hierarchy alone.
    Unified,
}

/// A controller, or what takes a controller's place in a line of `/proc/self/cgroup`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Controller {
    Cpu,
    Cpuacct,
    Cpuset,
    Memory,
    Devices,
    Freezer,
    /// `blkio` of v1, `io` of v2.
    Blkio,
    Pids,
    Hugetlb,
    NetCls,
    NetPrio,
    PerfEvent,
    Rdma,
    Misc,
    /// The named v1 hierarchy in which systemd tracks processes.
    #[serde(rename = "name=systemd")]
    Systemd,
}

impl Controller {
    /// From the name in `/proc/self/cgroup`; hierarchies of other names are nobody's but their maker's.
    pub(super) fn from_v1_name(name: &str) -> Option<Self> {
        Some(match name {
            "cpu" => Self::Cpu,
            "cpuacct" => Self::Cpuacct,
            "cpuset" => Self::Cpuset,
            "memory" => Self::Memory,
            "devices" => Self::Devices,
            "freezer" => Self::Freezer,
            "blkio" => Self::Blkio,
            "pids" => Self::Pids,
            "hugetlb" => Self::Hugetlb,
            "net_cls" => Self::NetCls,
            "net_prio" => Self::NetPrio,
            "perf_event" => Self::PerfEvent,
            "rdma" => Self::Rdma,
            "misc" => Self::Misc,
            "name=systemd" => Self::Systemd,
            _ => return None,
        })
    }

    /// The name as a mount option of v1 (`-o cpu`, `-o none,name=systemd`).
    pub fn v1_name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Cpuset => "cpuset",
            Self::Memory => "memory",
            Self::Devices => "devices",
            Self::Freezer => "freezer",
            Self::Blkio => "blkio",
            Self::Pids => "pids",
            Self::Hugetlb => "hugetlb",
            Self::NetCls => "net_cls",
            Self::NetPrio => "net_prio",
            Self::PerfEvent => "perf_event",
            Self::Rdma => "rdma",
            Self::Misc => "misc",
            Self::Systemd => "name=systemd",
        }
    }

    /// The name in `cgroup.controllers` of v2.
    pub fn v2_name(self) -> &'static str {
        if self == Self::Blkio { "io" } else { self.v1_name() }
    }
}

/// The version of one hierarchy's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    V1,
    V2,
}

/// A mounted hierarchy and our own place in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    pub version: Version,
    /// Empty on v2, where `cgroup.controllers` says it for each cgroup.
    pub controllers: Vec<Controller>,
    pub mount_point: PathBuf,
    /// Our own cgroup below `mount_point`, without a leading slash; empty at its root or above it.
    pub own: PathBuf,
}

/// The cgroup hierarchies of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    mode: Mode,
    hierarchies: Vec<Mounted>,
}

impl Host {
    /// Looks the hierarchies up in `/proc/self/cgroup`, and their mount points in `/proc/self/mountinfo`
    /// as far as needed: not at all where `/sys/fs/cgroup` is v2.
    ///
    /// # Errors
    /// [`Error::NoHierarchy`] where none is mounted; [`Error::Malformed`] for a table that is not as proc(5) says.
    pub fn detect() -> Result<Host> {
        let own = read_self_cgroup()?;
        let kind = statfs(MOUNT_POINT).map_err(SysError::on("statfs", MOUNT_POINT))?.filesystem_type();
        if kind == CGROUP2_SUPER_MAGIC {
            return Self::unified(&own);
        }
        Self::from_tables(&own, MountTable::open()?)
    }

    /// No hierarchy, whatever is mounted: containers stay in the cgroups of their caller.
    pub fn none() -> Host {
        Host { mode: Mode::Unified, hierarchies: Vec::new() }
    }

    fn unified(own: &str) -> Result<Host> {
        let own = memberships(own)?.into_iter().find(|line| line.version == Version::V2);
        let own = own.map(|line| relative(&line.cgroup, "/")).unwrap_or_default();
        let only =
            Mounted { version: Version::V2, controllers: Vec::new(), mount_point: MOUNT_POINT.into(), own };
        Ok(Host { mode: Mode::Unified, hierarchies: vec![only] })
    }

    /// v1 and hybrid: every hierarchy of `own` that a mount of `mounts` shows.
    fn from_tables(own: &str, mut mounts: impl Mounts) -> Result<Host> {
        let mut wanted = memberships(own)?;
        let mut hierarchies = Vec::with_capacity(wanted.len());
        // The mounts of boot come first in the table; those of a thousand containers need not be read.
        while !wanted.is_empty() {
            let Some(line) = mounts.next_line()? else { break };
            let Some(mount) = parse_mount(line) else { continue };
            let Some(at) = wanted.iter().position(|one| mount.shows(one)) else { continue };
            let found = wanted.swap_remove(at);
            hierarchies.push(Mounted {
                version: found.version,
                own: relative(&found.cgroup, &mount.root),
                controllers: found.controllers,
                mount_point: mount.mount_point,
            });
        }
        let v1 = hierarchies.iter().filter(|one| one.version == Version::V1).count();
        let mode = match (v1, hierarchies.len()) {
            (_, 0) => return Err(Error::NoHierarchy),
            (0, _) => Mode::Unified,
            (v1, all) if v1 == all => Mode::V1,
            _ => Mode::Hybrid,
        };
        Ok(Host { mode, hierarchies })
    }

    /// v1, hybrid or v2.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The mounted hierarchies in which a container gets cgroups.
    pub fn hierarchies(&self) -> &[Mounted] {
        &self.hierarchies
    }

    /// From the content of the two tables, for tests and fuzzing.
    pub fn from_texts(own: &str, mountinfo: &str) -> Result<Host> {
        Self::from_tables(own, TextTable(mountinfo.lines().map(str::to_owned).collect(), String::new()))
    }

    #[cfg(test)]
    pub(super) fn unified_for_test(own: &str) -> Result<Host> {
        Self::unified(own)
    }
}

fn read_self_cgroup() -> Result<String> {
    const FILE: &str = "/proc/self/cgroup";
    let mut text = String::with_capacity(1024);
    let file = std::fs::File::open(FILE).map_err(SysError::io("open", FILE))?;
    file.take(MAX_SELF_CGROUP).read_to_string(&mut text).map_err(SysError::io("read", FILE))?;
    Ok(text)
}

/// One line of `/proc/self/cgroup`: `4:cpu,cpuacct:/user.slice`.
struct Membership {
    version: Version,
    controllers: Vec<Controller>,
    cgroup: String,
}

fn memberships(text: &str) -> Result<Vec<Membership>> {
    let mut all = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(id), Some(names), Some(cgroup)) = (fields.next(), fields.next(), fields.next()) else {
            return Err(Error::Malformed { file: "/proc/self/cgroup".into(), line: line.into() });
        };
        if id == "0" && names.is_empty() {
            all.push(Membership { version: Version::V2, controllers: Vec::new(), cgroup: cgroup.into() });
            continue;
        }
        let controllers: Vec<_> = names.split(',').filter_map(Controller::from_v1_name).collect();
        if !controllers.is_empty() {
            all.push(Membership { version: Version::V1, controllers, cgroup: cgroup.into() });
        }
    }
    Ok(all)
}

/// The path of `cgroup` below `root`, the cgroup which a mount shows. `/..` marks a cgroup outside of our
/// cgroup namespace (cgroup_namespaces(7)): then the best that can be named is the root of the mount.
fn relative(cgroup: &str, root: &str) -> PathBuf {
    let below = Path::new(cgroup).strip_prefix(root).unwrap_or(Path::new(""));
    if below.components().all(|part| matches!(part, std::path::Component::Normal(_))) {
        below.to_owned()
    } else {
        PathBuf::new()
    }
}

/// A line source: the kernel's table, or a test's.
trait Mounts {
    fn next_line(&mut self) -> Result<Option<&str>>;
}

/// `/proc/self/mountinfo`, read by the page and only as far as asked.
struct MountTable {
    file: std::io::BufReader<std::io::Take<std::fs::File>>,
    line: String,
}

impl MountTable {
    const FILE: &str = "/proc/self/mountinfo";

    fn open() -> Result<Self> {
        let file = std::fs::File::open(Self::FILE).map_err(SysError::io("open", Self::FILE))?;
        let file = std::io::BufReader::with_capacity(4096, file.take(MAX_MOUNTINFO));
        Ok(Self { file, line: String::new() })
    }
}

impl Mounts for MountTable {
    fn next_line(&mut self) -> Result<Option<&str>> {
        use std::io::BufRead;
        self.line.clear();
        // Mount points are bytes; a line that is not UTF-8 is no cgroup mount of anybody's.
        let mut bytes = std::mem::take(&mut self.line).into_bytes();
        let read = self.file.read_until(b'\n', &mut bytes).map_err(SysError::io("read", Self::FILE))?;
        self.line = String::from_utf8(bytes).unwrap_or_default();
        Ok((read > 0).then_some(self.line.trim_end_matches('\n')))
    }
}

/// A table that is in memory already.
struct TextTable(std::collections::VecDeque<String>, String);

impl Mounts for TextTable {
    fn next_line(&mut self) -> Result<Option<&str>> {
        Ok(self.0.pop_front().map(|line| {
            self.1 = line;
            self.1.as_str()
        }))
    }
}

/// What matters of one line of `/proc/self/mountinfo`.
struct Mount {
    root: String,
    mount_point: PathBuf,
    version: Version,
    /// Options of the super block: the controllers, among others.
    options: String,
}

impl Mount {
    fn shows(&self, membership: &Membership) -> bool {
        self.version == membership.version
            && membership
                .controllers
                .iter()
                .all(|controller| self.options.split(',').any(|option| option == controller.v1_name()))
    }
}

/// `31 23 0:28 ROOT MOUNT_POINT OPTIONS [TAGS..] - TYPE SOURCE SUPER_OPTIONS` (proc_pid_mountinfo(5));
/// `None` for anything that is not a cgroup mount.
fn parse_mount(line: &str) -> Option<Mount> {
    let (head, tail) = line.split_once(" - ")?;
    let (kind, tail) = tail.split_once(' ')?;
    let version = match kind {
        "cgroup" => Version::V1,
        "cgroup2" => Version::V2,
        _ => return None,
    };
    let (_source, options) = tail.split_once(' ')?;
    let mut fields = head.split(' ').skip(3);
    Some(Mount {
        root: unescape(fields.next()?),
        mount_point: unescape(fields.next()?).into(),
        version,
        options: options.to_owned(),
    })
}

/// Undoes the kernel's octal escapes of space, tab, newline and backslash (`mangle_path`, fs/seq_file.c).
fn unescape(field: &str) -> String {
    let mut text = field.to_owned();
    for (escape, plain) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        if text.contains('\\') {
            text = text.replace(escape, plain);
        }
    }
    text
}

#[cfg(test)]
#[path = "host/tests.rs"]
mod tests;
