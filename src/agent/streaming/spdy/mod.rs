//! SPDY/3.1, the server's side, as far as Kubernetes' clients use it: the client opens all streams.
//!
//! Flow control is TCP's: those clients neither keep to windows nor send updates, so that waiting for one would be
//! for ever. A client that does keep to them is given the widest there are. A stream whose reader is slow holds up
//! those of the same connection, as with the clients' own library.
//!
//! Everything is bounded: streams at a time, the length of control frames, of header blocks before and after
//! inflating, chunks that wait in each direction.
use super::channel::{
    ASK, CHUNK, Chunk, FLUSH, IDLE, INPUT_CHUNKS, Input, LINGER, OUTPUT_CHUNKS, Outgoing, Output, Stream,
    ends,
};
use frame::{Control, HEADER, Header, Status};
use headers::{Deflater, Inflater};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter, ReadHalf, WriteHalf,
};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, interval_at, timeout};

mod dictionary;
mod frame;
mod headers;

pub(super) use frame::SpdyError;
pub(super) use headers::{Headers, get};

/// Streams at a time: half as many forwarded connections.
const MAX_STREAMS: usize = 1024;
/// Streams that were opened and not looked at yet.
const WAITING_STREAMS: usize = 16;
/// After so many bytes of a stream, its window is opened again by as much.
const WINDOW: u32 = 1 << 30;

/// A stream that the client opened.
#[derive(Debug)]
pub(super) struct Opened {
    /// Its number.
    pub(super) number: u32,
    /// What it is for.
    pub(super) headers: Headers,
    /// From the client.
    pub(super) input: Input,
    /// To the client.
    pub(super) output: Output,
}

/// Speaks SPDY over `io`. `app` is given the client's streams as they are opened, and what it returns is run until
/// it ends, or until the client goes away and it is dropped.
///
/// # Errors
/// The client went away before, or broke the protocol.
pub(super) async fn serve<Io, App>(
    io: Io,
    app: impl FnOnce(mpsc::Receiver<Opened>) -> App,
) -> Result<(), SpdyError>
where
    Io: AsyncRead + AsyncWrite + Send,
    App: Future<Output = ()>,
{
    let (reader, writer) = tokio::io::split(io);
    let (outgoing, queue) = mpsc::channel(OUTPUT_CHUNKS);
    let (accept, accepted) = mpsc::channel(WAITING_STREAMS);
    let table = Arc::new(Table::default());
    let asking = ask(outgoing.clone(), &table);
    let writing = write(writer, queue, &table);
    let reading = Reader {
        io: BufReader::with_capacity(CHUNK, reader),
        inflater: Inflater::new(),
        deflater: Deflater::new()?,
        table: Arc::clone(&table),
        outgoing,
        accept,
    }
    .run();
    tokio::pin!(writing, reading);
    tokio::select! {
        result = &mut reading => return result,
        result = &mut writing => return result.map(drop),
        () = asking => return Ok(()),
        () = app(accepted) => {}
    }
    // All is said. The client may be sending still; it is read, so that it comes to read what we said.
    table.close();
    let writer = tokio::select! {
        result = &mut reading => return result,
        result = timeout(FLUSH, &mut writing) => result,
    };
    if let Ok(writer) = writer {
        writer?.shutdown().await?;
        // How it leaves does not matter any more.
        let _ = timeout(LINGER, reading).await;
    }
    Ok(())
}

/// Which streams are open.
#[derive(Debug, Default)]
struct Table {
    state: Mutex<State>,
    /// There are streams to reset, or all is said.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    streams: HashMap<u32, Open>,
    /// Given up by us; the client is to be told.
    resets: Vec<u32>,
    /// All is said.
    closed: bool,
    /// The last stream that was accepted.
    last: u32,
    /// When the client said something last.
    heard: Option<Instant>,
}

/// A stream that is open.
#[derive(Debug)]
struct Open {
    /// Where its bytes go; nowhere after their end.
    queue: Option<mpsc::Sender<Chunk>>,
    /// How many there were since its window was opened last.
    received: u32,
}

impl Open {
    /// Counts bytes; whether the window is to be opened again.
    fn count(&mut self, length: usize) -> bool {
        // A frame has less than 2^24 bytes.
        self.received = self.received.saturating_add(u32::try_from(length).unwrap_or(u32::MAX));
        let update = self.received >= WINDOW;
        if update {
            self.received -= WINDOW;
        }
        update
    }
}

impl Table {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.state().closed = true;
        self.changed.notify_one();
    }
}

/// A stream, for its two ends.
#[derive(Debug)]
struct Entry {
    number: u32,
    finished: AtomicBool,
    table: Arc<Table>,
}

impl Stream for Entry {
    fn finished(&self) {
        self.finished.store(true, Ordering::Release);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut state = self.table.state();
        // It is not there if the client has reset it.
        if state.streams.remove(&self.number).is_some() && !self.finished.load(Ordering::Acquire) {
            state.resets.push(self.number);
            self.table.changed.notify_one();
        }
    }
}

/// Asks from time to time whether the client is there; ends when it has said nothing for too long.
async fn ask(outgoing: mpsc::Sender<Outgoing>, table: &Table) {
    let mut times = interval_at(Instant::now() + ASK, ASK);
    let since = Instant::now();
    // Ours are even (2.6.5).
    for id in (2..u32::MAX).step_by(2).cycle() {
        times.tick().await;
        if table.state().heard.unwrap_or(since).elapsed() > IDLE {
            return;
        }
        // With a full queue, what is in it asks.
        let _ = outgoing.try_send(Outgoing::Frame(frame::ping(id)));
    }
}

