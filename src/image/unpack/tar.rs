//! A strict tar reader without input or output of its own: bytes go in, events come out.
//!
//! Readers that guess differ in what they see, and such a difference smuggles entries past whoever looked
//! first (CVE-2025-62518, RUSTSEC-2026-0068). So there is one reading here: what POSIX.1-2024 pax(1) and GNU
//! tar say, and an error for everything that two readers could take for two things. Accepted are ustar, GNU
//! long names and long links, pax extended headers, and headers of the seventh edition.
//!
//! ```text
//!        ┌──────────── extension ◀─┐ x g L K
//!        ▼                         │
//! ──▶ header ── entry, no data ────┼──▶ header
//!        ├───── entry, data ─▶ data ─▶ padding ─▶ header
//!        └───── zero block ─▶ second zero block ─▶ trailer: zeros only, up to the end of the input
//! ```

use super::pax;

pub(super) const BLOCK: usize = 512;
/// The largest pax header: every attribute a file may have fits (`XATTR_SIZE_MAX` is 64 KiB), and a megabyte
/// of records costs nothing beyond a megabyte (Go's CVE-2022-2879).
const PAX_MAX: u64 = 1 << 20;
/// The largest GNU long name, far above PATH_MAX.
const LONG_MAX: u64 = 64 << 10;
/// The largest size that an octal header field holds.
const OCTAL_SIZE_MAX: u64 = 0o77_777_777_777;

/// Why a stream is no acceptable tar archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TarError {
    #[error("header at byte {at} of the tar stream has a wrong checksum")]
    Checksum { at: u64 },
    #[error("header at byte {at} of the tar stream is of an unknown format")]
    Format { at: u64 },
    #[error("entry {path:?} has an invalid {field}")]
    Field { path: String, field: &'static str },
    #[error("entry {path:?} has the type {kind:?}, which is not supported")]
    Type { path: String, kind: char },
    #[error("entry {path:?} is a sparse file, which is not supported")]
    Sparse { path: String },
    #[error("entry {path:?} is no file but has {size} bytes of data")]
    UnexpectedData { path: String, size: u64 },
    #[error("entry {path:?} has the size {pax} in its extended header and {header} in its header")]
    SizeConflict { path: String, pax: u64, header: u64 },
    #[error("extended header of {size} bytes is too large: at most {limit} are allowed")]
    ExtensionTooLarge { size: u64, limit: u64 },
    #[error("extended header at byte {at} of the tar stream follows another one for the same entry")]
    ExtensionConflict { at: u64 },
    #[error("extended header that ends at byte {at} of the tar stream is padded with data")]
    ExtensionPadding { at: u64 },
    #[error("extended header is followed by no entry")]
    ExtensionAlone,
    #[error("extended header is malformed")]
    Pax(#[from] pax::PaxError),
    #[error("name in an extended header holds a NUL byte or is empty")]
    LongName,
    #[error("tar stream ends inside of an entry or without its end mark")]
    Truncated,
    #[error("tar stream has a zero block at byte {at} that does not end it")]
    LoneZeroBlock { at: u64 },
    #[error("tar stream has data after its end mark")]
    TrailingData,
}

/// Seconds and nanoseconds since 1970; the nanoseconds count forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Time {
    pub seconds: i64,
    pub nanoseconds: u32,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    File,
    HardLink { target: Vec<u8> },
    Symlink { target: Vec<u8> },
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
    Directory,
    Fifo,
}

