//! gzip (RFC 1952): one stream of several members, every header, checksum and length of which counts.
//!
//! The headers are read here, the deflate data and the trailers by ISA-L where it was ported to, else by zlib-rs.
use flate2::Crc;
#[cfg(any(test, not(target_arch = "x86_64")))]
use flate2::{Decompress, FlushDecompress, Status};

/// What is wrong with gzip data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GzipError {
    #[error("its header is malformed")]
    Header,
    #[error("its header does not match its checksum")]
    HeaderChecksum,
    #[error("its deflate data is malformed")]
    Data,
    #[error("its checksum or its length does not match its data")]
    Trailer,
}

/// What one call has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Step {
    /// Bytes of the input that were read.
    pub(super) taken: usize,
    /// Bytes of the output that were written.
    pub(super) given: usize,
    /// The member ended with the input that was read.
    pub(super) ended: bool,
}

/// Reads deflate data with the trailer behind it, and verifies the trailer.
pub(super) trait Inflate: Send {
    /// Goes to the first byte of deflate data.
    fn reset(&mut self);
    /// Inflates until input or output is used up or the member ends.
    fn inflate(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, GzipError>;
}

/// The fastest that this machine has.
#[cfg(target_arch = "x86_64")]
pub(super) fn fastest() -> Box<dyn Inflate> {
    Box::new(crate::sys::inflate::Inflater::new())
}

/// The only one that was ported to this machine.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn fastest() -> Box<dyn Inflate> {
    Box::new(Portable::new())
}

#[cfg(target_arch = "x86_64")]
impl Inflate for crate::sys::inflate::Inflater {
    fn reset(&mut self) {
        self.reset();
    }

    fn inflate(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, GzipError> {
        use crate::sys::inflate::InflateError;
        match self.inflate(input, output) {
            Ok(done) => Ok(Step { taken: done.taken, given: done.given, ended: done.ended }),
            Err(InflateError::Data) => Err(GzipError::Data),
            Err(InflateError::Trailer) => Err(GzipError::Trailer),
        }
    }
}

/// zlib-rs.
#[cfg(any(test, not(target_arch = "x86_64")))]
pub(super) struct Portable {
    state: Decompress,
    crc: Crc,
    /// The deflate data has ended; so many bytes of the trailer were read.
    trailer: Option<usize>,
    read: [u8; 8],
}

#[cfg(any(test, not(target_arch = "x86_64")))]
impl Portable {
    pub(super) fn new() -> Portable {
        Portable { state: Decompress::new(false), crc: Crc::new(), trailer: None, read: [0; 8] }
    }
}

#[cfg(any(test, not(target_arch = "x86_64")))]
impl Inflate for Portable {
    fn reset(&mut self) {
        self.state.reset(false);
        self.crc.reset();
        self.trailer = None;
    }

    fn inflate(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, GzipError> {
        let mut step = Step::default();
        if self.trailer.is_none() {
            let (before_in, before_out) = (self.state.total_in(), self.state.total_out());
            let status = self.state.decompress(input, output, FlushDecompress::None);
            // Both are at most the lengths of the slices.
            step.taken = usize::try_from(self.state.total_in() - before_in).unwrap_or(usize::MAX);
            step.given = usize::try_from(self.state.total_out() - before_out).unwrap_or(usize::MAX);
            self.crc.update(&output[..step.given]);
            if status.map_err(|_| GzipError::Data)? != Status::StreamEnd {
                return Ok(step);
            }
            self.trailer = Some(0);
        }
        if let Some(at) = &mut self.trailer {
            let rest = &input[step.taken..];
            let count = rest.len().min(self.read.len() - *at);
            self.read[*at..*at + count].copy_from_slice(&rest[..count]);
            *at += count;
            step.taken += count;
            if *at == self.read.len() {
                // The length is counted modulo 2^32 (RFC 1952, ISIZE), as the type does.
                let want = u64::from(self.crc.sum()) | u64::from(self.crc.amount()) << 32;
                if u64::from_le_bytes(self.read) != want {
                    return Err(GzipError::Trailer);
                }
                step.ended = true;
            }
        }
        Ok(step)
    }
}

/// FEXTRA, FNAME, FCOMMENT and FHCRC of RFC 1952, 2.3.1.2; FTEXT (1) is advice, the other bits are reserved.
const EXTRA: u8 = 1 << 2;
const NAME: u8 = 1 << 3;
const COMMENT: u8 = 1 << 4;
const CHECKSUM: u8 = 1 << 1;
const RESERVED: u8 = 0b1110_0000;

/// Where a member's header is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// ID1, ID2, CM, FLG, MTIME, XFL, OS.
    Fixed(usize),
    ExtraLength(usize),
    Extra(u16),
    Name,
    Comment,
    Checksum(usize),
    Done,
}

/// A member's header, over as many inputs as it takes.
struct Header {
    part: Part,
    flags: u8,
    number: u16,
    crc: Crc,
}

impl Header {
    fn new() -> Header {
        Header { part: Part::Fixed(0), flags: 0, number: 0, crc: Crc::new() }
    }

