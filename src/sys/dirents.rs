//! Reading directories in large pieces (getdents64(2)): libc's stream reads 2 KiB at once with musl.
use super::SysError;
use nix::errno::Errno;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd};

/// Some 1,000 entries.
const BUFFER: usize = 32 << 10;
/// Bytes of `struct linux_dirent64` before the name: inode, offset, length of the entry, type.
const HEAD: usize = 19;

/// What the directory says an entry is; a file system may say nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// Anything else, or not told.
    Other,
}

/// The entries of an open directory, from its descriptor's position on.
#[derive(Debug, Default)]
pub struct Entries {
    buffer: Vec<u8>,
    at: usize,
    filled: usize,
}

impl Entries {
    /// Before the first read.
    pub fn new() -> Entries {
        Entries::default()
    }

    /// The next entry of `dir`, which is the same directory in each call; never "." or "..".
    pub fn next(&mut self, dir: impl AsFd) -> Result<Option<(&CStr, Kind)>, SysError> {
        loop {
            if self.at == self.filled {
                self.buffer.resize(BUFFER, 0);
                (self.at, self.filled) = (0, read(&dir, &mut self.buffer)?);
                if self.filled == 0 {
                    return Ok(None);
                }
            }
            let begin = self.at;
            let malformed = || SysError::on("getdents64", "entry")(Errno::EIO);
            let rest = &self.buffer[begin..self.filled];
            let length = rest.get(16..18).map(|bytes| usize::from(u16::from_ne_bytes([bytes[0], bytes[1]])));
            let length =
                length.filter(|&length| length > HEAD && length <= rest.len()).ok_or_else(malformed)?;
            self.at += length;
            let name = begin + HEAD..self.at;
            let dots = &self.buffer[name.clone()];
            if dots.starts_with(b".\0") || dots.starts_with(b"..\0") {
                continue;
            }
            let kind = match self.buffer[begin + 18] {
                libc::DT_DIR => Kind::Directory,
                _ => Kind::Other,
            };
            let name = CStr::from_bytes_until_nul(&self.buffer[name]).map_err(|_| malformed())?;
            return Ok(Some((name, kind)));
        }
    }
}

fn read(dir: &impl AsFd, buffer: &mut [u8]) -> Result<usize, SysError> {
    loop {
        // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`, which outlives the call.
        let result = unsafe {
            libc::syscall(libc::SYS_getdents64, dir.as_fd().as_raw_fd(), buffer.as_mut_ptr(), buffer.len())
        };
        match Errno::result(result) {
            // At most the buffer's length.
            Ok(count) => return Ok(usize::try_from(count).unwrap_or(0)),
            Err(Errno::EINTR) => {}
            // The directory was removed (getdents(2)): it has no entries.
            Err(Errno::ENOENT) => return Ok(0),
            Err(errno) => return Err(SysError::on("getdents64", "")(errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn all_entries_come_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut want = BTreeSet::new();
        for number in 0..2000 {
            let name = format!("{number}-{}", "n".repeat(number % 200));
            if number % 10 == 0 {
                std::fs::create_dir(dir.path().join(&name)).unwrap();
            } else {
                std::fs::write(dir.path().join(&name), b"").unwrap();
            }
            want.insert((name, number % 10 == 0));
        }
        let open = std::fs::File::open(dir.path()).unwrap();
        let (mut entries, mut found) = (Entries::new(), Vec::new());
        while let Some((name, kind)) = entries.next(&open).unwrap() {
            found.push((name.to_str().unwrap().to_owned(), kind == Kind::Directory));
        }
        assert_eq!(found.len(), want.len());
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), want);
    }
}
