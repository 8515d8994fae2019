//! Blobs: written to staging, verified, synced, renamed.
use super::behind::Behind;
use super::staging::StagingFile;
use super::{Import, Result, Store, StoreError};
use crate::image::digest::{Digest, Hasher};
use crate::sys::SysError;
use std::fs::File;
use std::io::{self, Read, Write};

impl Store {
    /// Whether the blob is here with this size. What is here was verified before it got its name.
    pub fn has_blob(&self, digest: &Digest, size: u64) -> bool {
        // A blob of another size is a descriptor that lies; the caller's next step finds that out.
        std::fs::symlink_metadata(self.blobs().join(digest.hex())).is_ok_and(|meta| meta.len() == size)
    }

    /// Opens a blob for reading.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        let path = self.blobs().join(digest.hex());
        match File::open(&path) {
            Ok(file) => Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(StoreError::NoBlob { digest: *digest })
            }
            Err(error) => Err(SysError::io("open", path.to_string_lossy())(error).into()),
        }
    }

    /// Reads a small blob (a manifest or a configuration) of at most `limit` bytes, and verifies it again.
    pub fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let path = || self.blobs().join(digest.hex());
        let mut bytes = Vec::new();
        self.open_blob(digest)?
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| SysError::io("read", path().to_string_lossy())(error))?;
        let size = bytes.len() as u64;
        if size > limit {
            return Err(StoreError::TooLarge { path: path(), size, limit });
        }
        let actual = Digest::of(&bytes);
        if actual != *digest {
            return Err(StoreError::BlobDigest { expected: *digest, actual });
        }
        Ok(bytes)
    }
}

impl Import<'_> {
    /// Starts a blob of that digest and size.
    pub fn blob_writer(&self, digest: &Digest, size: u64) -> Result<BlobWriter> {
        Ok(BlobWriter {
            file: StagingFile::create(self.store())?,
            target: self.store().blobs().join(digest.hex()),
            hasher: Hasher::new(),
            behind: Behind::default(),
            digest: *digest,
            size,
        })
    }

    /// Stores a small blob under its own digest, which is returned.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if !self.store().has_blob(&digest, bytes.len() as u64) {
            let mut writer = self.blob_writer(&digest, bytes.len() as u64)?;
            writer.write_all(bytes).map_err(SysError::io("write", digest.hex()))?;
            writer.commit()?;
        }
        Ok(digest)
    }
}

/// A blob that is being written. Dropped without [`BlobWriter::commit`], it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    file: StagingFile,
    target: std::path::PathBuf,
    hasher: Hasher,
    behind: Behind,
    digest: Digest,
    size: u64,
}

impl BlobWriter {
    /// How many bytes were written.
    pub fn written(&self) -> u64 {
        self.hasher.length()
    }

    /// Verifies size and digest, makes the blob durable and gives it its name.
    pub fn commit(self) -> Result<()> {
        let actual = self.hasher.length();
        if actual != self.size {
            return Err(StoreError::BlobSize { digest: self.digest, expected: self.size, actual });
        }
        let actual = self.hasher.finish();
        if actual != self.digest {
            return Err(StoreError::BlobDigest { expected: self.digest, actual });
        }
        self.file.publish(&self.target)
    }
}

impl Write for BlobWriter {
    /// Fails with `FileTooLarge` as soon as more bytes come than the descriptor promises.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.hasher.length() + bytes.len() as u64 > self.size {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let count = self.file.file().write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.behind.grown(self.file.file(), self.hasher.length());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
