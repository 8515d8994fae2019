//! The monitor of a task: one process for all of its containers.
//!
//! ```text
//!          set-up done              Stop                   all ended               torn down
//! Making ---------------> Ready -----------> Stopping ----------------> TearingDown ---------> Over
//!    \                                          ^----- tear-down failed ------/
//!     `-- set-up failed: TearingDown, the task's records go too ------------------------------> Over
//! ```
//! What may block or needs memory is done by workers ([`crate::engine::task::worker`]); the loop reads pipes, writes logs,
//! answers clients, and reaps. Every process that a worker leaves behind becomes a child of the monitor, and SIGCHLD
//! tells of its end. A process of unknown number is forgotten only after all reports of workers were read: a worker
//! reports what it started before it ends, and only by its end its processes become ours.
use super::client::Client;
use super::poll_set::PollSet;
use super::streams::Stream;
use crate::engine::Engine;
use crate::engine::error::{EngineError, Failure};
use crate::engine::names::Id;
use crate::engine::task::control::{self, Reply, SOCKET};
use crate::engine::task::verbs::TaskEvent;
use crate::engine::task::worker::Worker;
use crate::sys::{SysError, background, socket};
use nix::poll::PollFlags;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

mod connection;
mod containers;
mod execs;
mod jobs;
mod process;
mod reap;
mod requests;
mod restart;
mod stop;

use connection::{Connection, Role};
use containers::Container;
use execs::ExecProcess;
pub use process::become_monitor;

/// More than a node needs; it bounds what a loop of connecting clients costs.
const MAX_CONNECTIONS: usize = 256;
/// How long a client may take to read the last words of a container or of the task.
const GOODBYE: Duration = Duration::from_secs(10);
/// After so much quiet, memory is given back.
const REST: Duration = Duration::from_millis(300);
/// How long a worker may take to set the task up, or to start something.
const WORK: Duration = Duration::from_secs(120);
/// How long one may take to remove something.
const REMOVAL: Duration = Duration::from_secs(60);

/// Where a task is in its life; drawn above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Making,
    Ready,
    Stopping,
    TearingDown,
    Over,
}

/// Why a worker was sent.
#[derive(Debug)]
enum Purpose {
    /// To set the task up.
    SetUp,
    /// To start a container.
    Start(Id),
    /// To run a process for a connection.
    Exec { connection: u64 },
    /// To clean up after a container that has ended.
    End(Id),
    /// To clean up after a start whose worker died.
    CleanUp(Id, Failure),
    /// To remove what was made for the task; after a set-up that failed, its records too.
    TearDown(Option<Failure>),
}

/// What a slot of poll(2) is about; an index counts in the vector of that kind.
#[derive(Debug, Clone, Copy)]
enum Source {
    Listener,
    Children,
    Connection(usize),
    Worker(usize),
    Stream(usize, Stream),
    Leaving(usize),
}

/// The monitor. In a round of its loop nothing moves in its vectors: what is over is removed after it.
#[derive(Debug)]
struct Monitor {
    engine: Engine,
    id: Id,
    phase: Phase,
    /// Who waits for the task to be ready.
    spawner: Option<OwnedFd>,
    listener: OwnedFd,
    children: SignalFd,
    /// In the order of their first start.
    containers: Vec<Container>,
    workers: Vec<Option<(Worker, Purpose)>>,
    execs: Vec<ExecProcess>,
    connections: Vec<Connection>,
    next_connection: u64,
    /// Clients of containers that ended, and until when they may take what was sent.
    leaving: Vec<(Client, Instant)>,
    stop: stop::Stop,
    /// When memory is given back, if there may be some.
    rest_at: Option<Instant>,
    /// When the last words are given up.
    over_at: Option<Instant>,
    /// Held until the end, also by the workers: whoever takes it knows that nobody works on the task any more.
    lock: OwnedFd,
}

