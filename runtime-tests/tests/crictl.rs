//! A pod's whole life under crictl, and what it refuses.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use runtime_tests::agent::IMAGE;
use runtime_tests::cri::{BUSYBOX, NGINX, lines_of, published};
use runtime_tests::terminal::OnTerminal;
use runtime_tests::{Agent, command, events};
use serde_json::json;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};

/// crictl with pipes, still running.
fn spawn(agent: &Agent, args: &[&str]) -> Child {
    let mut command = agent.crictl(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap()
}

#[track_caller]
fn ends(child: &mut Child) -> i32 {
    command::wait(child, events::patience()).expect("it did not end").code().expect("it was killed")
}

#[test]
fn a_pods_whole_life() {
    let dir = tempfile::tempdir().unwrap();
    let (_registry, mirror) = published(dir.path());
    let agent = Agent::start_with(&mirror);
    agent.cri(&["pull", BUSYBOX]).ok();
    assert!(agent.cri(&["images"]).ok().stdout.contains("e2e-test-images/busybox"));

    let pod = agent.pod("life", &json!({"hostname": "alive", "labels": {"app": "life"}}));
    let listed = agent.cri(&["pods", "--label", "app=life", "--state", "Ready", "-q"]).ok().stdout;
    assert_eq!(listed.trim(), pod);
    let script =
        "trap 'echo stopping; exit 3' TERM; echo begun >&2; while read line; do echo got $line; done";
    let over = json!({
        "image": {"image": BUSYBOX}, "stdin": true, "command": ["sh", "-c", script],
        "envs": [{"key": "COLOUR", "value": "rust"}], "labels": {"part": "main"},
    });
    let container = agent.try_create(("life", &pod), "main", &over).ok().stdout.trim().to_owned();
    assert_eq!(agent.inspect(&container)["status"]["state"], "CONTAINER_CREATED");
    agent.cri(&["start", &container]).ok();
    assert_eq!(agent.inspect(&container)["status"]["state"], "CONTAINER_RUNNING");

    let said = agent.cri(&["exec", &container, "sh", "-c", "hostname; echo $COLOUR"]).ok();
    assert_eq!(said.stdout, "alive\nrust\n");
    agent.cri(&["exec", "--sync", &container, "true"]).ok();
    agent.cri(&["exec", &container, "sh", "-c", "exit 7"]).fails().says("7");

    let mut attached = spawn(&agent, &["attach", "-i", &container]);
    let mut lines = events::Lines::new(attached.stdout.take().unwrap());
    let mut input = attached.stdin.take().unwrap();
    input.write_all(b"one\n").unwrap();
    assert_eq!(lines.next_line(), "got one");
    attached.kill().unwrap();
    attached.wait().unwrap();

    let mut follow = spawn(&agent, &["logs", "-f", &container]);
    let mut lines = events::Lines::new(follow.stdout.take().unwrap());
    lines.until("got one");
    let stats = agent.cri(&["stats", "-o", "json", &container]).ok().json();
    let memory = stats["stats"][0]["memory"]["workingSetBytes"]["value"].as_str().unwrap_or("0");
    assert!(memory.parse::<u64>().unwrap() > 0, "{stats}");
    assert_eq!(stats["stats"][0]["attributes"]["labels"]["part"], "main", "{stats}");

    agent.cri(&["stop", "-t", "10", &container]).ok();
    lines.until("stopping");
    assert_eq!(ends(&mut follow), 0, "logs -f ends with the container");
    let status = agent.inspect(&container)["status"].clone();
    assert_eq!((&status["state"], &status["exitCode"]), (&json!("CONTAINER_EXITED"), &json!(3)), "{status}");
    let log = std::fs::read_to_string(agent.log_directory("life").join("main.log")).unwrap();
    let said: Vec<_> = lines_of(&log);
    let said: Vec<_> = said.iter().map(|(stream, text)| (stream.as_str(), text.as_str())).collect();
    assert_eq!(said, [("stderr", "begun"), ("stdout", "got one"), ("stdout", "stopping")]);

    agent.tasks();
    agent.cri(&["stopp", &pod]).ok();
    agent.cri(&["stopp", &pod]).ok();
    assert_eq!(agent.cri(&["pods", "--state", "NotReady", "-q"]).ok().stdout.trim(), pod);
    agent.cri(&["rmp", &pod]).ok();
    assert_eq!(agent.cri(&["pods", "-q"]).ok().stdout.trim(), "");
    assert_eq!(agent.cri(&["ps", "-a", "-q"]).ok().stdout.trim(), "");
    agent.cri(&["rmi", BUSYBOX]).ok();
    assert!(agent.left().is_empty(), "{:?}", agent.left());
}

#[test]
fn exec_on_a_terminal() {
    let agent = Agent::start();
    let pod = agent.pod("terminal", &json!({}));
    let container = agent.container(("terminal", &pod), "main", &json!({"command": ["sleep", "1000"]}));
    let mut shell = OnTerminal::new(&mut agent.crictl(&["exec", "-it", &container, "sh"]));
    shell.types("tty; echo a'b'\n");
    shell.until("/dev/pts/");
    shell.until("ab");
    // The size comes on a stream of its own, some time after the program has begun.
    shell.types("while [ \"$(stty size)\" != '33 77' ]; do sleep 0.05; done; echo si'zed'\n");
    shell.until("sized");
    shell.resize("40", "100");
    shell.types("while [ \"$(stty size)\" != '40 100' ]; do sleep 0.05; done; echo re'sized'\n");
    shell.until("resized");
    shell.types("exit 6\n");
    assert_ne!(ends(&mut shell.child), 0);
    assert!(shell.edits_lines());
}

#[test]
fn containers_of_a_pod_share_localhost_and_ports_are_forwarded() {
    let dir = tempfile::tempdir().unwrap();
    let (_registry, mirror) = published(dir.path());
    let agent = Agent::start_with(&mirror);
    agent.cri(&["pull", NGINX]).ok();
    agent.cri(&["pull", BUSYBOX]).ok();
    let pod = agent.pod("shared", &json!({}));
    agent.container(("shared", &pod), "server", &json!({"image": {"image": NGINX}}));
    let over = json!({"image": {"image": BUSYBOX}, "command": ["sleep", "1000"]});
    let client = agent.container(("shared", &pod), "client", &over);
    let fetch = "until wget -q -O - http://localhost/ 2>/dev/null; do sleep 0.05; done";
    let page = agent.cri(&["exec", &client, "timeout", "10", "sh", "-c", fetch]).ok().stdout;
    assert!(page.contains("Welcome to nginx"), "{page}");
    // Their processes stay apart: the pod asked for a PID namespace for each.
    let processes = agent.cri(&["exec", &client, "ps"]).ok().stdout;
    assert!(!processes.contains("nginx"), "{processes}");

    let mut forward = spawn(&agent, &["port-forward", &pod, ":80"]);
    let mut lines = events::Lines::new(forward.stdout.take().unwrap());
    let line = lines.until("Forwarding from 127.0.0.1:");
    let port = line.split("127.0.0.1:").nth(1).unwrap().split(' ').next().unwrap().parse::<u16>().unwrap();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(events::patience())).unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("Welcome to nginx"), "{answer}");
    }
    forward.kill().unwrap();
    forward.wait().unwrap();
}

