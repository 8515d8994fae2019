//! Debian's dockerd drives the binary as its OCI runtime. Only on the host: the virtual machine has no dockerd.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use runtime_tests::daemon::Daemon;
use runtime_tests::image::Image;
use runtime_tests::terminal::OnTerminal;
use runtime_tests::{Fixture, Outcome, agent, cgroup, command, events, needs};
use std::process::{Command, Stdio};

const IMAGE: &str = "localhost/corten-test:latest";
/// Root without CAP_SYS_RESOURCE (CI sandboxes) cannot raise limits.
const LIMITS: [&str; 2] = ["--ulimit", "nofile=1024:4096"];

/// A dockerd with directories, a socket, a network and a parent of cgroups of its own.
struct Docker<'f> {
    fixture: &'f Fixture,
    _daemon: Daemon,
}

impl<'f> Docker<'f> {
    fn new(fixture: &'f Fixture) -> Self {
        let at = |name: &str| fixture.path().join(name).display().to_string();
        let runtime = needs::oci_path(fixture.path()).display().to_string();
        let config =
            serde_json::json!({"runtimes": {"corten": {"path": runtime}}, "default-runtime": "corten"});
        let config = fixture.file("daemon.json", config.to_string()).display().to_string();
        needs::packaged("/usr/bin/containerd", "containerd");
        let mut dockerd = Command::new(needs::packaged("/usr/sbin/dockerd", "docker.io"));
        dockerd
            .args(["--config-file", &config, "--data-root", &at("data"), "--exec-root", &at("exec")])
            .args(["--pidfile", &at("dockerd.pid"), "--host", &format!("unix://{}", at("docker.sock"))])
            .args(["--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"])
            .args(["--cgroup-parent", &format!("/{}d", fixture.token())]);
        let docker = Self { fixture, _daemon: Daemon::start(fixture, "dockerd", &mut dockerd) };
        let archive = fixture.file("image.tar", Image::busybox().docker_archive(IMAGE));
        docker.run(&["load", "--quiet", "--input", archive.to_str().unwrap()]).ok();
        docker
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut docker = Command::new(needs::packaged("/usr/bin/docker", "docker.io"));
        docker
            .arg("--host")
            .arg(format!("unix://{}", self.fixture.path().join("docker.sock").display()))
            .args(args)
            .env("HOME", self.fixture.path())
            .env("CORTEN_TEST", self.fixture.token());
        docker
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> Outcome {
        command::run_within(&mut self.command(args), events::patience() * 3)
    }

    /// `docker run` of the test's image.
    #[track_caller]
    fn run_image(&self, options: &[&str], args: &[&str]) -> Outcome {
        self.run(&[&["run"], &LIMITS[..], options, &[IMAGE], args].concat())
    }

    /// A value of `docker inspect`.
    #[track_caller]
    fn inspect(&self, name: &str, template: &str) -> String {
        self.run(&["inspect", "--format", template, name]).ok().stdout.trim().to_owned()
    }
}

impl Drop for Docker<'_> {
    fn drop(&mut self) {
        let containers = self.run(&["ps", "--all", "--quiet"]).stdout;
        let containers: Vec<&str> = containers.lines().collect();
        if !containers.is_empty() {
            self.run(&[&["rm", "--force"], containers.as_slice()].concat());
        }
        for network in self.run(&["network", "ls", "--quiet", "--filter", "type=custom"]).stdout.lines() {
            self.run(&["network", "rm", network]);
        }
        // Only the parent that dockerd was given is left; a container's own would keep it from being removed.
        for dir in cgroup::named(self.fixture.token()) {
            let removed = std::fs::remove_dir(&dir);
            assert!(removed.is_ok() || std::thread::panicking(), "{}: {removed:?}", dir.display());
        }
    }
}

#[test]
fn run_and_how_it_fails() {
    let fixture = Fixture::new();
    let docker = Docker::new(&fixture);
    let outcome =
        docker.run_image(&["--rm"], &["sh", "-c", "echo from inside; echo aside >&2; exit 3"]).exits(3);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("from inside\n", "aside\n"));
    let options = ["--rm", "--hostname", "box", "--user", "user", "--read-only", "--cap-drop", "ALL"];
    let script = "id -u; hostname; touch /new || echo refused; grep CapBnd /proc/self/status";
    let outcome = docker.run_image(&options, &["sh", "-c", script]).ok();
    assert_eq!(outcome.stdout, "1000\nbox\nrefused\nCapBnd:\t0000000000000000\n");
    let outcome = docker.run_image(&["--rm", "--init"], &["cat", "/proc/1/comm"]).ok();
    assert_eq!(outcome.stdout, "docker-init\n");
    docker.run_image(&["--rm"], &["no-such-program"]).exits(127).says("executable file not found in $PATH");
    docker.run_image(&["--rm"], &["/etc/passwd"]).exits(126).says("permission denied");
    docker.run_image(&["--rm"], &["/etc"]).exits(126).says("is a directory");
    let killed =
        docker.run_image(&["--rm", "--memory", "20m"], &["dd", "if=/dev/zero", "of=/dev/null", "bs=100M"]);
    killed.exits(137);
}

