//! Blobs that a pull has begun: kept through a kill, gone on with by the next, and fetched by one process at a time.
//!
//! ```text
//! partial/<hex>   the first bytes of a blob, in order; locked (flock) by whoever adds to it
//!
//!            create or take over       all bytes, right digest
//! (nothing) ---------------------> held ----------------------> content/blobs/sha256/<hex>
//!                 ^                 |  \ wrong digest
//!                 | dropped, killed |   +---------------------> (nothing)
//!                 +--- left alone <-+
//!                         | a week old, or pruned
//!                         +-----------------------------------> (nothing)
//! ```
//!
//! What is there says nothing about what it should be: whoever goes on hashes it again, and only the digest of the whole
//! decides. They are under their own directory because everything under `staging/` that nobody holds is swept.
use super::behind::Behind;
use super::collect::{self, Object, Reason, Verdict, Verdicts, Weigh};
use super::{Import, Result, Store, StoreError, entries, fsync, private_dir, publish};
use crate::image::digest::{Digest, Hasher};
use crate::sys::SysError;
use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What nobody went on with for so long is not kept.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// What there is of a blob that is wanted.
#[derive(Debug)]
pub enum Claim {
    /// All of it, perhaps since a moment ago.
    Whole,
    /// Another process or thread fetches it; it has so many bytes by now.
    Elsewhere { length: u64 },
    /// The caller fetches it; everybody else who wants it waits.
    Held(Box<PartialBlob>),
}

impl Import<'_> {
    /// Takes a blob that is to be fetched, without waiting.
    pub fn take_blob(&self, digest: &Digest, size: u64) -> Result<Claim> {
        let store = self.store();
        loop {
            if store.has_blob(digest, size) {
                return Ok(Claim::Whole);
            }
            private_dir(&store.partial())?;
            let path = store.partial().join(digest.hex());
            let file = File::options()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .mode(0o600)
                .custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits())
                .open(&path)
                .map_err(SysError::io("open", path.to_string_lossy()))?;
            match file.try_lock() {
                Ok(()) if is_at(&file, &path)? => {}
                // Published or swept between the two calls.
                Ok(()) => continue,
                Err(TryLockError::WouldBlock) => {
                    return Ok(Claim::Elsewhere { length: length(&file, &path)? });
                }
                Err(TryLockError::Error(error)) => {
                    return Err(SysError::io("flock", path.to_string_lossy())(error).into());
                }
            }
            // Whoever had it before may have published it since the first look.
            if store.has_blob(digest, size) {
                std::fs::remove_file(&path).map_err(SysError::io("unlink", path.to_string_lossy()))?;
                return Ok(Claim::Whole);
            }
            let mut found = length(&file, &path)?;
            if found > size {
                file.set_len(0).map_err(SysError::io("ftruncate", path.to_string_lossy()))?;
                found = 0;
            }
            let target = store.blobs().join(digest.hex());
            let (digest, hasher) = (*digest, Hasher::new());
            let behind = Behind::default();
            let blob = PartialBlob { file, path, target, hasher, behind, digest, size, found };
            return Ok(Claim::Held(Box::new(blob)));
        }
    }
}

fn length(file: &File, path: &Path) -> Result<u64> {
    Ok(file.metadata().map_err(SysError::io("fstat", path.to_string_lossy()))?.len())
}

