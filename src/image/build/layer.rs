//! A layer that is new: packed into a file without a name, then stored and unpacked.
use super::{BuildError, Result};
use crate::image::diff::DiffError;
use crate::image::digest::{Digest, Hasher};
use crate::image::manifest::{Compression, Descriptor};
use crate::image::store::{Import, Slot};
use crate::image::unpack::Limits;
use crate::image::unpack::decode::{self, Decoder, Growth};
use crate::sys::SysError;
use flate2::write::GzEncoder;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

const CHUNK: usize = 256 << 10;

/// A layer's blob in a file, with its digests.
#[derive(Debug)]
pub struct NewLayer {
    file: File,
    descriptor: Descriptor,
    compression: Compression,
    diff_id: Digest,
}

/// The media type of a layer in an OCI manifest.
fn media_type(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "application/vnd.oci.image.layer.v1.tar",
        Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
        Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
    }
}

impl NewLayer {
    /// Packs the tar stream that `write` gives with gzip, of at most `limit` bytes.
    ///
    /// The same stream gives the same blob: the gzip header has neither a name nor a time.
    pub fn pack<E: Into<BuildError>>(
        import: &Import<'_>,
        limit: u64,
        write: impl FnOnce(Packer) -> std::result::Result<Packer, E>,
    ) -> Result<NewLayer> {
        let out = Hashed { file: import.scratch()?, hasher: Hasher::new() };
        let packer = Packer {
            encoder: GzEncoder::new(out, flate2::Compression::default()),
            hasher: Hasher::new(),
            limit,
        };
        let packer = write(packer).map_err(|error| match error.into() {
            BuildError::Diff(DiffError::Write(error)) if error.kind() == io::ErrorKind::FileTooLarge => {
                BuildError::TooLarge { limit }
            }
            other => other,
        })?;
        let diff_id = packer.hasher.finish();
        let Hashed { file, hasher } = packer.encoder.finish().map_err(scratch)?;
        NewLayer::new(file, hasher, Compression::Gzip, diff_id)
    }

    /// Takes a blob as it is, and finds its digests out; it is read to its end, and kept if it cannot be read twice.
    pub fn read(import: &Import<'_>, mut input: File, growth: Growth) -> Result<NewLayer> {
        let failed = |call| move |error| BuildError::Read(SysError::io(call, "root file system")(error));
        let mut start = Vec::new();
        let seekable = input.metadata().map_err(failed("fstat"))?.is_file();
        (&mut input).take(6).read_to_end(&mut start).map_err(failed("read"))?;
        match start.as_slice() {
            [] => return Err(BuildError::Empty),
            [0xfd, b'7', b'z', b'X', b'Z', 0] => return Err(BuildError::Compression { name: "xz" }),
            [b'B', b'Z', b'h', ..] => return Err(BuildError::Compression { name: "bzip2" }),
            _ => {}
        }
        let compression = decode::detect(&start);
        let mut seen = Seen { input: io::Cursor::new(start).chain(input), hasher: Hasher::new(), copy: None };
        if !seekable {
            seen.copy = Some(import.scratch()?);
        }
        let mut decoder = Decoder::new(&mut seen, compression, growth).map_err(BuildError::Decode)?;
        let mut stream = Hasher::new();
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = decoder.fill(&mut chunk).map_err(BuildError::Decode)?;
            stream.update(&chunk[..count]);
            if count < chunk.len() {
                break;
            }
        }
        drop(decoder);
        let Seen { input, hasher, copy } = seen;
        let file = copy.unwrap_or_else(|| input.into_inner().1);
        NewLayer::new(file, hasher, compression, stream.finish())
    }

    fn new(file: File, hasher: Hasher, compression: Compression, diff_id: Digest) -> Result<NewLayer> {
        let size = hasher.length();
        let media_type = media_type(compression).to_owned();
        let descriptor = Descriptor { media_type, digest: hasher.finish(), size };
        Ok(NewLayer { file, descriptor, compression, diff_id })
    }

    /// The digest of its tar stream.
    pub fn diff_id(&self) -> &Digest {
        &self.diff_id
    }

    pub(super) fn compression(&self) -> Compression {
        self.compression
    }

    /// Unpacks it on top of the layers below, which are there, and stores its blob. `diff_ids` are those of the whole
    /// image.
    pub(super) fn store(
        &self,
        import: &Import<'_>,
        diff_ids: &[Digest],
        limits: &Limits,
    ) -> Result<Descriptor> {
        let Descriptor { digest, size, .. } = self.descriptor;
        if !import.store().has_blob(&digest, size) {
            let mut writer = import.blob_writer(&digest, size)?;
            io::copy(&mut self.rewound()?, &mut writer)
                .map_err(|error| BuildError::Scratch(SysError::io("write", digest.hex())(error)))?;
            // Here at the latest shows that a file was changed since it was read.
            writer.commit()?;
        }
        if let Slot::Build(staging) = import.layer(diff_ids, diff_ids.len() - 1)? {
            let unpacked = staging.unpack(self.rewound()?, self.compression, limits)?;
            staging.commit(unpacked)?;
        }
        Ok(self.descriptor.clone())
    }

    fn rewound(&self) -> Result<&File> {
        (&self.file).seek(SeekFrom::Start(0)).map_err(scratch)?;
        Ok(&self.file)
    }
}

fn scratch(error: io::Error) -> BuildError {
    BuildError::Scratch(SysError::io("write", "new layer")(error))
}

/// Takes a tar stream and packs it.
#[derive(Debug)]
pub struct Packer {
    encoder: GzEncoder<Hashed>,
    hasher: Hasher,
    limit: u64,
}

impl Write for Packer {
    /// Fails with `FileTooLarge` beyond the limit.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.hasher.length() + bytes.len() as u64 > self.limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let count = self.encoder.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.encoder.flush()
    }
}

#[derive(Debug)]
struct Hashed {
    file: File,
    hasher: Hasher,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Hashes what is read, and copies it.
struct Seen<R> {
    input: R,
    hasher: Hasher,
    copy: Option<File>,
}

impl<R: Read> Read for Seen<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        if let Some(copy) = &mut self.copy {
            copy.write_all(&buffer[..count])?;
        }
        Ok(count)
    }
}
