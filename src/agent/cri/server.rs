//! The socket and what a client may do to it.
use super::api::image_service_server::ImageServiceServer;
use super::api::runtime_service_server::RuntimeServiceServer;
use super::deadline::Deadline;
use super::{Cri, images, runtime};
use crate::agent::AgentError;
use crate::agent::serve::{Open, Stop};
use crate::engine::record::private_directory;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Sleep, sleep};
use tokio_stream::Stream;
use tonic::transport::Server;

/// Largest message in bytes, as with containerd and CRI-O.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;
/// Requests at once on one connection; a kubelet has a few for each pod.
const MAX_STREAMS: u32 = 1000;
/// Streams that a client opened and took back before they were begun (CVE-2023-44487).
const MAX_RESET: usize = 64;
/// Largest headers of a request in bytes.
const MAX_HEADERS: u32 = 16 * 1024;
/// How often a quiet client is asked whether it is still there, and how long it may take to say so.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));
/// How long nothing is accepted when the host has no descriptors left: accept(2) would fail at once again.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens, and serves until the agent ends.
///
/// # Errors
/// Another process serves the socket, or it cannot be made.
pub async fn open(cri: Arc<Cri>, mut stop: Stop) -> Result<Open, AgentError> {
    let given = &cri.node.config.cri.socket;
    let path = given.clone().unwrap_or_else(|| cri.node.engine.state.join("cri.sock"));
    let listener = listen(&path).await.map_err(|source| AgentError::Listen {
        door: "cri",
        address: path.display().to_string(),
        source,
    })?;
    cri.follow();
    let ending = Arc::clone(&cri);
    let runtime = RuntimeServiceServer::new(runtime::Runtime(Arc::clone(&cri)))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let images = ImageServiceServer::new(images::Images(cri))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let serving = Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_pending_accept_reset_streams(Some(MAX_RESET))
        .http2_max_header_list_size(MAX_HEADERS)
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .add_service(Deadline(runtime))
        .add_service(Deadline(images))
        .serve_with_incoming_shutdown(Incoming { listener, pause: None }, async move {
            stop.asked().await;
            ending.events.end();
        });
    let address = path.display().to_string();
    Ok(Open {
        name: "cri",
        address,
        serving: Box::pin(async move {
            serving.await.map_err(|error| AgentError::Listen {
                door: "cri",
                address: path.display().to_string(),
                source: std::io::Error::other(error),
            })
        }),
    })
}

/// Binds the socket: only root can connect, from the first moment on.
async fn listen(path: &Path) -> std::io::Result<UnixListener> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let Some(parent) = parent.filter(|_| path.is_absolute()) else {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "the path is not absolute"));
    };
    private_directory(parent).map_err(std::io::Error::other)?;
    match UnixStream::connect(path).await {
        Ok(_) => {
            return Err(std::io::Error::new(std::io::ErrorKind::AddrInUse, "another process serves it"));
        }
        // Left by an agent that was killed, unless it is no socket at all.
        Err(error)
            if error.kind() == std::io::ErrorKind::ConnectionRefused
                && std::fs::symlink_metadata(path)?.file_type().is_socket() =>
        {
            std::fs::remove_file(path)?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Bound beside its place, so that nobody finds it with other permissions than its own.
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&beside)?;
    restrict(&beside)?;
    std::fs::rename(&beside, path)?;
    Ok(listener)
}

/// connect(2) wants write permission.
fn restrict(path: &Path) -> std::io::Result<()> {
    let mode = Mode::from_bits_truncate(0o600);
    Ok(fchmodat(AT_FDCWD, path, mode, FchmodatFlags::NoFollowSymlink)?)
}

/// Connections, for ever: what goes wrong with one is no reason to take no more.
struct Incoming {
    listener: UnixListener,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Stream for Incoming {
    type Item = std::io::Result<UnixStream>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            match ready!(self.listener.poll_accept(context)) {
                Ok((connection, _)) => return Poll::Ready(Some(Ok(connection))),
                Err(error) => {
                    tracing::warn!(door = "cri", "cannot accept a connection: {error}");
                    self.pause = Some(Box::pin(sleep(PAUSE)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn a_socket_that_nobody_serves_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/cri.sock");
        let first = listen(&path).await.unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(listen(&path).await.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
        drop(first);
        let _second = listen(&path).await.unwrap();
        UnixStream::connect(&path).await.unwrap();
        listen(Path::new("relative.sock")).await.unwrap_err();
    }

    #[tokio::test]
    async fn another_file_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cri.sock");
        std::fs::write(&path, "mine").unwrap();
        listen(&path).await.unwrap_err();
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    }
}
