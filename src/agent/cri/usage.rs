//! What is remembered between requests: sizes of writable layers, and CPU times.
use super::error::Result;
use crate::engine::Engine;
use crate::engine::names::Id;
use crate::sys::SysError;
use crate::sys::root::open_same_mount;
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::fstatat;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a size is good for: kubelets ask every ten seconds, and a walk costs.
const FRESH: Duration = Duration::from_secs(10);
/// Entries of one layer that are counted; a container must not keep us busy with files.
const MAX_ENTRIES: u64 = 200_000;
/// Directories that are held open on the way down.
const MAX_DEPTH: usize = 64;
/// Rates over less time than this say nothing.
const LEAST_INTERVAL: u64 = 500_000_000;

/// What a writable layer takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// Bytes on disk.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    /// When, in nanoseconds since 1970.
    time: i64,
    /// CPU time until then in nanoseconds.
    total: u64,
    /// The rate that was told last, in nanoseconds for each second.
    rate: Option<u64>,
}

/// By id of a container or pod.
#[derive(Debug, Default)]
pub struct Seen {
    layers: Mutex<HashMap<String, (Instant, Used)>>,
    cpu: Mutex<HashMap<String, Sample>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is one call, so a panic elsewhere leaves the map whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seen {
    /// What the container wrote into its root, as of the last seconds.
    pub fn writable(&self, engine: &Engine, id: &Id) -> Result<Used> {
        if let Some((time, used)) = lock(&self.layers).get(id.as_str())
            && time.elapsed() < FRESH
        {
            return Ok(*used);
        }
        let used = match File::open(engine.directory(id)) {
            Ok(directory) => walk(directory.into(), Path::new("upper"))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Used::default()),
            Err(error) => return Err(SysError::io("open", id.as_str())(error).into()),
        };
        lock(&self.layers).insert(id.to_string(), (Instant::now(), used));
        Ok(used)
    }

    /// Nanoseconds of CPU time for each second since the last sample; `None` for the first one.
    pub fn rate(&self, id: &str, time: i64, total: u64) -> Option<u64> {
        let mut samples = lock(&self.cpu);
        let last = samples.get(id).copied();
        let Some(last) = last else {
            samples.insert(id.to_owned(), Sample { time, total, rate: None });
            return None;
        };
        let passed = u64::try_from(time.saturating_sub(last.time)).unwrap_or(0);
        if passed < LEAST_INTERVAL {
            return last.rate;
        }
        let used = u128::from(total.saturating_sub(last.total));
        let rate = u64::try_from(used * 1_000_000_000 / u128::from(passed)).ok();
        samples.insert(id.to_owned(), Sample { time, total, rate });
        rate
    }

    /// Forgets what was removed.
    pub fn forget(&self, id: &str) {
        lock(&self.layers).remove(id);
        lock(&self.cpu).remove(id);
    }
}

/// Adds up a tree that a container writes to meanwhile: no link is followed, no mount entered, and what goes away is
/// not there.
fn walk(parent: OwnedFd, name: &Path) -> Result<Used> {
    let mut used = Used::default();
    let Some(top) = open(&parent, name)? else { return Ok(used) };
    let mut open_directories = vec![top];
    while let Some((directory, entries)) = open_directories.last_mut() {
        let Some(entry) = entries.next() else {
            open_directories.pop();
            continue;
        };
        let entry = entry.map_err(SysError::on("readdir", "upper"))?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        match fstatat(directory.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                used.bytes = used.bytes.saturating_add(u64::try_from(stat.st_blocks).unwrap_or(0) * 512);
                used.inodes += 1;
            }
            Err(Errno::ENOENT) => continue,
            Err(errno) => return Err(SysError::on("fstatat", "upper")(errno).into()),
        }
        if used.inodes >= MAX_ENTRIES {
            break;
        }
        if entry.file_type() == Some(Type::Directory) && open_directories.len() < MAX_DEPTH {
            let path = Path::new(OsStr::from_bytes(name.to_bytes())).to_owned();
            let below = open_directories.last().map(|(directory, _)| open(directory, &path)).transpose()?;
            open_directories.extend(below.flatten());
        }
    }
    Ok(used)
}

type Level = (OwnedFd, nix::dir::OwningIter);

/// Opens a directory; `None` if it is gone or is none any more.
fn open(parent: &OwnedFd, name: &Path) -> Result<Option<Level>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let directory = match open_same_mount(parent.as_fd(), name, flags) {
        Ok(directory) => directory,
        Err(SysError { errno: Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV, .. }) => {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let stream = directory.try_clone().map_err(SysError::io("fcntl", "F_DUPFD_CLOEXEC"))?;
    let entries = Dir::from_fd(stream).map_err(SysError::on("fdopendir", "upper"))?.into_iter();
    Ok(Some((directory, entries)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_counted_and_links_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let upper = directory.path().join("upper");
        std::fs::create_dir_all(upper.join("a/b")).unwrap();
        std::fs::write(upper.join("a/b/c"), vec![1; 10_000]).unwrap();
        std::os::unix::fs::symlink("/usr", upper.join("link")).unwrap();
        let used = walk(File::open(directory.path()).unwrap().into(), Path::new("upper")).unwrap();
        assert_eq!(used.inodes, 4);
        let none = walk(File::open(directory.path()).unwrap().into(), Path::new("absent")).unwrap();
        assert_eq!(none, Used::default());
    }

    #[test]
    fn rates() {
        let seen = Seen::default();
        let second = 1_000_000_000;
        assert_eq!(seen.rate("a", 0, 5), None);
        assert_eq!(seen.rate("a", 2 * second, 5 + second.unsigned_abs()), Some(500_000_000));
        // Too soon: the last one is told again.
        assert_eq!(seen.rate("a", 2 * second + 1, 7 * second.unsigned_abs()), Some(500_000_000));
        seen.forget("a");
        assert_eq!(seen.rate("a", 0, 5), None);
    }
}
