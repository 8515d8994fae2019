//! A node agent with its own directories, sockets, bridge and subnet.
//!
//! [`Agent::start`] returns when the agent says that it is ready (`READY=1` to `$NOTIFY_SOCKET`). It can be killed and
//! started again; when it goes, its tasks are removed through it, it is stopped, and the test fails if anything of it
//! is left: monitors, containers, cgroups, mounts, links, rules of the firewall, records.

use crate::fixture::locked;
use crate::image::Image;
use crate::{Fixture, Outcome, cgroup, command, daemon, events, needs};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The image that every agent has: busybox, and the probe as /probe.
pub const IMAGE: &str = "localhost/test:latest";

/// A node agent; see the module.
#[derive(Debug)]
pub struct Agent {
    /// Its token is in the names of everything.
    pub fixture: Fixture,
    child: Mutex<Option<Child>>,
    notify: UnixDatagram,
    bridge: String,
    subnet: String,
    starts: AtomicU32,
    seen: Mutex<BTreeSet<String>>,
}

impl Agent {
    /// An agent that serves CRI, runs the pods in [`Agent::manifests`] and has [`IMAGE`].
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// The same with further tables of the configuration file.
    pub fn start_with(tables: &str) -> Self {
        let agent = Self::new(tables);
        agent.load(&image(), IMAGE);
        agent.boot();
        agent
    }

    fn new(tables: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let fixture = Fixture::new();
        // 15 characters at most; a pid has at most six hexadecimal digits.
        let bridge = format!("ct{:x}-{count}", std::process::id());
        let subnet = free_subnet(count);
        let notify = UnixDatagram::bind(fixture.path().join("notify")).expect("socket for notifications");
        std::fs::create_dir(fixture.path().join("manifests")).expect("folder of static pods");
        let dir = fixture.path().display();
        let config = format!(
            "[cri]\nsocket = \"{dir}/cri.sock\"\n[manifests]\nfolder = \"{dir}/manifests\"\n\
             [network]\nbridge = \"{bridge}\"\nsubnet = \"{subnet}\"\n{tables}"
        );
        fixture.file("agent.toml", config);
        let (child, starts, seen) = Default::default();
        Self { fixture, child, notify, bridge, subnet, starts, seen }
    }

    /// Loads an image into the agent's store.
    pub fn load(&self, image: &Image, name: &str) {
        let archive = self.fixture.file("image.tar", image.docker_archive(name));
        command::run(&mut self.corten(&["load", "--input", archive.to_str().expect("UTF-8")])).ok();
    }

