//! Removal of directory trees whose content somebody else controls.
use super::SysError;
use super::dirents::{Entries, Kind};
use super::root::open_same_mount;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::collections::VecDeque;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};
use std::sync::{Arc, Mutex, PoisonError};

/// How often one directory is read again because somebody puts files into it while it is emptied.
const PASSES: usize = 4096;
/// How many directories of the path from the top to the current one are held open. Below that depth a
/// subtree is moved up instead, so that neither descriptors nor the depth of the tree are a limit.
const MAX_OPEN: usize = 128;

/// Removes `name` in the directory `parent`, a tree or a single file; that it is absent is no error.
///
/// Symbolic links are removed, never followed.
///
/// # Errors
/// EINVAL when `name` is not one component.
/// EXDEV or EBUSY when a mount lies in the tree: what is mounted is left alone, while files that were read
/// before it are gone.
pub fn remove(parent: BorrowedFd<'_>, name: &Path) -> Result<(), SysError> {
    let c_name = component(name)?;
    match unlinkat(parent, c_name.as_c_str(), UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(()),
        Err(Errno::EISDIR | Errno::EPERM) => {}
        Err(errno) => return Err(failed("unlinkat", &c_name)(errno)),
    }
    // Somebody else may be removing it too.
    let Some(top) = Level::open_found(parent, c_name)? else { return Ok(()) };
    let mut stack = vec![top];
    let mut aside = 0;
    while let Some(level) = stack.last_mut() {
        match level.next()? {
            Some(name) if stack.len() < MAX_OPEN => {
                let dir = stack.last().map_or(parent, |level| level.dir.as_fd());
                if let Some(level) = Level::open_found(dir, name)? {
                    stack.push(level);
                }
            }
            Some(name) => {
                aside += 1;
                move_up(&stack, &name, aside)?;
            }
            None => {
                let Some(done) = stack.pop() else { break };
                let dir = stack.last().map_or(parent, |level| level.dir.as_fd());
                match unlinkat(dir, done.name.as_c_str(), UnlinkatFlags::RemoveDir) {
                    Ok(()) | Err(Errno::ENOENT) => {}
                    // Somebody has put a file into it since it was read.
                    Err(Errno::ENOTEMPTY | Errno::EEXIST) if done.passes < PASSES => {
                        let passes = done.passes + 1;
                        if let Some(again) = Level::open_found(dir, done.name)? {
                            stack.push(Level { passes, ..again });
                        }
                    }
                    Err(errno) => return Err(failed("unlinkat", &done.name)(errno)),
                }
            }
        }
    }
    Ok(())
}

/// `name` if it is one component.
fn component(name: &Path) -> Result<CString, SysError> {
    let mut components = name.components();
    let single = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
    CString::new(name.as_os_str().as_bytes())
        .ok()
        .filter(|_| single)
        .ok_or(Errno::EINVAL)
        .map_err(SysError::on("unlinkat", name.display().to_string()))
}

/// A directory that is being emptied.
struct Level {
    dir: OwnedFd,
    entries: Entries,
    name: CString,
    passes: usize,
}

impl Level {
    fn open(parent: BorrowedFd<'_>, name: CString) -> Result<Level, SysError> {
        let dir = open_dir(parent, &name)?;
        Ok(Level { dir, entries: Entries::new(), name, passes: 0 })
    }

    /// The same for a name that was just seen: it may have vanished meanwhile.
    fn open_found(parent: BorrowedFd<'_>, name: CString) -> Result<Option<Level>, SysError> {
        match Level::open(parent, name) {
            Err(error) if error.errno == Errno::ENOENT => Ok(None),
            result => result.map(Some),
        }
    }

    /// Unlinks files up to the first subdirectory, whose name it returns.
    fn next(&mut self) -> Result<Option<CString>, SysError> {
        while let Some((name, kind)) = self.entries.next(&self.dir)? {
            if kind == Kind::Directory {
                return Ok(Some(name.to_owned()));
            }
            match unlinkat(&self.dir, name, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                // The file system does not tell types, or it was exchanged.
                Err(Errno::EISDIR) => return Ok(Some(name.to_owned())),
                Err(errno) => return Err(failed("unlinkat", name)(errno)),
            }
        }
        Ok(None)
    }
}

fn open_dir(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, SysError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    open_same_mount(parent, Path::new(OsStr::from_bytes(name.to_bytes())), flags)
}

/// How many subtrees make it worth while to take more hands, and how many directories are opened to find them.
const SUBTREES: usize = 256;
const OPENED: usize = 64;

/// The same as [`remove`], with a thread for each processor: unlinking is the kernel's work, and different directories do not
/// wait for each other. For a process that may have threads.
pub fn remove_with_threads(parent: BorrowedFd<'_>, name: &Path) -> Result<(), SysError> {
    let hands = std::thread::available_parallelism().map_or(1, |count| count.get().min(4));
    if hands > 1 {
        let subtrees = Mutex::new(subtrees(parent, &component(name)?));
        std::thread::scope(|scope| {
            for _ in 0..hands {
                scope.spawn(|| {
                    loop {
                        let next = subtrees.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                        let Some((dir, name)) = next else { return };
                        // What stays for whatever reason meets the caller again, who reports it.
                        let _ = remove(dir.as_fd(), Path::new(OsStr::from_bytes(name.to_bytes())));
                    }
                });
            }
        });
    }
    remove(parent, name)
}

type Subtree = (Arc<OwnedFd>, CString);

/// Directories in the tree `name`, none of them in another one: those of the first level that has enough of them, or of the
/// last one that was looked into. What cannot be read is left out.
fn subtrees(parent: BorrowedFd<'_>, name: &CStr) -> VecDeque<Subtree> {
    let Ok(top) = open_dir(parent, name) else { return VecDeque::new() };
    let mut found = VecDeque::from(directories(&Arc::new(top)));
    for _ in 0..OPENED {
        if found.len() >= SUBTREES {
            break;
        }
        let Some((dir, name)) = found.pop_front() else { break };
        if let Ok(dir) = open_dir(dir.as_fd(), &name) {
            found.extend(directories(&Arc::new(dir)));
        }
    }
    found
}

fn directories(dir: &Arc<OwnedFd>) -> Vec<Subtree> {
    let (mut entries, mut found) = (Entries::new(), Vec::new());
    while let Ok(Some((name, kind))) = entries.next(&**dir) {
        if kind == Kind::Directory {
            found.push((Arc::clone(dir), name.to_owned()));
        }
    }
    found
}

/// Moves the directory `name` of the deepest level into the topmost one, under a name of our own.
fn move_up(stack: &[Level], name: &CStr, number: usize) -> Result<(), SysError> {
    let (Some(top), Some(deepest)) = (stack.first(), stack.last()) else { return Ok(()) };
    let mut aside = format!(".corten-remove-{}-{number}", std::process::id());
    // A name that is taken by something else gets longer; the kernel refuses when it is too long.
    loop {
        match nix::fcntl::renameat(&deepest.dir, name, &top.dir, aside.as_str()) {
            Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR) => aside.push('-'),
            result => return result.map_err(failed("renameat", name)),
        }
    }
}

fn failed(call: &'static str, name: &CStr) -> impl FnOnce(Errno) -> SysError + use<> {
    SysError::on(call, name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests;
