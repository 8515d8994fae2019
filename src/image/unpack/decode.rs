//! From a blob to its tar stream: gzip (RFC 1952), zstd (RFC 8878) or plain, bounded.
use crate::error::{ErrorKind, Kind};
use crate::image::manifest::Compression;
use gzip::{Gzip, Inflate};
use std::io::{self, BufRead, BufReader, Read};

mod gzip;

pub use gzip::GzipError;

/// The largest window that a zstd frame may ask for: 2^27 bytes, what `zstd -d` takes without `--long=28`.
const ZSTD_WINDOW_LOG: u32 = 27;
const INPUT_BUFFER: usize = 128 << 10;

/// Why a blob has no tar stream.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The blob itself could not be read to its end.
    #[error("cannot read the layer blob")]
    Read(#[source] io::Error),
    #[error("layer blob is {found}, but its media type says {expected}")]
    Magic { expected: &'static str, found: &'static str },
    #[error("layer blob is damaged gzip data")]
    Gzip(#[source] GzipError),
    #[error("layer blob ends inside of its compressed data")]
    Truncated,
    #[error("layer blob has garbage after its gzip data")]
    Garbage,
    #[error("layer blob is damaged zstd data")]
    Zstd(#[source] io::Error),
    #[error("layer grows to more than {limit} bytes when it is decompressed")]
    TooLarge { limit: u64 },
    #[error("layer grows to more than {ratio} times the size of its blob when it is decompressed")]
    Ratio { ratio: u64 },
}

impl Kind for DecodeError {
    fn kind(&self) -> ErrorKind {
        match self {
            DecodeError::Read(_) => ErrorKind::System,
            DecodeError::TooLarge { .. } | DecodeError::Ratio { .. } => ErrorKind::Exhausted,
            _ => ErrorKind::Corrupt,
        }
    }
}

/// How far a blob may grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Growth {
    /// The most bytes of the tar stream.
    pub bytes: u64,
    /// The most bytes of the tar stream for each byte of the blob …
    pub ratio: u64,
    /// … once there are this many: a small layer of zeros is no bomb.
    pub free: u64,
}

impl Default for Growth {
    /// 128 GiB; 200 times beyond the first 64 MiB (gzip reaches 1032 times, file trees 10).
    fn default() -> Growth {
        Growth { bytes: 128 << 30, ratio: 200, free: 64 << 20 }
    }
}

/// The packing that the first bytes of a blob show. An empty blob is plain.
pub fn detect(start: &[u8]) -> Compression {
    match start {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        // A skippable frame may come first (RFC 8878, 3.1.2).
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        _ => Compression::None,
    }
}

fn name(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "a plain tar stream",
        Compression::Gzip => "gzip data",
        Compression::Zstd => "zstd data",
    }
}

/// Gives the tar stream of a blob, and reads the blob to its end.
pub struct Decoder<R: Read> {
    codec: Codec<R>,
    growth: Growth,
    produced: u64,
}

enum Codec<R: Read> {
    Plain(Input<R>),
    Gzip { input: Input<R>, state: Gzip },
    Zstd(Box<zstd::stream::read::Decoder<'static, Input<R>>>),
}

impl<R: Read> std::fmt::Debug for Decoder<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("growth", &self.growth).field("produced", &self.produced).finish()
    }
}

impl<R: Read> Decoder<R> {
    /// Reads the first bytes of `blob`.
    ///
    /// # Errors
    /// [`DecodeError::Magic`] unless the blob begins as `compression` must.
    pub fn new(blob: R, compression: Compression, growth: Growth) -> Result<Decoder<R>, DecodeError> {
        Decoder::with(blob, compression, growth, gzip::fastest)
    }

