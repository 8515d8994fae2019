//! Intel RDT: shares of the last-level cache and of the memory's bandwidth, and their monitoring
//! (`linux.intelRdt`, runtime-spec 1.3), over the kernel's resctrl file system (Documentation/filesystems/resctrl.rst).
//!
//! ```text
//! /sys/fs/resctrl/              closID "/"
//!     CLOS/                     closID, or the container's id: made by us only then removed by us
//!         tasks schemata
//!         mon_groups/ID/tasks   enableMonitoring; always ours
//! ```
//! The order is plan, record (in the container's state), [`Group::make`], [`Group::add`], [`Group::remove`].
use std::collections::BTreeMap;
use std::io::ErrorKind as Io;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{FsType, statfs};
use nix::unistd::Pid;
use oci_spec::runtime::LinuxIntelRdt;
use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, Kind};
use crate::sys::SysError;

/// Where the kernel's documentation mounts it.
const MOUNT_POINT: &str = "/sys/fs/resctrl";
/// `RDTGROUP_SUPER_MAGIC` of linux/magic.h.
const MAGIC: i32 = 0x0765_5821;

/// Why there is no resctrl group for a container.
#[derive(Debug, thiserror::Error)]
pub enum RdtError {
    /// There is no resctrl file system.
    #[error(
        "linux.intelRdt is given, but no resctrl file system is mounted: the processor or the kernel lacks it, or \
         `mount -t resctrl resctrl {MOUNT_POINT}` was not run"
    )]
    NotMounted,
    /// It has not what a field needs.
    #[error("linux.intelRdt.{field} is given, but this processor does not offer it ({} is missing)", missing.display())]
    NotOffered {
        /// Which field.
        field: &'static str,
        /// What would be there.
        missing: PathBuf,
    },
    /// A value that the specification forbids.
    #[error("linux.intelRdt.{field}: {reason}")]
    Value {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A class of service that was to be there.
    #[error("linux.intelRdt.closID {id:?} does not exist, and no schemata are given to make it with")]
    NoClass {
        /// The class.
        id: String,
    },
    /// A class of service that is there with another configuration.
    #[error(
        "linux.intelRdt.{field} {wanted:?} does not match the existing class of service, which has {found:?}"
    )]
    Differs {
        /// Which field.
        field: &'static str,
        /// As given.
        wanted: String,
        /// The line of its schemata, or nothing.
        found: String,
    },
    /// The kernel refused it.
    #[error("{what} resctrl group {}{said}", path.display())]
    System {
        /// What was done to it.
        what: &'static str,
        /// Its directory.
        path: PathBuf,
        /// `info/last_cmd_status`, after ` (` and before `)`.
        said: String,
        /// The call.
        #[source]
        source: SysError,
    },
}

impl Kind for RdtError {
    fn kind(&self) -> ErrorKind {
        match self {
            RdtError::NotMounted | RdtError::NotOffered { .. } => ErrorKind::Unsupported,
            RdtError::Value { .. } | RdtError::Differs { .. } => ErrorKind::InvalidInput,
            RdtError::NoClass { .. } => ErrorKind::NotFound,
            RdtError::System { source, .. } => source.kind(),
        }
    }
}

/// A container's group, as its record keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The class of service.
    path: PathBuf,
    /// The class is the container's own, and goes with it.
    owned: bool,
    /// The monitoring group, which always goes with it.
    monitor: Option<PathBuf>,
}

/// What is to be made.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// For the record.
    pub group: Group,
    root: PathBuf,
    /// Lines for a class that does not exist yet, in their order.
    lines: Vec<String>,
    /// What is to be written to one that does.
    rewritten: Vec<String>,
    exists: bool,
}

/// The mount point of resctrl, on the host.
pub fn mount_point() -> Result<PathBuf, RdtError> {
    if statfs(MOUNT_POINT).is_ok_and(|status| status.filesystem_type() == FsType(MAGIC as _)) {
        return Ok(MOUNT_POINT.into());
    }
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounted_elsewhere(&table).ok_or(RdtError::NotMounted)
}

