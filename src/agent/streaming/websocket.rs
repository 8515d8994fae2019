//! Kubernetes' channels over WebSocket: the first byte of each message is the number of its channel.
//!
//! A message of two bytes, 255 and a number, ends a channel from the client (version 5); from us a channel ends with
//! the connection.
use super::channel::{
    ASK, CHUNK, Chunk, FLUSH, IDLE, INPUT_CHUNKS, Input, LINGER, OUTPUT_CHUNKS, Outgoing, Output, Stream,
    ends,
};
use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at, timeout};

/// Most bytes of a message.
pub(super) const MAX_MESSAGE: usize = 1024 * 1024;
/// Says that a channel ends.
const CLOSE: u8 = 255;

/// The client went away, or broke the protocol.
#[derive(Debug, thiserror::Error)]
pub(super) enum WebSocketError {
    /// It went away.
    #[error("the client went away")]
    Gone,
    /// Reading or writing.
    #[error("WebSocket connection")]
    Io(#[source] axum::Error),
    /// A message for a channel that there is not.
    #[error("a message for channel {0}")]
    Channel(u8),
}

/// Nothing is remembered of a channel.
#[derive(Debug)]
struct Channel;

impl Stream for Channel {
    fn finished(&self) {}
}

/// A piece of data and where its reader is.
type Delivery = (mpsc::Sender<Chunk>, Vec<u8>);

/// What came from the client.
enum Came {
    /// A piece of its data.
    Data(Vec<u8>),
    /// Nothing that concerns anybody.
    Nothing,
}

/// A connection, and when something came over it last.
struct Connection {
    socket: WebSocket,
    heard: Instant,
    /// How long the client may take to make room for a message.
    patience: Duration,
}

impl Connection {
    fn new(socket: WebSocket) -> Self {
        Self { socket, heard: Instant::now(), patience: IDLE }
    }

    /// The next message; can be dropped before its end.
    async fn receive(&mut self) -> Result<Came, WebSocketError> {
        let message = self.socket.recv().await.ok_or(WebSocketError::Gone)?.map_err(WebSocketError::Io)?;
        let data = match message {
            Message::Binary(bytes) => bytes.to_vec(),
            Message::Text(text) => text.as_bytes().to_vec(),
            Message::Pong(_) => return Ok(Came::Nothing),
            Message::Ping(_) => Vec::new(),
            Message::Close(_) => return Err(WebSocketError::Gone),
        };
        self.heard = Instant::now();
        Ok(if data.is_empty() { Came::Nothing } else { Came::Data(data) })
    }

    async fn send(&mut self, message: Message) -> Result<(), WebSocketError> {
        match timeout(self.patience, self.socket.send(message)).await {
            Ok(sent) => sent.map_err(WebSocketError::Io),
            Err(_) => Err(WebSocketError::Gone),
        }
    }

    /// Asks whether the client is there; an error when it has said nothing for too long.
    async fn ask(&mut self) -> Result<(), WebSocketError> {
        if self.heard.elapsed() > IDLE {
            return Err(WebSocketError::Gone);
        }
        self.send(Message::Ping(Vec::new().into())).await
    }

