//! Static pods: what is in the folder runs.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
#![expect(clippy::disallowed_methods, reason = "the tests own the directories that they work on")]

use runtime_tests::agent::IMAGE;
use runtime_tests::{Agent, command, events};
use serde_json::Value;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A Pod that runs `script` in one container, with further lines of its `spec`.
fn pod(name: &str, script: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: a}}}}\nspec:\n  \
         terminationGracePeriodSeconds: 1\n{spec}  containers:\n  - name: main\n    image: {IMAGE}\n    \
         imagePullPolicy: IfNotPresent\n    command: [sh, -c]\n    args: ['{script}']\n"
    )
}

/// Runs until it is told to stop.
const FOREVER: &str = "trap \"exit 0\" TERM; while :; do sleep 1 & wait; done";

/// Puts a file into the folder as a whole.
fn put(agent: &Agent, file: &str, text: &str) {
    let beside = agent.fixture.path().join(file);
    std::fs::write(&beside, text).expect("a manifest");
    std::fs::rename(&beside, agent.manifests().join(file)).expect("rename into the folder");
}

fn status(agent: &Agent) -> Value {
    let text = command::run(&mut agent.corten(&["agent", "status", "--format", "json"])).ok().stdout;
    serde_json::from_str(&text).expect("the status is JSON")
}

/// What the status says of a pod or file.
fn report(agent: &Agent, file: &str) -> Option<Value> {
    status(agent)["manifests"].as_array()?.iter().find(|one| one["file"] == file).cloned()
}

/// Waits until the pod of a file is in this state.
#[track_caller]
fn await_state(agent: &Agent, file: &str, state: &str) -> Value {
    await_report(agent, file, state, |report| report["state"] == state)
}

#[track_caller]
fn await_report(agent: &Agent, file: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    events::eventually(&format!("{file} is {what}"), || report(agent, file).filter(&holds))
}

/// Waits until nothing is said of a file any more.
#[track_caller]
fn await_gone(agent: &Agent, file: &str) {
    events::eventually(&format!("{file} is gone"), || report(agent, file).is_none().then_some(()));
}

/// What a container has written.
fn log(agent: &Agent, pod: &str, container: &str) -> String {
    let name = format!("static_default_{pod}_{container}");
    command::run(&mut agent.corten(&["logs", &name])).ok().stdout
}

#[track_caller]
fn await_log(agent: &Agent, pod: &str, container: &str, want: &str) -> String {
    let name = format!("static_default_{pod}_{container}");
    events::eventually(&format!("{want:?} is in the log of {name}"), || {
        let text = command::run(&mut agent.corten(&["logs", &name])).stdout;
        text.contains(want).then_some(text)
    })
}

#[test]
fn a_file_is_followed_when_it_comes_changes_and_goes() {
    let agent = Agent::start();
    put(&agent, "web.yaml", &pod("web", &format!("echo first; {FOREVER}"), ""));
    let first = await_state(&agent, "web.yaml", "running");
    assert_eq!((&first["pod"], &first["error"]), (&Value::from("default/web"), &Value::Null));
    assert_eq!(log(&agent, "web", "main"), "first\n");

    // Another layout of the same content changes nothing.
    put(&agent, "web.yaml", &format!("# a word\n{}", pod("web", &format!("echo first; {FOREVER}"), "")));
    put(&agent, "web.yaml", &pod("web", &format!("echo second; {FOREVER}"), ""));
    let second = await_report(&agent, "web.yaml", "made again", |report| {
        report["state"] == "running" && report["task"] != first["task"]
    });
    assert_eq!(log(&agent, "web", "main"), "second\n");

    // What is malformed is told, and the pod of the last valid content goes on.
    put(&agent, "web.yaml", &pod("web", "true", "  nodeSelector: {a: b}\n"));
    let refused = events::eventually("the manifest is refused", || {
        let all = status(&agent)["manifests"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|one| one["state"] == "refused")
    });
    assert_eq!(refused["error"], "spec.nodeSelector: unknown field `nodeSelector` (line 6, column 3)");
    assert_eq!(agent.tasks(), [second["task"].as_str().expect("an id")]);

    std::fs::remove_file(agent.manifests().join("web.yaml")).expect("remove the manifest");
    await_gone(&agent, "web.yaml");
    assert!(agent.tasks().is_empty());
}