/// Sends what is queued until all is said and sent.
async fn write<Io: AsyncWrite>(
    io: WriteHalf<Io>,
    mut queue: mpsc::Receiver<Outgoing>,
    table: &Table,
) -> Result<BufWriter<WriteHalf<Io>>, SpdyError> {
    let mut io = BufWriter::with_capacity(2 * CHUNK, io);
    io.write_all(&frame::widest_window()).await?;
    loop {
        let next = match queue.try_recv() {
            Ok(next) => next,
            Err(_) => {
                let (resets, closed, last) = {
                    let mut state = table.state();
                    (std::mem::take(&mut state.resets), state.closed, state.last)
                };
                for stream in resets.into_iter().filter(|_| !closed) {
                    io.write_all(&frame::reset(stream, Status::Cancel)).await?;
                }
                if closed {
                    io.write_all(&frame::go_away(last)).await?;
                }
                io.flush().await?;
                if closed {
                    return Ok(io);
                }
                tokio::select! {
                    next = queue.recv() => match next {
                        Some(next) => next,
                        None => return Ok(io),
                    },
                    () = table.changed.notified() => continue,
                }
            }
        };
        match next {
            Outgoing::Bytes(stream, bytes) => {
                io.write_all(&frame::data(stream, false, bytes.len())).await?;
                io.write_all(&bytes).await?;
            }
            Outgoing::Finish(stream) => io.write_all(&frame::data(stream, true, 0)).await?,
            Outgoing::Frame(frame) => io.write_all(&frame).await?,
        }
    }
}

/// What reads a connection.
struct Reader<Io> {
    io: BufReader<ReadHalf<Io>>,
    inflater: Inflater,
    deflater: Deflater,
    table: Arc<Table>,
    outgoing: mpsc::Sender<Outgoing>,
    accept: mpsc::Sender<Opened>,
}

impl<Io: AsyncRead> Reader<Io> {
    /// Reads until the client leaves.
    async fn run(mut self) -> Result<(), SpdyError> {
        let mut payload = Vec::new();
        loop {
            let mut header = [0; HEADER];
            match self.io.read_exact(&mut header).await {
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
                result => result?,
            };
            match Header::parse(header)? {
                Header::Data { stream, fin, length } => self.data(stream, fin, length).await?,
                Header::Control { kind, flags, length } => {
                    payload.resize(length, 0);
                    self.io.read_exact(&mut payload).await?;
                    let control = Control::parse(kind, flags, &payload, &mut self.inflater)?;
                    self.control(control).await?;
                }
            }
        }
    }

    fn heard(&self) {
        self.table.state().heard = Some(Instant::now());
    }

    /// Passes the bytes of a data frame on in pieces. Those of a stream that is not open are dropped: it may have
    /// been given up a moment ago.
    async fn data(&mut self, stream: u32, fin: bool, length: usize) -> Result<(), SpdyError> {
        self.heard();
        let (queue, update) = match self.table.state().streams.get_mut(&stream) {
            Some(open) => (open.queue.clone(), open.count(length)),
            None => (None, false),
        };
        let mut left = length;
        while left > 0 {
            let mut bytes = vec![0; left.min(CHUNK)];
            self.io.read_exact(&mut bytes).await?;
            left -= bytes.len();
            if let Some(queue) = &queue {
                // An error says that nobody wants it any more.
                let _ = queue.send(Chunk::Bytes(bytes)).await;
            }
        }
        if fin {
            self.end(stream);
        } else if update {
            self.send(frame::window_update(stream, WINDOW)).await;
        }
        Ok(())
    }

    /// The client will send no more on this stream.
    fn end(&self, stream: u32) {
        if let Some(open) = self.table.state().streams.get_mut(&stream) {
            open.queue = None;
        }
    }

    async fn control(&mut self, control: Control) -> Result<(), SpdyError> {
        match control {
            Control::Open { stream, fin, unidirectional, headers } => {
                self.heard();
                return self.open(stream, fin || unidirectional, headers).await;
            }
            Control::Reset { stream } => {
                let queue = self.table.state().streams.remove(&stream).and_then(|open| open.queue);
                if let Some(queue) = queue {
                    // An error says that nobody wants to know any more.
                    let _ = queue.send(Chunk::Reset).await;
                }
            }
            Control::Fin { stream } => self.end(stream),
            // The answer to one of ours.
            Control::Ping { id } if id.is_multiple_of(2) => return Ok(()),
            Control::Ping { id } => self.send(frame::ping(id)).await,
            Control::GoAway | Control::Other => {}
        }
        self.heard();
        Ok(())
    }

    async fn send(&mut self, frame: Vec<u8>) {
        // An error says that all is said.
        let _ = self.outgoing.send(Outgoing::Frame(frame)).await;
    }

    async fn open(&mut self, number: u32, fin: bool, headers: Headers) -> Result<(), SpdyError> {
        let (queue, input) = mpsc::channel(INPUT_CHUNKS);
        let refused = {
            let mut state = self.table.state();
            if number.is_multiple_of(2) || number <= state.last {
                Some(Status::ProtocolError)
            } else if state.closed || state.streams.len() >= MAX_STREAMS {
                Some(Status::RefusedStream)
            } else {
                state.last = number;
                state.streams.insert(number, Open { queue: (!fin).then_some(queue), received: 0 });
                None
            }
        };
        if let Some(status) = refused {
            self.send(frame::reset(number, status)).await;
            return Ok(());
        }
        let entry = Entry { number, finished: AtomicBool::new(false), table: Arc::clone(&self.table) };
        // Before anybody can write to the stream.
        let reply = frame::reply(number, &mut self.deflater)?;
        self.send(reply).await;
        let (input, output) = ends(number, input, self.outgoing.clone(), Arc::new(entry));
        // An error says that all is said.
        let _ = self.accept.send(Opened { number, headers, input, output }).await;
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod client;
#[cfg(test)]
mod tests;