#[test]
fn run_on_a_terminal() {
    let fixture = Fixture::new();
    let docker = Docker::new(&fixture);
    let args = [&["run", "--rm", "-it"], &LIMITS[..], &[IMAGE, "sh"]].concat();
    let mut shell = OnTerminal::new(&mut docker.command(&args));
    shell.until("# ");
    shell.types("echo o$((1+1))k; stty size; exit 7\n");
    shell.until("o2k");
    shell.until("33 77");
    assert_eq!(command::wait(&mut shell.child, events::patience()).unwrap().code(), Some(7));
}

#[test]
fn a_container_in_the_background() {
    let fixture = Fixture::new();
    let docker = Docker::new(&fixture);
    let options = ["--detach", "--name", "box", "--memory", "64m", "--cpus", "0.5", "--pids-limit", "50"];
    let id = docker.run_image(&options, &["sh", "-c", "echo begun; exec sleep 1000"]).ok().stdout;
    let path = format!("/{}d/{}", fixture.token(), id.trim());
    let limit = || cgroup::value("memory", &path, "memory.limit_in_bytes", "memory.max");
    assert_eq!(limit(), "67108864");

    let outcome = docker
        .run(&[
            "exec",
            "--user",
            "1000:50",
            "--env",
            "A=b",
            "--workdir",
            "/tmp",
            "box",
            "sh",
            "-c",
            "id -u; id -g; echo $A; pwd; exit 4",
        ])
        .exits(4);
    assert_eq!(outcome.stdout, "1000\n50\nb\n/tmp\n");
    let mut fed = docker.command(&["exec", "--interactive", "box", "cat"]);
    fed.stdin(Stdio::from(std::fs::File::open(fixture.file("fed", "through stdin\n")).unwrap()));
    assert_eq!(command::run_with_stdin(&mut fed, events::patience()).ok().stdout, "through stdin\n");
    let missing = docker.run(&["exec", "box", "no-such-program"]).exits(126);
    assert!(missing.stdout.contains("executable file not found in $PATH"), "{}", missing.stdout);

    let stats =
        docker.run(&["stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", "box"]).ok().stdout;
    assert!(stats.contains("/ 64MiB 1"), "{stats}");
    assert!(docker.run(&["top", "box"]).ok().stdout.contains("sleep 1000"));
    docker
        .run(&[
            "update",
            "--memory",
            "128m",
            "--memory-swap",
            "256m",
            "--cpus",
            "1",
            "--pids-limit",
            "60",
            "box",
        ])
        .ok();
    assert_eq!(limit(), "134217728");
    assert_eq!(cgroup::value("pids", &path, "pids.max", "pids.max"), "60");

    docker.run(&["pause", "box"]).ok();
    assert_eq!(docker.inspect("box", "{{.State.Status}}"), "paused");
    docker.run(&["unpause", "box"]).ok();
    let first = docker.inspect("box", "{{.State.Pid}}");
    docker.run(&["restart", "--time", "0", "box"]).ok();
    assert_ne!(docker.inspect("box", "{{.State.Pid}}"), first);
    docker.run(&["stop", "--time", "0", "box"]).ok();
    assert_eq!(docker.inspect("box", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    docker.run(&["start", "box"]).ok();
    docker.run(&["kill", "--signal", "KILL", "box"]).ok();
    assert_eq!(docker.run(&["wait", "box"]).ok().stdout, "137\n");
    assert_eq!(docker.run(&["logs", "box"]).ok().stdout, "begun\n".repeat(3));
}

/// A server, and a client that finds it by its name and shares a volume with it.
#[test]
fn two_containers_of_one_application() {
    let fixture = Fixture::new();
    let docker = Docker::new(&fixture);
    let bridge = format!("{}b", fixture.token());
    let name = format!("com.docker.network.bridge.name={bridge}");
    docker.run(&["network", "create", "--subnet", &agent::free_subnet(50), "--opt", &name, "net"]).ok();
    docker.run(&["volume", "create", "pages"]).ok();
    let server = [
        "--detach",
        "--name",
        "web",
        "--network",
        "net",
        "--volume",
        "pages:/pages",
        "--health-cmd",
        "test -e /pages/index.html",
        "--health-interval",
        "1s",
    ];
    let script = "echo '<p>corten</p>' > /pages/index.html; exec busybox httpd -f -p 80 -h /pages";
    docker.run_image(&server, &["sh", "-c", script]).ok();
    // What has happened before is told too.
    let mut healthy = docker.command(&[
        "events",
        "--since",
        "0",
        "--filter",
        "event=health_status",
        "--format",
        "{{.Status}}",
    ]);
    let mut healthy = healthy.stdout(Stdio::piped()).spawn().unwrap();
    assert!(events::Lines::new(healthy.stdout.take().unwrap()).next_line().contains("healthy"));
    healthy.kill().unwrap();
    healthy.wait().unwrap();
    let client = ["--rm", "--network", "net", "--volume", "pages:/data:ro"];
    let script = "busybox wget -qO- http://web/; cat /data/index.html; touch /data/x || echo read-only";
    let outcome = docker.run_image(&client, &["sh", "-c", script]).ok();
    assert_eq!(outcome.stdout, "<p>corten</p>\n<p>corten</p>\nread-only\n");
}
