//! Requests: who brings a token may change the protocol of the connection.
//!
//! Whatever is wrong with a token, the answer is the same. A request that cannot become a stream is answered before
//! its token is looked at.
use super::backend::Backend;
use super::forward::{self, Target};
use super::remote::{self, Client, Resizes, Version};
use super::spdy::{self, SpdyError};
use super::websocket::{self, MAX_MESSAGE, WebSocketError};
use super::{Streams, Ticket, Wanted};
use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use axum::http::{Method, Request, Response, StatusCode};
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::OwnedSemaphorePermit;

const SPDY: &str = "SPDY/3.1";
/// The prefix of WebSocket's protocols that carry SPDY.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// Channels over WebSocket. Both have the same channels; in version 5 the client can end one.
const CHANNELS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
const VERSIONS: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
/// Versions that a client may offer; more are not looked at.
const MAX_VERSIONS: usize = 16;
/// Channels: standard input, output and error, the error, sizes of the terminal.
const REMOTE_CHANNELS: u8 = 5;
/// Ports that can be forwarded over channels, two for each.
const MAX_PORTS: usize = 100;

/// What the handler of requests has.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) streams: Arc<Streams>,
    pub(super) backend: Arc<dyn Backend>,
}

/// Why a session ended before all was said.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Spdy(#[from] SpdyError),
    #[error(transparent)]
    WebSocket(#[from] WebSocketError),
    /// The connection was never handed over.
    #[error("upgrade")]
    Upgrade(#[from] hyper::Error),
}

/// Answers a request. `place` is given back when the connection's stream has ended.
pub(super) async fn answer(
    door: Arc<Door>,
    place: Arc<OwnedSemaphorePermit>,
    request: Request<Incoming>,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let Some((word, token)) = path.strip_prefix('/').and_then(|path| path.split_once('/')) else {
        return unknown();
    };
    let headers = request.headers();
    if has(headers, &CONNECTION, "upgrade") && has(headers, &UPGRADE, SPDY) {
        over_spdy(door, place, request, word, token)
    } else if has(headers, &CONNECTION, "upgrade") && has(headers, &UPGRADE, "websocket") {
        over_websocket(door, place, request, word, token).await
    } else {
        plain(StatusCode::BAD_REQUEST, "this is a stream: upgrade to SPDY/3.1 or WebSocket\n")
    }
}

fn unknown() -> Response<Body> {
    plain(StatusCode::NOT_FOUND, "no such stream\n")
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    (status, [(CONNECTION, "close")], text).into_response()
}

/// Whether one of a header's values has `word` among its comma-separated parts.
fn has(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    parts(headers, name).any(|part| part.eq_ignore_ascii_case(word))
}

fn parts<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> + use<'a> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|part| !part.is_empty())
}

impl Door {
    /// Takes what the token stands for, if it is for this kind of stream.
    fn redeem(&self, word: &str, token: &str) -> Option<Ticket> {
        let ticket = self.streams.tokens.redeem(token).filter(|ticket| ticket.word() == word);
        if ticket.is_none() {
            self.backend.observe("unknown", "refused", std::time::Duration::ZERO);
        }
        ticket
    }

    /// Runs a session and counts how it ended.
    async fn session(
        &self,
        word: &'static str,
        place: Arc<OwnedSemaphorePermit>,
        work: impl Future<Output = Result<(), Broken>>,
    ) {
        let began = Instant::now();
        let code = match work.await {
            Ok(()) => "ok",
            Err(error) => {
                tracing::debug!(stream = word, "{}", crate::error::chain(&error));
                "broken"
            }
        };
        self.backend.observe(word, code, began.elapsed());
        drop(place);
    }
}

fn over_spdy(
    door: Arc<Door>,
    place: Arc<OwnedSemaphorePermit>,
    mut request: Request<Incoming>,
    word: &str,
    token: &str,
) -> Response<Body> {
    if !matches!(*request.method(), Method::GET | Method::POST) {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "GET or POST\n");
    }
    let Some(protocol) = choose(request.headers(), word) else {
        return refuse(word);
    };
    let Some(ticket) = door.redeem(word, token) else {
        return unknown();
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let named = protocol.name;
    tokio::spawn(async move {
        let work = spdy_session(&door, upgrade, protocol, &ticket);
        door.session(ticket.word(), place, work).await;
    });
    let mut response = plain(StatusCode::SWITCHING_PROTOCOLS, "");
    let headers = response.headers_mut();
    headers.clear();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
    headers.insert(VERSIONS, HeaderValue::from_static(named));
    response
}

/// A version of the protocol inside of SPDY.
#[derive(Debug, Clone, Copy)]
struct Inner {
    name: &'static str,
    version: Version,
    resizes: Resizes,
}

/// What is spoken inside of SPDY: `Some(Inner)`, or nothing in common.
fn offered(word: &str) -> Vec<Inner> {
    match word {
        "portforward" => {
            vec![Inner { name: forward::PROTOCOL, version: Version::Text, resizes: Resizes(false) }]
        }
        _ => remote::PROTOCOLS.map(|(name, version, resizes)| Inner { name, version, resizes }).to_vec(),
    }
}