/// The first mount of type resctrl in a table as of proc_pid_mountinfo(5).
fn mounted_elsewhere(table: &str) -> Option<PathBuf> {
    let mut of_type = table.lines().filter_map(|line| line.split_once(" - resctrl ").map(|(head, _)| head));
    of_type.find_map(|head| head.split(' ').nth(4)).map(PathBuf::from)
}

impl Plan {
    /// Plans the group of container `id` in the resctrl file system at `root`, by what is there now.
    pub fn new(wanted: &LinuxIntelRdt, id: &str, root: &Path) -> Result<Plan, RdtError> {
        let class = wanted.clos_id().as_deref().filter(|class| !class.is_empty());
        let lines = lines(wanted, root)?;
        let path = match class {
            Some("/") => root.to_owned(),
            Some(class) => root.join(checked(class)?),
            None => root.join(id),
        };
        let exists = path.is_dir();
        if let (Some(class), false, true) = (class, exists, lines.is_empty()) {
            return Err(RdtError::NoClass { id: class.into() });
        }
        if exists && class.is_some() {
            compare(wanted, &path)?;
        }
        let monitor = wanted.enable_monitoring().unwrap_or(false).then(|| path.join("mon_groups").join(id));
        Ok(Plan {
            group: Group { owned: class.is_none() && !exists, path, monitor },
            root: root.into(),
            rewritten: wanted.schemata().clone().unwrap_or_default(),
            lines,
            exists,
        })
    }
}

/// The name of one directory, below the root and not one of the kernel's own.
fn checked(class: &str) -> Result<&str, RdtError> {
    let kernels = ["info", "mon_groups", "mon_data"];
    let fine =
        class != "." && class != ".." && !class.contains(['/', '\0', '\n']) && !kernels.contains(&class);
    fine.then_some(class)
        .ok_or(RdtError::Value { field: "closID", reason: "is no name of a class of service" })
}

/// All lines for the file `schemata`, in the specification's order.
fn lines(wanted: &LinuxIntelRdt, root: &Path) -> Result<Vec<String>, RdtError> {
    let mut all = Vec::new();
    let fields = [
        ("l3CacheSchema", wanted.l3_cache_schema(), "L3", "info/L3"),
        ("memBwSchema", wanted.mem_bw_schema(), "MB:", "info/MB"),
    ];
    for (field, line, prefix, info) in fields {
        let Some(line) = line.as_deref().filter(|line| !line.is_empty()) else { continue };
        if !line.starts_with(prefix) {
            return Err(RdtError::Value { field, reason: "begins with another resource" });
        }
        let missing = root.join(info);
        // With code and data prioritisation there are two resources in place of L3.
        let split = field == "l3CacheSchema" && root.join("info/L3CODE").exists();
        if !split && !missing.exists() {
            return Err(RdtError::NotOffered { field, missing });
        }
        one_line(field, line)?;
        all.push(line.to_owned());
    }
    for line in wanted.schemata().iter().flatten() {
        one_line("schemata", line)?;
        all.push(line.clone());
    }
    Ok(all)
}

fn one_line(field: &'static str, line: &str) -> Result<(), RdtError> {
    match line.contains('\n') {
        true => Err(RdtError::Value { field, reason: "has a newline" }),
        false => Ok(()),
    }
}