#[test]
fn bad_requests_are_refused_and_leave_nothing() {
    let agent = Agent::start();
    for verb in ["inspect", "inspectp", "start", "logs"] {
        agent.cri(&[verb, "0123456789abcdef"]).fails();
    }
    agent.cri(&["exec", "--sync", "0123456789abcdef", "true"]).fails().says("NotFound");
    agent.cri(&["inspectp", "../../etc"]).fails();
    agent.cri(&["pull", "no such image"]).fails();
    agent.cri(&["pull", "127.0.0.1:9/missing:1"]).fails();

    // In a PID namespace of an unknown kind; with a sysctl that is not a namespace's; with a port that nobody has.
    let kind = json!({"linux": {"security_context": {"namespace_options": {"pid": 9}}}});
    agent.try_pod("kind", &kind).fails().says("InvalidArgument");
    agent.try_pod("sysctl", &json!({"linux": {"sysctls": {"vm.swappiness": "1"}}})).fails();
    agent.try_pod("port", &json!({"port_mappings": [{"container_port": 70_000, "host_port": 1}]})).fails();
    assert!(agent.tasks().is_empty(), "a refused pod left a task");

    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let ports = json!({"port_mappings": [{"container_port": 80, "host_port": port}]});
    agent.try_pod("taken", &ports).fails().says(&port.to_string());
    assert!(agent.tasks().is_empty(), "a pod whose port is taken left a task");
    drop(taken);
    let first = agent.pod("first", &ports);
    agent.try_pod("second", &ports).fails().says(&port.to_string());
    agent.try_pod("first", &json!({})).fails();
    assert_eq!(agent.tasks().len(), 1);

    let pod = ("first", first.as_str());
    agent
        .try_create(pod, "a", &json!({"image": {"image": "localhost/nothing:here"}}))
        .fails()
        .says("localhost/nothing");
    agent.try_create(pod, "b", &json!({"command": ["sh"], "mounts": [{"host_path": "/etc/hosts", "container_path": "/etc/../etc/hosts", "propagation": 9}]})).fails();
    agent.try_create(("first", "0123456789abcdef"), "d", &json!({})).fails().says("NotFound");
    assert_eq!(agent.cri(&["ps", "-a", "-q"]).ok().stdout, "", "a refused container is there");

    // It is made, but its program is not there: the start fails, says why, and the container can be removed.
    let container =
        agent.try_create(pod, "e", &json!({"command": ["/not/there"]})).ok().stdout.trim().to_owned();
    agent.cri(&["start", &container]).fails().says("/not/there");
    agent.cri(&["rm", &container]).ok();
    agent.cri(&["rmi", "localhost/nothing:here"]).fails();
    assert!(agent.cri(&["images", "-q"]).ok().stdout.lines().count() == 1, "{IMAGE} alone");
}

#[test]
fn an_exec_is_bounded_and_does_not_wait_for_what_it_left() {
    let agent = Agent::start();
    let pod = agent.pod("bounds", &json!({}));
    let container = agent.container(("bounds", &pod), "main", &json!({"command": ["sleep", "1000"]}));
    let resident = || -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    // `crictl exec --sync` has no stream: the agent collects what the program says (CVE-2022-31030).
    let before = resident();
    let flood = [
        "exec",
        "--sync",
        "--timeout",
        "5",
        &container,
        "sh",
        "-c",
        "while :; do echo yyyyyyyyyyyyyyyyyyyyyyyy; done",
    ];
    let begin = std::time::Instant::now();
    agent.cri(&flood).fails();
    assert!(begin.elapsed() < events::patience(), "{:?}", begin.elapsed());
    assert!(resident() < before + 20 * 1024, "the agent grew from {before} to {} KiB", resident());
    // A child that keeps the pipe open is not waited for (CVE-2026-53495).
    let begin = std::time::Instant::now();
    agent.cri(&["exec", "--sync", &container, "sh", "-c", "sleep 900 & echo done"]).ok();
    assert!(begin.elapsed() < events::patience() / 2, "{:?}", begin.elapsed());
}
