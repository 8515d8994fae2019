//! Headers of tar entries, field by field: what an honest writer would never write too.

use crate::image::Tar;

/// A ustar header that may be changed before it is written; its sum is made last.
#[derive(Debug, Clone)]
pub struct Header([u8; 512]);

impl Header {
    /// An entry of type `kind`: root's, 0644 (a directory 0755), of the second 1,000,000,000.
    ///
    /// # Panics
    /// With a name of more than 100 bytes.
    pub fn new(kind: u8, name: impl AsRef<[u8]>, size: usize) -> Self {
        let mut header = Self([0; 512]);
        header = header.put(0, name).put(156, [kind]).put(257, b"ustar\x0000");
        let mode = if kind == b'5' { 0o755 } else { 0o644 };
        header.octal(100, 8, mode).owner(0, 0).octal(124, 12, size as u64).octal(136, 12, 1_000_000_000)
    }

    /// These bytes at this offset.
    pub fn put(mut self, offset: usize, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// A number in octal digits with a NUL at the end of its field.
    pub fn octal(self, offset: usize, length: usize, value: u64) -> Self {
        self.put(offset, format!("{value:0width$o}\0", width = length - 1))
    }

    /// A number of the base 256 (GNU tar), positive or negative.
    pub fn binary(self, offset: usize, length: usize, value: i64) -> Self {
        let first = if value < 0 { 0xff } else { 0x80 };
        let mut field = vec![if value < 0 { 0xff } else { 0 }; length];
        field[0] = first;
        let bytes = value.to_be_bytes();
        let shown = (length - 1).min(bytes.len());
        field[length - shown..].copy_from_slice(&bytes[bytes.len() - shown..]);
        self.put(offset, field)
    }

    /// The target of a link.
    pub fn link(self, target: impl AsRef<[u8]>) -> Self {
        self.put(157, target)
    }

    /// The permissions.
    pub fn mode(self, mode: u64) -> Self {
        self.octal(100, 8, mode)
    }

    /// Owner and group.
    pub fn owner(self, uid: u64, gid: u64) -> Self {
        self.octal(108, 8, uid).octal(116, 8, gid)
    }

    /// The numbers of a device.
    pub fn device(self, major: u64, minor: u64) -> Self {
        self.octal(329, 8, major).octal(337, 8, minor)
    }

    /// GNU tar's own format.
    pub fn gnu(self) -> Self {
        self.put(257, b"ustar  \0")
    }

    /// The seventh edition's.
    pub fn v7(self) -> Self {
        self.put(257, [0; 255])
    }

    /// The header without a sum.
    pub fn bare(self) -> [u8; 512] {
        self.0
    }

    /// The header with its sum.
    pub fn sum(self) -> [u8; 512] {
        let mut bytes = self.put(148, b"        ").0;
        let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
        bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        bytes
    }
}

/// One record of a pax header.
pub fn record(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    let (key, value) = (key.as_ref(), value.as_ref());
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

impl Tar {
    /// Adds a header and its data, padded.
    pub fn raw(self, header: Header, data: impl AsRef<[u8]>) -> Self {
        let data = data.as_ref();
        let padding = data.len().next_multiple_of(512) - data.len();
        self.bytes(header.sum()).bytes(data).bytes(vec![0; padding])
    }

    /// Adds an empty entry of this type.
    pub fn node(self, kind: u8, name: impl AsRef<[u8]>) -> Self {
        self.raw(Header::new(kind, name, 0), b"")
    }

    /// Adds an entry of this type with a link target.
    pub fn linked(self, kind: u8, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.raw(Header::new(kind, name, 0).link(target), b"")
    }

    /// Adds an extended header with this body: `x`, `g`, `L` or `K`.
    pub fn extension(self, kind: u8, body: impl AsRef<[u8]>) -> Self {
        self.raw(Header::new(kind, "extension", body.as_ref().len()), body)
    }

    /// Adds a pax header of these records.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let body: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        self.extension(b'x', body)
    }
}