#[test]
fn a_change_is_followed_within_a_second() {
    let agent = Agent::start();
    let began = Instant::now();
    put(&agent, "quick.yaml", &pod("quick", FOREVER, ""));
    await_state(&agent, "quick.yaml", "running");
    let took = began.elapsed();
    // The pod itself is there soon after; a debug build on a busy machine is given some more.
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn an_agent_that_was_killed_finds_its_pods_again() {
    let agent = Agent::start();
    for name in ["stays", "goes", "turns"] {
        put(&agent, &format!("{name}.yaml"), &pod(name, &format!("echo {name}; {FOREVER}"), ""));
    }
    let before =
        ["stays", "goes", "turns"].map(|name| await_state(&agent, &format!("{name}.yaml"), "running"));
    agent.kill();
    std::fs::remove_file(agent.manifests().join("goes.yaml")).expect("remove a manifest");
    put(&agent, "turns.yaml", &pod("turns", &format!("echo turned; {FOREVER}"), ""));
    agent.boot();
    let stays = await_state(&agent, "stays.yaml", "running");
    assert_eq!(stays["task"], before[0]["task"], "a pod was made again without need");
    await_report(&agent, "turns.yaml", "made again", |report| {
        report["state"] == "running" && report["task"] != before[2]["task"]
    });
    await_gone(&agent, "goes.yaml");
    assert_eq!(agent.tasks().len(), 2);
    assert_eq!(log(&agent, "stays", "main"), "stays\n");
    assert_eq!(log(&agent, "turns", "main"), "turned\n");
}

#[test]
fn a_pod_whose_monitor_is_killed_is_made_again() {
    let agent = Agent::start();
    put(&agent, "p.yaml", &pod("p", FOREVER, ""));
    let first = await_state(&agent, "p.yaml", "running");
    let monitors = agent.monitors();
    assert_eq!(monitors.len(), 1);
    let pid = nix::unistd::Pid::from_raw(monitors[0]);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("kill the monitor");
    await_report(&agent, "p.yaml", "made again", |report| {
        report["state"] == "running" && report["task"] != first["task"] && report["task"].is_string()
    });
    assert_eq!(agent.tasks().len(), 1);
}

#[test]
fn init_containers_run_in_order_before_the_others() {
    let agent = Agent::start();
    let init = format!(
        "  volumes: [{{name: shared, emptyDir: {{medium: Memory, sizeLimit: 1Mi}}}}]\n  initContainers:\n  \
         - {{name: one, image: '{IMAGE}', imagePullPolicy: Never, command: [sh, -c, 'echo one >> /s/order'], \
         volumeMounts: [{{name: shared, mountPath: /s}}]}}\n  \
         - {{name: side, image: '{IMAGE}', imagePullPolicy: Never, restartPolicy: Always, command: [sh, -c, \
         'echo side >> /s/order; while :; do sleep 1; done'], volumeMounts: [{{name: shared, mountPath: /s}}]}}\n  \
         - {{name: two, image: '{IMAGE}', imagePullPolicy: Never, command: [sh, -c, 'until grep side /s/order; do \
         :; done; echo two >> /s/order'], volumeMounts: [{{name: shared, mountPath: /s}}]}}\n"
    );
    let text = pod("init", &format!("echo main >> /s/order; cat /s/order; {FOREVER}"), &init)
        + "    volumeMounts: [{name: shared, mountPath: /s}]\n";
    put(&agent, "init.yaml", &text);
    await_state(&agent, "init.yaml", "running");
    assert_eq!(await_log(&agent, "init", "main", "main\n"), "one\nside\ntwo\nmain\n");
}

#[test]
fn restart_policies_are_kept() {
    let agent = Agent::start();
    put(&agent, "done.yaml", &pod("done", "exit 0", "  restartPolicy: OnFailure\n"));
    put(&agent, "failed.yaml", &pod("failed", "exit 3", "  restartPolicy: Never\n"));
    let first = format!(
        "  restartPolicy: Never\n  initContainers:\n  - {{name: one, image: '{IMAGE}', imagePullPolicy: Never, \
         command: ['false']}}\n"
    );
    put(&agent, "first.yaml", &pod("first", "true", &first));
    let done = await_state(&agent, "done.yaml", "succeeded");
    await_state(&agent, "failed.yaml", "failed");
    await_state(&agent, "first.yaml", "failed");
    assert!(agent.monitors().is_empty(), "a pod that has ended has a monitor");
    // One that has ended is not run again by the next agent.
    agent.kill();
    agent.boot();
    assert_eq!(await_state(&agent, "done.yaml", "succeeded")["task"], done["task"]);
    assert_eq!(agent.tasks().len(), 3);
}

#[test]
fn an_image_that_is_missing_is_told_and_tried_again() {
    let agent = Agent::start();
    let text = pod("late", FOREVER, "").replace(IMAGE, "localhost/late:1").replace("IfNotPresent", "Never");
    put(&agent, "late.yaml", &text);
    let failing = await_state(&agent, "late.yaml", "failing");
    let error = failing["error"].as_str().expect("an error");
    assert_eq!(error, "image localhost/late:1 is not in the store, and its imagePullPolicy is Never");
    agent.load(&runtime_tests::agent::image(), "localhost/late:1");
    await_state(&agent, "late.yaml", "running");
}

#[test]
fn a_container_gets_what_its_pod_says() {
    let agent = Agent::start();
    let host = agent.fixture.path().join("host");
    let spec = format!(
        "  hostname: called\n  hostAliases: [{{ip: 192.0.2.7, hostnames: [aliased]}}]\n  \
         dnsPolicy: None\n  dnsConfig: {{nameservers: [192.0.2.53], searches: [example.org], options: [{{name: ndots, \
         value: '2'}}]}}\n  securityContext: {{supplementalGroups: [4321], sysctls: [{{name: net.ipv4.ping_group_range, \
         value: '0 7'}}]}}\n  volumes:\n  - {{name: data, emptyDir: {{}}}}\n  - {{name: host, hostPath: {{path: \
         '{}', type: DirectoryOrCreate}}}}\n",
        host.display()
    );
    let script = "hostname; grep aliased /etc/hosts; cat /etc/resolv.conf; id -u; id -G; echo $POD $ADDRESS $REF; \
                  cat /proc/sys/net/ipv4/ping_group_range; echo $0; touch /part/made /host/made; \
                  touch /data/x && echo data; touch /never || echo read-only; grep NoNewPrivs /proc/self/status; \
                  echo end; sleep 1000";
    let text = pod("told", script, &spec)
        + "    env:\n    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}\n    - {name: ADDRESS, \
           valueFrom: {fieldRef: {fieldPath: status.podIP}}}\n    - {name: REF, value: 'ref-$(POD)'}\n    \
           volumeMounts:\n    - {name: data, mountPath: /data}\n    - {name: data, mountPath: /part, subPath: a/b}\n    \
           - {name: host, mountPath: /host}\n    securityContext: {runAsUser: 1234, runAsGroup: 1235, \
           readOnlyRootFilesystem: true, allowPrivilegeEscalation: false}\n    resources: {limits: {memory: 32Mi, \
           cpu: 500m}}\n";
    std::fs::create_dir(&host).expect("a directory");
    std::os::unix::fs::chown(&host, Some(1234), None).expect("chown");
    // The part belongs to root until the container's user may write there.
    let text = text.replace("touch /part/made /host/made", "ls -d /part; touch /host/made");
    put(&agent, "told.yaml", &text);
    await_state(&agent, "told.yaml", "running");
    let log = await_log(&agent, "told", "main", "end\n");
    for want in [
        "called\n",
        "192.0.2.7\taliased\n",
        "nameserver 192.0.2.53\n",
        "search example.org\n",
        "options ndots:2\n",
        "\n1234\n1235 4321\n",
        "\ntold 10.",
        " ref-told\n",
        "\n0\t7\n",
        "\n/part\n",
        "\ndata\n",
        "\nread-only\n",
        "NoNewPrivs:\t1\n",
    ] {
        assert!(log.contains(want), "{want:?} is not in\n{log}");
    }
    assert!(host.join("made").exists());
    let volumes: PathBuf = agent.root().join("agent/pods/static_default_told/volumes/data");
    assert!(volumes.join("a/b").is_dir() && volumes.join("x").exists());
    std::fs::remove_file(agent.manifests().join("told.yaml")).expect("remove the manifest");
    await_gone(&agent, "told.yaml");
    assert!(!agent.root().join("agent/pods/static_default_told").exists(), "volumes are left");
}

#[test]
fn a_link_in_a_volume_leads_to_nothing_of_the_host() {
    let agent = Agent::start();
    let secret = agent.fixture.path().join("secret/key");
    std::fs::create_dir(agent.fixture.path().join("secret")).expect("a directory");
    std::fs::write(&secret, "of the host").expect("a file");
    let volume = agent.fixture.path().join("volume");
    std::fs::create_dir(&volume).expect("a directory");
    std::os::unix::fs::symlink(secret.parent().expect("its directory"), volume.join("way")).expect("a link");
    let spec = format!("  volumes: [{{name: v, hostPath: {{path: '{}'}}}}]\n", volume.display());
    let text = pod("link", "ls -A /x; echo end; sleep 1000", &spec)
        + "    volumeMounts: [{name: v, mountPath: /x, subPath: way}]\n";
    put(&agent, "link.yaml", &text);
    let report = await_report(&agent, "link.yaml", "running or failing", |report| {
        matches!(report["state"].as_str(), Some("running" | "failing"))
    });
    if report["state"] == "running" {
        assert!(!await_log(&agent, "link", "main", "end\n").contains("key"));
    }
}

#[test]
fn two_files_with_the_same_pod_and_other_tools_files() {
    let agent = Agent::start();
    put(&agent, "a.yaml", &pod("same", FOREVER, ""));
    await_state(&agent, "a.yaml", "running");
    put(&agent, "b.yaml", &pod("same", FOREVER, ""));
    let refused = await_state(&agent, "b.yaml", "refused");
    assert_eq!(refused["error"], "pod default/same is already that of a.yaml");
    for file in [".c.yaml.swp", "c.yaml~", ".#c.yaml", "c.txt"] {
        std::fs::write(agent.manifests().join(file), pod("other", FOREVER, "")).expect("a file");
    }
    // The next file is seen after those: none of them became a pod.
    put(&agent, "d.yaml", "kind: Pod\n");
    await_state(&agent, "d.yaml", "refused");
    assert_eq!(agent.tasks().len(), 1);
    // With the first file gone, the second has the pod.
    std::fs::remove_file(agent.manifests().join("a.yaml")).expect("remove a manifest");
    await_state(&agent, "b.yaml", "running");
}

#[test]
fn a_published_port_leads_to_the_pod() {
    let agent = Agent::start();
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    let text = pod("web", "mkdir /www; echo hello > /www/index.html; exec httpd -f -p 80 -h /www", "")
        + &format!("    ports: [{{containerPort: 80, hostPort: {port}}}]\n");
    put(&agent, "web.yaml", &text);
    await_state(&agent, "web.yaml", "running");
    events::eventually("the server answers at the host's port", || {
        let url = format!("http://127.0.0.1:{port}/");
        let fetched = command::run(std::process::Command::new("busybox").args(["wget", "-qO-", &url]));
        (fetched.stdout == "hello\n").then_some(())
    });
}
