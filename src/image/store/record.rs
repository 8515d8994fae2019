//! Small versioned JSON records: written beside, synced, renamed.
use super::{Result, StoreError, fsync, publish};
use crate::sys::SysError;
use serde::{Serialize, de::DeserializeOwned};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The largest record; an index of 10,000 names fits.
const RECORD_MAX: u64 = 8 << 20;

/// Reads a record, `None` if it is not there.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(SysError::io("open", path.to_string_lossy())(error).into()),
    };
    let mut bytes = Vec::new();
    file.take(RECORD_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(SysError::io("read", path.to_string_lossy()))?;
    let size = bytes.len() as u64;
    if size > RECORD_MAX {
        return Err(StoreError::TooLarge { path: path.to_owned(), size, limit: RECORD_MAX });
    }
    let value = serde_json::from_slice(&bytes)
        .map_err(|source| StoreError::Record { path: path.to_owned(), source })?;
    Ok(Some(value))
}

/// Whether a record must survive the loss of power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sync {
    /// It is on disk when the call returns.
    Yes,
    /// It may be gone.
    No,
}

/// Replaces a record, or makes it, and syncs it.
pub(super) fn write<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    write_with(path, value, Sync::Yes)
}

/// Replaces a record, or makes it.
///
/// The caller keeps other writers of the same record away: the name of the file beside is fixed, so that a
/// crash leaves at most one, and the next write takes it over.
pub(super) fn write_with<T: Serialize>(path: &Path, value: &T, sync: Sync) -> Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    let beside = std::path::PathBuf::from(beside);
    let mut bytes =
        serde_json::to_vec(value).map_err(|source| StoreError::Record { path: path.to_owned(), source })?;
    bytes.push(b'\n');
    let mut file = File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&beside)
        .map_err(SysError::io("open", beside.to_string_lossy()))?;
    file.write_all(&bytes).map_err(SysError::io("write", beside.to_string_lossy()))?;
    if sync == Sync::No {
        return std::fs::rename(&beside, path)
            .map_err(|error| SysError::io("rename", path.to_string_lossy())(error).into());
    }
    fsync(&file, &beside)?;
    publish(&beside, path)
}
