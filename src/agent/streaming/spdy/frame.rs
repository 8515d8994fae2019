//! Frames of SPDY/3.1: eight bytes of header, and a payload of up to 2^24 - 1 bytes.
//!
//! ```text
//! |1| version 15 | type 16 |        |0| stream 31          |
//! | flags 8 | length 24    |        | flags 8 | length 24  |
//! | control payload        |        | data               |
//! ```
use super::headers::{Deflater, Headers, Inflater};
use crate::error::{ErrorKind, Kind};

/// Bytes of a frame's header.
pub(super) const HEADER: usize = 8;
/// Most bytes of a control frame's payload. Data frames may be as long as they can: they are never held whole.
pub(super) const MAX_CONTROL: usize = 64 * 1024;

const VERSION: u16 = 3;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

const FIN: u8 = 1;
const UNIDIRECTIONAL: u8 = 2;
const SETTINGS_INITIAL_WINDOW_SIZE: u32 = 7;
/// Stream numbers and window sizes have 31 bits.
const MASK: u32 = 0x7fff_ffff;

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum SpdyError {
    /// Reading or writing it.
    #[error("SPDY connection")]
    Io(#[from] std::io::Error),
    /// Another version.
    #[error("SPDY version {0} instead of 3")]
    Version(u16),
    /// Longer than any client needs.
    #[error("a SPDY control frame of {0} bytes")]
    TooLong(usize),
    /// Against the protocol.
    #[error("SPDY: {0}")]
    Malformed(&'static str),
    /// A header block.
    #[error("SPDY header block")]
    Inflate(#[from] flate2::DecompressError),
    /// The compressor.
    #[error("SPDY header block")]
    Deflate(#[from] flate2::CompressError),
}

impl Kind for SpdyError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Io(_) => ErrorKind::Network,
            Self::Version(_) => ErrorKind::Unsupported,
            Self::Deflate(_) => ErrorKind::System,
            Self::TooLong(_) | Self::Malformed(_) | Self::Inflate(_) => ErrorKind::InvalidInput,
        }
    }
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    /// Its payload is for [`Control::parse`].
    Control { kind: u16, flags: u8, length: usize },
    /// Bytes of a stream.
    Data { stream: u32, fin: bool, length: usize },
}

impl Header {
    pub(super) fn parse(bytes: [u8; HEADER]) -> Result<Self, SpdyError> {
        let [a, b, c, d, flags, x, y, z] = bytes;
        let length = usize::from(x) << 16 | usize::from(y) << 8 | usize::from(z);
        let first = u32::from_be_bytes([a, b, c, d]);
        if first & !MASK == 0 {
            return match first {
                0 => Err(SpdyError::Malformed("data for stream 0")),
                stream => Ok(Self::Data { stream, fin: flags & FIN != 0, length }),
            };
        }
        let version = u16::from_be_bytes([a, b]) & 0x7fff;
        if version != VERSION {
            return Err(SpdyError::Version(version));
        }
        if length > MAX_CONTROL {
            return Err(SpdyError::TooLong(length));
        }
        Ok(Self::Control { kind: u16::from_be_bytes([c, d]), flags, length })
    }
}

/// A control frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// The client opens a stream.
    Open { stream: u32, fin: bool, unidirectional: bool, headers: Headers },
    /// The client gives a stream up.
    Reset { stream: u32 },
    /// The client sends no more on this stream.
    Fin { stream: u32 },
    /// It wants an answer, or answers.
    Ping { id: u32 },
    /// It will leave.
    GoAway,
    /// Nothing that we act on.
    Other,
}

