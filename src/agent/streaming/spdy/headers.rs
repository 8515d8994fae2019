//! Header blocks: names and values, compressed by zlib with one window for each direction of a connection.
use super::dictionary::DICTIONARY;
use super::frame::SpdyError;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Most bytes of a block when it is inflated; clients send some dozens.
const MAX_BLOCK: usize = 64 * 1024;
/// Most headers in a block.
const MAX_HEADERS: u32 = 100;

/// Names, in lower case, and values.
pub(in super::super) type Headers = Vec<(String, String)>;

/// The value of the first header with this name.
pub(in super::super) fn get<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// Inflates what one side sends, block after block.
#[derive(Debug)]
pub(super) struct Inflater {
    state: Decompress,
}

impl Inflater {
    pub(super) fn new() -> Self {
        Self { state: Decompress::new(true) }
    }

    /// Reads a block. Every block of a connection must come here, in order.
    pub(super) fn read(&mut self, block: &[u8]) -> Result<Headers, SpdyError> {
        parse(&self.inflate(block)?)
    }

    fn inflate(&mut self, block: &[u8]) -> Result<Vec<u8>, SpdyError> {
        let mut plain = Vec::with_capacity(1024);
        let mut rest = block;
        loop {
            let before = (self.state.total_in(), self.state.total_out());
            let status = match self.state.decompress_vec(rest, &mut plain, FlushDecompress::Sync) {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.state.set_dictionary(DICTIONARY)?;
                    Status::Ok
                }
                status => status?,
            };
            let taken = usize::try_from(self.state.total_in() - before.0).unwrap_or(usize::MAX);
            rest = rest.get(taken..).unwrap_or_default();
            if plain.len() > MAX_BLOCK {
                return Err(SpdyError::Malformed("a header block of more than 64 KiB"));
            }
            let made = self.state.total_out() != before.1;
            if status == Status::StreamEnd || (rest.is_empty() && plain.len() < plain.capacity()) {
                break;
            }
            if taken == 0 && !made && plain.len() < plain.capacity() {
                return Err(SpdyError::Malformed("a header block that cannot be inflated"));
            }
            if plain.len() == plain.capacity() {
                plain.reserve(4096);
            }
        }
        if !rest.is_empty() {
            return Err(SpdyError::Malformed("bytes behind a header block"));
        }
        Ok(plain)
    }
}

/// Deflates what we send.
#[derive(Debug)]
pub(super) struct Deflater {
    state: Compress,
}

impl Deflater {
    pub(super) fn new() -> Result<Self, SpdyError> {
        let mut state = Compress::new(Compression::default(), true);
        state.set_dictionary(DICTIONARY)?;
        Ok(Self { state })
    }

    /// Writes a block.
    pub(super) fn write(&mut self, headers: &[(&str, &str)]) -> Result<Vec<u8>, SpdyError> {
        let mut plain = length(headers.len()).to_vec();
        for (name, value) in headers {
            for text in [name, value] {
                plain.extend_from_slice(&length(text.len()));
                plain.extend_from_slice(text.as_bytes());
            }
        }
        let mut block = Vec::with_capacity(plain.len() + 64);
        let mut rest = plain.as_slice();
        loop {
            let before = self.state.total_in();
            self.state.compress_vec(rest, &mut block, FlushCompress::Sync)?;
            let taken = usize::try_from(self.state.total_in() - before).unwrap_or(usize::MAX);
            rest = rest.get(taken..).unwrap_or_default();
            // With room left, all that was taken has been flushed.
            if rest.is_empty() && block.len() < block.capacity() {
                return Ok(block);
            }
            block.reserve(256);
        }
    }
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

/// Reads an inflated block: a number of pairs, and each text with its length before it.
fn parse(block: &[u8]) -> Result<Headers, SpdyError> {
    let mut rest = block;
    let count = number(&mut rest)?;
    if count > MAX_HEADERS {
        return Err(SpdyError::Malformed("more than 100 headers"));
    }
    let mut headers = Headers::new();
    for _ in 0..count {
        let (name, value) = (text(&mut rest)?, text(&mut rest)?);
        headers.push((name.to_ascii_lowercase(), value));
    }
    if rest.is_empty() { Ok(headers) } else { Err(SpdyError::Malformed("bytes behind the headers")) }
}

fn number(rest: &mut &[u8]) -> Result<u32, SpdyError> {
    let (number, after) = rest.split_first_chunk().ok_or(SpdyError::Malformed("a cut header block"))?;
    *rest = after;
    Ok(u32::from_be_bytes(*number))
}

fn text(rest: &mut &[u8]) -> Result<String, SpdyError> {
    let length = usize::try_from(number(rest)?).unwrap_or(usize::MAX);
    let (text, after) = rest.split_at_checked(length).ok_or(SpdyError::Malformed("a cut header block"))?;
    *rest = after;
    String::from_utf8(text.to_vec()).map_err(|_| SpdyError::Malformed("a header that is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_share_a_window() {
        let mut deflater = Deflater::new().unwrap();
        let mut inflater = Inflater::new();
        for round in 0..50 {
            let port = round.to_string();
            let headers = [("streamtype", "data"), ("port", port.as_str()), ("x", &"y".repeat(round * 400))];
            let block = deflater.write(&headers).unwrap();
            let read = inflater.read(&block).unwrap();
            assert_eq!(get(&read, "port"), Some(port.as_str()));
            assert_eq!(get(&read, "x").unwrap().len(), round * 400);
            assert_eq!(get(&read, "missing"), None);
        }
        assert_eq!(inflater.read(&deflater.write(&[]).unwrap()).unwrap(), Headers::new());
    }

    #[test]
    fn a_bomb_is_refused() {
        let mut deflater = Deflater::new().unwrap();
        let block = deflater.write(&[("a", &"x".repeat(10_000_000))]).unwrap();
        assert!(block.len() < 64 * 1024);
        assert!(Inflater::new().read(&block).is_err());
    }

    #[test]
    fn malformed_blocks_are_errors() {
        for plain in [
            &b""[..],
            b"\0\0\0",
            b"\0\0\0\x01",
            b"\0\0\0\x01\0\0\0\x05abc",
            b"\xff\xff\xff\xff",
            b"\0\0\0\0x",
        ] {
            assert!(parse(plain).is_err(), "{plain:?}");
        }
        assert!(parse(b"\0\0\0\x01\0\0\0\x01\xff\0\0\0\0").is_err());
        assert!(Inflater::new().read(b"").is_err());
        assert!(Inflater::new().read(b"not zlib").is_err());
    }
}
