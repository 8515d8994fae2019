//! Content digests (image-spec `descriptor.md`, "Digests").
//!
//! A digest names files on disk, so text becomes a [`Digest`] in one place only, which takes nothing but
//! `sha256:` and 64 lower-case hexadecimal digits: CVE-2024-3727 was a path traversal through a digest that
//! nobody had validated.

use crate::error::{ErrorKind, Kind};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;
use std::fmt;
use std::io;
use std::str::FromStr;

/// Why a text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Not `ALGORITHM:HEX` at all.
    #[error("invalid digest {text:?}: want sha256: and 64 lower-case hexadecimal digits")]
    Malformed { text: String },
    /// Registered in image-spec, but not built here.
    #[error("digest algorithm {algorithm:?} is not supported: only sha256 is")]
    Algorithm { algorithm: String },
}

impl Kind for DigestError {
    fn kind(&self) -> ErrorKind {
        match self {
            DigestError::Malformed { .. } => ErrorKind::InvalidInput,
            DigestError::Algorithm { .. } => ErrorKind::Unsupported,
        }
    }
}

/// A SHA-256 content digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(sha2::Sha256::digest(bytes).into())
    }

    /// The 64 hexadecimal digits, without the algorithm: a file name under `blobs/sha256`.
    pub fn hex(&self) -> String {
        use fmt::Write;
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Digest, DigestError> {
        // At most this much of a hostile text is repeated in an error.
        let malformed = || DigestError::Malformed { text: text.chars().take(96).collect() };
        let (algorithm, hex) = text.split_once(':').ok_or_else(malformed)?;
        if matches!(algorithm, "sha384" | "sha512" | "blake3") {
            return Err(DigestError::Algorithm { algorithm: algorithm.to_owned() });
        }
        if algorithm != "sha256" || hex.len() != 64 {
            return Err(malformed());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let high = nibble(pair[0]).ok_or_else(malformed)?;
            let low = nibble(pair[1]).ok_or_else(malformed)?;
            *byte = high << 4 | low;
        }
        Ok(Digest(bytes))
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl TryFrom<&oci_spec::image::Digest> for Digest {
    type Error = DigestError;

    fn try_from(digest: &oci_spec::image::Digest) -> Result<Digest, DigestError> {
        digest.as_ref().parse()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Hashes and counts bytes as they pass; an [`io::Write`] that cannot fail.
#[derive(Clone, Default)]
pub struct Hasher {
    state: sha2::Sha256,
    length: u64,
}

impl Hasher {
    /// A hasher that has seen nothing.
    pub fn new() -> Hasher {
        Hasher::default()
    }

    /// Takes the next bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
        self.length += bytes.len() as u64;
    }

    /// How many bytes were seen.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The digest of all bytes seen.
    pub fn finish(self) -> Digest {
        Digest(self.state.finalize().into())
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").field("length", &self.length).finish_non_exhaustive()
    }
}

impl io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Hashes and counts what is read through it.
#[derive(Debug)]
pub struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: io::Read> HashingReader<R> {
    /// Reads from `inner`.
    pub fn new(inner: R) -> HashingReader<R> {
        HashingReader { inner, hasher: Hasher::new() }
    }

    /// The reader and what was hashed so far.
    pub fn into_parts(self) -> (R, Hasher) {
        (self.inner, self.hasher)
    }
}

impl<R: io::Read> io::Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn text_and_back() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Digest>(), Ok(Digest::of(b"")));
        assert_eq!(Hasher::new().finish(), Digest::of(b""));
    }

    #[test]
    fn cve_2024_3727_nothing_else_is_a_digest() {
        let upper = EMPTY.replace('e', "E");
        let short = &EMPTY[..70];
        let long = format!("{EMPTY}0");
        let spaced = format!(" {EMPTY}");
        let wide = format!("sha256:{}", "é".repeat(32));
        let traversal = format!("sha256:../../{}", "a".repeat(58));
        for text in
            ["", ":", "sha256:", "sha256:../../x", "md5:0", &upper, short, &long, &spaced, &wide, &traversal]
        {
            assert!(matches!(text.parse::<Digest>(), Err(DigestError::Malformed { .. })), "{text}");
        }
        let sha512 = format!("sha512:{}", "0".repeat(128));
        assert_eq!(sha512.parse::<Digest>(), Err(DigestError::Algorithm { algorithm: "sha512".into() }));
    }

    #[test]
    fn a_reader_hashes_what_passes() {
        let mut reader = HashingReader::new(&b"hello"[..]);
        std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
        let (_, hasher) = reader.into_parts();
        assert_eq!(hasher.length(), 5);
        assert_eq!(hasher.finish(), Digest::of(b"hello"));
    }
}
