//! HTTP/1.1 for the agent's small servers: bounded connections, headers and times.
use super::AgentError;
use super::serve::{Serving, Stop};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Bytes of a request's head.
const HEAD: usize = 32 * 1024;

/// Who sent a request; an extension of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// What a server allows.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections at the same time; further ones wait to be accepted.
    pub connections: usize,
    /// For the head of a request to come, also on a connection that is kept open.
    pub head: Duration,
    /// For all that a connection does.
    pub connection: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { connections: 128, head: Duration::from_secs(5), connection: Duration::from_secs(60) }
    }
}

/// Listens on an address and port.
///
/// # Errors
/// It is no address, or it cannot be had.
pub async fn listen(door: &'static str, address: &str) -> Result<TcpListener, AgentError> {
    TcpListener::bind(address).await.map_err(|source| AgentError::Listen {
        door,
        address: address.to_owned(),
        source,
    })
}

/// Tells why a connection could not be accepted, and waits a little: no descriptors are left, or the client has
/// gone again, and others may still be served.
pub async fn not_accepted(error: &std::io::Error) {
    tracing::warn!("cannot accept a connection: {error}");
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// Serves until `stop`; requests that have begun are answered.
pub fn serve(listener: TcpListener, router: Router, bounds: Bounds, mut stop: Stop) -> Serving {
    Box::pin(async move {
        let slots = Arc::new(Semaphore::new(bounds.connections));
        loop {
            // Never closed.
            let slot = Arc::clone(&slots).acquire_owned().await;
            let (stream, peer) = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        not_accepted(&error).await;
                        continue;
                    }
                },
                () = stop.asked() => break,
            };
            let connection = connection(stream, peer, router.clone(), bounds, stop.clone());
            tokio::spawn(async move {
                connection.await;
                drop(slot);
            });
        }
        Ok(())
    })
}

async fn connection(stream: TcpStream, peer: SocketAddr, router: Router, bounds: Bounds, mut stop: Stop) {
    let service = TowerToHyperService::new(router.layer(axum::Extension(Peer(peer))));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let ended = tokio::time::timeout(bounds.connection, async {
        tokio::select! {
            ended = serving.as_mut() => ended,
            () = stop.asked() => {
                serving.as_mut().graceful_shutdown();
                serving.as_mut().await
            }
        }
    });
    // A client that breaks off or is too slow has itself to blame.
    if let Ok(Err(error)) = ended.await {
        tracing::debug!(%peer, "connection: {error}");
    }
}
