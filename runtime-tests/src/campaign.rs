//! Commands of the OCI runtime that are disturbed at their system calls, and what must be true afterwards.
//!
//! | environment | what |
//! |---|---|
//! | `CORTEN_TEST_KILL_POINTS` | how many points of each victim are tried, three times as many for errnos; `all` for every one |
//! | `CORTEN_TEST_KILL_CHUNK` | `i/n`: of those, only every n-th, from the i-th (0..n) on |

use crate::{Bundle, Fixture, Outcome, leaks, needs};
use serde_json::json;
use std::collections::BTreeSet;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;

/// Points of each victim when nothing else is asked for.
const USUAL: u64 = 5;

/// What is disturbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// `create`.
    Create,
    /// `start` of a created container.
    Start,
    /// `exec` in a running container.
    Exec,
    /// `run`.
    Run,
    /// `kill` with SIGKILL.
    Kill,
    /// `delete --force` of a running container.
    Delete,
    /// `pause`.
    Pause,
    /// `resume`.
    Resume,
}

/// With which configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// runc's default.
    Plain,
    /// With hooks, a user namespace, a seccomp filter, a terminal, more mounts and a pid file.
    Rich,
    /// Without a mount namespace of its own.
    Shared,
}

/// A container that is brought again and again to where a verb is due.
#[derive(Debug)]
pub struct Stage<'f> {
    fixture: &'f Fixture,
    bundle: Bundle<'f>,
    /// What is disturbed.
    pub verb: Verb,
    shape: Shape,
    /// Has no token in its name: a child of another sweep's thread has the listener until it calls exec.
    consoles: tempfile::TempDir,
}

/// A container on which the verb is due.
#[derive(Debug)]
pub struct Due {
    /// The verb.
    pub command: Command,
    /// The container's process, where it is there already.
    pub init: Option<i32>,
    namespaces: leaks::Namespaces,
    /// Takes terminals; they go with it.
    _console: Option<UnixListener>,
}

impl<'f> Stage<'f> {
    /// With a bundle and an id of its own.
    pub fn new(fixture: &'f Fixture, verb: Verb, shape: Shape) -> Self {
        let program = if verb == Verb::Run { ["/bin/true", ""] } else { ["/bin/sleep", "1000"] };
        let bundle = fixture.bundle().args(program.into_iter().filter(|word| !word.is_empty()));
        let bundle = match shape {
            Shape::Plain => bundle,
            Shape::Rich => enrich(fixture, bundle),
            Shape::Shared => bundle.sharing_mounts(),
        };
        bundle.write();
        let consoles = tempfile::Builder::new().prefix("console").tempdir().expect("temporary directory");
        Self { fixture, bundle, verb, shape, consoles }
    }

    fn id(&self) -> &str {
        &self.bundle.id
    }

    fn console(&self) -> PathBuf {
        self.consoles.path().join("sock")
    }

    fn pid_file(&self) -> PathBuf {
        self.fixture.path().join(format!("{}.pid", self.id()))
    }

    fn rich(&self) -> bool {
        self.shape == Shape::Rich
    }

    fn creating(&self, verb: &str) -> Command {
        let mut command = self.fixture.oci([verb, "--bundle"]);
        command.arg(&self.bundle.dir);
        command.arg("--pid-file").arg(self.pid_file());
        if self.rich() {
            command.arg("--console-socket").arg(self.console());
        }
        if self.rich() && verb == "run" {
            command.arg("--detach");
        }
        command.arg(self.id());
        command
    }

    fn command(&self) -> Command {
        match self.verb {
            Verb::Create => self.creating("create"),
            Verb::Run => self.creating("run"),
            Verb::Start => self.fixture.oci(["start", self.id()]),
            Verb::Exec => {
                let mut command = self.fixture.oci(["exec"]);
                if self.rich() {
                    command.args(["--tty", "--detach", "--console-socket"]).arg(self.console());
                }
                command.args([self.id(), "/bin/true"]);
                command
            }
            Verb::Kill => self.fixture.oci(["kill", self.id(), "KILL"]),
            Verb::Delete => self.fixture.oci(["delete", "--force", self.id()]),
            Verb::Pause => self.fixture.oci(["pause", self.id()]),
            Verb::Resume => self.fixture.oci(["resume", self.id()]),
        }
    }

