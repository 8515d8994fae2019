//! Saving images: as OCI layouts, in a tar archive or a directory, with every blob as it is in the store, and as what
//! `docker load` reads, with plain layers.
//!
//! The same images give the same bytes: names and blobs come in a fixed order, and no header has a time or an owner.

use crate::error::{ErrorKind, Kind};
use crate::image::diff::writer::Writer;
use crate::image::digest::{Digest, Hasher};
use crate::image::manifest::{self, Descriptor, Document, Manifest, ManifestError};
use crate::image::reference::Reference;
use crate::image::store::{Image, Store, StoreError};
use crate::image::unpack::decode::DecodeError;
use crate::image::unpack::tar::{Entry, Kind as TarKind, Time};
use crate::sys::SysError;
use crate::sys::root::Root;
use nix::sys::stat::Mode;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

mod docker;
mod oci;

/// Why images were not saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    #[error("cannot read the image store")]
    Store(#[from] StoreError),
    #[error("the manifest {digest} of the image cannot be used")]
    Manifest {
        digest: Digest,
        #[source]
        source: ManifestError,
    },
    #[error("cannot read {what} from the image store")]
    Read {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("{what} in the image store is damaged: it has the digest {actual} (see corten fsck)")]
    Damaged { what: String, actual: Digest },
    #[error("layer {digest} cannot be decompressed")]
    Decode {
        digest: Digest,
        #[source]
        source: DecodeError,
    },
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
    #[error("cannot write {name:?} of the layout")]
    Layout {
        name: String,
        #[source]
        source: SysError,
    },
}

impl Kind for SaveError {
    fn kind(&self) -> ErrorKind {
        match self {
            SaveError::Store(source) => source.kind(),
            SaveError::Manifest { source, .. } => source.kind(),
            SaveError::Read { .. } | SaveError::Write(_) => ErrorKind::System,
            SaveError::Damaged { .. } => ErrorKind::Corrupt,
            SaveError::Decode { source, .. } => source.kind(),
            SaveError::Layout { source, .. } => source.kind(),
        }
    }
}

type Result<T> = std::result::Result<T, SaveError>;

/// An image, and the names that it is saved under.
#[derive(Debug, Clone)]
pub struct Saved {
    pub image: Image,
    pub names: Vec<Reference>,
}

/// Writes a tar archive of an OCI layout.
pub fn oci_archive(store: &Store, images: &[Saved], out: impl Write) -> Result<()> {
    let _kept = store.import()?;
    let mut sink = Sink::Tar(Writer::new(out));
    oci::write(store, images, &mut sink)?;
    sink.finish()
}

/// Writes an OCI layout into an empty directory.
pub fn oci_directory(store: &Store, images: &[Saved], dir: &Path) -> Result<()> {
    let _kept = store.import()?;
    let root = Root::open_host(dir);
    let root =
        root.map_err(|source| SaveError::Layout { name: dir.to_string_lossy().into_owned(), source })?;
    let mut sink: Sink<io::Sink> = Sink::Directory(root);
    oci::write(store, images, &mut sink)?;
    sink.finish()
}

/// Writes an archive as `docker save` does, with plain layers: what every version of docker and podman loads.
pub fn docker_archive(store: &Store, images: &[Saved], out: impl Write) -> Result<()> {
    let _kept = store.import()?;
    let mut sink = Sink::Tar(Writer::new(out));
    docker::write(store, images, &mut sink)?;
    sink.finish()
}

fn manifest_of(store: &Store, descriptor: &Descriptor) -> Result<Manifest> {
    let digest = descriptor.digest;
    let bytes = store.read_blob(&digest, manifest::MANIFEST_MAX)?;
    let failed = |source| SaveError::Manifest { digest, source };
    match manifest::parse(&bytes, Some(&descriptor.media_type)).map_err(failed)? {
        Document::Manifest(manifest) => Ok(manifest),
        Document::Index(_) => Err(failed(ManifestError::Missing { field: "config" })),
    }
}

/// Where files are written.
enum Sink<W> {
    Tar(Writer<W>),
    Directory(Root),
}

impl<W: Write> Sink<W> {
    fn directory(&mut self, name: &str) -> Result<()> {
        match self {
            Sink::Tar(out) => out.entry(&entry(name, TarKind::Directory, 0)).map_err(SaveError::Write),
            Sink::Directory(root) => match root.mkdir_all(Path::new(name), Mode::from_bits_truncate(0o755)) {
                Ok(_) => Ok(()),
                Err(source) => Err(SaveError::Layout { name: name.to_owned(), source }),
            },
        }
    }

    fn bytes(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.stream(name, bytes.len() as u64, bytes).map(drop)
    }

    /// Writes a file of `size` bytes, and tells their digest.
    fn stream(&mut self, name: &str, size: u64, mut from: impl Read) -> Result<Digest> {
        let mut hasher = Hasher::new();
        let failed = |source| SaveError::Read { what: name.to_owned(), source };
        let mut file = None;
        match self {
            Sink::Tar(out) => out.entry(&entry(name, TarKind::File, size)).map_err(SaveError::Write)?,
            Sink::Directory(root) => {
                let created = root.create_file(Path::new(name), Mode::from_bits_truncate(0o644));
                let created =
                    created.map_err(|source| SaveError::Layout { name: name.to_owned(), source })?;
                file = Some(File::from(created));
            }
        }
        let mut chunk = vec![0; 256 << 10];
        let mut left = size;
        while left > 0 {
            let length = usize::try_from(left).map_or(chunk.len(), |left| left.min(chunk.len()));
            from.read_exact(&mut chunk[..length]).map_err(failed)?;
            hasher.update(&chunk[..length]);
            match (&mut *self, &mut file) {
                (_, Some(file)) => file.write_all(&chunk[..length]).map_err(SaveError::Write)?,
                (Sink::Tar(out), None) => out.data(&chunk[..length]).map_err(SaveError::Write)?,
                (Sink::Directory(_), None) => {}
            }
            left -= length as u64;
        }
        if let Some(file) = file {
            file.sync_all().map_err(SaveError::Write)?;
        }
        Ok(hasher.finish())
    }

    fn finish(self) -> Result<()> {
        match self {
            Sink::Tar(out) => out.finish().and_then(|mut out| out.flush()).map_err(SaveError::Write),
            Sink::Directory(_) => Ok(()),
        }
    }
}

fn entry(name: &str, kind: TarKind, size: u64) -> Entry {
    let mode = if kind == TarKind::Directory { 0o755 } else { 0o644 };
    let path = name.as_bytes().to_vec();
    Entry { path, kind, size, mode, uid: 0, gid: 0, mtime: Time::default(), xattrs: Vec::new() }
}