    /// Starts the agent and waits until it is ready.
    pub fn boot(&self) {
        let number = self.starts.fetch_add(1, Ordering::Relaxed);
        let log = File::create(self.log_path(number)).expect("file for standard error");
        let config = self.fixture.path().join("agent.toml");
        let child = self
            .corten(&["agent", "--config", config.to_str().expect("UTF-8")])
            .env("NOTIFY_SOCKET", self.fixture.path().join("notify"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start the agent");
        let pid = i32::try_from(child.id()).expect("a pid");
        *locked(&self.child) = Some(child);
        daemon::await_ready(&self.notify, pid, || self.log());
    }

    /// The agent's process.
    pub fn pid(&self) -> i32 {
        let child = locked(&self.child);
        i32::try_from(child.as_ref().expect("the agent runs").id()).expect("a pid")
    }

    /// SIGKILL, and its end.
    pub fn kill(&self) {
        let mut child = locked(&self.child).take().expect("the agent runs");
        child.kill().expect("kill the agent");
        child.wait().expect("wait for the agent");
    }

    /// SIGTERM, and its end with code 0.
    pub fn stop(&self) {
        let mut child = locked(&self.child).take().expect("the agent runs");
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("signal the agent");
        let status = command::wait(&mut child, events::patience());
        assert_eq!(
            status.and_then(|status| status.code()),
            Some(0),
            "the agent's end on SIGTERM:\n{}",
            self.log()
        );
    }

    /// `corten` on the agent's directories.
    pub fn corten(&self, args: &[&str]) -> Command {
        let mut command = Command::new(needs::corten());
        command
            .arg("--root")
            .arg(self.root())
            .arg("--state")
            .arg(self.state())
            .args(args)
            .env("CORTEN_TEST", self.fixture.token());
        command
    }

    /// crictl on the agent's socket.
    pub fn crictl(&self, args: &[&str]) -> Command {
        let mut command = Command::new(needs::cri_tool("crictl"));
        command
            .args(["--config", self.crictl_config().to_str().expect("UTF-8")])
            .args(args)
            .env("CORTEN_TEST", self.fixture.token());
        command
    }

    fn crictl_config(&self) -> PathBuf {
        let path = self.fixture.path().join("crictl.yaml");
        if !path.exists() {
            let socket = self.fixture.path().join("cri.sock");
            let seconds = events::patience().as_secs();
            let text = format!("runtime-endpoint: unix://{}\ntimeout: {seconds}\n", socket.display());
            std::fs::write(&path, text).expect("configuration of crictl");
        }
        path
    }

    /// Runs crictl to its end.
    #[track_caller]
    pub fn cri(&self, args: &[&str]) -> Outcome {
        command::run_within(&mut self.crictl(args), events::patience() * 2)
    }

    /// The name of its bridge.
    pub fn bridge(&self) -> &str {
        &self.bridge
    }

    /// Its subnet, as `10.64.0.0/22`.
    pub fn subnet(&self) -> &str {
        &self.subnet
    }

    /// Its `--root`.
    pub fn root(&self) -> PathBuf {
        self.fixture.path().join("root")
    }

    /// Its `--state`.
    pub fn state(&self) -> PathBuf {
        self.fixture.path().join("run")
    }

    /// The folder of static pods.
    pub fn manifests(&self) -> PathBuf {
        self.fixture.path().join("manifests")
    }

    fn log_path(&self, number: u32) -> PathBuf {
        self.fixture.path().join(format!("agent-{number}.err"))
    }

    /// What the agent last started has written to standard error, the end of it.
    pub fn log(&self) -> String {
        let number = self.starts.load(Ordering::Relaxed).saturating_sub(1);
        let text = std::fs::read_to_string(self.log_path(number)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// Ids of the tasks that have a record.
    pub fn tasks(&self) -> Vec<String> {
        let ids = ids_in(&self.root().join("tasks"));
        locked(&self.seen).extend(ids.iter().cloned());
        ids
    }

    /// Waits until `done` is true, which is looked at when something below `dir` was made, removed or renamed.
    #[track_caller]
    pub fn await_change(&self, dir: &Path, what: &str, mut done: impl FnMut() -> bool) {
        let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).expect("inotify");
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_ATTRIB;
        watch.add_watch(dir, flags).unwrap_or_else(|errno| panic!("{}: {errno}", dir.display()));
        let deadline = Instant::now() + events::patience() * 2;
        while !done() {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what}: not within {:?}:\n{}", events::patience() * 2, self.log());
            // Something deeper may change without a word from this directory.
            if events::readable(watch.as_fd(), left.min(Duration::from_millis(250))) {
                let _ = watch.read_events();
            }
        }
    }

    /// The monitor's pid of each task that is ready.
    pub fn monitors(&self) -> Vec<i32> {
        let state = self.state().join("tasks");
        let pid = |id: &String| -> Option<i32> {
            let text = std::fs::read(state.join(id).join("run.json")).ok()?;
            let run: Value = serde_json::from_slice(&text).ok()?;
            run["monitor"]["pid"].as_i64().and_then(|pid| pid.try_into().ok())
        };
        ids_in(&state).iter().filter_map(pid).collect()
    }

    /// Removes every task: the static pods by their files, all others as a Kubernetes client would.
    pub fn remove_tasks(&self) {
        self.tasks();
        for entry in std::fs::read_dir(self.manifests()).expect("folder of static pods").flatten() {
            std::fs::remove_file(entry.path()).expect("remove a static pod");
        }
        let pods = self.cri(&["pods", "-q"]).ok().stdout;
        let pods: Vec<&str> = pods.lines().collect();
        if !pods.is_empty() {
            self.cri(&[&["rmp", "-f"], pods.as_slice()].concat()).ok();
        }
        let tasks = self.root().join("tasks");
        if tasks.exists() {
            self.await_change(&tasks, "tasks are removed", || self.tasks().is_empty());
        }
    }

    /// What is left of the agent's tasks, in words.
    pub fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for dir in [self.root().join("tasks"), self.state().join("tasks"), self.state().join("containers")] {
            left.extend(ids_in(&dir).into_iter().map(|id| format!("{}/{id}", dir.display())));
        }
        left.extend(ids_in(&self.root().join("containers")).into_iter().map(|id| format!("container {id}")));
        left.extend(
            crate::leaks::entries(&self.root().join("leases")).into_iter().map(|id| format!("lease {id}")),
        );
        left.extend(crate::leaks::network(&self.bridge, &self.subnet));
        for id in locked(&self.seen).iter() {
            left.extend(cgroup::named(id).into_iter().map(|path| format!("cgroup: {}", path.display())));
        }
        left
    }

    fn finish(&self) {
        if locked(&self.child).is_none() {
            self.boot();
        }
        self.remove_tasks();
        self.stop();
        let left = self.left();
        assert!(left.is_empty(), "left of the agent:\n  {}\n{}", left.join("\n  "), self.log());
    }

    /// Ends what there is after a failure, without a word about what does not work.
    fn abandon(&self) {
        eprintln!("the agent's standard error:\n{}", self.log());
        let running = locked(&self.child).is_some();
        if running {
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.remove_tasks()));
        }
        if let Some(mut child) = locked(&self.child).take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        // A monitor takes its containers along when they were killed first.
        for pid in crate::leaks::pids(self.fixture.token()) {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        crate::leaks::unmount(self.fixture.path());
    }

