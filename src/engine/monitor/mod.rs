//! The process that stays with containers: it holds their streams, writes their logs, serves their clients, and when
//! one ends records how and cleans up. It outlives the command that began it.
//!
//! A container at a shell has a monitor of its own:
//!
//! ```text
//! command: lock, mount, fork --+-- STARTED or FAILED <---------------- socket ---+
//!                              |                                                 |
//! monitor: detach -> create -> start -> run.json -> streams until init ends -> exit.json
//!                 \-> clean up -> FAILED              -> delete -> unlock -> EXIT to the clients
//! ```
//! The containers of a task share one, which is drawn in [`task`]. Each monitor has one thread, waits in poll(2) alone,
//! and keeps no more memory than its buffers: what a creation needed is given back before it begins to wait.
use super::attach::{Exit, FromMonitor};
use super::error::EngineError;
use super::launch::Prepared;
use super::names::Id;
use super::record::{Ended, Lock, Record};
use super::timestamp::Timestamp;
use super::{Engine, logs};
use crate::image::store::Store;
use crate::runtime::create::Started;
use crate::sys::{background, packet, socket};
use nix::poll::PollFlags;
use std::os::fd::{AsFd, OwnedFd};

pub mod begin;
mod client;
mod poll_set;
mod streams;
pub mod task;
pub mod watch;

use begin::begin;
use client::Client;
use poll_set::PollSet;
use streams::{InputRule, Stream, Streams};
use watch::Watch;
pub use watch::anonymous_volumes;

/// What a monitor is to do.
#[derive(Debug)]
pub struct Job {
    /// Where everything is.
    pub engine: Engine,
    /// The image store, whose lease ends with a container that removes itself.
    pub store: Store,
    /// The container.
    pub record: Record,
    /// Its id.
    pub id: Id,
    /// Its lock, which this process and then the monitor alone has.
    pub lock: Lock,
    /// What the runtime creates.
    pub prepared: Prepared,
    /// The command stays attached: when it goes, standard input ends.
    pub foreground: bool,
    /// A container that cannot be started stays, with its error recorded.
    pub keep_failed: bool,
}

/// Starts the monitor and returns the client's end of its first socket.
///
/// # Errors
/// Nothing was started. The caller still has to remove what it made.
pub fn spawn(job: Job) -> Result<OwnedFd, EngineError> {
    let (ours, theirs) = socket::pair()?;
    match background::fork()? {
        // Dropping the job closes the lock and the mount here; the monitor has them.
        background::Side::Parent(_) => Ok(ours),
        background::Side::Child => {
            drop(ours);
            let code = match supervise(job, theirs) {
                Ok(()) => 0,
                // Its clients were told, and nobody else is there to read it.
                Err(_) => 1,
            };
            background::exit(code)
        }
    }
}

fn supervise(job: Job, socket: OwnedFd) -> Result<(), EngineError> {
    background::detach(&[job.lock.as_fd(), job.prepared.root_mount.as_fd(), socket.as_fd()])?;
    let watch = Watch::new(job.engine, job.store, job.id, &job.record, job.keep_failed);
    let (begun, tty) =
        (begin(&watch, &job.record, job.prepared, nix::unistd::getpid()), job.record.options.tty);
    drop(job.record);
    let begun = match begun {
        Ok(begun) => begun,
        Err(failure) => {
            let told = FromMonitor::Failed(failure.clone()).encode();
            watch.give_up(failure);
            drop(job.lock);
            // A command that went away does not want to know.
            let _ = packet::try_send(&socket, &told);
            return Ok(());
        }
    };
    let pid = begun.started.pid.as_raw().unsigned_abs();
    // The first frame on an empty socket always fits.
    let _ = packet::try_send(&socket, &FromMonitor::Started { pid }.encode());
    let mut streams = Streams::new(begun.ends, begun.listener, tty, InputRule::Command);
    streams.add_first(socket, job.foreground);
    background::give_back_memory();
    let mut log = logs::Writer::new(begun.log);
    run(&mut streams, &begun.started.pidfd, &mut log)?;
    let exit = finish(&watch, &begun.started, begun.time, log.dropped())?;
    drop(job.lock);
    linger(streams.say_goodbye(exit))
}

/// What the only container's monitor waits for.
#[derive(Debug, Clone, Copy)]
enum Source {
    Init,
    Stream(Stream),
}

/// Runs until init ends and what it wrote has been read.
fn run(streams: &mut Streams, init: &OwnedFd, log: &mut logs::Writer) -> Result<(), EngineError> {
    let mut ended = false;
    while !ended {
        let mut set = PollSet::new();
        set.add(Source::Init, init, PollFlags::POLLIN);
        streams.watch(&mut set, Source::Stream);
        for (source, flags) in set.wait(None)? {
            match source {
                Source::Init => ended = true,
                Source::Stream(stream) => streams.handle(stream, flags, log),
            }
        }
        streams.forget_gone();
    }
    streams.drain(log);
    Ok(())
}

/// Reaps init, records how it ended and removes what was there for its run.
fn finish(watch: &Watch, started: &Started, time: Timestamp, dropped: u64) -> Result<Exit, EngineError> {
    let status = started.wait()?;
    let code = u8::try_from(status.code() & 0xff).unwrap_or(255);
    let ended = Ended {
        code,
        oom_killed: watch.make_quiet(),
        started: Some(time),
        finished: Timestamp::now(),
        error: watch::lost(dropped),
        restarts: 0,
    };
    watch.close(&ended)?;
    Ok(Exit { code, oom_killed: ended.oom_killed })
}

/// Stays until the last clients have taken all that was sent to them, or are gone.
fn linger(mut clients: Vec<Client>) -> Result<(), EngineError> {
    while !clients.is_empty() {
        let mut set = PollSet::new();
        for (at, client) in clients.iter().enumerate() {
            set.add(at, &client.socket, PollFlags::POLLOUT);
        }
        for (at, _) in set.wait(None)? {
            clients[at].flush();
        }
        clients.retain(Client::is_behind);
    }
    Ok(())
}
