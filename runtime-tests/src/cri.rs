//! Pods of an [`Agent`], made with crictl.

use crate::agent::IMAGE;
use crate::registry::DockerRegistry;
use crate::{Agent, Outcome, command, events, needs};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian's busybox, in the registry that [`published`] fills.
pub const BUSYBOX: &str = "registry.k8s.io/e2e-test-images/busybox:1.29-2";
/// Debian's nginx, which serves one page on port 80.
pub const NGINX: &str = "registry.k8s.io/e2e-test-images/nginx:1.14-2";

/// A registry with the images that `rootfs/publish.py` makes, and the agent's table that makes it a mirror.
pub fn published(dir: &Path) -> (DockerRegistry, String) {
    let registry = DockerRegistry::start(dir);
    let recipe = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../rootfs/publish.py");
    let address = registry.address().to_string();
    command::run_within(Command::new(recipe).arg(&address), events::patience() * 3).ok();
    (registry, format!("[registries.mirrors]\n\"registry.k8s.io\" = \"http://{address}\"\n"))
}

/// Puts every field of `over` over that of `base`; objects are merged.
fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}

impl Agent {
    /// The file with a pod's configuration: as a kubelet asks, with `over` put over it.
    pub fn pod_file(&self, name: &str, over: &Value) -> PathBuf {
        let mut config = json!({
            "metadata": {"name": name, "namespace": "test", "uid": format!("{}-{name}", self.fixture.token())},
            "log_directory": self.log_directory(name),
            "linux": {"security_context": {"namespace_options": {"pid": 1}}},
        });
        merge(&mut config, over);
        self.fixture.file(&format!("pods/{name}.json"), config.to_string())
    }

    /// Where the logs of a pod's containers are.
    pub fn log_directory(&self, pod: &str) -> PathBuf {
        self.fixture.path().join("logs").join(pod)
    }

    /// `crictl runp`, however it ends.
    pub fn try_pod(&self, name: &str, over: &Value) -> Outcome {
        let file = self.pod_file(name, over);
        self.cri(&["runp", file.to_str().expect("UTF-8")])
    }

    /// A pod that runs; its id.
    #[track_caller]
    pub fn pod(&self, name: &str, over: &Value) -> String {
        self.try_pod(name, over).ok().stdout.trim().to_owned()
    }

    /// `crictl create` of a container in a pod that [`Agent::pod`] made, however it ends.
    pub fn try_create(&self, pod: (&str, &str), name: &str, over: &Value) -> Outcome {
        let mut config = json!({
            "metadata": {"name": name}, "image": {"image": IMAGE}, "log_path": format!("{name}.log"),
            "linux": {"security_context": {"namespace_options": {"pid": 1}}},
        });
        merge(&mut config, over);
        let (pod_name, id) = pod;
        let file = self.fixture.file(&format!("containers/{pod_name}-{name}.json"), config.to_string());
        let pod_file = self.fixture.path().join(format!("pods/{pod_name}.json"));
        self.cri(&["create", id, file.to_str().expect("UTF-8"), pod_file.to_str().expect("UTF-8")])
    }

    /// A container that runs; its id.
    #[track_caller]
    pub fn container(&self, pod: (&str, &str), name: &str, over: &Value) -> String {
        let id = self.try_create(pod, name, over).ok().stdout.trim().to_owned();
        self.cri(&["start", &id]).ok();
        id
    }

    /// `crictl inspect`: `status` and `info`.
    #[track_caller]
    pub fn inspect(&self, container: &str) -> Value {
        self.cri(&["inspect", "-o", "json", container]).ok().json()
    }

    /// Waits until a container has ended; its status.
    #[track_caller]
    pub fn await_exit(&self, container: &str) -> Value {
        let mut last = Value::Null;
        let dir = self.root().join("containers").join(container);
        self.await_change(&dir, &format!("the end of container {container}"), || {
            last = self.inspect(container)["status"].clone();
            last["state"] == "CONTAINER_EXITED"
        });
        last
    }

    /// The address of a pod.
    #[track_caller]
    pub fn address(&self, pod: &str) -> String {
        let status = self.cri(&["inspectp", "-o", "json", pod]).ok().json();
        let address = status["status"]["network"]["ip"].as_str().unwrap_or_default().to_owned();
        assert!(!address.is_empty(), "pod {pod} has no address: {status}");
        address
    }
}

/// The lines of a log in the format of Kubernetes: stream and text. Fails at a line of any other form.
#[track_caller]
pub fn lines_of(log: &str) -> Vec<(String, String)> {
    log.lines()
        .map(|line| {
            let mut words = line.splitn(4, ' ');
            let time = words.next().unwrap_or_default();
            assert!(time.len() >= 20 && time.contains('T'), "no time: {line:?}");
            let stream = words.next().unwrap_or_default().to_owned();
            assert!(matches!(words.next(), Some("F" | "P")), "no tag: {line:?}");
            (stream, words.next().unwrap_or_default().to_owned())
        })
        .collect()
}

/// `ab`: so many requests, each on a connection of its own, all of which must be answered with 2xx.
#[track_caller]
pub fn all_answered(prefix: &[&str], url: &str, count: usize) {
    let ab = needs::program("ab", "apache2-utils");
    let count = count.to_string();
    let ab = ab.to_str().expect("UTF-8");
    let words = [prefix, &[ab, "-q", "-n", &count, "-c", "16", "-s", "10", url]].concat();
    let outcome = command::run_within(Command::new(words[0]).args(&words[1..]), events::patience() * 3).ok();
    let value = |name: &str| {
        let line = outcome.stdout.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().last()).unwrap_or("0").to_owned()
    };
    assert_eq!(value("Complete requests:"), count, "{}", outcome.stdout);
    assert_eq!(value("Failed requests:"), "0", "{}", outcome.stdout);
    assert_eq!(value("Non-2xx responses:"), "0", "{}", outcome.stdout);
}