/// One entry, with paths exactly as they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub path: Vec<u8>,
    pub kind: Kind,
    /// Bytes of data that follow; zero for everything but files.
    pub size: u64,
    /// Permissions, set-ID bits and the sticky bit: `0o7777`.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    /// Names and values, each name once.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    Entry(Box<Entry>),
    /// Some bytes of the last entry's data, in order.
    Data(&'a [u8]),
    /// All data of the last entry was seen. Comes for every file, an empty one too, and for nothing else.
    EndOfFile,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extension {
    Local,
    Global,
    LongName,
    LongLink,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    Extension { kind: Extension, size: usize },
    Data { left: u64, padding: usize },
    Padding { left: usize },
    SecondZero,
    Trailer,
}

/// The reader.
#[derive(Debug)]
pub struct Parser {
    state: State,
    /// A header or an extended header that is not complete yet.
    partial: Vec<u8>,
    /// Bytes taken so far.
    position: u64,
    pax: Option<pax::Records>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    /// A global header came after the last entry.
    global: bool,
}

impl Default for Parser {
    fn default() -> Parser {
        Parser::new()
    }
}

type Result<T> = std::result::Result<T, TarError>;

impl Parser {
    /// A reader at the start of a stream.
    pub fn new() -> Parser {
        Parser {
            state: State::Header,
            partial: Vec::new(),
            position: 0,
            pax: None,
            long_name: None,
            long_link: None,
            global: false,
        }
    }

    /// The next event; takes what it needs from the front of `input`. `None` when all of `input` is taken.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>> {
        loop {
            match self.state {
                State::Header => {
                    let Some(block) = self.collect(input, BLOCK) else { return Ok(None) };
                    let entry = self.header(&block);
                    self.reuse(block);
                    if let Some(entry) = entry? {
                        return Ok(Some(Event::Entry(Box::new(entry))));
                    }
                }
                State::Extension { kind, size } => {
                    let Some(mut body) = self.collect(input, size.next_multiple_of(BLOCK)) else {
                        return Ok(None);
                    };
                    // Python's tarfile reads records there.
                    if body[size..].iter().any(|&byte| byte != 0) {
                        return Err(TarError::ExtensionPadding { at: self.position });
                    }
                    body.truncate(size);
                    self.state = State::Header;
                    self.extension(kind, body)?;
                }
                State::Data { left: 0, padding } => {
                    self.state = State::Padding { left: padding };
                    return Ok(Some(Event::EndOfFile));
                }
                State::Data { left, padding } => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let length = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
                    let data = self.take(input, length);
                    self.state = State::Data { left: left - length as u64, padding };
                    return Ok(Some(Event::Data(data)));
                }
                State::Padding { left: 0 } => self.state = State::Header,
                State::Padding { left } => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let length = left.min(input.len());
                    self.take(input, length);
                    self.state = State::Padding { left: left - length };
                }
                State::SecondZero => {
                    let Some(block) = self.collect(input, BLOCK) else { return Ok(None) };
                    if block.iter().any(|&byte| byte != 0) {
                        return Err(TarError::LoneZeroBlock { at: self.position - 2 * BLOCK as u64 });
                    }
                    self.state = State::Trailer;
                }
                State::Trailer => {
                    let rest = self.take(input, input.len());
                    if rest.iter().any(|&byte| byte != 0) {
                        return Err(TarError::TrailingData);
                    }
                    return Ok(None);
                }
            }
        }
    }

    /// For a reader that can seek: takes the data of the file whose entry came last as read, and tells how
    /// many bytes to skip when `buffered` bytes of it were read but not given to [`Parser::next`].
    pub fn skip(&mut self, buffered: u64) -> u64 {
        let State::Data { left, padding } = self.state else { return 0 };
        let whole = left + padding as u64;
        self.position += whole;
        self.state = State::Data { left: 0, padding: 0 };
        whole.saturating_sub(buffered)
    }

    /// Whether the stream may end here.
    pub fn finish(&self) -> Result<()> {
        match self.state {
            State::Trailer => Ok(()),
            _ => Err(TarError::Truncated),
        }
    }

    fn take<'a>(&mut self, input: &mut &'a [u8], length: usize) -> &'a [u8] {
        let (taken, rest) = input.split_at(length);
        *input = rest;
        self.position += length as u64;
        taken
    }

    /// Gathers `length` bytes over as many inputs as it takes.
    fn collect(&mut self, input: &mut &[u8], length: usize) -> Option<Vec<u8>> {
        let missing = length - self.partial.len();
        let available = missing.min(input.len());
        let taken = self.take(input, available);
        self.partial.extend_from_slice(taken);
        (available == missing).then(|| std::mem::take(&mut self.partial))
    }

    /// Keeps the allocation of a header block for the next one.
    fn reuse(&mut self, mut block: Vec<u8>) {
        block.clear();
        self.partial = block;
    }

    fn header(&mut self, block: &[u8]) -> Result<Option<Entry>> {
        let at = self.position - BLOCK as u64;
        if block.iter().all(|&byte| byte == 0) {
            let waiting = self.pax.is_some() || self.long_name.is_some() || self.long_link.is_some();
            // Python's tarfile refuses a global header at the end too.
            if waiting || self.global {
                return Err(TarError::ExtensionAlone);
            }
            self.state = State::SecondZero;
            return Ok(None);
        }
        let header = Header::new(block, at)?;
        header.check_numbers()?;
        let kind = match header.kind() {
            b'x' => Extension::Local,
            b'g' => Extension::Global,
            b'L' => Extension::LongName,
            b'K' => Extension::LongLink,
            _ => return self.entry(&header).map(Some),
        };
        let taken = match kind {
            // A global header may stand anywhere; it changes no entry, or it is refused.
            Extension::Global => false,
            // Which of two formats wins is where readers differ.
            Extension::Local => self.pax.is_some() || self.long_name.is_some() || self.long_link.is_some(),
            Extension::LongName => self.pax.is_some() || self.long_name.is_some(),
            Extension::LongLink => self.pax.is_some() || self.long_link.is_some(),
        };
        if taken {
            return Err(TarError::ExtensionConflict { at });
        }
        let limit = match kind {
            Extension::Local | Extension::Global => PAX_MAX,
            Extension::LongName | Extension::LongLink => LONG_MAX,
        };
        let size = header.size()?;
        match usize::try_from(size) {
            Ok(length) if size <= limit => self.state = State::Extension { kind, size: length },
            _ => return Err(TarError::ExtensionTooLarge { size, limit }),
        }
        Ok(None)
    }

    fn extension(&mut self, kind: Extension, body: Vec<u8>) -> Result<()> {
        match kind {
            Extension::Local => self.pax = Some(pax::Records::parse(&body)?),
            Extension::Global => {
                pax::check_global(&body)?;
                self.global = true;
            }
            Extension::LongName => self.long_name = Some(long_name(body)?),
            Extension::LongLink => self.long_link = Some(long_name(body)?),
        }
        Ok(())
    }

    /// Puts a header together with the extended headers before it.
    fn entry(&mut self, header: &Header<'_>) -> Result<Entry> {
        self.global = false;
        let records = self.pax.take().unwrap_or_default();
        let long_name = self.long_name.take();
        let long_link = self.long_link.take();
        let path = records.path.or(long_name).unwrap_or_else(|| header.path());
        let target = records.linkpath.or(long_link).unwrap_or_else(|| header.field(157, 100).to_vec());
        let invalid = |field| TarError::Field { path: show(&path), field };

        if header.kind() == b'S' || records.sparse {
            return Err(TarError::Sparse { path: show(&path) });
        }
        let size = size(records.size, header.size().map_err(|_| invalid("size"))?, &path)?;
        let kind = header.entry_kind(&path, target)?;
        if size > 0 && kind != Kind::File {
            return Err(TarError::UnexpectedData { path: show(&path), size });
        }
        let mode = header.number(100, 8).and_then(|mode| u32::try_from(mode).ok());
        let mode = mode.ok_or_else(|| invalid("mode"))? & 0o7777;
        let id = |from_pax: Option<u64>, offset, field| {
            let id = from_pax.or_else(|| header.number(offset, 8).and_then(|id| u64::try_from(id).ok()));
            // 2^32-1 means "no change" to chown(2).
            id.and_then(|id| u32::try_from(id).ok())
                .filter(|&id| id != u32::MAX)
                .ok_or_else(|| invalid(field))
        };
        let uid = id(records.uid, 108, "owner")?;
        let gid = id(records.gid, 116, "group")?;
        let mtime = match records.mtime {
            Some(mtime) => mtime,
            None => Time { seconds: header.number(136, 12).ok_or_else(|| invalid("time"))?, nanoseconds: 0 },
        };
        if kind == Kind::File {
            let padding = size.next_multiple_of(BLOCK as u64) - size;
            // Below 512.
            self.state = State::Data { left: size, padding: usize::try_from(padding).unwrap_or(0) };
        }
        Ok(Entry { path, kind, size, mode, uid, gid, mtime, xattrs: records.xattrs })
    }
}

