//! What a monitor and its clients say to each other, one frame in each packet of a SOCK_SEQPACKET socket.
//!
//! ```text
//! client                                    monitor
//!   HELLO streams          ->                           on attach.sock; an inherited socket needs none
//!                          <-  STARTED pid              once, or FAILED kind code chain and the end
//!   STDIN bytes            ->
//!   STDIN_EOF              ->
//!   RESIZE rows columns    ->
//!                          <-  STDOUT bytes | STDERR bytes
//!                          <-  EXIT code oom            last; all of the container is cleaned up
//! ```
//!
//! A frame is one byte of kind and a body of at most [`MAX_BODY`] bytes; numbers are little-endian.
use super::error::{EngineError, Failure};
use crate::error::ErrorKind;

/// Most bytes of a body: what a pipe gives at once is cut to this.
pub const MAX_BODY: usize = 16 * 1024;
/// A frame fits into this.
pub const MAX_FRAME: usize = MAX_BODY + 1;

const HELLO: u8 = 1;
const STDIN: u8 = 2;
const STDIN_EOF: u8 = 3;
const RESIZE: u8 = 4;
const STARTED: u8 = 16;
const FAILED: u8 = 17;
const STDOUT: u8 = 18;
const STDERR: u8 = 19;
const EXIT: u8 = 20;

/// Which streams a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Streams {
    /// It will send standard input.
    pub stdin: bool,
    /// It wants standard output and error; without it, it waits for the end alone.
    pub output: bool,
}

/// One of the container's two outputs; with a terminal all is [`Output::Stdout`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How the container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code, or 128 + the signal that ended it.
    pub code: u8,
    /// The kernel killed a process of it for want of memory.
    pub oom_killed: bool,
}

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
pub enum FromClient<'a> {
    /// Who it is.
    Hello(Streams),
    /// Bytes for standard input.
    Stdin(&'a [u8]),
    /// The end of standard input.
    StdinEof,
    /// Its terminal has a new size.
    Resize {
        /// Lines.
        rows: u16,
        /// Characters in a line.
        columns: u16,
    },
}

/// What the monitor says.
#[derive(Debug, PartialEq, Eq)]
pub enum FromMonitor<'a> {
    /// The container's process runs.
    Started {
        /// Its process id on the host.
        pid: u32,
    },
    /// It does not.
    Failed(Failure),
    /// Bytes that it wrote.
    Output(Output, &'a [u8]),
    /// It ended.
    Exit(Exit),
}

impl FromClient<'_> {
    /// The frame.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Hello(streams) => vec![HELLO, u8::from(streams.stdin) | u8::from(streams.output) << 1],
            Self::Stdin(bytes) => with_body(STDIN, bytes),
            Self::StdinEof => vec![STDIN_EOF],
            Self::Resize { rows, columns } => {
                let mut frame = vec![RESIZE];
                frame.extend_from_slice(&rows.to_le_bytes());
                frame.extend_from_slice(&columns.to_le_bytes());
                frame
            }
        }
    }

    /// Reads a frame.
    pub fn decode(frame: &[u8]) -> Result<FromClient<'_>, EngineError> {
        let wrong = |reason| EngineError::Frame { peer: "client", reason };
        match frame {
            [HELLO, bits @ 0..=3] => {
                Ok(FromClient::Hello(Streams { stdin: bits & 1 != 0, output: bits & 2 != 0 }))
            }
            [STDIN, bytes @ ..] => Ok(FromClient::Stdin(bytes)),
            [STDIN_EOF] => Ok(FromClient::StdinEof),
            [RESIZE, a, b, c, d] => Ok(FromClient::Resize {
                rows: u16::from_le_bytes([*a, *b]),
                columns: u16::from_le_bytes([*c, *d]),
            }),
            _ => Err(wrong("unknown kind or wrong length")),
        }
    }
}

