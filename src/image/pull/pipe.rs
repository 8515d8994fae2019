//! The pipe between the thread that downloads a layer and the process that unpacks it.
use crate::image::unpack;
use crate::sys::SysError;
use std::cell::Cell;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

/// Bytes of a chunk: enough that waking the other side costs nothing beside its work.
pub(super) const CHUNK: usize = 256 << 10;

/// A pipe. The kernel holds what the network may be ahead of the unpacking, for each layer: 1 MiB.
pub(super) fn pipe() -> Result<(Writer, OwnedFd), SysError> {
    let (reader, writer) = unpack::pipe()?;
    Ok((Writer { pipe: File::from(writer), spare: Cell::default() }, reader))
}

/// The downloading end. The reader cannot tell an end from a download that failed; whoever waits for both can.
pub(super) struct Writer {
    pipe: File,
    spare: Cell<Vec<u8>>,
}

impl Writer {
    /// A buffer of [`CHUNK`] bytes.
    pub(super) fn buffer(&self) -> Vec<u8> {
        let mut buffer = self.spare.take();
        buffer.resize(CHUNK, 0);
        buffer
    }

    /// Passes a chunk on; `false` if nobody reads any more.
    pub(super) fn send(&self, chunk: Vec<u8>) -> bool {
        // A pipe that has a reader takes everything.
        let sent = (&self.pipe).write_all(&chunk).is_ok();
        self.spare.set(chunk);
        sent
    }

    /// All bytes were sent.
    pub(super) fn end(self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn bytes_pass_in_order_and_end() {
        let (writer, reader) = pipe().unwrap();
        let sender = std::thread::spawn(move || {
            for value in 0..100 {
                let mut chunk = writer.buffer();
                assert_eq!(chunk.len(), CHUNK);
                chunk.truncate(usize::from(value) + 1);
                chunk.fill(value);
                assert!(writer.send(chunk));
            }
            writer.end();
        });
        let mut bytes = Vec::new();
        File::from(reader).read_to_end(&mut bytes).unwrap();
        sender.join().unwrap();
        let want: Vec<u8> = (0..100).flat_map(|value| vec![value; usize::from(value) + 1]).collect();
        assert_eq!(bytes, want);
    }

    #[test]
    fn a_reader_that_gives_up_is_told() {
        let (writer, reader) = pipe().unwrap();
        drop(reader);
        assert!(!writer.send(vec![1]));
    }
}
