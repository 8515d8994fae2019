//! Debian's podman drives the binary as its OCI runtime. Only on the host: the virtual machine has no podman.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use runtime_tests::image::Image;
use runtime_tests::{Fixture, Outcome, command, needs};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// A podman with storage and configuration of its own.
struct Podman<'f> {
    fixture: &'f Fixture,
    runtime: PathBuf,
}

impl<'f> Podman<'f> {
    fn new(fixture: &'f Fixture) -> Self {
        let runtime = needs::oci_path(fixture.path());
        fixture.file("containers.conf", "[engine]\nevents_logger = \"file\"\n[network]\n");
        let dir = fixture.path().display();
        let storage =
            format!("[storage]\ndriver = \"vfs\"\ngraphroot = \"{dir}/graph\"\nrunroot = \"{dir}/run\"\n");
        fixture.file("storage.conf", storage);
        fixture.file("policy.json", r#"{"default": [{"type": "insecureAcceptAnything"}]}"#);
        let podman = Self { fixture, runtime };
        let archive = fixture.file("image.tar", Image::busybox().oci_archive("localhost/corten-test:latest"));
        let dir = fixture.path().display().to_string();
        podman
            .run(&[
                "load",
                "--signature-policy",
                &format!("{dir}/policy.json"),
                "-i",
                archive.to_str().expect("UTF-8"),
            ])
            .ok();
        podman
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut podman = Command::new(needs::program("podman", "podman"));
        let at = |name: &str| self.fixture.path().join(name);
        podman.arg("--root").arg(at("graph")).arg("--runroot").arg(at("run")).arg("--tmpdir").arg(at("tmp"));
        podman.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
        podman.arg("--runtime").arg(&self.runtime).args(args);
        podman
            .env("CONTAINERS_CONF", at("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", at("storage.conf"));
        podman.env("CORTEN_TEST", self.fixture.token());
        podman
    }

    fn run(&self, args: &[&str]) -> Outcome {
        command::run_within(&mut self.command(args), Duration::from_secs(60))
    }

    /// `podman run --rm` without a network; the limits are for hosts whose root may not raise them.
    fn run_image(&self, options: &[&str], args: &[&str]) -> Outcome {
        let fixed = [
            "run",
            "--rm",
            "--network",
            "none",
            "--ulimit",
            "nofile=1024:4096",
            "--ulimit",
            "nproc=1000:1000",
        ];
        let parent = format!("/{}p", self.fixture.token());
        let all: Vec<_> =
            [&fixed[..], &["--cgroup-parent", &parent], options, &["localhost/corten-test"], args].concat();
        self.run(&all)
    }

    /// Removes what podman keeps between calls, its own cgroup directories too.
    fn finish(&self) {
        self.run(&["rm", "--all", "--force"]).ok();
        for dir in runtime_tests::cgroup::named(self.fixture.token()) {
            // podman leaves the parent that it was given and the cgroup of its monitor; a container's own
            // would keep the parent from being removed.
            let monitor = dir.join("conmon");
            for pid in runtime_tests::cgroup::pids(&monitor) {
                assert!(runtime_tests::events::process_end(pid, runtime_tests::events::patience()));
            }
            if needs::exists(&monitor) {
                std::fs::remove_dir(&monitor)
                    .unwrap_or_else(|error| panic!("{}: {error}", monitor.display()));
            }
            std::fs::remove_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        }
    }
}

#[test]
fn run_rm() {
    let fixture = Fixture::new();
    let podman = Podman::new(&fixture);
    let outcome = podman.run_image(&[], &["sh", "-c", "echo from inside; cat /etc/release; exit 3"]).exits(3);
    assert_eq!(outcome.stdout, "from inside\ncorten test image\n");
    podman.finish();
}

#[test]
fn limits_and_hostname() {
    let fixture = Fixture::new();
    let podman = Podman::new(&fixture);
    let options = ["--memory", "64m", "--pids-limit", "33", "--hostname", "box", "--read-only"];
    let script = "hostname; cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/memory/memory.limit_in_bytes; touch /new || echo refused";
    let outcome = podman.run_image(&options, &["sh", "-c", script]).ok();
    assert_eq!(outcome.stdout, "box\n33\n67108864\nrefused\n");
    podman.finish();
}

#[test]
fn detached_exec_stop() {
    let fixture = Fixture::new();
    let podman = Podman::new(&fixture);
    podman
        .run_image(
            &["--detach", "--name", "one"],
            &["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done"],
        )
        .ok();
    assert_eq!(podman.run(&["exec", "one", "echo", "joined"]).ok().stdout, "joined\n");
    podman.run(&["exec", "one", "sh", "-c", "exit 5"]).exits(5);
    podman.run(&["stop", "--time", "10", "one"]).ok();
    podman.finish();
}

#[test]
fn a_missing_program_is_127() {
    let fixture = Fixture::new();
    let podman = Podman::new(&fixture);
    podman.run_image(&[], &["/bin/nosuch"]).exits(127);
    podman.run_image(&[], &["/etc/passwd"]).exits(126);
    podman.finish();
}