/// The size that counts, of those in the extended header and in the header.
fn size(pax: Option<u64>, header: u64, path: &[u8]) -> Result<u64> {
    let size = match pax {
        // The header's field cannot hold it; writers put anything there.
        Some(pax) if pax > OCTAL_SIZE_MAX => pax,
        Some(pax) if pax != header => return Err(TarError::SizeConflict { path: show(path), pax, header }),
        _ => header,
    };
    // No file is larger, and the sum with the padding does not overflow.
    if size > i64::MAX as u64 - BLOCK as u64 {
        return Err(TarError::Field { path: show(path), field: "size" });
    }
    Ok(size)
}

/// At most this much of a hostile name is repeated in an error.
pub(super) fn show(path: &[u8]) -> String {
    String::from_utf8_lossy(&path[..path.len().min(256)]).into_owned()
}

/// The body of a GNU long name: it ends with one NUL byte.
fn long_name(mut body: Vec<u8>) -> Result<Vec<u8>> {
    if body.last() == Some(&0) {
        body.pop();
    }
    if body.is_empty() || body.contains(&0) { Err(TarError::LongName) } else { Ok(body) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    V7,
    Ustar,
    Gnu,
}

struct Header<'a> {
    block: &'a [u8],
    format: Format,
    at: u64,
}