    /// Brings the container to where the verb is due.
    pub fn prepare(&self) -> Due {
        let console = self.rich().then(|| {
            let _ = std::fs::remove_file(self.console());
            UnixListener::bind(self.console()).expect("bind the console socket")
        });
        let mut due = Due {
            command: self.command(),
            init: None,
            namespaces: leaks::Namespaces::default(),
            _console: console,
        };
        if matches!(self.verb, Verb::Create | Verb::Run) {
            return due;
        }
        crate::run(&mut self.creating("create")).ok();
        let text = std::fs::read_to_string(self.pid_file()).expect("pid file");
        let init = text.parse().expect("a pid");
        due.init = Some(init);
        due.namespaces.add(init);
        if self.verb != Verb::Start {
            self.oci("start").ok();
        }
        if self.verb == Verb::Resume {
            self.oci("pause").ok();
        }
        due
    }

    fn oci(&self, verb: &str) -> Outcome {
        self.fixture.run_oci([verb, self.id()])
    }

    /// Whether the verb that reported success has done its work; if not, in words.
    pub fn verify(&self, due: &Due) -> Option<String> {
        let expected = match self.verb {
            Verb::Create => "created",
            Verb::Pause => "paused",
            Verb::Resume | Verb::Start => "running",
            Verb::Kill => {
                let ended = crate::events::process_end(due.init?, crate::events::patience());
                return (!ended).then(|| "success, but the container lives".to_owned());
            }
            Verb::Exec | Verb::Run | Verb::Delete => return None,
        };
        let state = self.oci("state");
        let status = state.stdout.lines().find(|line| line.contains("\"status\"")).unwrap_or_default();
        let right = status.contains(&format!("\"{expected}\""));
        (!right)
            .then(|| format!("success, but {expected} it is not: {}{}", status.trim(), state.stderr.trim()))
    }

    /// Deletes the container by force, twice, and tells what is left, or that its id is not free.
    pub fn settle(&self, due: Due) -> Vec<String> {
        let mut wrong = Vec::new();
        let Due { namespaces, _console: console, .. } = due;
        for which in ["", "second "] {
            let deleted = self.fixture.run_oci(["delete", "--force", self.id()]);
            if deleted.code != Some(0) {
                wrong.push(format!("{which}delete --force: {}", deleted.stderr.trim()));
            }
        }
        drop(console);
        let _ = std::fs::remove_file(self.console());
        let _ = std::fs::remove_file(self.pid_file());
        wrong.extend(leaks::of(self.id(), &[&self.fixture.state_root()], &namespaces));
        // Those of the test itself, bundles of other sweeps among them.
        let known = |name: &String| {
            name.starts_with("bundle-")
                || ["state", "bound", "config.json", "rootfs"].contains(&name.as_str())
        };
        let files = [self.fixture.path(), &self.bundle.dir].into_iter().flat_map(leaks::entries);
        wrong.extend(files.filter(|name| !known(name)).map(|name| format!("file: {name}")));
        wrong
    }

    /// Whether the id is usable again; if not, in words.
    pub fn again(&self) -> Option<String> {
        let _console = self.rich().then(|| UnixListener::bind(self.console()).expect("bind"));
        let created = crate::run(&mut self.creating("create"));
        let deleted = self.fixture.run_oci(["delete", "--force", self.id()]);
        let _ = std::fs::remove_file(self.console());
        let _ = std::fs::remove_file(self.pid_file());
        [created, deleted]
            .into_iter()
            .find(|outcome| outcome.code != Some(0))
            .map(|outcome| format!("the id is not free: {}", outcome.stderr.trim()))
    }
}