    /// Reads the header from the front of `input`; tells how many bytes it took and whether it ends there.
    fn read(&mut self, input: &[u8]) -> Result<(usize, bool), GzipError> {
        let mut taken = 0;
        for &byte in input {
            if self.part == Part::Done {
                break;
            }
            self.byte(byte)?;
            taken += 1;
        }
        Ok((taken, self.part == Part::Done))
    }

    fn byte(&mut self, byte: u8) -> Result<(), GzipError> {
        if !matches!(self.part, Part::Checksum(_)) {
            self.crc.update(&[byte]);
        }
        let flags = self.flags;
        let after = |part: Part| Header::present(flags, part);
        self.part = match self.part {
            Part::Fixed(at) => {
                let right = match at {
                    0 => byte == 0x1f,
                    1 => byte == 0x8b,
                    2 => byte == 8,
                    3 => byte & RESERVED == 0,
                    _ => true,
                };
                if !right {
                    return Err(GzipError::Header);
                }
                if at == 3 {
                    self.flags = byte;
                }
                if at < 9 { Part::Fixed(at + 1) } else { after(Part::ExtraLength(0)) }
            }
            Part::ExtraLength(0) => {
                self.number = u16::from(byte);
                Part::ExtraLength(1)
            }
            Part::ExtraLength(_) => match self.number | u16::from(byte) << 8 {
                0 => after(Part::Name),
                length => Part::Extra(length),
            },
            Part::Extra(1) => after(Part::Name),
            Part::Extra(left) => Part::Extra(left - 1),
            Part::Name if byte == 0 => after(Part::Comment),
            Part::Comment if byte == 0 => after(Part::Checksum(0)),
            Part::Name | Part::Comment => self.part,
            Part::Checksum(0) => {
                self.number = u16::from(byte);
                Part::Checksum(1)
            }
            Part::Checksum(_) => {
                // The low half of the checksum over all bytes before it.
                let low = (self.crc.sum() & 0xffff) as u16;
                if self.number | u16::from(byte) << 8 != low {
                    return Err(GzipError::HeaderChecksum);
                }
                Part::Done
            }
            Part::Done => Part::Done,
        };
        Ok(())
    }

    /// The first part from `part` on that a header of these flags has.
    fn present(flags: u8, part: Part) -> Part {
        match part {
            Part::ExtraLength(_) if flags & EXTRA == 0 => Header::present(flags, Part::Name),
            Part::Name if flags & NAME == 0 => Header::present(flags, Part::Comment),
            Part::Comment if flags & COMMENT == 0 => Header::present(flags, Part::Checksum(0)),
            Part::Checksum(_) if flags & CHECKSUM == 0 => Part::Done,
            part => part,
        }
    }
}

/// A gzip stream.
pub(super) struct Gzip {
    inflater: Box<dyn Inflate>,
    place: Place,
}

enum Place {
    /// Behind a member: another may begin.
    Between,
    Header(Header),
    Data,
}

impl Gzip {
    /// At the first byte of a stream, which has one member at least.
    pub(super) fn new(inflater: Box<dyn Inflate>) -> Gzip {
        Gzip { inflater, place: Place::Header(Header::new()) }
    }

    /// Whether the stream may end here.
    pub(super) fn is_complete(&self) -> bool {
        matches!(self.place, Place::Between)
    }

    /// Whether what comes next can only be garbage.
    pub(super) fn is_garbage(&self, input: &[u8]) -> bool {
        self.is_complete() && input.first().is_some_and(|&byte| byte != 0x1f)
    }

    /// Goes on until input or output is used up or a member ends.
    pub(super) fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, GzipError> {
        match &mut self.place {
            Place::Between => {
                self.place = Place::Header(Header::new());
                Ok(Step::default())
            }
            Place::Header(header) => {
                let (taken, done) = header.read(input)?;
                if done {
                    self.inflater.reset();
                    self.place = Place::Data;
                }
                Ok(Step { taken, ..Step::default() })
            }
            Place::Data => {
                let step = self.inflater.inflate(input, output)?;
                if step.ended {
                    self.place = Place::Between;
                }
                Ok(step)
            }
        }
    }
}
