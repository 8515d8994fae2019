//! Removal of directory trees whose content somebody else controls.
use super::SysError;
use super::root::open_same_mount;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

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
    let mut components = name.components();
    let single = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
    let c_name = CString::new(name.as_os_str().as_bytes())
        .ok()
        .filter(|_| single)
        .ok_or(Errno::EINVAL)
        .map_err(SysError::on("unlinkat", name.display().to_string()))?;
    match unlinkat(parent, c_name.as_c_str(), UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(()),
        Err(Errno::EISDIR | Errno::EPERM) => {}
        Err(errno) => return Err(failed("unlinkat", &c_name)(errno)),
    }
    let mut stack = vec![Level::open(parent, c_name)?];
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
                        stack.push(Level { passes, ..Level::open(dir, done.name)? });
                    }
                    Err(errno) => return Err(failed("unlinkat", &done.name)(errno)),
                }
            }
        }
    }
    Ok(())
}

/// A directory that is being emptied.
struct Level {
    dir: OwnedFd,
    entries: nix::dir::OwningIter,
    name: CString,
    passes: usize,
}

impl Level {
    fn open(parent: BorrowedFd<'_>, name: CString) -> Result<Level, SysError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        let dir = open_same_mount(parent, Path::new(std::ffi::OsStr::from_bytes(name.to_bytes())), flags)?;
        // The stream owns its descriptor; a duplicate serves as the directory of the *at calls.
        let stream = dir.try_clone().map_err(SysError::io("fcntl", "F_DUPFD_CLOEXEC"))?;
        let entries = Dir::from_fd(stream).map_err(failed("fdopendir", &name))?.into_iter();
        Ok(Level { dir, entries, name, passes: 0 })
    }

    /// The same for a name that was just read: it may have vanished meanwhile.
    fn open_found(parent: BorrowedFd<'_>, name: CString) -> Result<Option<Level>, SysError> {
        match Level::open(parent, name) {
            Err(error) if error.errno == Errno::ENOENT => Ok(None),
            result => result.map(Some),
        }
    }

    /// Unlinks files up to the first subdirectory, whose name it returns.
    fn next(&mut self) -> Result<Option<CString>, SysError> {
        for entry in self.entries.by_ref() {
            let entry = entry.map_err(failed("readdir", &self.name))?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if entry.file_type() == Some(nix::dir::Type::Directory) {
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