/// What makes the paths through the runtime longer.
fn enrich<'f>(fixture: &'f Fixture, bundle: Bundle<'f>) -> Bundle<'f> {
    let bound = fixture.file("bound/file", "bound");
    let hook = json!([{"path": needs::busybox(), "args": ["true"], "timeout": 20}]);
    let mut bundle = bundle.user_namespace();
    for phase in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        bundle = bundle.set(&format!("/hooks/{phase}"), hook.clone());
    }
    bundle
        .set("/hooks/startContainer", json!([{"path": "/bin/busybox", "args": ["true"]}]))
        .set("/process/terminal", json!(true))
        .set("/process/consoleSize", json!({"height": 20, "width": 60}))
        .set(
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["swapon", "reboot"], "action": "SCMP_ACT_ERRNO"}
            ]}),
        )
        .mount("/scratch", "tmpfs", "tmpfs", &["nosuid", "nodev", "size=1m"])
        .mount("/bound", "bind", bound.parent().expect("a directory"), &["rbind", "ro"])
        .mount("/etc/bound", "bind", &bound, &["bind", "ro"])
}

/// Which of the points 1..=total are tried; `phase` of `phases` spreads the points of sweeps over one command.
/// `weight` is how many victims' worth of points this sweep has.
pub fn points(total: u64, weight: u64, phase: u64, phases: u64) -> Vec<u64> {
    let wanted = match std::env::var("CORTEN_TEST_KILL_POINTS") {
        Err(_) => USUAL * weight,
        Ok(text) if text == "all" => total,
        Ok(text) => weight * text.parse::<u64>().expect("CORTEN_TEST_KILL_POINTS is a number or all"),
    };
    let wanted = wanted.clamp(1, total.max(1));
    let (part, parts) = chunk();
    (0..wanted)
        .map(|index| 1 + (index * phases + phase) * total / (wanted * phases))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .enumerate()
        .filter(|(index, _)| *index as u64 % parts == part)
        .map(|(_, point)| point)
        .collect()
}

/// Whether the id is to be used again after a point: where it could have stayed taken. Of all points, at each fourth:
/// it costs as much as the point, and what keeps an id is found by a look at what is left.
pub fn asks_again(verb: Verb, point: u64) -> bool {
    matches!(verb, Verb::Create | Verb::Run) && (!is_exhaustive() || point.is_multiple_of(4))
}

/// Whether every point is to be tried.
pub fn is_exhaustive() -> bool {
    std::env::var("CORTEN_TEST_KILL_POINTS").is_ok_and(|text| text == "all")
}

fn chunk() -> (u64, u64) {
    let Ok(text) = std::env::var("CORTEN_TEST_KILL_CHUNK") else { return (0, 1) };
    let (part, parts) = text.split_once('/').expect("CORTEN_TEST_KILL_CHUNK is i/n");
    (part.parse().expect("a number"), parts.parse().expect("a number"))
}

/// What a sweep found, for the reader of a campaign.
#[derive(Debug)]
pub struct Findings {
    name: String,
    tried: usize,
    failed: usize,
    failures: Vec<String>,
    /// What one point left is there at the next one too.
    told: BTreeSet<String>,
}

impl Findings {
    /// None so far.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_lowercase(), tried: 0, failed: 0, failures: Vec::new(), told: BTreeSet::new() }
    }

    /// What was wrong at a point.
    pub fn point(&mut self, point: &str, wrong: Vec<String>) {
        self.tried += 1;
        self.failed += usize::from(!wrong.is_empty());
        for one in wrong.into_iter().filter(|one| self.told.insert(one.clone())) {
            // At once: a campaign takes long.
            eprintln!("{} {point}: {one}", self.name);
            self.failures.push(format!("{point}: {one}"));
        }
    }

    /// Tells how many points were tried.
    pub fn tell(&self, total: u64) {
        eprintln!("campaign {}: {} of {total} points, {} failures", self.name, self.tried, self.failed);
    }

    /// Fails the test if anything was wrong.
    #[track_caller]
    pub fn assert_none(self) {
        let shown = self.failures.iter().take(200).cloned().collect::<Vec<_>>();
        assert!(
            self.failures.is_empty(),
            "{}: failures at {} of {} points\n  {}",
            self.name,
            self.failed,
            self.tried,
            shown.join("\n  ")
        );
    }
}
