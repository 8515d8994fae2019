//! The pipe between the thread that downloads a layer and the one that unpacks it.
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Bytes of a chunk: enough that waking the other thread costs nothing beside its work.
pub(super) const CHUNK: usize = 256 << 10;
/// Chunks under way: what the network may be ahead of the unpacking, for each layer.
const CHUNKS: usize = 16;

enum Message {
    Data(Vec<u8>),
    End,
}

/// A pipe; the chunks that were read come back to the writer.
pub(super) fn pipe() -> (Writer, Reader) {
    let (to, from) = sync_channel(CHUNKS);
    let (back, spare) = sync_channel(CHUNKS + 2);
    (Writer { to, spare }, Reader { from, back, chunk: Vec::new(), at: 0, ended: false })
}

/// The downloading end. Dropped without [`Writer::end`], it makes the reader fail.
pub(super) struct Writer {
    to: SyncSender<Message>,
    spare: Receiver<Vec<u8>>,
}

impl Writer {
    /// A buffer of [`CHUNK`] bytes.
    pub(super) fn buffer(&self) -> Vec<u8> {
        let mut buffer = self.spare.try_recv().unwrap_or_default();
        buffer.resize(CHUNK, 0);
        buffer
    }

    /// Passes a chunk on; `false` if nobody reads any more.
    pub(super) fn send(&self, chunk: Vec<u8>) -> bool {
        self.to.send(Message::Data(chunk)).is_ok()
    }

    /// All bytes were sent.
    pub(super) fn end(self) {
        // A reader that is gone has its own error.
        let _ = self.to.send(Message::End);
    }
}

/// The unpacking end.
pub(super) struct Reader {
    from: Receiver<Message>,
    back: SyncSender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.chunk.len() && !self.ended {
            match self.from.recv() {
                Ok(Message::Data(chunk)) => {
                    let spent = std::mem::replace(&mut self.chunk, chunk);
                    self.at = 0;
                    // The first "chunk" is empty; and a writer that is gone needs no buffers.
                    if !spent.is_empty() {
                        let _ = self.back.try_send(spent);
                    }
                }
                Ok(Message::End) => self.ended = true,
                Err(_) => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        let count = buffer.len().min(self.chunk.len() - self.at);
        buffer[..count].copy_from_slice(&self.chunk[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_pass_in_order_and_end() {
        let (writer, mut reader) = pipe();
        let sender = std::thread::spawn(move || {
            for value in 0..100 {
                let mut chunk = writer.buffer();
                chunk.truncate(usize::from(value) + 1);
                chunk.fill(value);
                assert!(writer.send(chunk));
            }
            writer.end();
        });
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        sender.join().unwrap();
        let want: Vec<u8> = (0..100).flat_map(|value| vec![value; usize::from(value) + 1]).collect();
        assert_eq!(bytes, want);
    }

    #[test]
    fn a_writer_that_gives_up_is_no_end() {
        let (writer, mut reader) = pipe();
        assert!(writer.send(vec![1]));
        drop(writer);
        assert_eq!(reader.read_to_end(&mut Vec::new()).unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }

    #[test]
    fn a_reader_that_gives_up_is_told() {
        let (writer, reader) = pipe();
        drop(reader);
        assert!(!writer.send(vec![1]));
    }
}
