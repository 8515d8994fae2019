//! Debian's containerd drives the binary as its OCI runtime: through `ctr`, and through its CRI plugin under crictl.
//! Only on the host: the virtual machine has no containerd.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use runtime_tests::image::Image;
use runtime_tests::terminal::OnTerminal;
use runtime_tests::{Fixture, Outcome, agent, cgroup, command, events, needs};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

const IMAGE: &str = "localhost/corten-test:latest";
/// What the CRI plugin runs as a pod's sandbox (`sandbox_image` in scripts/containerd.sh).
const PAUSE: &str = "registry.k8s.io/pause:3.9";

/// A containerd with everything of its own below the fixture's directory.
struct Containerd<'f> {
    fixture: &'f Fixture,
    child: Child,
    runtime: PathBuf,
}

impl<'f> Containerd<'f> {
    fn new(fixture: &'f Fixture, subnet: u32) -> Self {
        for (path, package) in [
            ("/usr/bin/containerd", "containerd"),
            ("/usr/bin/ctr", "containerd"),
            ("/usr/lib/cni/bridge", "containernetworking-plugins"),
        ] {
            needs::packaged(path, package);
        }
        let runtime = needs::oci_path(fixture.path());
        let dir = fixture.path().join("containerd");
        std::fs::create_dir(&dir).unwrap();
        // Nothing is pulled, so there is no registry.
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../scripts/containerd.sh");
        let mut child = Command::new(script)
            .arg(&dir)
            .arg("127.0.0.1:1")
            .env("RUNTIME", &runtime)
            .env("PEER_SUBNET", agent::free_subnet(subnet))
            .env("CORTEN_TEST", fixture.token())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let url = events::Lines::new(child.stdout.take().unwrap()).next_line();
        assert!(url.starts_with("unix://"), "{url}");
        Self { fixture, child, runtime }
    }

