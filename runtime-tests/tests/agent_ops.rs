//! The agent as a service: its status, its configuration, its log, its end, and what is there after it was killed.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use runtime_tests::{Agent, command, events};
use serde_json::Value;
use std::process::Command;

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port()
}

fn status(agent: &Agent) -> Value {
    command::run(&mut agent.corten(&["agent", "status", "--format", "json"])).ok().json()
}

fn fetch(url: &str) -> String {
    command::run(Command::new("busybox").args(["wget", "-qO-", url])).ok().stdout
}

#[test]
fn the_status_tells_what_the_agent_does() {
    let port = free_port();
    let agent = Agent::start_with(&format!("[metrics]\nlisten = \"127.0.0.1:{port}\"\n"));
    let report = status(&agent);
    assert_eq!(report["pid"], agent.pid());
    let door = |name: &str| {
        let doors = report["doors"].as_array().expect("doors");
        doors.iter().find(|door| door["name"] == name).map(|door| door["address"].clone())
    };
    assert_eq!(door("cri"), Some(agent.fixture.path().join("cri.sock").display().to_string().into()));
    assert_eq!(door("metrics"), Some(format!("127.0.0.1:{port}").into()));
    assert!(door("streaming").is_some() && door("manifests").is_some() && door("ecs").is_none());
    assert_eq!(report["monitors"], 0);

    let pod = agent.pod("status", &serde_json::json!({}));
    let report = status(&agent);
    assert_eq!((&report["monitors"], &report["watched"]), (&Value::from(1), &Value::from(1)), "{report}");
    assert_eq!(report["tasks"]["cri"]["ready"], 1, "{report}");
    let text = command::run(&mut agent.corten(&["agent", "status"])).ok().stdout;
    assert!(text.contains("cri: 1 ready"), "{text}");

    let metrics = fetch(&format!("http://127.0.0.1:{port}/metrics"));
    for line in [
        "corten_tasks{door=\"cri\",state=\"ready\"} 1",
        "# TYPE corten_agent_request_seconds histogram",
        "# TYPE process_resident_memory_bytes gauge",
        "process_open_fds ",
    ] {
        assert!(metrics.lines().any(|found| found.starts_with(line)), "{line} is not in\n{metrics}");
    }
    assert!(metrics.contains("door=\"cri\",operation=\"RunPodSandbox\""), "{metrics}");
    agent.cri(&["rmp", "-f", &pod]).ok();
    agent.tasks();
    assert_eq!(status(&agent)["watched"], 0);
}

#[test]
fn without_an_agent_the_status_is_exit_code_1() {
    let fixture = runtime_tests::Fixture::new();
    let mut corten = Command::new(runtime_tests::needs::corten());
    corten.arg("--state").arg(fixture.path().join("none")).args(["agent", "status"]);
    command::run(&mut corten).exits(1).says("no agent runs on");
}

#[test]
fn only_root_opens_its_sockets() {
    use std::os::unix::fs::PermissionsExt;
    let agent = Agent::start();
    for path in [agent.state().join("agent.sock"), agent.fixture.path().join("cri.sock")] {
        let mode = std::fs::metadata(&path).expect("a socket").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
}

#[test]
fn one_agent_serves_a_root_and_a_killed_one_leaves_the_way_free() {
    let agent = Agent::start();
    let config = agent.fixture.path().join("agent.toml");
    let again = ["agent", "--config", config.to_str().expect("UTF-8")];
    command::run(&mut agent.corten(&again)).fails().says("another agent runs on");
    for _ in 0..3 {
        agent.kill();
        assert!(agent.state().join("agent.sock").exists(), "the killed agent's socket");
        command::run(&mut agent.corten(&["agent", "status"])).exits(1);
        agent.boot();
        agent.cri(&["version"]).ok();
        status(&agent);
    }
    // One that ends by SIGTERM takes its socket along.
    agent.stop();
    assert!(!agent.state().join("agent.sock").exists());
    agent.boot();
}

#[test]
fn a_configuration_that_cannot_be_used_is_told_and_nothing_is_started() {
    let fixture = runtime_tests::Fixture::new();
    let corten = |text: &str, more: &[&str]| {
        let path = fixture.path().join("agent.toml");
        std::fs::write(&path, text).expect("a configuration");
        let mut corten = Command::new(runtime_tests::needs::corten());
        corten.arg("--root").arg(fixture.path().join("root")).arg("--state").arg(fixture.path().join("run"));
        corten.args(["agent", "--config"]).arg(&path).args(more);
        command::run(&mut corten)
    };
    for (text, want) in [
        ("[cri]\nsocket = 'x'\n", "cri.socket = \"x\" in the configuration: is not absolute"),
        ("[cri]\nsockte = '/x'\n", "unknown field `sockte`"),
        ("[metrics]\nlisten = 'x'\n", "metrics.listen"),
        ("[ecs", "is malformed"),
    ] {
        corten(text, &[]).fails().says(want);
        corten(text, &["--check"]).fails().says(want);
        assert!(!fixture.path().join("run").exists(), "something was made with {text}");
    }
    let shown = corten("[ecs]\nregion = 'eu-central-1'\n", &["--check"]).ok().stdout;
    assert!(shown.contains("region = \"eu-central-1\"") && shown.contains("[streaming]"), "{shown}");
    assert!(!fixture.path().join("run").exists(), "--check made something");
}

#[test]
fn a_log_for_programs_is_one_json_object_a_line() {
    let fixture = runtime_tests::Fixture::new();
    let mut corten = Command::new(runtime_tests::needs::corten());
    corten.arg("--root").arg(fixture.path().join("root")).arg("--state").arg(fixture.path().join("run"));
    let path = fixture.file("agent.toml", "[cri]\nenabled = false\n");
    corten.args(["agent", "--log-format", "json", "--config"]).arg(path);
    corten.env("CORTEN_TEST", fixture.token());
    let mut child = corten.stderr(std::process::Stdio::piped()).spawn().expect("start the agent");
    let mut lines = events::Lines::new(child.stderr.take().expect("its standard error"));
    let line: Value = serde_json::from_str(&lines.next_line()).expect("JSON");
    assert_eq!((&line["level"], &line["message"]), (&Value::from("INFO"), &Value::from("open")));
    assert_eq!(line["door"], "status");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("signal the agent");
    let line: Value = serde_json::from_str(&lines.next_line()).expect("JSON");
    assert!(line["message"].as_str().expect("a message").contains("SIGINT"), "{line}");
    let ended = command::wait(&mut child, events::patience()).expect("its end");
    assert_eq!(ended.code(), Some(0));
}

#[test]
fn events_go_on_after_an_agent_was_killed() {
    let agent = Agent::start();
    let pod = agent.pod("events", &serde_json::json!({}));
    agent.kill();
    agent.boot();
    assert_eq!(status(&agent)["watched"], 1);
    // The monitor is killed; the new agent hears of it and cleans up.
    let monitors = agent.monitors();
    assert_eq!(monitors.len(), 1);
    let pid = nix::unistd::Pid::from_raw(monitors[0]);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("kill the monitor");
    let state = agent.state().join("tasks");
    agent.await_change(&state, "the task is torn down", || status(&agent)["watched"] == 0);
    agent.cri(&["rmp", "-f", &pod]).ok();
    agent.tasks();
}
