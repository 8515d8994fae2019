//! A podman with storage and configuration of its own, of root or of an ordinary user.
use runtime_tests::image::Image;
use runtime_tests::user::{self, User};
use runtime_tests::{Fixture, Outcome, cgroup, command, events, needs};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The image that every podman here has.
pub const IMAGE: &str = "localhost/corten-test";

/// The limits that podman sets by itself cannot be raised by a root without CAP_SYS_RESOURCE.
const CONFIGURATION: &str = r#"[containers]
default_ulimits = ["nofile=1024:4096", "nproc=1000:1000"]
[engine]
events_logger = "file"
"#;

/// See the module.
pub struct Podman<'f> {
    fixture: &'f Fixture,
    user: Option<&'f User<'f>>,
    runtime: PathBuf,
    base: PathBuf,
}

impl<'f> Podman<'f> {
    /// Root's.
    pub fn new(fixture: &'f Fixture) -> Self {
        // podman knows a runtime by its path; ours takes its face from its name.
        let runtime = match std::env::var_os("CORTEN_OCI") {
            Some(peer) => PathBuf::from(peer),
            None => {
                let link = fixture.path().join("corten-oci");
                std::os::unix::fs::symlink(needs::corten(), &link).expect("symlink");
                link
            }
        };
        Self::set_up(Self { fixture, user: None, runtime, base: fixture.path().to_owned() })
    }

    /// An ordinary user's, to whom the host lends subordinate ids.
    pub fn of_user(fixture: &'f Fixture, user: &'f User<'f>) -> Self {
        let (runtime, base) = (user.runtime().to_owned(), user.home());
        Self::set_up(Self { fixture, user: Some(user), runtime, base })
    }

    fn set_up(self) -> Self {
        let dir = self.base.display();
        std::fs::write(self.at("containers.conf"), CONFIGURATION).unwrap();
        let (graph, run) = (self.at("graph"), self.at("run"));
        let storage = format!("[storage]\ndriver = \"vfs\"\ngraphroot = {graph:?}\nrunroot = {run:?}\n");
        std::fs::write(self.at("storage.conf"), storage).unwrap();
        std::fs::write(self.at("policy.json"), r#"{"default": [{"type": "insecureAcceptAnything"}]}"#)
            .unwrap();
        std::fs::write(self.at("image.tar"), Image::busybox().oci_archive(&format!("{IMAGE}:latest")))
            .unwrap();
        if self.user.is_some() {
            user::give(&self.base);
        }
        let (policy, archive) = (format!("{dir}/policy.json"), format!("{dir}/image.tar"));
        self.run(&["load", "--signature-policy", &policy, "-i", &archive]).ok();
        self
    }

    fn at(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }

    /// Not yet started; podman's paths must be short.
    pub fn command(&self, args: &[&str]) -> Command {
        let program = needs::program("podman", "podman");
        let mut podman = match self.user {
            Some(user) => user.known(program),
            None => Command::new(program),
        };
        podman.arg("--root").arg(self.at("graph")).arg("--runroot").arg(self.at("run")).arg("--tmpdir");
        podman.arg(self.at("tmp")).args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]);
        podman.args(["--events-backend", "file", "--runtime"]).arg(&self.runtime).args(args);
        podman.env("CONTAINERS_CONF", self.at("containers.conf"));
        podman.env("CONTAINERS_STORAGE_CONF", self.at("storage.conf"));
        podman.env("CORTEN_TEST", self.fixture.token());
        podman
    }

    /// To its end.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Outcome {
        command::run_within(&mut self.command(args), Duration::from_secs(100))
    }

    /// `podman run OPTIONS IMAGE ARGS` without a network.
    pub fn run_command(&self, options: &[&str], args: &[&str]) -> Command {
        let parent = format!("/{}p", self.fixture.token());
        let mut all = vec!["run", "--network", "none"];
        if self.user.is_none() {
            all.extend(["--cgroup-parent", &parent]);
        }
        self.command(&[&all, options, &[IMAGE], args].concat())
    }

    /// The same to its end; the container is removed with it.
    #[track_caller]
    pub fn run_image(&self, options: &[&str], args: &[&str]) -> Outcome {
        let mut run = self.run_command(&[&["--rm"], options].concat(), args);
        command::run_within(&mut run, Duration::from_secs(100))
    }

    /// Starts a container that waits for SIGTERM.
    #[track_caller]
    pub fn detached(&self, name: &str, options: &[&str]) {
        let script = "trap 'exit 0' TERM; echo started; while :; do sleep 1; done";
        let options = [&["--detach", "--name", name], options].concat();
        command::run_within(&mut self.run_command(&options, &["sh", "-c", script]), Duration::from_secs(100))
            .ok();
    }

    /// Removes what podman keeps between calls, its own cgroup directories too.
    pub fn finish(&self) {
        self.run(&["pod", "rm", "--all", "--force", "--time", "1"]).ok();
        self.run(&["rm", "--all", "--force", "--time", "1"]).ok();
        if self.user.is_some() {
            self.end_pause_process();
        }
        for dir in cgroup::named(self.fixture.token()) {
            remove(&dir);
        }
    }

    /// It holds the user namespace of a rootless podman between its calls.
    fn end_pause_process(&self) {
        let Ok(text) = std::fs::read_to_string(self.at("tmp/pause.pid")) else { return };
        let pid = text.trim().parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
        assert!(events::process_end(pid, events::patience()));
    }
}

/// Removes a cgroup that podman leaves, once its processes have ended: the parent that it was given, its monitor's,
/// and a pod's in the hierarchies that podman itself does not know. Those of containers are the runtime's to remove.
fn remove(dir: &Path) {
    for pid in cgroup::pids(dir) {
        assert!(events::process_end(pid, events::patience()), "{pid} in {}", dir.display());
    }
    let below = std::fs::read_dir(dir).unwrap().flatten().filter(|entry| entry.path().is_dir());
    for entry in below {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(
            !name.starts_with("libpod-") || name.ends_with("conmon"),
            "{name} is left in {}",
            dir.display()
        );
        remove(&entry.path());
    }
    std::fs::remove_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
}
