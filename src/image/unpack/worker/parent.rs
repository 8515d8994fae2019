//! The side of whoever wants a layer.
#[cfg(not(test))]
use super::VERB;
use super::{FDS_MAX, Reply, Request, Told, WorkerError, borrow, hear, printable, say};
use crate::image::digest::Digest;
use crate::image::manifest::Compression;
use crate::image::unpack::decode::DecodeError;
use crate::image::unpack::{Limits, Result, Summary, UnpackError};
use crate::sys::{SysError, socket};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
#[cfg(not(test))]
use std::process::{Command, Stdio};

/// What passes through the pipe at once, and what the pipe holds.
const PIPE: usize = 1 << 20;
const CHUNK: usize = 256 << 10;

/// A process that unpacks one layer.
#[derive(Debug)]
pub(in crate::image::unpack) struct Worker {
    socket: OwnedFd,
    process: Process,
}

/// Where the other side runs. Test programs have no verbs, so there it is a thread.
#[derive(Debug)]
enum Process {
    #[cfg_attr(test, expect(dead_code, reason = "test programs have no verbs"))]
    Apart(Child),
    #[cfg(test)]
    Thread,
}

impl Worker {
    /// Starts a worker on a blob that it reads to its end, a file or a pipe. `below` is the directory that the layers below
    /// are in.
    pub(in crate::image::unpack) fn start(
        blob: &OwnedFd,
        compression: Compression,
        root: &OwnedFd,
        below: Option<&File>,
        limits: &Limits,
    ) -> Result<Worker> {
        let worker = Worker::spawn()?;
        let mut fds = vec![root.as_fd(), blob.as_fd()];
        fds.extend(below.map(AsFd::as_fd));
        worker.say(&Request::start(compression, limits), &fds)?;
        Ok(worker)
    }

    #[cfg(not(test))]
    fn spawn() -> Result<Worker> {
        let (socket, theirs) = socket::pair().map_err(WorkerError::Start)?;
        let child = Command::new("/proc/self/exe")
            .arg(VERB)
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(SysError::io("execve", "/proc/self/exe"))
            .map_err(WorkerError::Start)?;
        Ok(Worker { socket, process: Process::Apart(child) })
    }

    #[cfg(test)]
    fn spawn() -> Result<Worker> {
        let (socket, theirs) = socket::pair().map_err(WorkerError::Start)?;
        std::thread::spawn(move || super::child::serve(&theirs, |root, _| Ok(root)));
        Ok(Worker { socket, process: Process::Thread })
    }

    /// Waits until the layer's own tree is made.
    pub(in crate::image::unpack) fn diff_id(&mut self) -> Result<Digest> {
        match self.answer()? {
            Reply::Unpacked { diff_id } => Ok(diff_id),
            _ => Err(WorkerError::Nonsense.into()),
        }
    }

    /// Has the tree completed on top of `lowers`.
    pub(in crate::image::unpack) fn settle(&mut self, lowers: &[File]) -> Result<Summary> {
        for some in lowers.chunks(FDS_MAX) {
            self.say(&Request::Lowers, &borrow(some))?;
        }
        self.say(&Request::Settle, &[])?;
        let Reply::Settled { size, entries, opaque_root, warnings } = self.answer()? else {
            return Err(WorkerError::Nonsense.into());
        };
        for warning in warnings {
            tracing::warn!("{}", printable(&warning));
        }
        Ok(Summary { size, entries, opaque_root })
    }

    fn say(&self, request: &Request, fds: &[std::os::fd::BorrowedFd<'_>]) -> Result<()> {
        match say(&self.socket, request, fds) {
            // It is gone; its last words, which wait in the socket, tell more.
            Err(WorkerError::Talk(error)) if error.errno == nix::errno::Errno::EPIPE => Ok(()),
            other => Ok(other?),
        }
    }

    fn answer(&mut self) -> Result<Reply> {
        match hear(&self.socket)? {
            Some((Reply::Failed { kind, chain }, _)) => Err(UnpackError::Told(Told::new(kind, chain))),
            Some((reply, _)) => Ok(reply),
            None => Err(WorkerError::Ended { how: self.end() }.into()),
        }
    }

    /// Kills and reaps it; tells how it ended.
    fn end(&mut self) -> String {
        match &mut self.process {
            Process::Apart(child) => {
                // One that has ended by itself keeps its status.
                let _ = child.kill();
                child.wait().map_or_else(|error| error.to_string(), describe)
            }
            #[cfg(test)]
            Process::Thread => "thread".into(),
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown status".into(),
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}

/// Passes `blob` on to a worker that `start` starts on the reading end of a pipe, and waits for the worker.
pub(in crate::image::unpack) fn pump(
    mut blob: impl Read,
    start: impl FnOnce(OwnedFd) -> Result<Worker>,
) -> Result<(Digest, Worker)> {
    let (theirs, ours) = pipe().map_err(WorkerError::Start)?;
    let mut worker = start(theirs)?;
    let mut ours = File::from(ours);
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = match blob.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(UnpackError::Decode(DecodeError::Read(error))),
        };
        match ours.write_all(&chunk[..count]) {
            Ok(()) => {}
            // The worker has failed and says why.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => break,
            Err(error) => return Err(WorkerError::Talk(SysError::io("write", "pipe")(error)).into()),
        }
    }
    drop(ours);
    let diff_id = worker.diff_id()?;
    Ok((diff_id, worker))
}

/// A pipe for a blob: the reading end and the writing end.
pub(in crate::image::unpack) fn pipe() -> std::result::Result<(OwnedFd, OwnedFd), SysError> {
    let (theirs, ours) =
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(SysError::on("pipe2", "blob"))?;
    // A smaller one only costs more switches: an ordinary user may have reached the limit (pipe(7)).
    let _ = nix::fcntl::fcntl(&ours, nix::fcntl::FcntlArg::F_SETPIPE_SZ(PIPE as i32));
    Ok((theirs, ours))
}
