//! The confined side.
use super::{FDS_MAX, Reply, Request, WorkerError, confine, hear, say};
use crate::image::snapshot::overlay::opaque_attribute;
use crate::image::unpack::{Limits, Result, UnpackError, decode, unpack};
use crate::sys::{SysError, process};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

/// More layers than an image may have.
const LOWERS_MAX: usize = 1024;

/// `corten unpack-layer`: standard input is the socket to the parent.
pub fn main() -> ExitCode {
    let Ok(socket) = std::io::stdin().as_fd().try_clone_to_owned() else { return ExitCode::FAILURE };
    if nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::SockType).is_err() {
        return ExitCode::FAILURE;
    }
    match serve(&socket, confined) {
        Ok(()) => ExitCode::SUCCESS,
        // The parent was told.
        Err(_) => ExitCode::FAILURE,
    }
}

/// Gives up what is not needed, and begins to watch the parent.
fn confined(root: OwnedFd, below: Option<OwnedFd>) -> std::result::Result<OwnedFd, WorkerError> {
    // Answered once, while there is a /proc and the user namespace is still the caller's.
    let _ = opaque_attribute();
    let root = confine::confine(root, below.as_ref())?;
    let socket = std::io::stdin().as_fd().try_clone_to_owned();
    let socket = socket.map_err(SysError::io("fcntl", "F_DUPFD_CLOEXEC")).map_err(WorkerError::Talk)?;
    std::thread::spawn(move || {
        // The end (POLLHUP) is always told.
        let mut ends = [PollFd::new(socket.as_fd(), PollFlags::empty())];
        while poll(&mut ends, PollTimeout::NONE) == Err(nix::errno::Errno::EINTR) {}
        process::exit_now(1);
    });
    Ok(root)
}

/// Serves one layer. `confine` gets the layer's directory and the one of the layers below, and returns the layer's directory as
/// it is to be used.
pub(super) fn serve(
    socket: &OwnedFd,
    confine: impl FnOnce(OwnedFd, Option<OwnedFd>) -> std::result::Result<OwnedFd, WorkerError>,
) -> Result<()> {
    let result = layer(socket, confine);
    if let Err(error) = &result {
        // A parent that is gone needs no words.
        let _ = say(socket, &Reply::failed(error), &[]);
    }
    result
}

fn layer(
    socket: &OwnedFd,
    confine: impl FnOnce(OwnedFd, Option<OwnedFd>) -> std::result::Result<OwnedFd, WorkerError>,
) -> Result<()> {
    let (request, fds) = next(socket)?;
    let Request::Start { compression, bytes, ratio, free, entries, names } = request else {
        return Err(WorkerError::Nonsense.into());
    };
    let limits = Limits { growth: decode::Growth { bytes, ratio, free }, entries, names };
    let mut fds = fds.into_iter();
    let (Some(root), Some(blob)) = (fds.next(), fds.next()) else {
        return Err(WorkerError::Nonsense.into());
    };
    let root = confine(root, fds.next())?;
    let unpacked = unpack(File::from(blob), compression.into(), root, &limits)?;
    say(socket, &Reply::Unpacked { diff_id: *unpacked.diff_id() }, &[])?;

    let mut lowers = Vec::new();
    loop {
        match next(socket)? {
            (Request::Lowers, fds) if fds.len() <= FDS_MAX && lowers.len() < LOWERS_MAX => {
                lowers.extend(fds.into_iter().map(File::from));
            }
            (Request::Settle, _) => break,
            _ => return Err(WorkerError::Nonsense.into()),
        }
    }
    let mut warnings = Vec::new();
    let summary = unpacked.complete(&lowers, &mut warnings)?;
    Ok(say(socket, &Reply::settled(&summary, warnings), &[])?)
}

/// The parent's next request; an error when it is gone.
fn next(socket: &OwnedFd) -> Result<(Request, Vec<OwnedFd>)> {
    hear(socket)?.ok_or_else(|| UnpackError::Worker(WorkerError::Ended { how: "parent".into() }))
}
