//! What is being built or thrown away, and how it is told from what a dead process left.
use super::collect::{self, Object, Reason, Verdict, Verdicts, Weigh};
use super::{Result, Store, entries, fsync, publish, rename};
use crate::sys::{SysError, tree};
use std::ffi::OsStr;
use std::fs::{DirBuilder, File, TryLockError};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A name that no other live process and no other call in this one uses.
fn fresh(store: &Store, what: &str) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    store.staging().join(format!("{what}-{}-{count}", std::process::id()))
}

/// Locks what was just made, unless a sweep was quicker.
fn hold(file: &File, path: &Path) -> Result<bool> {
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => {
            return Err(SysError::io("flock", path.to_string_lossy())(error).into());
        }
    }
    let meta = file.metadata().map_err(SysError::io("fstat", path.to_string_lossy()))?;
    Ok(meta.nlink() > 0 && path.exists())
}

/// A file under `staging/`, removed on drop unless it was published.
#[derive(Debug)]
pub(super) struct StagingFile {
    file: File,
    path: PathBuf,
    published: bool,
}

impl StagingFile {
    pub(super) fn create(store: &Store) -> Result<StagingFile> {
        loop {
            let path = fresh(store, "blob");
            let file = match File::options().create_new(true).write(true).mode(0o600).open(&path) {
                Ok(file) => file,
                // Left by a dead process that had this process's ID.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(SysError::io("open", path.to_string_lossy())(error).into()),
            };
            if hold(&file, &path)? {
                return Ok(StagingFile { file, path, published: false });
            }
        }
    }

    pub(super) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    pub(super) fn publish(mut self, target: &Path) -> Result<()> {
        fsync(&self.file, &self.path)?;
        publish(&self.path, target)?;
        self.published = true;
        Ok(())
    }
}

impl Drop for StagingFile {
    fn drop(&mut self) {
        if !self.published {
            // What cannot be removed now is removed by the next sweep.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A directory under `staging/`, removed on drop unless it was published.
#[derive(Debug)]
pub(super) struct StagingDir {
    dir: File,
    path: PathBuf,
    published: bool,
}

impl StagingDir {
    pub(super) fn create(store: &Store) -> Result<StagingDir> {
        loop {
            let path = fresh(store, "layer");
            if path.exists() {
                continue;
            }
            DirBuilder::new()
                .mode(0o700)
                .create(&path)
                .map_err(SysError::io("mkdir", path.to_string_lossy()))?;
            let dir = match File::open(&path) {
                Ok(dir) => dir,
                // A sweep was quicker.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(SysError::io("open", path.to_string_lossy())(error).into()),
            };
            if hold(&dir, &path)? {
                return Ok(StagingDir { dir, path, published: false });
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn dir(&self) -> &File {
        &self.dir
    }

    /// Renames it to `target`, which must not exist; the caller has synced what is in it.
    pub(super) fn publish(mut self, target: &Path) -> Result<()> {
        publish(&self.path, target)?;
        self.published = true;
        Ok(())
    }
}

impl Drop for StagingDir {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        if let (Some(parent), Some(name)) = (self.path.parent(), self.path.file_name())
            && let Ok(parent) = File::open(parent)
        {
            // What cannot be removed now is removed by the next sweep.
            let _ = tree::remove(parent.as_fd(), Path::new(name));
        }
    }
}

/// Moves a directory of the store out of sight, then removes it: a crash leaves nothing half removed where
/// somebody looks.
pub(super) fn discard(store: &Store, path: &Path) -> Result<()> {
    discard_all(store, &[path.to_owned()])
}

/// The same for several directories, which may be many: all are out of sight before the first is removed.
pub(super) fn discard_all(store: &Store, paths: &[PathBuf]) -> Result<()> {
    let mut trash = Vec::new();
    let mut parents: Vec<&Path> = Vec::new();
    for path in paths {
        let aside = fresh(store, "trash");
        rename(path, &aside)?;
        trash.push(aside);
        if let Some(parent) = path.parent().filter(|parent| !parents.contains(parent)) {
            parents.push(parent);
        }
    }
    if trash.is_empty() {
        return Ok(());
    }
    let staging = store.staging();
    // Before the first file goes, because after a power failure the old name could lead to half a layer.
    for dir in parents.into_iter().chain([staging.as_path()]) {
        fsync(&super::open_dir(dir)?, dir)?;
    }
    trash.iter().try_for_each(|path| remove(store, path.file_name().unwrap_or_default()))
}

fn remove(store: &Store, name: &OsStr) -> Result<()> {
    let path = store.staging();
    let staging = File::open(&path).map_err(SysError::io("open", path.to_string_lossy()))?;
    Ok(tree::remove_with_threads(staging.as_fd(), Path::new(name))?)
}

/// Removes everything under `staging/` that nobody holds.
pub(super) fn sweep(store: &Store) -> Result<()> {
    for name in entries(&store.staging())? {
        // Held until it is gone: whoever has just made it, and comes for the lock, must not take it for its own.
        if let Some(_held) = is_abandoned(store, &name)? {
            remove(store, &name)?;
        }
    }
    Ok(())
}

/// Some: nobody holds it, and nobody else can while the lock that is returned lives.
fn is_abandoned(store: &Store, name: &OsStr) -> Result<Option<File>> {
    let path = store.staging().join(name);
    let opened = File::options().read(true).custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits()).open(&path);
    // Gone, or nothing that the store makes.
    let Ok(file) = opened else { return Ok(None) };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(SysError::io("flock", path.to_string_lossy())(error).into()),
    }
}

/// Decides on everything under `staging/`, and removes what goes unless this is a dry run.
pub(super) fn leftovers(store: &Store, dry_run: bool) -> Result<Verdicts> {
    let mut verdicts = Verdicts::default();
    for name in entries(&store.staging())? {
        let Some(text) = name.to_str() else { continue };
        let bytes = collect::weight(&store.staging(), text, Weigh::Yes)?;
        let object = Object::Leftover(text.to_owned());
        match is_abandoned(store, &name)? {
            Some(_held) => {
                if !dry_run {
                    remove(store, &name)?;
                }
                verdicts.goes.push(Verdict { object, bytes, reason: Reason::Abandoned });
            }
            None => verdicts.stays.push(Verdict { object, bytes, reason: Reason::Importing }),
        }
    }
    Ok(verdicts)
}