    /// ctr in the namespace of containerd that belongs to this test, or to Kubernetes.
    fn ctr(&self, namespace: &str, args: &[&str]) -> Command {
        let mut ctr = Command::new("/usr/bin/ctr");
        ctr.arg("--address").arg(self.fixture.path().join("containerd/containerd.sock"));
        ctr.args(["--namespace", namespace]).args(args).env("CORTEN_TEST", self.fixture.token());
        ctr
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> Outcome {
        command::run_within(&mut self.ctr(self.fixture.token(), args), events::patience() * 2)
    }

    /// The words of `ctr run` with the binary under test.
    fn run_words<'a>(&'a self, options: &[&'a str], id: &'a str, args: &[&'a str]) -> Vec<&'a str> {
        let runtime = ["run", "--runc-binary", self.runtime.to_str().unwrap()];
        [&runtime[..], options, &[IMAGE, id], args].concat()
    }

    #[track_caller]
    fn import(&self, namespace: &str, image: &Image, name: &str) {
        let archive = self.fixture.file("image.tar", image.docker_archive(name));
        let words = ["images", "import", archive.to_str().unwrap()];
        command::run_within(&mut self.ctr(namespace, &words), events::patience() * 2).ok();
    }

    #[track_caller]
    fn crictl(&self, args: &[&str]) -> Outcome {
        let socket = format!("unix://{}", self.fixture.path().join("containerd/containerd.sock").display());
        let config = self.fixture.file("crictl.yaml", format!("runtime-endpoint: {socket}\ntimeout: 20\n"));
        let mut crictl = Command::new(needs::cri_tool("crictl"));
        crictl.arg("--config").arg(config).args(args).env("CORTEN_TEST", self.fixture.token());
        command::run_within(&mut crictl, events::patience() * 2)
    }

    #[track_caller]
    fn crictl_file(&self, name: &str, config: &Value) -> String {
        self.fixture.file(name, config.to_string()).display().to_string()
    }
}

impl Drop for Containerd<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.fixture.path().join("containerd/log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("{}", lines[lines.len().saturating_sub(40)..].join("\n"));
            // What a failed test leaves runs on otherwise.
            for pid in runtime_tests::leaks::pids(self.fixture.token()) {
                let pid = nix::unistd::Pid::from_raw(pid);
                if pid.as_raw() != self.child.id().cast_signed() {
                    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
                }
            }
        }
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        command::wait(&mut self.child, events::patience());
        // The parents that containerd was given stay; a container's own would keep them from being removed.
        for dir in cgroup::named(self.fixture.token()) {
            let removed = std::fs::remove_dir(&dir);
            assert!(removed.is_ok() || std::thread::panicking(), "{}: {removed:?}", dir.display());
        }
    }
}

#[test]
fn ctr_runs_containers() {
    let fixture = Fixture::new();
    let containerd = Containerd::new(&fixture, 60);
    containerd.import(fixture.token(), &Image::busybox(), IMAGE);
    let words = containerd.run_words(&["--rm"], "one", &["sh", "-c", "echo from inside; id -u; exit 3"]);
    assert_eq!(containerd.run(&words).exits(3).stdout, "from inside\n0\n");
    let words = containerd.run_words(&["--rm"], "missing", &["no-such-program"]);
    containerd.run(&words).fails().says("executable file not found in $PATH");
    containerd.run(&["containers", "rm", "missing"]);

    let words = containerd.run_words(&["--rm", "--tty"], "shell", &["sh"]);
    let mut shell = OnTerminal::new(&mut containerd.ctr(fixture.token(), &words));
    shell.until("# ");
    shell.types("echo o$((1+1))k; exit 7\n");
    shell.until("o2k");
    assert_eq!(command::wait(&mut shell.child, events::patience()).unwrap().code(), Some(7));

    let options = ["--detach", "--memory-limit", "67108864", "--cpus", "0.5"];
    containerd.run(&containerd.run_words(&options, "two", &["sleep", "1000"])).ok();
    let path = format!("/{}/two", fixture.token());
    assert_eq!(cgroup::value("memory", &path, "memory.limit_in_bytes", "memory.max"), "67108864");
    assert!(containerd.run(&["tasks", "ls"]).ok().stdout.contains("RUNNING"));
    let words = ["tasks", "exec", "--exec-id", "e1", "two", "sh", "-c", "echo joined; exit 4"];
    assert_eq!(containerd.run(&words).exits(4).stdout, "joined\n");
    assert!(containerd.run(&["tasks", "metrics", "two"]).ok().stdout.contains("memory"));
    assert!(containerd.run(&["tasks", "ps", "two"]).ok().stdout.lines().count() >= 2);
    containerd.run(&["tasks", "pause", "two"]).ok();
    assert!(containerd.run(&["tasks", "ls"]).ok().stdout.contains("PAUSED"));
    containerd.run(&["tasks", "resume", "two"]).ok();
    containerd.run(&["tasks", "kill", "--signal", "SIGKILL", "two"]).ok();
    let deleted = containerd.run(&["tasks", "rm", "--force", "two"]);
    assert!(deleted.code == Some(0) || deleted.code == Some(137), "{}", deleted.stderr);
    containerd.run(&["containers", "rm", "two"]).ok();
}

#[test]
fn the_cri_plugin_runs_pods() {
    let fixture = Fixture::new();
    let containerd = Containerd::new(&fixture, 61);
    let mut pause = Image::busybox();
    pause.config["Cmd"] = json!(["/bin/sleep", "100000"]);
    containerd.import("k8s.io", &pause, PAUSE);
    containerd.import("k8s.io", &Image::busybox(), IMAGE);

    let logs = fixture.path().join("logs");
    let pod_file = containerd.crictl_file(
        "pod.json",
        &json!({
            "metadata": {"name": "pod", "namespace": "test", "uid": fixture.token()}, "log_directory": logs,
            "hostname": "alive", "linux": {"cgroup_parent": format!("/{}k", fixture.token()),
                "security_context": {"namespace_options": {"pid": 1}}},
        }),
    );
    let pod = containerd.crictl(&["runp", &pod_file]).ok().stdout.trim().to_owned();
    let file = containerd.crictl_file(
        "container.json",
        &json!({
            "metadata": {"name": "main"}, "image": {"image": IMAGE}, "log_path": "main.log",
            "command": ["sh", "-c", "echo begun; exec sleep 1000"],
            "linux": {"resources": {"memory_limit_in_bytes": 67_108_864},
                "security_context": {"namespace_options": {"pid": 1}, "no_new_privs": true}},
        }),
    );
    let id = containerd.crictl(&["create", &pod, &file, &pod_file]).ok().stdout.trim().to_owned();
    containerd.crictl(&["start", &id]).ok();
    let path = format!("/{}k/{id}", fixture.token());
    assert_eq!(cgroup::value("memory", &path, "memory.limit_in_bytes", "memory.max"), "67108864");
    let script = "hostname; grep NoNewPrivs /proc/self/status";
    let outcome = containerd.crictl(&["exec", "--sync", &id, "sh", "-c", script]).ok();
    assert_eq!(outcome.stdout.trim_end(), "alive\nNoNewPrivs:\t1");
    containerd.crictl(&["exec", "--sync", &id, "sh", "-c", "exit 5"]).fails().says("exited with 5");
    containerd.crictl(&["update", "--memory", "134217728", &id]).ok();
    assert_eq!(cgroup::value("memory", &path, "memory.limit_in_bytes", "memory.max"), "134217728");
    let stats = containerd.crictl(&["stats", "-o", "json", &id]).ok().json();
    assert_eq!(stats["stats"][0]["attributes"]["id"], id.as_str(), "{stats}");
    containerd.crictl(&["stop", "-t", "0", &id]).ok();
    let status = containerd.crictl(&["inspect", "-o", "json", &id]).ok().json();
    assert_eq!(
        (&status["status"]["state"], &status["status"]["exitCode"]),
        (&json!("CONTAINER_EXITED"), &json!(137))
    );
    assert!(std::fs::read_to_string(logs.join("main.log")).unwrap().contains("stdout F begun"));
    containerd.crictl(&["stopp", &pod]).ok();
    containerd.crictl(&["rmp", &pod]).ok();
}