/// The first version of the client that we speak. One that names none means the oldest.
fn choose(headers: &HeaderMap, word: &str) -> Option<Inner> {
    let ours = offered(word);
    let mut theirs = parts(headers, &VERSIONS).take(MAX_VERSIONS).peekable();
    if theirs.peek().is_none() {
        return ours.last().copied();
    }
    theirs.find_map(|name| ours.iter().find(|inner| inner.name == name).copied())
}

fn refuse(word: &str) -> Response<Body> {
    let mut response = plain(StatusCode::FORBIDDEN, "none of these versions is spoken here\n");
    for inner in offered(word) {
        response.headers_mut().append(ACCEPTED, HeaderValue::from_static(inner.name));
    }
    response
}

async fn spdy_session(
    door: &Door,
    upgrade: OnUpgrade,
    protocol: Inner,
    ticket: &Ticket,
) -> Result<(), Broken> {
    let io = TokioIo::new(upgrade.await?);
    spdy::serve(io, |opened| async move {
        let (process, wanted) = match ticket {
            Ticket::Exec(ticket) => (door.backend.exec(ticket.clone()), ticket.wanted),
            Ticket::Attach(ticket) => (door.backend.attach(ticket.clone()), ticket.wanted),
            Ticket::PortForward(ticket) => {
                let target = Target { backend: Arc::clone(&door.backend), task: ticket.task.clone() };
                return forward::over_spdy(target, opened).await;
            }
        };
        if let Some(client) = remote::gather(opened, wanted, protocol.version, protocol.resizes).await {
            remote::run(client, process).await;
        }
    })
    .await?;
    Ok(())
}

async fn over_websocket(
    door: Arc<Door>,
    place: Arc<OwnedSemaphorePermit>,
    request: Request<Incoming>,
    word: &str,
    token: &str,
) -> Response<Body> {
    let (mut parts, _) = request.into_parts();
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE),
        Err(refused) => return refused.into_response(),
    };
    let upgrade = match word {
        "portforward" => upgrade.protocols([TUNNEL, CHANNELS[1]]),
        _ => upgrade.protocols(CHANNELS),
    };
    let tunnel = match upgrade.selected_protocol() {
        Some(selected) => selected == TUNNEL,
        None => return plain(StatusCode::FORBIDDEN, "none of these protocols is spoken here\n"),
    };
    let Some(ticket) = door.redeem(word, token) else {
        return unknown();
    };
    let query = parts.uri.query().unwrap_or_default().to_owned();
    upgrade.on_upgrade(move |socket| async move {
        let work = websocket_session(&door, socket, tunnel, &ticket, &query);
        door.session(ticket.word(), place, work).await;
    })
}

async fn websocket_session(
    door: &Door,
    socket: WebSocket,
    tunnel: bool,
    ticket: &Ticket,
    query: &str,
) -> Result<(), Broken> {
    let (process, wanted) = match ticket {
        Ticket::Exec(ticket) => (door.backend.exec(ticket.clone()), ticket.wanted),
        Ticket::Attach(ticket) => (door.backend.attach(ticket.clone()), ticket.wanted),
        Ticket::PortForward(ticket) => {
            let target = Target { backend: Arc::clone(&door.backend), task: ticket.task.clone() };
            if tunnel {
                let inside = |io| async move {
                    if let Err(error) = spdy::serve(io, |opened| forward::over_spdy(target, opened)).await {
                        tracing::debug!(stream = "portforward", "{}", crate::error::chain(&error));
                    }
                };
                return Ok(websocket::tunnel(socket, inside).await?);
            }
            let ports = if ticket.ports.is_empty() { ports(query) } else { ticket.ports.clone() };
            let ports: Vec<u16> = ports.into_iter().take(MAX_PORTS).collect();
            let count = u8::try_from(2 * ports.len()).unwrap_or(0);
            let app = |channels| forward::over_channels(target, ports, channels);
            return Ok(websocket::serve(socket, count, app).await?);
        }
    };
    let app = |channels| async move {
        if let Some(client) = by_number(channels, wanted).await {
            remote::run(client, process).await;
        }
    };
    Ok(websocket::serve(socket, REMOTE_CHANNELS, app).await?)
}

/// The ports in a query: `port=80&port=443`.
fn ports(query: &str) -> Vec<u16> {
    let values = query.split('&').filter_map(|pair| pair.strip_prefix("port="));
    values.flat_map(|value| value.split(',')).filter_map(|port| port.parse().ok()).collect()
}

/// Tells the channels of a process apart, and lets the client know that all is ready.
async fn by_number(
    channels: Vec<(super::channel::Input, super::channel::Output)>,
    wanted: Wanted,
) -> Option<Client> {
    let [stdin, stdout, stderr, error, resize] = <[_; 5]>::try_from(channels).ok()?;
    let (stdout, stderr) = (stdout.1, stderr.1);
    let first = if wanted.stdout {
        &stdout
    } else if wanted.stderr {
        &stderr
    } else {
        &error.1
    };
    first.greet().await.ok()?;
    Some(Client {
        stdin: wanted.stdin.then_some(stdin.0),
        stdout: wanted.stdout.then_some(stdout),
        stderr: (wanted.stderr && !wanted.tty).then_some(stderr),
        error: error.1,
        resize: wanted.tty.then_some(resize.0),
        version: Version::Status,
    })
}

#[cfg(test)]
mod tests;