impl<'a> Header<'a> {
    fn new(block: &'a [u8], at: u64) -> Result<Header<'a>> {
        let format = match &block[257..265] {
            b"ustar\x0000" => Format::Ustar,
            b"ustar  \0" => Format::Gnu,
            magic if magic[..5] != *b"ustar" => Format::V7,
            _ => return Err(TarError::Format { at }),
        };
        // star's own format has times where ustar has the end of the prefix.
        if format == Format::Ustar && block[508..] == *b"tar\0" {
            return Err(TarError::Format { at });
        }
        let header = Header { block, format, at };
        header.check_sum()?;
        Ok(header)
    }

    /// The sum counts its own field as spaces. Old writers summed signed bytes.
    fn check_sum(&self) -> Result<()> {
        let wrong = TarError::Checksum { at: self.at };
        let Some(expected) = octal(&self.block[148..156]) else { return Err(wrong) };
        let (mut unsigned, mut high) = (0_i64, 0_i64);
        for &byte in &self.block[..148] {
            unsigned += i64::from(byte);
            high += i64::from(byte >> 7);
        }
        for &byte in &self.block[156..] {
            unsigned += i64::from(byte);
            high += i64::from(byte >> 7);
        }
        unsigned += 8 * i64::from(b' ');
        if expected == unsigned || expected == unsigned - 256 * high { Ok(()) } else { Err(wrong) }
    }

    /// Fields that no entry of this type needs, or that an extended header has for it: others refuse an archive, or
    /// end it without a word, where one of them is no number.
    fn check_numbers(&self) -> Result<()> {
        let fields = [
            (100, 8, "mode"),
            (108, 8, "owner"),
            (116, 8, "group"),
            (136, 12, "time"),
            (329, 8, "device number"),
            (337, 8, "device number"),
        ];
        match fields.iter().find(|(offset, length, _)| self.number(*offset, *length).is_none()) {
            Some((.., field)) => Err(TarError::Field { path: show(&self.path()), field }),
            None => Ok(()),
        }
    }

    fn kind(&self) -> u8 {
        self.block[156]
    }

    fn entry_kind(&self, path: &[u8], target: Vec<u8>) -> Result<Kind> {
        let invalid = |field| TarError::Field { path: show(path), field };
        Ok(match self.kind() {
            // In the seventh edition a directory was a name that ends with a slash.
            0 if path.ends_with(b"/") => Kind::Directory,
            b'0' | b'7' if path.ends_with(b"/") => return Err(invalid("name: a file ends with a slash")),
            0 | b'0' | b'7' => Kind::File,
            b'1' => Kind::HardLink { target },
            b'2' => Kind::Symlink { target },
            kind @ (b'3' | b'4') => {
                // Linux has 12 and 20 bits (include/linux/kdev_t.h).
                let major = self.device(329, 0xfff).ok_or_else(|| invalid("device number"))?;
                let minor = self.device(337, 0xf_ffff).ok_or_else(|| invalid("device number"))?;
                match kind {
                    b'3' => Kind::CharDevice { major, minor },
                    _ => Kind::BlockDevice { major, minor },
                }
            }
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return Err(TarError::Type { path: show(path), kind: char::from(other) }),
        })
    }

    fn device(&self, offset: usize, most: u32) -> Option<u32> {
        let number = self.number(offset, 8).and_then(|number| u32::try_from(number).ok());
        number.filter(|&number| number <= most)
    }

    /// A text field, up to its first NUL byte.
    fn field(&self, offset: usize, length: usize) -> &'a [u8] {
        let field = &self.block[offset..offset + length];
        &field[..field.iter().position(|&byte| byte == 0).unwrap_or(length)]
    }

    fn path(&self) -> Vec<u8> {
        let name = self.field(0, 100);
        let prefix = match self.format {
            Format::Ustar => self.field(345, 155),
            // GNU has times and the like there.
            Format::V7 | Format::Gnu => b"",
        };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    fn size(&self) -> Result<u64> {
        let number = self.number(124, 12).and_then(|size| u64::try_from(size).ok());
        number.ok_or_else(|| TarError::Field { path: show(&self.path()), field: "size" })
    }

    /// A number: octal, or big-endian binary after a byte 0x80, negative after 0xff.
    fn number(&self, offset: usize, length: usize) -> Option<i64> {
        let field = &self.block[offset..offset + length];
        match field[0] {
            0x80 => binary(&field[1..], 0),
            0xff => binary(&field[1..], -1),
            _ => octal(field),
        }
    }
}

/// Two's complement; `None` beyond 64 bits.
fn binary(digits: &[u8], sign: i64) -> Option<i64> {
    let mut number = sign;
    for &digit in digits {
        number = number.checked_mul(256)?.checked_add(i64::from(digit))?;
    }
    Some(number)
}

/// Spaces, octal digits, then nothing but spaces and NUL bytes. An empty field is zero.
fn octal(field: &[u8]) -> Option<i64> {
    let start = field.iter().position(|&byte| byte != b' ').unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(|byte| !(b'0'..=b'7').contains(byte)).unwrap_or(digits.len());
    if digits[end..].iter().any(|&byte| byte != 0 && byte != b' ') {
        return None;
    }
    // At most 12 digits: 36 bits.
    Some(digits[..end].iter().fold(0, |number, &digit| number << 3 | i64::from(digit - b'0')))
}

#[cfg(test)]
mod tests;