/// A class that somebody else configured must be what the container expects.
fn compare(wanted: &LinuxIntelRdt, path: &Path) -> Result<(), RdtError> {
    let fields = [("l3CacheSchema", wanted.l3_cache_schema()), ("memBwSchema", wanted.mem_bw_schema())];
    let asked = |line: &Option<String>| line.as_ref().is_some_and(|line| !line.is_empty());
    if !fields.iter().any(|(_, line)| asked(line)) {
        return Ok(());
    }
    let file = path.join("schemata");
    let text = std::fs::read_to_string(&file)
        .map_err(|error| failed("reading the schemata of", path, Path::new(""), &file)(error))?;
    for (field, line) in fields {
        let Some(line) = line.as_ref().filter(|line| !line.is_empty()) else { continue };
        let (resource, values) = parsed(line);
        let found = text.lines().find(|found| parsed(found).0 == resource).unwrap_or_default();
        let has = parsed(found).1;
        if !values.iter().all(|(domain, value)| has.get(domain) == Some(value)) {
            let found = found.trim().to_owned();
            return Err(RdtError::Differs { field, wanted: line.clone(), found });
        }
    }
    Ok(())
}

/// `L3:0=00ff;1=c0` as the resource and its values by domain. The kernel prints masks in hexadecimal with leading
/// zeros or spaces, and domains in its own order.
fn parsed(line: &str) -> (&str, BTreeMap<&str, String>) {
    let (resource, values) = line.trim().split_once(':').unwrap_or((line.trim(), ""));
    let values = values.split(';').filter_map(|value| value.split_once('='));
    let plain = |value: &str| value.trim().trim_start_matches('0').to_lowercase();
    (resource, values.map(|(domain, value)| (domain.trim(), plain(value))).collect())
}

fn failed(
    what: &'static str,
    group: &Path,
    root: &Path,
    file: &Path,
) -> impl FnOnce(std::io::Error) -> RdtError {
    let (path, file) = (group.to_owned(), file.display().to_string());
    let said = std::fs::read_to_string(root.join("info/last_cmd_status")).unwrap_or_default();
    move |error| RdtError::System {
        what,
        path,
        // The kernel says "ok" when the command before was fine.
        said: match said.trim() {
            "" | "ok" => String::new(),
            said => format!(" (the kernel says: {said})"),
        },
        source: SysError::io("write", file)(error),
    }
}

impl Plan {
    /// Makes what is missing and writes the schemata.
    pub fn make(&self) -> Result<(), RdtError> {
        let Group { path, owned, monitor } = &self.group;
        if !self.exists {
            match std::fs::create_dir(path) {
                // Another container of this class was faster.
                Err(error) if error.kind() == Io::AlreadyExists && !owned => {}
                made => made.map_err(|error| failed("making", path, &self.root, path)(error))?,
            }
        }
        let lines = if self.exists && !owned { &self.rewritten } else { &self.lines };
        if !lines.is_empty() {
            let file = path.join("schemata");
            let text = format!("{}\n", lines.join("\n"));
            std::fs::write(&file, text)
                .map_err(|error| failed("writing the schemata of", path, &self.root, &file)(error))?;
        }
        let Some(monitor) = monitor else { return Ok(()) };
        std::fs::create_dir(monitor)
            .map_err(|error| failed("making the monitoring group of", path, &self.root, monitor)(error))
    }
}

impl Group {
    /// Adds a process; what it forks then is in the group, too.
    pub fn add(&self, pid: Pid) -> Result<(), RdtError> {
        for group in [Some(&self.path), self.monitor.as_ref()].into_iter().flatten() {
            let file = group.join("tasks");
            let root = self.path.parent().unwrap_or(&self.path);
            std::fs::write(&file, pid.to_string())
                .map_err(|error| failed("adding a process to", &self.path, root, &file)(error))?;
        }
        Ok(())
    }

    /// Removes what is the container's own; what is gone already is no error.
    pub fn remove(&self) -> Result<(), RdtError> {
        let own = self.owned.then_some(&self.path);
        // The monitoring group is inside of the class.
        for group in [self.monitor.as_ref(), own].into_iter().flatten() {
            match std::fs::remove_dir(group) {
                Err(error) if error.kind() != Io::NotFound => {
                    return Err(failed("removing", group, Path::new(""), group)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
