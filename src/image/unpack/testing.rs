//! A writer of tar streams that also writes what no honest one would.

/// A tar stream in the making.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

/// One header, to be changed before it is written.
#[derive(Debug, Clone)]
pub(crate) struct Header(pub(crate) [u8; 512]);

impl Header {
    pub(crate) fn new(kind: u8, name: &[u8], size: u64) -> Header {
        let mut header = Header([0; 512]);
        header.0[..name.len()].copy_from_slice(name);
        header.0[156] = kind;
        header.0[257..265].copy_from_slice(b"ustar\x0000");
        let mode = if kind == b'5' { 0o755 } else { 0o644 };
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        header.octal(100, 8, mode).octal(108, 8, uid.into()).octal(116, 8, gid.into());
        header.octal(124, 12, size).octal(136, 12, 1_000_000_000);
        header
    }

    pub(crate) fn octal(&mut self, offset: usize, length: usize, value: u64) -> &mut Header {
        let text = format!("{value:0width$o}\0", width = length - 1);
        self.0[offset..offset + length].copy_from_slice(text.as_bytes());
        self
    }

    pub(crate) fn put(&mut self, offset: usize, bytes: &[u8]) -> &mut Header {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(crate) fn link(&mut self, target: &[u8]) -> &mut Header {
        self.put(157, target)
    }

    pub(crate) fn mode(&mut self, mode: u64) -> &mut Header {
        self.octal(100, 8, mode)
    }

    pub(crate) fn sum(mut self) -> [u8; 512] {
        self.0[148..156].fill(b' ');
        let sum: u64 = self.0.iter().map(|&byte| u64::from(byte)).sum();
        self.0[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

impl Tar {
    pub(crate) fn new() -> Tar {
        Tar::default()
    }

    pub(crate) fn raw(mut self, header: Header, data: &[u8]) -> Tar {
        self.0.extend_from_slice(&header.sum());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, name: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Tar {
        let data = data.as_ref();
        self.raw(Header::new(b'0', name.as_ref(), data.len() as u64), data)
    }

    pub(crate) fn dir(self, name: impl AsRef<[u8]>) -> Tar {
        self.raw(Header::new(b'5', name.as_ref(), 0), b"")
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Tar {
        self.linked(b'2', name, target)
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Tar {
        self.linked(b'1', name, target)
    }

    pub(crate) fn linked(self, kind: u8, name: &str, target: &str) -> Tar {
        let mut header = Header::new(kind, name.as_bytes(), 0);
        header.link(target.as_bytes());
        self.raw(header, b"")
    }

    pub(crate) fn node(self, kind: u8, name: &str, major: u64, minor: u64) -> Tar {
        let mut header = Header::new(kind, name.as_bytes(), 0);
        header.octal(329, 8, major).octal(337, 8, minor);
        self.raw(header, b"")
    }

    /// An extended header (`x` or `g`) of these records.
    pub(crate) fn pax(self, kind: u8, records: &[(&str, &[u8])]) -> Tar {
        let body: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        self.extension(kind, &body)
    }

    pub(crate) fn extension(self, kind: u8, body: &[u8]) -> Tar {
        self.raw(Header::new(kind, b"extension", body.len() as u64), body)
    }

    /// The whole stream, with its end mark.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

pub(crate) fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key.as_bytes(), b"=", value, b"\n"].concat()
}