/// Whether `path` still names this file.
fn is_at(file: &File, path: &Path) -> Result<bool> {
    let held = file.metadata().map_err(SysError::io("fstat", path.to_string_lossy()))?;
    match path.symlink_metadata() {
        Ok(named) => Ok((held.dev(), held.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(SysError::io("lstat", path.to_string_lossy())(error).into()),
    }
}

/// A blob that is being fetched. Dropped, it stays for the next attempt, unless nothing of it came.
#[derive(Debug)]
pub struct PartialBlob {
    file: File,
    path: PathBuf,
    target: PathBuf,
    hasher: Hasher,
    behind: Behind,
    digest: Digest,
    size: u64,
    /// So many bytes were there, which are read before more are written.
    found: u64,
}

impl PartialBlob {
    /// Bytes that an earlier attempt has left; they are to be read before more are written.
    pub fn found(&self) -> u64 {
        self.found
    }

    /// Reads some of the next bytes that an earlier attempt has left, which are hashed again; 0 is their end.
    pub fn read_found(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.found - self.hasher.length().min(self.found);
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let count = self.file.read(&mut buffer[..want])?;
        if count == 0 {
            // Somebody else has made it shorter; the digest cannot be right any more.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }

    /// Verifies size and digest, makes the blob durable and gives it its name. What is wrong is removed.
    ///
    /// # Errors
    /// [`StoreError::BlobSize`], which leaves what there is; [`StoreError::BlobDigest`].
    pub fn commit(mut self) -> Result<()> {
        let actual = self.hasher.length();
        if actual != self.size {
            return Err(StoreError::BlobSize { digest: self.digest, expected: self.size, actual });
        }
        let actual = std::mem::replace(&mut self.hasher, Hasher::new()).finish();
        if actual != self.digest {
            let expected = self.digest;
            self.discard()?;
            return Err(StoreError::BlobDigest { expected, actual });
        }
        fsync(&self.file, &self.path)?;
        publish(&self.path, &self.target)
    }

    /// Removes what there is: it cannot become the blob.
    pub fn discard(self) -> Result<()> {
        Ok(std::fs::remove_file(&self.path).map_err(SysError::io("unlink", self.path.to_string_lossy()))?)
    }
}

impl Write for PartialBlob {
    /// Fails with `FileTooLarge` as soon as more bytes come than the descriptor promises.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.hasher.length() + bytes.len() as u64 > self.size {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if self.hasher.length() < self.found {
            // What is there was not read: it is written over.
            self.file.set_len(self.hasher.length())?;
            self.file.seek(SeekFrom::Start(self.hasher.length()))?;
            self.found = self.hasher.length();
        }
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.behind.grown(&self.file, self.hasher.length());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for PartialBlob {
    fn drop(&mut self) {
        // An empty file helps nobody; what cannot be removed now is swept later. Published, it has another name.
        if self.hasher.length() == 0
            && self.file.metadata().is_ok_and(|meta| meta.len() == 0)
            && is_at(&self.file, &self.path).unwrap_or(false)
        {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Removes what nobody fetches and nobody has added to for `age`.
pub(super) fn sweep(store: &Store, age: Duration) -> Result<()> {
    for name in entries(&store.partial())? {
        let path = store.partial().join(&name);
        if let Some(file) = idle(&path)?
            // A time in the future is no old one.
            && file.metadata().and_then(|meta| meta.modified()).is_ok_and(|time| {
                time.elapsed().is_ok_and(|elapsed| elapsed >= age)
            })
        {
            std::fs::remove_file(&path).map_err(SysError::io("unlink", path.to_string_lossy()))?;
        }
    }
    Ok(())
}

/// What nobody fetches now; nobody can while the lock that is returned lives.
fn idle(path: &Path) -> Result<Option<File>> {
    let opened = File::options().read(true).custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits()).open(path);
    // Gone, or nothing that the store makes.
    let Ok(file) = opened else { return Ok(None) };
    Ok(if file.try_lock().is_ok() && is_at(&file, path)? { Some(file) } else { None })
}

/// Decides on every blob that a pull has begun, and removes what goes unless this is a dry run.
pub(super) fn verdicts(store: &Store, dry_run: bool) -> Result<Verdicts> {
    let mut verdicts = Verdicts::default();
    for digest in collect::digests(&store.partial())? {
        let path = store.partial().join(digest.hex());
        let bytes = collect::weight(&store.partial(), &digest.hex(), Weigh::Yes)?;
        let object = Object::Download(digest);
        match idle(&path)? {
            Some(_held) => {
                if !dry_run {
                    std::fs::remove_file(&path).map_err(SysError::io("unlink", path.to_string_lossy()))?;
                }
                verdicts.goes.push(Verdict { object, bytes, reason: Reason::Interrupted });
            }
            None => verdicts.stays.push(Verdict { object, bytes, reason: Reason::Importing }),
        }
    }
    Ok(verdicts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: &[u8] = b"all the bytes of a blob";

    fn held(taken: Claim) -> PartialBlob {
        match taken {
            Claim::Held(blob) => *blob,
            other => panic!("{other:?}"),
        }
    }

    struct Bench {
        _dir: tempfile::TempDir,
        store: Store,
    }

    fn bench() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        Bench { _dir: dir, store }
    }

    fn count(bench: &Bench) -> usize {
        entries(&bench.store.partial()).unwrap().len()
    }

    fn take(import: &Import<'_>) -> Claim {
        import.take_blob(&Digest::of(BYTES), BYTES.len() as u64).unwrap()
    }

    fn read_found(blob: &mut PartialBlob) -> Vec<u8> {
        let (mut all, mut buffer) = (Vec::new(), [0; 4]);
        loop {
            match blob.read_found(&mut buffer).unwrap() {
                0 => return all,
                count => all.extend_from_slice(&buffer[..count]),
            }
        }
    }

    #[test]
    fn a_blob_goes_on_where_it_was() {
        let bench = bench();
        let import = bench.store.import().unwrap();
        let mut blob = held(take(&import));
        blob.write_all(&BYTES[..10]).unwrap();
        assert!(matches!(take(&import), Claim::Elsewhere { length: 10 }));
        drop(blob);
        // Another process opens the store meanwhile.
        Store::open(bench.store.root()).unwrap();
        let mut blob = held(take(&import));
        assert_eq!(blob.found(), 10);
        assert_eq!(read_found(&mut blob), &BYTES[..10]);
        blob.write_all(&BYTES[10..]).unwrap();
        assert!(blob.write_all(b"x").is_err());
        blob.commit().unwrap();
        assert!(matches!(take(&import), Claim::Whole));
        assert_eq!(bench.store.read_blob(&Digest::of(BYTES), 100).unwrap(), BYTES);
        assert!(entries(&bench.store.partial()).unwrap().is_empty());
    }

    #[test]
    fn a_blob_that_is_not_what_its_name_says_is_gone() {
        let bench = bench();
        let import = bench.store.import().unwrap();
        let mut blob = held(take(&import));
        blob.write_all(&vec![b'x'; BYTES.len()]).unwrap();
        assert!(matches!(blob.commit(), Err(StoreError::BlobDigest { .. })));
        assert!(entries(&bench.store.partial()).unwrap().is_empty());
        let mut blob = held(take(&import));
        blob.write_all(b"short").unwrap();
        assert!(matches!(blob.commit(), Err(StoreError::BlobSize { actual: 5, .. })));
        // Begun again without reading what is there.
        let mut blob = held(take(&import));
        blob.write_all(BYTES).unwrap();
        blob.commit().unwrap();
        assert!(matches!(take(&import), Claim::Whole));
    }

    #[test]
    fn nothing_and_what_is_too_long() {
        let bench = bench();
        let import = bench.store.import().unwrap();
        drop(held(take(&import)));
        assert!(entries(&bench.store.partial()).unwrap().is_empty());
        let path = bench.store.partial().join(Digest::of(BYTES).hex());
        std::fs::write(&path, [0; 1000]).unwrap();
        assert_eq!(held(take(&import)).found(), 0);
    }

    #[test]
    fn the_sweep_takes_what_is_old_and_nobodys() {
        let bench = bench();
        let import = bench.store.import().unwrap();
        let mut blob = held(take(&import));
        blob.write_all(&BYTES[..10]).unwrap();
        sweep(&bench.store, Duration::ZERO).unwrap();
        assert_eq!(count(&bench), 1, "it is held");
        drop(blob);
        sweep(&bench.store, Duration::from_secs(3600)).unwrap();
        assert_eq!(count(&bench), 1, "it is young");
        sweep(&bench.store, Duration::ZERO).unwrap();
        assert_eq!(count(&bench), 0);
        assert!(entries(&bench.store.partial()).unwrap().is_empty());
    }
}