impl FromMonitor<'_> {
    /// The frame.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Started { pid } => with_body(STARTED, &pid.to_le_bytes()),
            Self::Failed(failure) => {
                let mut frame = vec![FAILED, kind_number(failure.kind), failure.exit_code];
                let chain = failure.chain.as_bytes();
                frame.extend_from_slice(&chain[..chain.len().min(MAX_BODY - 2)]);
                frame
            }
            Self::Output(Output::Stdout, bytes) => with_body(STDOUT, bytes),
            Self::Output(Output::Stderr, bytes) => with_body(STDERR, bytes),
            Self::Exit(exit) => vec![EXIT, exit.code, u8::from(exit.oom_killed)],
        }
    }

    /// Reads a frame.
    pub fn decode(frame: &[u8]) -> Result<FromMonitor<'_>, EngineError> {
        let wrong = |reason| EngineError::Frame { peer: "monitor", reason };
        match frame {
            [STARTED, a, b, c, d] => Ok(FromMonitor::Started { pid: u32::from_le_bytes([*a, *b, *c, *d]) }),
            [FAILED, kind, exit_code, chain @ ..] => Ok(FromMonitor::Failed(Failure {
                kind: kind_of(*kind),
                exit_code: *exit_code,
                chain: String::from_utf8_lossy(chain).into_owned(),
            })),
            [STDOUT, bytes @ ..] => Ok(FromMonitor::Output(Output::Stdout, bytes)),
            [STDERR, bytes @ ..] => Ok(FromMonitor::Output(Output::Stderr, bytes)),
            [EXIT, code, oom @ 0..=1] => Ok(FromMonitor::Exit(Exit { code: *code, oom_killed: *oom == 1 })),
            _ => Err(wrong("unknown kind or wrong length")),
        }
    }
}

const KINDS: [ErrorKind; 11] = [
    ErrorKind::NotFound,
    ErrorKind::AlreadyExists,
    ErrorKind::InvalidInput,
    ErrorKind::WrongState,
    ErrorKind::PermissionDenied,
    ErrorKind::Unsupported,
    ErrorKind::Exhausted,
    ErrorKind::Corrupt,
    ErrorKind::Network,
    ErrorKind::TimedOut,
    ErrorKind::System,
];

/// The number of a kind of errors in a message.
pub(super) fn kind_number(kind: ErrorKind) -> u8 {
    KINDS.iter().position(|known| *known == kind).and_then(|at| u8::try_from(at).ok()).unwrap_or(u8::MAX)
}

/// The kind of errors that a number stands for.
pub(super) fn kind_of(number: u8) -> ErrorKind {
    KINDS.get(usize::from(number)).copied().unwrap_or(ErrorKind::System)
}

fn with_body(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(body.len() + 1);
    frame.push(kind);
    frame.extend_from_slice(body);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive() {
        for frame in [
            FromClient::Hello(Streams { stdin: true, output: false }),
            FromClient::Stdin(b"abc"),
            FromClient::Stdin(b""),
            FromClient::StdinEof,
            FromClient::Resize { rows: 24, columns: 999 },
        ] {
            assert_eq!(FromClient::decode(&frame.encode()).unwrap(), frame);
        }
        let failure = Failure { kind: ErrorKind::NotFound, exit_code: 127, chain: "a: b".into() };
        for frame in [
            FromMonitor::Started { pid: 70_000 },
            FromMonitor::Failed(failure),
            FromMonitor::Output(Output::Stdout, b"x\0y"),
            FromMonitor::Output(Output::Stderr, b""),
            FromMonitor::Exit(Exit { code: 137, oom_killed: true }),
        ] {
            assert_eq!(FromMonitor::decode(&frame.encode()).unwrap(), frame);
        }
    }

    #[test]
    fn malformed_frames_are_errors() {
        for frame in [&b""[..], &[0], &[HELLO], &[HELLO, 4], &[HELLO, 1, 1], &[RESIZE, 1, 2, 3], &[99, 1]] {
            FromClient::decode(frame).unwrap_err();
        }
        for frame in [&b""[..], &[0], &[STARTED, 1], &[FAILED], &[EXIT, 1], &[EXIT, 1, 2], &[99]] {
            FromMonitor::decode(frame).unwrap_err();
        }
    }

    #[test]
    fn a_long_chain_is_cut() {
        let failure = Failure { kind: ErrorKind::System, exit_code: 125, chain: "x".repeat(100_000) };
        assert!(FromMonitor::Failed(failure).encode().len() <= MAX_FRAME);
    }
}