    /// Says goodbye, and waits for a moment until the client does.
    async fn close(mut self) {
        let goodbye = CloseFrame { code: close_code::NORMAL, reason: "".into() };
        if self.send(Message::Close(Some(goodbye))).await.is_ok() {
            // How it leaves does not matter.
            let _ = timeout(LINGER, async { while self.receive().await.is_ok() {} }).await;
        }
    }
}

/// Speaks channels `0..count` over `socket`. What `app` returns is run until it ends, or until the client goes away
/// and it is dropped.
///
/// # Errors
/// The client went away before, or broke the protocol.
pub(super) async fn serve<App>(
    socket: WebSocket,
    count: u8,
    app: impl FnOnce(Vec<(Input, Output)>) -> App,
) -> Result<(), WebSocketError>
where
    App: Future<Output = ()>,
{
    let mut connection = Connection::new(socket);
    let (outgoing, mut queue) = mpsc::channel(OUTPUT_CHUNKS);
    let mut inputs = Vec::new();
    let mut channels = Vec::new();
    for number in 0..count {
        let (sender, input) = mpsc::channel(INPUT_CHUNKS);
        inputs.push(Some(sender));
        channels.push(ends(u32::from(number), input, outgoing.clone(), Arc::new(Channel)));
    }
    // Only the application keeps the queue open.
    drop(outgoing);
    let app = app(channels);
    tokio::pin!(app);
    let mut ended = false;
    let mut times = interval_at(Instant::now() + ASK, ASK);
    // A piece of data that its reader has no room for; while there is one, nothing is received.
    let mut waiting: Option<Delivery> = None;
    loop {
        let room = async {
            match &waiting {
                Some((queue, _)) => queue.clone().reserve_owned().await.ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = &mut app, if !ended => {
                ended = true;
                connection.patience = FLUSH;
            }
            next = queue.recv() => match next {
                None => break,
                Some(next) => {
                    if let Some(message) = message(next) {
                        connection.send(message).await?;
                    }
                }
            },
            permit = room => {
                // Without a permit nobody wants it any more.
                if let (Some((_, bytes)), Some(permit)) = (waiting.take(), permit) {
                    permit.send(Chunk::Bytes(bytes));
                }
            }
            came = connection.receive(), if waiting.is_none() => match came? {
                Came::Nothing => {}
                Came::Data(bytes) => waiting = take(&bytes, &mut inputs)?,
            },
            _ = times.tick() => connection.ask().await?,
        }
    }
    connection.close().await;
    Ok(())
}

/// Finds the reader of a message and what is for it.
fn take(
    message: &[u8],
    inputs: &mut [Option<mpsc::Sender<Chunk>>],
) -> Result<Option<Delivery>, WebSocketError> {
    let (number, data) = match message {
        [CLOSE, number] => (number, None),
        [number, data @ ..] => (number, Some(data)),
        [] => return Ok(None),
    };
    let input = inputs.get_mut(usize::from(*number)).ok_or(WebSocketError::Channel(*number))?;
    match data {
        None => *input = None,
        Some([]) => {}
        Some(data) => return Ok(input.clone().map(|queue| (queue, data.to_vec()))),
    }
    Ok(None)
}

fn message(outgoing: Outgoing) -> Option<Message> {
    match outgoing {
        Outgoing::Bytes(number, bytes) => {
            let mut message = Vec::with_capacity(bytes.len() + 1);
            // Channels are counted by a byte.
            message.push(u8::try_from(number).unwrap_or(u8::MAX));
            message.extend_from_slice(&bytes);
            Some(Message::Binary(message.into()))
        }
        Outgoing::Finish(_) | Outgoing::Frame(_) => None,
    }
}

/// Carries a stream of bytes in binary messages. What `app` makes of our end is run until it ends, or until the
/// client goes away and it is dropped.
///
/// # Errors
/// The client went away before.
pub(super) async fn tunnel<App>(
    socket: WebSocket,
    app: impl FnOnce(DuplexStream) -> App,
) -> Result<(), WebSocketError>
where
    App: Future<Output = ()>,
{
    let mut connection = Connection::new(socket);
    let (inner, outer) = duplex(2 * CHUNK);
    let (mut reader, mut writer) = tokio::io::split(outer);
    let app = app(inner);
    tokio::pin!(app);
    let mut ended = false;
    let mut times = interval_at(Instant::now() + ASK, ASK);
    let mut buffer = vec![0; CHUNK];
    // Bytes that the application has no room for; while there are some, nothing is received.
    let mut waiting: Vec<u8> = Vec::new();
    let mut dropped = false;
    loop {
        tokio::select! {
            () = &mut app, if !ended => {
                ended = true;
                connection.patience = FLUSH;
            }
            length = reader.read(&mut buffer) => match length {
                Ok(0) | Err(_) => break,
                Ok(length) => connection.send(Message::Binary(buffer[..length].to_vec().into())).await?,
            },
            written = writer.write(&waiting), if !waiting.is_empty() => match written {
                Ok(written) => drop(waiting.drain(..written)),
                Err(_) => {
                    waiting.clear();
                    dropped = true;
                }
            },
            came = connection.receive(), if waiting.is_empty() => match came? {
                Came::Data(bytes) if !dropped => waiting = bytes,
                Came::Data(_) | Came::Nothing => {}
            },
            _ = times.tick() => connection.ask().await?,
        }
    }
    connection.close().await;
    Ok(())
}
