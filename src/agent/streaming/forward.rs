//! Port-forward: connections into a task's network namespace, over one connection of the client.
//!
//! Each has a stream for data and one for an error. Over SPDY the client opens both whenever it likes, with the
//! port and an id that pairs them in their headers. Over WebSocket there are two channels for each port of the
//! request, on which we first say the port.
use super::backend::Backend;
use super::channel::{Chunk, Gone, Input, OPENING, Output};
use super::spdy::{Headers, Opened, get};
use crate::engine::names::Id;
use crate::error::chain;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// The protocol over SPDY.
pub(super) const PROTOCOL: &str = "portforward.k8s.io";
/// What is read from a connection at once.
const BUFFER: usize = super::channel::CHUNK;

/// Where connections go.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) task: Id,
}

/// Half of a pair of streams.
#[derive(Debug)]
enum Half {
    Data(Input, Output),
    /// What the client would send here is nothing.
    Error(Output),
}

/// A half that waits for the other one.
#[derive(Debug)]
struct Waiting {
    half: Half,
    port: u16,
    since: Instant,
}

/// Serves pairs of streams as they are opened, until this is dropped.
pub(super) async fn over_spdy(target: Target, mut opened: mpsc::Receiver<Opened>) {
    let mut waiting: HashMap<String, Waiting> = HashMap::new();
    let mut running = JoinSet::new();
    loop {
        let oldest = waiting.values().map(|half| half.since).min();
        tokio::select! {
            stream = opened.recv() => {
                let Some(stream) = stream else { return };
                // A stream that makes no sense is given up, which the client is told.
                let Some((id, new)) = recognize(stream) else { continue };
                match waiting.remove(&id) {
                    None => drop(waiting.insert(id, new)),
                    Some(old) => match (old.half, new.half) {
                        (Half::Data(input, output), Half::Error(error))
                        | (Half::Error(error), Half::Data(input, output)) if old.port == new.port => {
                            running.spawn(forward(target.clone(), new.port, input, output, error));
                        }
                        // Two of a kind: neither can be served.
                        _ => {}
                    },
                }
            }
            Some(_) = running.join_next(), if !running.is_empty() => {}
            () = sleep_until(oldest.unwrap_or_else(Instant::now) + OPENING), if oldest.is_some() => {
                waiting.retain(|_, half| half.since.elapsed() < OPENING);
            }
        }
    }
}

fn recognize(stream: Opened) -> Option<(String, Waiting)> {
    let Opened { number, headers, input, output } = stream;
    let port = get(&headers, "port")?.parse().ok().filter(|port| *port != 0)?;
    let (half, error) = match get(&headers, "streamtype")? {
        "data" => (Half::Data(input, output), false),
        "error" => (Half::Error(output), true),
        _ => return None,
    };
    Some((pair(&headers, number, error), Waiting { half, port, since: Instant::now() }))
}

/// What pairs two streams. Old clients give no id: their data stream comes right after the error stream.
fn pair(headers: &Headers, number: u32, error: bool) -> String {
    match get(headers, "requestid") {
        Some(id) => format!("id {id}"),
        None if error => number.to_string(),
        None => number.saturating_sub(2).to_string(),
    }
}

/// Serves the channels of each port until all connections have ended.
pub(super) async fn over_channels(target: Target, ports: Vec<u16>, channels: Vec<(Input, Output)>) {
    let mut running = JoinSet::new();
    let mut channels = channels.into_iter();
    for port in ports {
        let (Some((input, output)), Some((_, error))) = (channels.next(), channels.next()) else { return };
        let target = target.clone();
        running.spawn(async move {
            for channel in [&output, &error] {
                if channel.send(&port.to_le_bytes()).await.is_err() {
                    return;
                }
            }
            forward(target, port, input, output, error).await;
        });
    }
    while running.join_next().await.is_some() {}
}

/// Connects and passes bytes on in both directions until both have ended. A connection that breaks off later is
/// given up without a word on the stream of errors: clients take one for the end of all their connections.
async fn forward(target: Target, port: u16, input: Input, output: Output, error: Output) {
    let task = target.task.clone();
    match target.backend.connect(target.task, port).await {
        Ok(connection) => {
            if let Err(broken) = exchange(connection, input, output).await {
                let cause = chain(&broken);
                tracing::debug!(task = task.as_str(), port, "a forwarded connection broke off: {cause}");
            }
        }
        Err(problem) => {
            let text = format!("error forwarding port {port} to pod {task}, uid : {}", chain(&problem));
            // The client waits for the end of both; one that has gone needs none.
            let _ = output.finish().await;
            let _ = error.send(text.as_bytes()).await;
        }
    }
    let _ = error.finish().await;
}

/// Why a connection did not end well.
#[derive(Debug, thiserror::Error)]
enum Broken {
    /// Nobody takes the output any more.
    #[error("the client went away")]
    Gone,
    /// It said so.
    #[error("the client gave it up")]
    GivenUp,
    /// The container's side failed.
    #[error("reading from the port")]
    Read(#[source] std::io::Error),
}

impl From<Gone> for Broken {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

/// Each direction ends by itself.
async fn exchange(connection: TcpStream, input: Input, output: Output) -> Result<(), Broken> {
    let (reader, writer) = connection.into_split();
    tokio::try_join!(up(input, writer), down(reader, output)).map(drop)
}

async fn up(mut from: Input, mut to: OwnedWriteHalf) -> Result<(), Broken> {
    while let Some(chunk) = from.next().await {
        match chunk {
            Chunk::Reset => return Err(Broken::GivenUp),
            Chunk::Bytes(bytes) => {
                if to.write_all(&bytes).await.is_err() {
                    // It reads no more; reading from it tells why, or gives what it still has to say.
                    return Ok(());
                }
            }
        }
    }
    // It may have gone meanwhile.
    let _ = to.shutdown().await;
    Ok(())
}

async fn down(mut from: OwnedReadHalf, to: Output) -> Result<(), Broken> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) => return Ok(to.finish().await?),
            Ok(length) => to.send(&buffer[..length]).await?,
            Err(error) => return Err(Broken::Read(error)),
        }
    }
}
