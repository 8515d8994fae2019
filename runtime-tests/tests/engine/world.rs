//! One test's images and containers.
use runtime_tests::image::Image;
use runtime_tests::{Fixture, Outcome, cgroup, command, events, needs};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The image that every test has.
pub const IMAGE: &str = "localhost/test";

/// A store with [`IMAGE`], and nothing of it left on the host when it is dropped.
pub struct World {
    pub fixture: Fixture,
}

impl World {
    pub fn new() -> Self {
        let world = Self { fixture: Fixture::new() };
        world.load(&Image::busybox(), IMAGE);
        world
    }

    pub fn load(&self, image: &Image, name: &str) {
        let archive = self.fixture.file("image.tar", image.docker_archive(&format!("{name}:latest")));
        self.run(&["load", "--replace", "--input", archive.to_str().unwrap()]).ok();
    }

    pub fn root(&self) -> PathBuf {
        self.fixture.path().join("root")
    }

    pub fn state(&self) -> PathBuf {
        self.fixture.path().join("run")
    }

    pub fn corten(&self, args: &[&str]) -> Command {
        let mut command = Command::new(needs::corten());
        command
            .args(args)
            .env("CORTEN_ROOT", self.root())
            .env("CORTEN_STATE", self.state())
            .env("CORTEN_TEST", self.fixture.token());
        command
    }

    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Outcome {
        command::run(&mut self.corten(args))
    }

    /// `run --rm` of [`IMAGE`].
    #[track_caller]
    pub fn once(&self, flags: &[&str], words: &[&str]) -> Outcome {
        self.run(&[&["run", "--rm"], flags, &[IMAGE], words].concat())
    }

    /// A container in the background; its id.
    #[track_caller]
    pub fn background(&self, flags: &[&str], words: &[&str]) -> String {
        self.run(&[&["run", "-d"], flags, &[IMAGE], words].concat()).ok().stdout.trim().to_owned()
    }

    #[track_caller]
    pub fn inspect(&self, name: &str) -> Value {
        self.run(&["inspect", name]).ok().json()[0].clone()
    }

    /// The command with pipes, still running.
    pub fn spawn(&self, args: &[&str]) -> Child {
        let mut command = self.corten(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Waits for one line of the container's log.
    pub fn await_log(&self, name: &str, text: &str) {
        let mut logs = self.spawn(&["logs", "-f", name]);
        events::Lines::new(logs.stdout.take().unwrap()).until(text);
        logs.kill().unwrap();
        logs.wait().unwrap();
    }

    /// What is left of containers, apart from what the fixture looks at.
    pub fn left(&self) -> Vec<String> {
        let names = |path: PathBuf| -> Vec<String> {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        };
        let containers = self.root().join("containers");
        let mut left: Vec<String> = names(containers.clone())
            .into_iter()
            .filter(|name| name != "names" && name != "making")
            .collect();
        left.extend(names(containers.join("names")));
        left.extend(names(self.root().join("leases")).into_iter().map(|name| format!("lease {name}")));
        left.extend(names(self.state().join("containers")));
        left.extend(names(self.state().join("oci")));
        left
    }

    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let left = self.left();
        assert!(left.is_empty(), "left of containers: {left:?}");
        self.fixture.assert_clean();
    }

    /// Removes every container by force.
    pub fn clean_up(&self) {
        let ids = self.run(&["ps", "-a", "-q", "--no-trunc"]).stdout;
        for id in ids.lines() {
            self.run(&["delete", "--force", "--volumes", id]).ok();
            assert!(cgroup::named(id).is_empty(), "cgroups of {id}");
        }
        // What a kill left before it had a name.
        self.run(&["delete", "--force", "nothing"]).ok();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.clean_up();
            self.assert_nothing_left();
        } else {
            let ids = self.run(&["ps", "-a", "-q", "--no-trunc"]).stdout;
            for id in ids.lines() {
                self.run(&["delete", "--force", id]);
            }
        }
    }
}

/// Waits for a child with the usual patience.
#[track_caller]
pub fn ends(child: &mut Child) -> i32 {
    let status = command::wait(child, events::patience()).expect("it did not end");
    status.code().expect("it was killed")
}

pub fn seconds(count: u64) -> Duration {
    needs::stretched(Duration::from_secs(count))
}
