//! Blobs go to disk and out of the page cache while they come.
//!
//! Nobody reads a packed layer soon, and the unpacked one needs the memory: fresh pages are what a pull spends most time in
//! the kernel on, above all in a virtual machine, where the host has to find them. And what is on its way to the disk early
//! is not waited for at the end. It changes no promise: what gets a name is synced all the same.
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use std::fs::File;

/// Bytes between two words to the kernel.
const STEP: u64 = 4 << 20;
/// How far back it is told again, because what was on its way then can be dropped only now.
const AGAIN: u64 = 64 << 20;

/// How far the kernel was told about a file that is written from its start to its end.
#[derive(Debug, Default)]
pub(super) struct Behind {
    told: u64,
}

impl Behind {
    /// The file has grown to `end` bytes.
    pub(super) fn grown(&mut self, file: &File, end: u64) {
        if end < self.told + STEP {
            return;
        }
        // Starts to write what is dirty, and drops what is clean (mm/fadvise.c). A file system that cannot writes it later.
        let from = self.told.saturating_sub(AGAIN);
        if let (Ok(from), Ok(length)) = (i64::try_from(from), i64::try_from(end - from)) {
            let _ = posix_fadvise(file, from, length, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
        self.told = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, SeekFrom, Write};

    #[test]
    fn what_was_dropped_is_still_in_the_file() {
        let mut file = tempfile::tempfile().unwrap();
        let mut behind = Behind::default();
        let mut all = Vec::new();
        for value in 0..40_u8 {
            let part = vec![value; 300_000];
            file.write_all(&part).unwrap();
            all.extend(part);
            behind.grown(&file, all.len() as u64);
        }
        assert!(behind.told > all.len() as u64 - STEP && behind.told >= STEP);
        file.seek(SeekFrom::Start(0)).unwrap();
        let mut read = Vec::new();
        file.read_to_end(&mut read).unwrap();
        assert!(read == all);
    }
}