impl Control {
    pub(super) fn parse(
        kind: u16,
        flags: u8,
        payload: &[u8],
        inflater: &mut Inflater,
    ) -> Result<Self, SpdyError> {
        let fin = flags & FIN != 0;
        match kind {
            SYN_STREAM => {
                // Stream, associated stream, priority and slot.
                let (fixed, block) =
                    payload.split_first_chunk::<10>().ok_or(SpdyError::Malformed("a cut SYN_STREAM"))?;
                let stream = stream(&fixed[..4])?;
                let headers = inflater.read(block)?;
                Ok(Self::Open { stream, fin, unidirectional: flags & UNIDIRECTIONAL != 0, headers })
            }
            SYN_REPLY | HEADERS => {
                let (fixed, block) =
                    payload.split_first_chunk::<4>().ok_or(SpdyError::Malformed("a cut HEADERS"))?;
                let stream = stream(fixed)?;
                // The window of the compressor goes on with it.
                inflater.read(block)?;
                Ok(if fin { Self::Fin { stream } } else { Self::Other })
            }
            RST_STREAM if payload.len() == 8 => Ok(Self::Reset { stream: stream(&payload[..4])? }),
            RST_STREAM => Err(SpdyError::Malformed("a RST_STREAM of another length than 8")),
            PING => match payload {
                [a, b, c, d] => Ok(Self::Ping { id: u32::from_be_bytes([*a, *b, *c, *d]) }),
                _ => Err(SpdyError::Malformed("a PING of another length than 4")),
            },
            GOAWAY => Ok(Self::GoAway),
            // We keep to no window, so that updates and settings tell us nothing: see `super`.
            SETTINGS | WINDOW_UPDATE => Ok(Self::Other),
            // To be ignored (2.2.1).
            _ => Ok(Self::Other),
        }
    }
}

fn stream(bytes: &[u8]) -> Result<u32, SpdyError> {
    match bytes.try_into().map(u32::from_be_bytes).unwrap_or(0) & MASK {
        0 => Err(SpdyError::Malformed("a control frame for stream 0")),
        stream => Ok(stream),
    }
}

/// Why we give a stream up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    ProtocolError = 1,
    RefusedStream = 3,
    Cancel = 5,
}

fn control(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER + payload.len());
    frame.extend_from_slice(&(0x8000 | VERSION).to_be_bytes());
    frame.extend_from_slice(&kind.to_be_bytes());
    // No flags; no payload of ours is near 2^24.
    frame.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(0).to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

fn numbers<const N: usize>(kind: u16, numbers: [u32; N]) -> Vec<u8> {
    control(kind, &numbers.map(u32::to_be_bytes).concat())
}

/// Accepts a stream.
pub(super) fn reply(stream: u32, deflater: &mut Deflater) -> Result<Vec<u8>, SpdyError> {
    let mut payload = stream.to_be_bytes().to_vec();
    payload.extend_from_slice(&deflater.write(&[])?);
    Ok(control(SYN_REPLY, &payload))
}

/// Gives a stream up.
pub(super) fn reset(stream: u32, status: Status) -> Vec<u8> {
    numbers(RST_STREAM, [stream, status as u32])
}

/// Asks for an answer, or is one.
pub(super) fn ping(id: u32) -> Vec<u8> {
    numbers(PING, [id])
}

/// No new streams; the last that was accepted, and no error.
pub(super) fn go_away(last: u32) -> Vec<u8> {
    numbers(GOAWAY, [last, 0])
}

/// Lets the client send as much as it likes on each stream before a window update.
pub(super) fn widest_window() -> Vec<u8> {
    numbers(SETTINGS, [1, SETTINGS_INITIAL_WINDOW_SIZE, MASK])
}

/// Lets the client send more.
pub(super) fn window_update(stream: u32, delta: u32) -> Vec<u8> {
    numbers(WINDOW_UPDATE, [stream, delta & MASK])
}

/// What goes before `length` bytes of a stream; `length` is below 2^24.
pub(super) fn data(stream: u32, fin: bool, length: usize) -> [u8; HEADER] {
    let [_, x, y, z] = u32::try_from(length).unwrap_or(0).to_be_bytes();
    let [a, b, c, d] = (stream & MASK).to_be_bytes();
    [a, b, c, d, u8::from(fin) * FIN, x, y, z]
}

#[cfg(test)]
mod tests;
