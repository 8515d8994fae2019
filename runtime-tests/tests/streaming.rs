//! Streams of exec, attach and port-forward under real clients: whole, in parallel, and without a trace afterwards.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use runtime_tests::{Agent, command, events};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::Instant;

const TRANSPORTS: [&str; 2] = ["spdy", "websocket"];

/// crictl with pipes, still running.
fn spawn(agent: &Agent, args: &[&str]) -> Child {
    let mut command = agent.crictl(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap()
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Text that does not repeat itself.
fn text(seed: u32, length: usize) -> String {
    let mut state = seed | 1;
    let letter = |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        char::from(b"0123456789abcdefghijklmnopqrstu\n"[(state >> 11) as usize % 32])
    };
    (0..length).map(letter).collect()
}

fn descriptors(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[test]
fn what_goes_through_a_process_is_whole() {
    let agent = Agent::start();
    let pod = agent.pod("whole", &json!({}));
    let container = agent.container(("whole", &pod), "main", &json!({"command": ["sleep", "1000"]}));
    let input = text(7, 10_000_000);
    let path = agent.fixture.file("input", &input);
    for transport in TRANSPORTS {
        let mut exec = agent.crictl(&["exec", "--transport", transport, "-i", &container, "cat"]);
        exec.stdin(File::open(&path).unwrap());
        let outcome = command::run_with_stdin(&mut exec, events::patience() * 2).ok();
        assert!(Sha256::digest(outcome.stdout.as_bytes()) == Sha256::digest(input.as_bytes()), "{transport}");
        // Its end, its error output and its exit code.
        let script = "cat; echo said >&2; exit 5";
        let mut exec = agent.crictl(&["exec", "-r", transport, "-i", &container, "sh", "-c", script]);
        exec.stdin(File::open(agent.fixture.file("short", "short")).unwrap());
        let outcome = command::run_with_stdin(&mut exec, events::patience()).fails().says("exit code 5");
        assert_eq!(outcome.stdout, "short");
        outcome.says("said\n");
        agent.cri(&["exec", "-r", transport, &container, "/nonexistent"]).fails().says("nonexistent");
        // What it leaves running is not waited for.
        let begin = Instant::now();
        let script = "sleep 900 & echo done";
        let outcome = agent.cri(&["exec", "-r", transport, &container, "sh", "-c", script]).ok();
        assert_eq!(outcome.stdout, "done\n");
        assert!(begin.elapsed() < events::patience() / 2, "{:?}", begin.elapsed());
    }
}

#[test]
fn what_goes_through_connections_is_whole() {
    let agent = Agent::start();
    // In a network namespace of its own, and in the host's, where a server can hold a hundred at once.
    let inside = agent.pod("inside", &json!({}));
    let over = json!({"command": ["nc", "-ll", "-p", "7", "-e", "cat"]});
    agent.container(("inside", &inside), "echo", &over);
    let host = json!({"linux": {"security_context": {"namespace_options": {"network": 2, "pid": 1}}}});
    let outside = agent.pod("outside", &host);
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let served = format!(":{}", server.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for connection in server.incoming().map_while(Result::ok) {
            std::thread::spawn(move || std::io::copy(&mut &connection, &mut &connection));
        }
    });
    for transport in TRANSPORTS {
        let (forward, port) = forwarded(&agent, transport, &inside, ":7");
        echoes(port, &text(3, 10_000_000));
        end(forward);
        let (forward, port) = forwarded(&agent, transport, &outside, &served);
        std::thread::scope(|scope| {
            for seed in 0..100 {
                scope.spawn(move || echoes(port, &text(seed * 2 + 1, 100_000)));
            }
        });
        end(forward);
    }
}

/// `crictl port-forward`, and the port on this side.
fn forwarded(agent: &Agent, transport: &str, pod: &str, port: &str) -> (Child, u16) {
    let mut forward = spawn(agent, &["port-forward", "-r", transport, pod, port]);
    let mut lines = events::Lines::new(forward.stdout.take().unwrap());
    let line = lines.until("Forwarding from 127.0.0.1:");
    let port = line.split("127.0.0.1:").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    std::thread::spawn(move || lines.drain());
    (forward, port)
}

/// Sends text, says that it ends, and expects the same back until the end.
fn echoes(port: u16, text: &str) {
    let connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
    connection.set_read_timeout(Some(events::patience())).unwrap();
    let mut back = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (&connection).write_all(text.as_bytes()).unwrap();
            connection.shutdown(Shutdown::Write).unwrap();
        });
        (&connection).read_to_end(&mut back).unwrap();
    });
    assert_eq!(back.len(), text.len());
    assert!(Sha256::digest(&back) == Sha256::digest(text.as_bytes()));
}

#[test]
fn clients_that_go_away_leave_nothing() {
    let agent = Agent::start();
    let pod = agent.pod("aborts", &json!({}));
    let over = json!({"stdin": true, "command": ["sh", "-c", "nc -ll -p 7 -e cat & while read l; do echo got $l; done"]});
    let container = agent.container(("aborts", &pod), "main", &over);
    let round = |number: usize| {
        let transport = TRANSPORTS[number % 2];
        let mut attached = spawn(&agent, &["attach", "-r", transport, "-i", &container]);
        let mut exec = spawn(&agent, &["exec", "-r", transport, "-i", &container, "cat"]);
        let mut deaf = spawn(&agent, &["exec", "-r", transport, "-i", &container, "busybox", "yes"]);
        let forward = spawn(&agent, &["port-forward", "-r", transport, &pod, ":7"]);
        if !number.is_multiple_of(3) {
            // All of them are connected when they go.
            let mut lines = events::Lines::new(attached.stdout.take().unwrap());
            attached.stdin.as_mut().unwrap().write_all(b"x\n").unwrap();
            lines.until("got x");
            let mut lines = events::Lines::new(exec.stdout.take().unwrap());
            exec.stdin.as_mut().unwrap().write_all(b"y\n").unwrap();
            lines.until("y");
            events::Lines::new(deaf.stdout.take().unwrap()).until("y");
        }
        agent.cri(&["exec", "--sync", &container, "sh", "-c", "sleep 1 & echo z"]).ok();
        for child in [attached, exec, deaf, forward] {
            end(child);
        }
    };
    // What is made once is there after the first round.
    round(1);
    let processes: Vec<i32> = agent.monitors().into_iter().chain([agent.pid()]).collect();
    let settled = |wanted: &[usize]| {
        events::eventually(&format!("as few descriptors as at first, {wanted:?}"), || {
            let now: Vec<usize> = processes.iter().map(|pid| descriptors(*pid)).collect();
            now.iter().zip(wanted).all(|(now, wanted)| now <= wanted).then_some(())
        });
    };
    // The last round's clients may be on their way out still: the least that was seen after one of three rounds counts.
    let mut base: Vec<usize> = processes.iter().map(|pid| descriptors(*pid)).collect();
    for number in 0..9 {
        round(number);
        for (least, pid) in base.iter_mut().zip(&processes).filter(|_| number < 2) {
            *least = (*least).min(descriptors(*pid));
        }
    }
    settled(&base);
    // Neither `cat`, whose input ended, nor busybox's `yes`, whose output nobody reads, goes on.
    events::eventually("no process is left of the clients' commands", || {
        let shown = agent.cri(&["exec", "--sync", &container, "ps", "-o", "comm"]).ok().stdout;
        let left = shown.lines().filter(|name| matches!(name.trim(), "cat" | "busybox")).count();
        (left == 0).then_some(())
    });
}
