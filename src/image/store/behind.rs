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
        let (from_signed, length) = (i64::try_from(from), i64::try_from(end - from));
        if let (Ok(from), Ok(length)) = (from_signed, length) {
            let _ = posix_fadvise(file, from, length, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
        self.told = end;
    }
}