impl Monitor {
    /// Begins to listen, and to set the task up. `lock` is the task's.
    fn begin(engine: Engine, id: Id, spawner: OwnedFd, lock: OwnedFd) -> Result<Self, EngineError> {
        let mut children = SigSet::empty();
        children.add(Signal::SIGCHLD);
        children.thread_block().map_err(SysError::on("sigprocmask", "SIG_BLOCK"))?;
        let children = SignalFd::with_flags(&children, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(SysError::on("signalfd", "SIGCHLD"))?;
        let path = engine.task_run_directory(&id);
        crate::engine::record::private_directory(&path)?;
        let directory = File::open(&path).map_err(SysError::io("open", path.display().to_string()))?;
        let listener = socket::listen_at(&directory, SOCKET)?;
        let mut monitor = Self {
            engine,
            id,
            phase: Phase::Making,
            spawner: Some(spawner),
            listener,
            children,
            containers: Vec::new(),
            workers: Vec::new(),
            execs: Vec::new(),
            connections: Vec::new(),
            next_connection: 0,
            leaving: Vec::new(),
            stop: stop::Stop::default(),
            rest_at: None,
            over_at: None,
            lock,
        };
        monitor.set_up()?;
        Ok(monitor)
    }

    /// Runs until the task is over.
    fn run(&mut self) -> Result<(), EngineError> {
        while !self.is_over() {
            let ready = self.watch().wait(self.time_left())?;
            if !ready.is_empty() {
                self.rest_at = Some(Instant::now() + REST);
            }
            for (source, flags) in ready {
                self.handle(source, flags);
            }
            self.keep_time();
            self.tidy();
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.phase == Phase::Over
            && (self.over_at.is_some_and(|at| at <= Instant::now())
                || !self.connections.iter().any(Connection::is_behind) && self.leaving.is_empty())
    }

    fn watch(&self) -> PollSet<'_, Source> {
        let mut set = PollSet::new();
        set.add(Source::Children, &self.children, PollFlags::POLLIN);
        // While the task is made nobody is heard: who connects waits.
        if self.phase != Phase::Making && self.connections.len() < MAX_CONNECTIONS {
            set.add(Source::Listener, &self.listener, PollFlags::POLLIN);
        }
        for (at, worker) in self.workers.iter().enumerate() {
            if let Some((Worker { socket: Some(socket), .. }, _)) = worker {
                set.add(Source::Worker(at), socket, PollFlags::POLLIN);
            }
        }
        for (at, container) in self.containers.iter().enumerate() {
            if let Some(held) = container.held() {
                held.streams.watch(&mut set, |stream| Source::Stream(at, stream));
            }
        }
        for (at, connection) in self.connections.iter().enumerate() {
            let mut flags = PollFlags::empty();
            if !matches!(connection.role, Role::Asking | Role::Leaving) {
                flags |= PollFlags::POLLIN;
            }
            if connection.is_behind() {
                flags |= PollFlags::POLLOUT;
            }
            set.add(Source::Connection(at), &connection.socket, flags);
        }
        for (at, (client, _)) in self.leaving.iter().enumerate() {
            set.add(Source::Leaving(at), &client.socket, PollFlags::POLLOUT);
        }
        set
    }

    fn handle(&mut self, source: Source, flags: PollFlags) {
        match source {
            Source::Listener => self.accept(),
            Source::Children => self.reap(),
            Source::Connection(at) => self.serve(at, flags),
            Source::Worker(at) => self.listen_to(at),
            Source::Stream(at, stream) => {
                if let Some(held) = self.containers[at].held_mut() {
                    held.streams.handle(stream, flags, &mut held.log);
                }
            }
            Source::Leaving(at) => self.leaving[at].0.flush(),
        }
    }

    fn accept(&mut self) {
        // A client that broke off meanwhile is none.
        if let Ok(socket) = socket::accept(&self.listener) {
            self.next_connection += 1;
            self.connections.push(Connection::new(self.next_connection, socket));
        }
    }

    fn connection(&mut self, number: u64) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|connection| connection.number == number)
    }

    /// Answers a connection that may be gone.
    fn answer(&mut self, number: Option<u64>, result: Result<(), Failure>) {
        if let Some(connection) = number.and_then(|number| self.connection(number)) {
            connection.answer(result);
        }
    }

    /// Tells all subscribers.
    fn publish(&mut self, event: TaskEvent) {
        // An event is some hundred bytes.
        let Ok(packet) = control::encode(&Reply::Event(event)) else { return };
        for connection in &mut self.connections {
            if connection.role == Role::Subscriber {
                connection.send(&packet, None);
            }
        }
    }

    /// How long nothing is to be done by the clock.
    fn time_left(&self) -> Option<Duration> {
        let workers = self.workers.iter().flatten().filter(|(worker, _)| !worker.expired);
        let times = workers
            .map(|(worker, _)| worker.deadline)
            .chain(self.containers.iter().filter_map(Container::wakes_at))
            .chain(self.leaving.iter().map(|(_, until)| *until))
            .chain(self.rest_at)
            .chain(self.over_at);
        times.min().map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Does what is due.
    fn keep_time(&mut self) {
        let now = Instant::now();
        for (worker, _) in self.workers.iter_mut().flatten() {
            if !worker.expired && worker.deadline <= now {
                worker.kill();
            }
        }
        self.restart_due(now);
        self.go_on_stopping(now);
        self.leaving.retain(|(client, until)| client.is_behind() && *until > now);
        if self.rest_at.is_some_and(|at| at <= now) {
            self.rest_at = None;
            background::give_back_memory();
        }
    }

    /// Removes what is over.
    fn tidy(&mut self) {
        self.workers.retain(Option::is_some);
        self.execs.retain(|exec| !exec.is_over());
        self.connections.retain(|connection| !connection.is_gone());
        self.containers.retain(|container| !container.is_forgotten());
        for container in &mut self.containers {
            if let Some(held) = container.held_mut() {
                held.streams.forget_gone();
            }
        }
        // What a burst needed is not kept for the next one.
        self.workers.shrink_to(4);
        self.connections.shrink_to(8);
    }

    /// Sends a worker, which gets `keep` of our descriptors, and the task's lock.
    fn send_worker(
        &mut self,
        purpose: Purpose,
        limit: Duration,
        keep: &[BorrowedFd<'_>],
        job: impl FnOnce(&crate::engine::task::worker::Errand) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let keep: Vec<_> = keep.iter().copied().chain([self.lock.as_fd()]).collect();
        let worker = crate::engine::task::worker::spawn(limit, &keep, job)
            .map_err(|error| super::begin::failed(error.into()))?;
        self.workers.push(Some((worker, purpose)));
        Ok(())
    }
}
