//! Pods come and go in waves, and everything is back where it was.
//!
//! `CORTEN_TEST_WAVE_PODS` sets how many; 40 if absent.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use runtime_tests::{Agent, events, leaks};
use serde_json::json;

/// As many at a time.
const CLIENTS: usize = 4;

/// What there is of an agent, by number.
#[derive(Debug, PartialEq, Eq)]
struct Counts {
    descriptors: usize,
    processes: usize,
    mounts: usize,
    left: Vec<String>,
}

fn counts(agent: &Agent) -> Counts {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    Counts {
        descriptors: std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap().count(),
        processes: leaks::processes(agent.fixture.token()).len(),
        mounts: mountinfo.lines().filter(|line| line.contains(agent.fixture.token())).count(),
        left: agent.left(),
    }
}

/// Memory that is the agent's alone, in KiB.
fn memory(agent: &Agent) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", agent.pid())).unwrap();
    let line = text.lines().find(|line| line.starts_with("Private_Dirty:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// One pod's life: it is stopped or its container ends by itself, or it is removed while it runs.
fn live_and_die(agent: &Agent, number: usize) {
    let name = format!("wave-{number}");
    let pod = agent.pod(&name, &json!({"port_mappings": [{"container_port": 80, "protocol": number % 2}]}));
    let command = if number.is_multiple_of(3) { vec!["true"] } else { vec!["sleep", "1000"] };
    let container = agent.container((&name, &pod), "main", &json!({"command": command}));
    match number % 3 {
        0 => drop(agent.await_exit(&container)),
        1 => drop(agent.cri(&["stopp", &pod]).ok()),
        _ => {}
    }
    agent.tasks();
    agent.cri(&["rmp", "-f", &pod]).ok();
}

#[test]
fn everything_is_back_where_it_was() {
    let pods: usize = std::env::var("CORTEN_TEST_WAVE_PODS").map_or(40, |text| text.parse().unwrap());
    let agent = Agent::start();
    let wave = |numbers: std::ops::Range<usize>| {
        let numbers = std::sync::Mutex::new(numbers);
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    while let Some(number) = { numbers.lock().unwrap().next() } {
                        live_and_die(&agent, number);
                    }
                });
            }
        });
    };
    let threads = || std::fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap().count();
    let idle = threads();
    let settled = || {
        // What it has them for is done then: connections are closed, and what it watched is gone.
        events::eventually("the agent's idle threads have ended", || (threads() <= idle).then_some(()));
    };
    wave(0..8);
    settled();
    let (before, memory_before) = (counts(&agent), memory(&agent));
    wave(8..8 + pods);
    settled();
    let (after, memory_after) = (counts(&agent), memory(&agent));
    assert_eq!(before, after);
    assert!(before.left.is_empty(), "{before:?}");
    assert!(
        memory_after < memory_before + 4096,
        "the agent's memory grew from {memory_before} to {memory_after} KiB in {pods} pods"
    );
}
