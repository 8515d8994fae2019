//! Streams of bytes between a client and us, whichever protocol carries them.
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Most bytes that are passed on at once.
pub(super) const CHUNK: usize = 32 * 1024;
/// Chunks of a stream that wait for whoever reads it; after that the client waits.
pub(super) const INPUT_CHUNKS: usize = 4;
/// Chunks of a connection that wait for the client to take them; after that the writers wait.
pub(super) const OUTPUT_CHUNKS: usize = 16;

/// A client has this long to open the streams that it announced.
pub(super) const OPENING: Duration = Duration::from_secs(30);
/// A connection over which nothing went for so long is closed.
pub(super) const IDLE: Duration = Duration::from_secs(4 * 60 * 60);
/// How often a client is asked whether it is there: the answer to this of a client that died is a reset, so that it
/// is noticed even while nothing is read from it.
pub(super) const ASK: Duration = Duration::from_secs(30);
/// A client has this long to take what is left when all is said.
pub(super) const FLUSH: Duration = Duration::from_secs(60);
/// And then this long to close its side, so that the last bytes are not cut off by a reset.
pub(super) const LINGER: Duration = Duration::from_secs(10);

/// The client, or its connection, went away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

/// What comes from a client on one of its streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Chunk {
    /// Bytes, at least one.
    Bytes(Vec<u8>),
    /// It gave the stream up, in both directions.
    Reset,
}

/// The end of a stream at which we read. The queue ends where the client said that there is no more.
#[derive(Debug)]
pub(super) struct Input {
    queue: mpsc::Receiver<Chunk>,
    _stream: Arc<dyn Stream>,
}

/// The end of a stream at which we write; whoever drops it unfinished gives it up.
#[derive(Debug)]
pub(super) struct Output {
    number: u32,
    queue: mpsc::Sender<Outgoing>,
    stream: Arc<dyn Stream>,
}

/// What a connection remembers of a stream; it forgets it when both ends are dropped.
pub(super) trait Stream: std::fmt::Debug + Send + Sync {
    /// All has been queued that will be sent.
    fn finished(&self);
}

/// What the writer of a connection is to send.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// Bytes of a stream, at most [`CHUNK`].
    Bytes(u32, Vec<u8>),
    /// The end of a stream.
    Finish(u32),
    /// A frame of the protocol.
    Frame(Vec<u8>),
}

/// Both ends of a stream.
pub(super) fn ends(
    number: u32,
    input: mpsc::Receiver<Chunk>,
    output: mpsc::Sender<Outgoing>,
    stream: Arc<dyn Stream>,
) -> (Input, Output) {
    (Input { queue: input, _stream: Arc::clone(&stream) }, Output { number, queue: output, stream })
}

impl Input {
    /// The next chunk; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Chunk> {
        self.queue.recv().await
    }

    /// The same, where a stream that was given up is just at its end.
    pub(super) async fn next_bytes(&mut self) -> Option<Vec<u8>> {
        match self.next().await? {
            Chunk::Bytes(bytes) => Some(bytes),
            Chunk::Reset => None,
        }
    }
}

impl Output {
    /// Sends bytes when there is room.
    pub(super) async fn send(&self, bytes: &[u8]) -> Result<(), Gone> {
        for chunk in bytes.chunks(CHUNK) {
            self.queue.send(Outgoing::Bytes(self.number, chunk.to_vec())).await.map_err(|_| Gone)?;
        }
        Ok(())
    }

    /// Sends no bytes: clients of WebSocket wait for a first message.
    pub(super) async fn greet(&self) -> Result<(), Gone> {
        self.queue.send(Outgoing::Bytes(self.number, Vec::new())).await.map_err(|_| Gone)
    }

    /// Says that there is no more.
    pub(super) async fn finish(self) -> Result<(), Gone> {
        self.queue.send(Outgoing::Finish(self.number)).await.map_err(|_| Gone)?;
        self.stream.finished();
        Ok(())
    }
}
