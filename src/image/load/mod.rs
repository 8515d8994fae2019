//! Loading images from archives: OCI layouts (a tar archive or a directory) and what `docker save` writes,
//! each plain or compressed.
//!
//! An archive is as hostile as a registry: its names stay inside of it, what it claims is verified by size,
//! digest and diffID, and an image gets its name last.

use crate::error::{ErrorKind, Kind};
use crate::image::digest::Digest;
use crate::image::manifest::{self, Compression, Descriptor, ManifestError};
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use crate::image::store::{Image, Import, Store, StoreError, TakenName};
use crate::image::unpack::decode::{self, DecodeError, Decoder, Growth};
use crate::image::unpack::tar::TarError;
use crate::image::unpack::{Limits, NameError};
use crate::sys::SysError;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

mod archive;
mod docker;
mod layers;
mod oci;

use archive::Archive;

/// The most images of one archive.
const IMAGES_MAX: usize = 1000;

/// Why an archive was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot read the image archive")]
    System(#[from] SysError),
    #[error("cannot decompress the image archive")]
    Decode(#[source] DecodeError),
    #[error("image archive is compressed with {name}, which is not supported: use gzip or zstd")]
    Compression { name: &'static str },
    #[error("image archive is no acceptable tar archive")]
    Tar(#[from] TarError),
    #[error("image archive has a bad member name {name:?}")]
    Name {
        name: String,
        #[source]
        source: NameError,
    },
    #[error("image archive has more than {limit} members")]
    TooManyMembers { limit: usize },
    #[error("image archive has the member {name:?} twice")]
    Twice { name: String },
    #[error("image archive has no file {name:?}, to which it refers")]
    Missing { name: String },
    #[error("{name:?} of the image archive is no file")]
    NoFile { name: String },
    #[error("{name:?} of the image archive leads out of it")]
    Escapes { name: String },
    #[error("{name:?} of the image archive is a link to itself")]
    Loop { name: String },
    #[error("{name:?} of the image archive has {size} bytes: at most {limit} are allowed")]
    TooLarge { name: String, size: u64, limit: u64 },
    #[error("neither an OCI layout nor an archive of docker save: it has no index.json and no manifest.json")]
    Unknown,
    #[error("manifest.json of the image archive is not valid")]
    DockerManifest(#[source] serde_json::Error),
    #[error("index.json of the image archive is not valid")]
    Index(#[source] serde_json::Error),
    #[error("image archive has no image")]
    Empty,
    #[error("image archive has {count} images, at most {IMAGES_MAX} are supported")]
    TooManyImages { count: usize },
    #[error("indexes of the image archive are nested too deep")]
    Nested,
    #[error("the manifest or configuration {digest} of the image archive cannot be used")]
    Manifest {
        digest: Digest,
        #[source]
        source: ManifestError,
    },
    #[error("image archive names an image {name:?}, which is no valid name")]
    Reference {
        name: String,
        #[source]
        source: crate::image::reference::ReferenceError,
    },
    #[error("cannot store the image")]
    Store(#[from] StoreError),
    #[error("cannot write layer {digest} to the image store")]
    Write {
        digest: Digest,
        #[source]
        source: std::io::Error,
    },
}

impl Kind for LoadError {
    fn kind(&self) -> ErrorKind {
        match self {
            LoadError::System(source) => source.kind(),
            LoadError::Decode(source) => source.kind(),
            LoadError::Compression { .. } => ErrorKind::Unsupported,
            LoadError::TooManyMembers { .. }
            | LoadError::TooManyImages { .. }
            | LoadError::TooLarge { .. } => ErrorKind::Exhausted,
            LoadError::Manifest { source, .. } => source.kind(),
            LoadError::Store(source) => source.kind(),
            LoadError::Write { .. } => ErrorKind::System,
            LoadError::Unknown | LoadError::Empty => ErrorKind::InvalidInput,
            _ => ErrorKind::Corrupt,
        }
    }
}

pub(crate) type Result<T> = std::result::Result<T, LoadError>;

/// How to load.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which image of an index is taken.
    pub platform: Platform,
    pub limits: Limits,
    /// How many layers are unpacked at the same time.
    pub parallel: usize,
    /// What becomes of a name that another image has: an archive says nothing of who made it, so that a name which
    /// means what a registry once sent must not change unasked (CVE-2024-24557).
    pub taken: TakenName,
}

impl Default for Options {
    /// As many layers at the same time as there are processors, but at least two and at most four.
    fn default() -> Options {
        let parallel = std::thread::available_parallelism().map_or(2, |count| count.get().clamp(2, 4));
        let taken = TakenName::Refuse;
        Options { platform: Platform::host(), limits: Limits::default(), parallel, taken }
    }
}

/// An image that was loaded, and the names that it got.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub image: Image,
    pub names: Vec<Reference>,
    /// Names that stay with other images.
    pub refused: Vec<Reference>,
}

/// What is loaded.
#[derive(Debug)]
pub enum Source<'a> {
    /// A file or a pipe.
    Stream(File),
    /// A layout directory.
    Directory(&'a Path),
}

/// Loads all images of `source`.
pub fn load(store: &Store, source: Source<'_>, options: &Options) -> Result<Vec<Loaded>> {
    let import = store.import()?;
    let archive = match source {
        Source::Directory(path) => Archive::directory(path)?,
        Source::Stream(file) => Archive::tar(plain(&import, file, options.limits.growth)?)?,
    };
    let loader = Loader { archive, import, options };
    let result = loader.images();
    // Blobs of what was refused belong to nobody.
    if result.is_err()
        && let Err(error) = loader.import.abandon()
    {
        tracing::warn!("cannot collect what a failed load has left: {}", crate::error::chain(&error));
    }
    result
}

struct Loader<'a> {
    archive: Archive,
    import: Import<'a>,
    options: &'a Options,
}

impl Loader<'_> {
    fn images(&self) -> Result<Vec<Loaded>> {
        // `docker save` writes both since Docker 25; index.json says more.
        if let Some(index) = self.archive.read(b"index.json", manifest::MANIFEST_MAX)? {
            return self.oci(&index);
        }
        if let Some(manifest) = self.archive.read(b"manifest.json", manifest::MANIFEST_MAX)? {
            return self.docker(&manifest);
        }
        Err(LoadError::Unknown)
    }

    /// Names an image whose blobs and layers are in the store.
    fn commit(&self, manifest: &Descriptor, names: Vec<Reference>) -> Result<Loaded> {
        let mut image = None;
        let (mut given, mut refused) = (Vec::new(), Vec::new());
        for name in names {
            match self.import.commit_image_as(Some(&name), manifest, self.options.taken) {
                Ok(named) => {
                    image = Some(named);
                    given.push(name);
                }
                Err(StoreError::NameTaken { .. }) => refused.push(name),
                Err(error) => return Err(error.into()),
            }
        }
        let image = match image {
            Some(image) => image,
            None => self.import.commit_image(None, manifest)?,
        };
        Ok(Loaded { image, names: given, refused })
    }
}

/// A file that can be read at any place: the archive itself, or a decompressed copy of it.
fn plain(import: &Import<'_>, mut file: File, growth: Growth) -> Result<File> {
    let meta = file.metadata().map_err(SysError::io("fstat", "image archive"))?;
    let mut start = [0; 6];
    let mut filled = 0;
    while filled < start.len() {
        match file.read(&mut start[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(SysError::io("read", "image archive")(error).into()),
        }
    }
    let start = &start[..filled];
    match start {
        [0xfd, b'7', b'z', b'X', b'Z', 0] => return Err(LoadError::Compression { name: "xz" }),
        [b'B', b'Z', b'h', ..] => return Err(LoadError::Compression { name: "bzip2" }),
        _ => {}
    }
    let compression = decode::detect(start);
    if meta.is_file() {
        file.seek(SeekFrom::Start(0)).map_err(SysError::io("lseek", "image archive"))?;
        if compression == Compression::None {
            return Ok(file);
        }
        return spool(import, file, compression, growth);
    }
    spool(import, std::io::Cursor::new(start.to_vec()).chain(file), compression, growth)
}

fn spool(import: &Import<'_>, input: impl Read, compression: Compression, growth: Growth) -> Result<File> {
    let mut decoder = Decoder::new(input, compression, growth).map_err(LoadError::Decode)?;
    let mut copy = import.scratch()?;
    let mut chunk = vec![0; 256 << 10];
    loop {
        let count = decoder.fill(&mut chunk).map_err(LoadError::Decode)?;
        copy.write_all(&chunk[..count]).map_err(SysError::io("write", "copy of the image archive"))?;
        if count < chunk.len() {
            return Ok(copy);
        }
    }
}