    fn with(
        blob: R,
        compression: Compression,
        growth: Growth,
        inflate: impl FnOnce() -> Box<dyn Inflate>,
    ) -> Result<Decoder<R>, DecodeError> {
        let (start, input) = Input::new(blob)?;
        let found = detect(&start);
        if found != compression {
            return Err(DecodeError::Magic { expected: name(compression), found: name(found) });
        }
        let codec = match compression {
            Compression::None => Codec::Plain(input),
            Compression::Gzip => Codec::Gzip { input, state: Gzip::new(inflate()) },
            Compression::Zstd => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(input).map_err(DecodeError::Zstd)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(DecodeError::Zstd)?;
                Codec::Zstd(Box::new(decoder))
            }
        };
        Ok(Decoder { codec, growth, produced: 0 })
    }

    /// Fills `buffer` as far as the stream reaches; less than all of it means the end.
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, DecodeError> {
        let mut filled = 0;
        while filled < buffer.len() {
            let count = match &mut self.codec {
                Codec::Plain(input) => plain(input, &mut buffer[filled..])?,
                Codec::Gzip { input, state } => inflate(input, state, &mut buffer[filled..])?,
                Codec::Zstd(decoder) => match decoder.read(&mut buffer[filled..]) {
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(zstd_error(error, decoder.get_mut())),
                },
            };
            if count == 0 {
                break;
            }
            filled += count;
            self.produced += count as u64;
            self.check()?;
        }
        Ok(filled)
    }

    fn check(&self) -> Result<(), DecodeError> {
        if self.produced > self.growth.bytes {
            return Err(DecodeError::TooLarge { limit: self.growth.bytes });
        }
        let consumed = match &self.codec {
            Codec::Plain(_) => return Ok(()),
            Codec::Gzip { input, .. } => input.consumed,
            Codec::Zstd(decoder) => decoder.get_ref().consumed,
        };
        if self.produced > self.growth.free.saturating_add(consumed.saturating_mul(self.growth.ratio)) {
            return Err(DecodeError::Ratio { ratio: self.growth.ratio });
        }
        Ok(())
    }
}

fn plain<R: Read>(input: &mut Input<R>, buffer: &mut [u8]) -> Result<usize, DecodeError> {
    let available = input.peek()?;
    let count = available.len().min(buffer.len());
    buffer[..count].copy_from_slice(&available[..count]);
    input.consume(count);
    Ok(count)
}

/// Decompresses until there is some output; none means that the last member has ended.
fn inflate<R: Read>(input: &mut Input<R>, state: &mut Gzip, buffer: &mut [u8]) -> Result<usize, DecodeError> {
    loop {
        let available = input.peek()?;
        let at_end = available.is_empty();
        if at_end && state.is_complete() {
            return Ok(0);
        }
        if state.is_garbage(available) {
            return Err(DecodeError::Garbage);
        }
        let step = state.step(available, buffer).map_err(DecodeError::Gzip)?;
        input.consume(step.taken);
        if step.given > 0 {
            return Ok(step.given);
        }
        if at_end && !step.ended {
            return Err(DecodeError::Truncated);
        }
    }
}

fn zstd_error<R: Read>(error: io::Error, input: &mut Input<R>) -> DecodeError {
    if let Some(failed) = input.failed.take() {
        return DecodeError::Read(failed);
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof => DecodeError::Truncated,
        _ => DecodeError::Zstd(error),
    }
}

/// Counts what the codec takes, and tells errors of the blob from errors in the blob.
struct Input<R> {
    inner: BufReader<io::Chain<io::Cursor<Vec<u8>>, R>>,
    consumed: u64,
    failed: Option<io::Error>,
}

impl<R: Read> Input<R> {
    /// The first bytes, and an input that begins with them.
    fn new(mut blob: R) -> Result<(Vec<u8>, Input<R>), DecodeError> {
        let mut start = Vec::with_capacity(4);
        (&mut blob).take(4).read_to_end(&mut start).map_err(DecodeError::Read)?;
        let inner = BufReader::with_capacity(INPUT_BUFFER, io::Cursor::new(start.clone()).chain(blob));
        Ok((start, Input { inner, consumed: 0, failed: None }))
    }

    /// The bytes that come next; none at the end.
    fn peek(&mut self) -> Result<&[u8], DecodeError> {
        while let Err(error) = self.inner.fill_buf() {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(DecodeError::Read(error));
            }
        }
        Ok(self.inner.buffer())
    }
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl<R: Read> BufRead for Input<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self.peek() {
            Ok(_) => Ok(self.inner.buffer()),
            Err(DecodeError::Read(error)) => {
                let kind = error.kind();
                self.failed = Some(error);
                Err(kind.into())
            }
            Err(_) => Err(io::ErrorKind::Other.into()),
        }
    }

    fn consume(&mut self, count: usize) {
        self.consumed += count as u64;
        self.inner.consume(count);
    }
}

#[cfg(test)]
mod tests;
