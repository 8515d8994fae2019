//! One test's image, tasks and containers.
use corten::engine::Engine;
use corten::engine::names::Id;
use corten::engine::options::{Network, Options};
use corten::engine::record::{Ended, Record, Status};
use corten::engine::specgen::process::Overrides;
use corten::engine::task::{
    ContainerRequest, Door, Events, Next, TaskEvent, TaskNetwork, TaskRecord, TaskSpec, TaskStatus,
};
use corten::image::store::Store;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use runtime_tests::image::Image;
use runtime_tests::{Fixture, command, events, needs};
use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, Instant};

const IMAGE: &str = "localhost/test";

/// A store with an image of busybox and the probe, and nothing left on the host when it is dropped.
pub struct World {
    pub engine: Engine,
    pub fixture: Fixture,
}

impl World {
    pub fn new() -> Self {
        let fixture = Fixture::new();
        let mut engine = Engine::new(fixture.path().join("root"), fixture.path().join("run"));
        engine.monitor_program = Some(needs::corten());
        let world = Self { engine, fixture };
        let archive =
            world.fixture.file("image.tar", Image::busybox().docker_archive("localhost/test:latest"));
        command::run(
            Command::new(needs::corten())
                .args(["load", "--input"])
                .arg(archive)
                .env("CORTEN_ROOT", &world.engine.root)
                .env("CORTEN_STATE", &world.engine.state),
        )
        .ok();
        world
    }

    pub fn store(&self) -> Store {
        Store::open(&self.engine.root).unwrap()
    }

    pub fn task(&self, name: &str) -> TaskRecord {
        self.engine.run_task(spec(name)).unwrap()
    }

    /// A container with these options that runs a shell command.
    pub fn container_with(&self, task: &TaskRecord, name: &str, script: &str, options: Options) -> Record {
        let store = self.store();
        let image = store.resolve(IMAGE).unwrap();
        let request = ContainerRequest {
            name: name.to_owned(),
            image: IMAGE.to_owned(),
            overrides: Overrides {
                args: vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()],
                ..Overrides::default()
            },
            options: Options { network: Network::Task, ..options },
            stop_signal: None,
            data: serde_json::Value::Null,
        };
        self.engine.create_in_task(&store, &id(task), &image, request).unwrap()
    }

    pub fn container(&self, task: &TaskRecord, name: &str, script: &str) -> Record {
        self.container_with(task, name, script, Options::default())
    }

    pub fn started(&self, task: &TaskRecord, name: &str, script: &str) -> Record {
        let record = self.container(task, name, script);
        self.engine.start_in_task(&record).unwrap();
        record
    }

    pub fn events(&self, task: &TaskRecord) -> Events {
        self.engine.task_events(&id(task)).unwrap().expect("the task has a monitor")
    }

    pub fn status(&self, record: &Record) -> Status {
        self.engine.status(&record.id().unwrap()).unwrap()
    }

    #[track_caller]
    pub fn ended(&self, record: &Record) -> Ended {
        self.engine.wait(record).unwrap();
        match self.status(record) {
            Status::Exited(ended) => ended,
            other => panic!("{other:?}"),
        }
    }

    pub fn monitor(&self, task: &TaskRecord) -> i32 {
        match self.engine.task_status(&id(task)).unwrap() {
            TaskStatus::Ready(run) => run.monitor.pid,
            other => panic!("{other:?}"),
        }
    }

    pub fn log(&self, record: &Record) -> String {
        let path = record.options.task.log_path.clone();
        let path = path.unwrap_or_else(|| self.engine.directory(&record.id().unwrap()).join("log"));
        std::fs::read_to_string(path).unwrap()
    }

    /// What the container wrote to standard output and error, put together from its log.
    pub fn output(&self, record: &Record) -> String {
        text_of(&self.log(record))
    }
}

/// The text of log records.
pub fn text_of(log: &str) -> String {
    let mut text = String::new();
    for line in log.lines() {
        let mut parts = line.splitn(4, ' ');
        let (_, _, tag, part) =
            (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        text.push_str(part);
        if tag == "F" {
            text.push('\n');
        }
    }
    text
}

impl Drop for World {
    fn drop(&mut self) {
        let store = self.store();
        for record in self.engine.records().unwrap() {
            let _ = self.engine.delete(&store, &record, true, true);
        }
        for task in self.engine.tasks().unwrap() {
            let _ = self.engine.stop_task(&id(&task), Some(Duration::ZERO));
            let _ = self.engine.remove_task(&store, &id(&task));
        }
        if !std::thread::panicking() {
            self.fixture.assert_clean();
        }
    }
}

pub fn spec(name: &str) -> TaskSpec {
    TaskSpec {
        door: Door::Manifest,
        name: name.to_owned(),
        hostname: None,
        network: TaskNetwork::None,
        ports: Vec::new(),
        shares_pid: false,
        host_ipc: false,
        dns: Default::default(),
        hosts: Vec::new(),
        cgroup: None,
        limits: Default::default(),
        sysctls: Default::default(),
        labels: Default::default(),
        shm_size: None,
        data: serde_json::Value::Null,
    }
}

pub fn id(task: &TaskRecord) -> Id {
    Id::parse(&task.id).unwrap()
}

/// The next event, waited for with the usual patience.
#[track_caller]
pub fn next(events: &mut Events) -> Next {
    let deadline = Instant::now() + events::patience();
    loop {
        match events.try_next().unwrap() {
            Next::Later => {}
            other => return other,
        }
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "no event came");
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLIN)], timeout).unwrap();
    }
}

#[track_caller]
pub fn next_event(events: &mut Events) -> TaskEvent {
    match next(events) {
        Next::Event(event) => event,
        other => panic!("{other:?}"),
    }
}

/// Looks until it is so: for what the kernel sends no event of.
#[track_caller]
pub fn until(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + events::patience();
    while !is_so() {
        assert!(Instant::now() < deadline, "it never became so");
        std::thread::yield_now();
    }
}