    /// The bridge and its rules stay for the next task; after the last test there is none.
    fn remove_bridge(&self) {
        for (program, words) in [("ip", ["link", "delete", "dev"]), ("nft", ["delete", "table", "inet"])] {
            let name = if program == "ip" { self.bridge.clone() } else { format!("corten_{}", self.bridge) };
            // Not every test attaches a task.
            let _ = Command::new(program).args(words).arg(name).stderr(Stdio::null()).status();
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.abandon();
        } else if let Err(cause) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.finish())) {
            self.abandon();
            self.remove_bridge();
            std::panic::resume_unwind(cause);
        }
        self.remove_bridge();
    }
}

/// Names in a directory of records that are ids.
fn ids_in(dir: &Path) -> Vec<String> {
    crate::leaks::entries(dir)
        .into_iter()
        .filter(|name| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .collect()
}

/// busybox with the probe.
pub fn image() -> Image {
    let mut image = Image::busybox();
    let probe = std::fs::read(needs::probe()).expect("the probe");
    image.layers.push(crate::image::Tar::new().file("probe", 0o755, &probe).finish());
    image
}

/// A /22 in 10.64.0.0/10 that no route of the host touches. Tests of other processes choose at the same time, so
/// the first guess depends on the process.
pub fn free_subnet(count: u32) -> String {
    let routes =
        command::run(Command::new(needs::program("ip", "iproute2")).args(["-4", "route"])).ok().stdout;
    let mut guess = std::process::id().wrapping_mul(2_654_435_761) >> 7;
    guess = guess.wrapping_add(count.wrapping_mul(97));
    for step in 0..4096_u32 {
        let place = guess.wrapping_add(step) % 4096;
        let (second, third) = (64 + place / 64, place % 64 * 4);
        if !routes.contains(&format!("10.{second}.")) {
            return format!("10.{second}.{third}.0/22");
        }
    }
    panic!("missing need: a free subnet in 10.64.0.0/10");
}
