//! Extended attributes of open files (xattr(7)).
use super::SysError;
use nix::errno::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd};

/// Sets attribute `name` of an open file (not of an `O_PATH` descriptor).
pub fn set(fd: impl AsFd, name: &CStr, value: &[u8]) -> Result<(), SysError> {
    // SAFETY: `name` is NUL-terminated, `value` is readable for `value.len()` bytes, and the kernel only
    // reads both; the borrowed descriptor stays open for the call.
    let result = unsafe {
        libc::fsetxattr(fd.as_fd().as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    };
    Errno::result(result).map(drop).map_err(SysError::on("fsetxattr", name.to_string_lossy()))
}

/// Removes attribute `name` of an open file.
pub fn remove(fd: impl AsFd, name: &CStr) -> Result<(), SysError> {
    // SAFETY: `name` is NUL-terminated; the borrowed descriptor stays open for the call.
    let result = unsafe { libc::fremovexattr(fd.as_fd().as_raw_fd(), name.as_ptr()) };
    Errno::result(result).map(drop).map_err(SysError::on("fremovexattr", name.to_string_lossy()))
}

/// Attribute `name` of an open file, `None` if it has none or the file system knows no attributes.
pub fn get(fd: impl AsFd, name: &CStr) -> Result<Option<Vec<u8>>, SysError> {
    let raw = fd.as_fd().as_raw_fd();
    let read = |buffer: &mut [u8]| {
        // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`, which outlives the call;
        // `name` is NUL-terminated.
        let result = unsafe { libc::fgetxattr(raw, name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
        Errno::result(result).map(isize::cast_unsigned)
    };
    match grow(read) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(None),
        Err(errno) => Err(SysError::on("fgetxattr", name.to_string_lossy())(errno)),
    }
}

/// The names of an open file's attributes.
pub fn list(fd: impl AsFd) -> Result<Vec<CString>, SysError> {
    let raw = fd.as_fd().as_raw_fd();
    let read = |buffer: &mut [u8]| {
        // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`, which outlives the call.
        let result = unsafe { libc::flistxattr(raw, buffer.as_mut_ptr().cast(), buffer.len()) };
        Errno::result(result).map(isize::cast_unsigned)
    };
    let names = match grow(read) {
        Ok(names) => names,
        Err(Errno::EOPNOTSUPP) => return Ok(Vec::new()),
        Err(errno) => return Err(SysError::on("flistxattr", String::new())(errno)),
    };
    Ok(names
        .split_inclusive(|&byte| byte == 0)
        .filter_map(|name| CStr::from_bytes_with_nul(name).ok().map(CStr::to_owned))
        .collect())
}

/// Reads with a larger buffer until the answer fits; the kernel's limit for both answers is 64 KiB
/// (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
fn grow(mut read: impl FnMut(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 256];
    loop {
        match read(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::ERANGE) if buffer.len() < 64 * 1024 => buffer.resize(buffer.len() * 4, 0),
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_get_list() {
        let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        assert_eq!(get(&file, c"user.none").unwrap(), None);
        let long = vec![b'x'; 3000];
        if set(&file, c"user.one", &long).is_err() {
            return; // this file system has no user attributes
        }
        set(&file, c"user.empty", b"").unwrap();
        assert_eq!(get(&file, c"user.one").unwrap(), Some(long));
        assert_eq!(get(&file, c"user.empty").unwrap(), Some(Vec::new()));
        set(&file, c"user.gone", b"x").unwrap();
        remove(&file, c"user.gone").unwrap();
        assert_eq!(get(&file, c"user.gone").unwrap(), None);
        let names = list(&file).unwrap();
        assert!(names.contains(&c"user.one".to_owned()) && names.contains(&c"user.empty".to_owned()));
    }
}
