//! Debian's buildah runs the steps of a build by the binary. Only on the host: the virtual machine has no buildah.

#![allow(clippy::disallowed_methods, reason = "the tests own the directories that they work on")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use runtime_tests::user::{self, User};
use runtime_tests::{Fixture, Outcome, cgroup, command, needs};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const TOOLS: &[&str] = &["sh", "id", "cat", "echo", "touch", "hostname", "stat", "mount", "true"];

/// A buildah with storage and configuration of its own, of root or of an ordinary user.
struct Buildah<'f> {
    fixture: &'f Fixture,
    user: Option<&'f User<'f>>,
    runtime: PathBuf,
    base: PathBuf,
}

impl<'f> Buildah<'f> {
    fn new(fixture: &'f Fixture) -> Self {
        let runtime = match std::env::var_os("CORTEN_OCI") {
            Some(peer) => PathBuf::from(peer),
            None => {
                let link = fixture.path().join("corten-oci");
                std::os::unix::fs::symlink(needs::corten(), &link).unwrap();
                link
            }
        };
        Self::set_up(Self { fixture, user: None, runtime, base: fixture.path().to_owned() })
    }

    fn of_user(fixture: &'f Fixture, user: &'f User<'f>) -> Self {
        let (runtime, base) = (user.runtime().to_owned(), user.home());
        Self::set_up(Self { fixture, user: Some(user), runtime, base })
    }

    fn set_up(self) -> Self {
        let ulimits = "[containers]\ndefault_ulimits = [\"nofile=1024:4096\", \"nproc=1000:1000\"]\n";
        std::fs::write(self.at("containers.conf"), ulimits).unwrap();
        std::fs::write(self.at("storage.conf"), "[storage]\ndriver = \"vfs\"\n").unwrap();
        std::fs::write(self.at("policy.json"), r#"{"default": [{"type": "insecureAcceptAnything"}]}"#)
            .unwrap();
        let bin = self.at("context/bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::copy(needs::busybox(), bin.join("busybox")).unwrap();
        for tool in TOOLS {
            std::os::unix::fs::symlink("busybox", bin.join(tool)).unwrap();
        }
        if self.user.is_some() {
            user::give(&self.base);
        }
        self
    }

    fn at(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> Outcome {
        let program = needs::program("buildah", "buildah");
        let mut buildah = match self.user {
            Some(user) => user.known(program),
            None => Command::new(program),
        };
        buildah.arg("--root").arg(self.at("graph")).arg("--runroot").arg(self.at("run"));
        buildah.args(["--storage-driver", "vfs"]).args(args);
        buildah.env("CONTAINERS_CONF", self.at("containers.conf"));
        buildah.env("CONTAINERS_STORAGE_CONF", self.at("storage.conf"));
        buildah.env("BUILDAH_RUNTIME", &self.runtime).env("CORTEN_TEST", self.fixture.token());
        command::run_within(&mut buildah, Duration::from_secs(100))
    }

    /// A working container with busybox, from nothing.
    fn new_container(&self) -> String {
        let name =
            self.run(&["from", "--name", self.fixture.token(), "scratch"]).ok().stdout.trim().to_owned();
        self.run(&["copy", &name, self.at("context").to_str().unwrap(), "/"]).ok();
        name
    }

    #[track_caller]
    fn run_in(&self, name: &str, options: &[&str], args: &[&str]) -> Outcome {
        let runtime = self.runtime.to_str().unwrap();
        let fixed = ["run", "--runtime", runtime, "--isolation", "oci", "--network", "none"];
        self.run(&[&fixed[..], options, &[name, "--"], args].concat())
    }

    /// Steps of a build, by hand and from a file.
    fn builds(&self) {
        let name = self.new_container();
        let script = "id -u; touch /made; test -e /proc/self; test -c /dev/null; echo done";
        assert_eq!(self.run_in(&name, &[], &["/bin/sh", "-c", script]).ok().stdout, "0\ndone\n");
        let code = self.run_in(&name, &[], &["/bin/sh", "-c", "exit 5"]);
        assert_ne!(code.code, Some(0), "{}", code.stderr);
        assert!(code.stderr.contains("exit status 5"), "{}", code.stderr);
        assert_eq!(self.run_in(&name, &["--user", "1000:1001"], &["/bin/id", "-u"]).ok().stdout, "1000\n");
        let volume = format!("{}:/mnt:ro", self.at("context").display());
        self.run_in(&name, &["--volume", &volume], &["/bin/cat", "/mnt/bin/busybox"]).ok();
        let policy = self.at("policy.json");
        let policy = policy.to_str().unwrap();
        self.run(&["commit", "--signature-policy", policy, &name, "built"]).ok();
        let file = "FROM localhost/built\nRUN echo by the runtime > /file\nRUN cat /file && test -e /made\n";
        let path = self.at("context/Containerfile");
        std::fs::write(&path, file).unwrap();
        let (path, context) = (path.to_str().unwrap(), self.at("context"));
        let runtime = self.runtime.to_str().unwrap();
        let fixed = ["bud", "--signature-policy", policy, "--runtime", runtime, "--isolation", "oci"];
        let rest = ["--network", "none", "--tag", "two", "--file", path, context.to_str().unwrap()];
        let outcome = self.run(&[&fixed[..], &rest].concat()).ok();
        assert!(outcome.stdout.contains("by the runtime"), "{}{}", outcome.stdout, outcome.stderr);
        self.run(&["rm", &name]).ok();
        assert!(cgroup::named(self.fixture.token()).is_empty());
    }
}

#[test]
fn builds() {
    let fixture = Fixture::new();
    Buildah::new(&fixture).builds();
}

#[test]
fn builds_of_an_ordinary_user() {
    let fixture = Fixture::new();
    let user = User::new(&fixture);
    Buildah::of_user(&fixture, &user).builds();
}
