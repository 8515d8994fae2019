//! Monitors and commands that are killed.
use crate::world::{IMAGE, World};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime_tests::events;
use runtime_tests::kill_point::{Fault, Victim, run_until};

fn pid(value: &serde_json::Value) -> i32 {
    i32::try_from(value.as_i64().unwrap()).unwrap()
}

#[test]
fn a_killed_monitor_is_told_honestly_and_everything_can_be_removed() {
    let world = World::new();
    world.background(&["--name", "m"], &["sleep", "1000"]);
    let state = world.inspect("m")["State"].clone();
    kill(Pid::from_raw(pid(&state["MonitorPid"])), Signal::SIGKILL).unwrap();
    assert!(events::process_end(pid(&state["MonitorPid"]), events::patience()));
    assert_eq!(world.inspect("m")["State"]["Status"], "running (unmonitored)");
    assert!(world.run(&["ps"]).ok().stdout.contains("unmonitored"));
    assert_eq!(world.run(&["exec", "m", "echo", "still there"]).ok().stdout, "still there\n");
    world.run(&["delete", "m"]).exits(125);
    world.run(&["delete", "--force", "m"]).ok();
    assert!(events::process_end(pid(&state["Pid"]), events::patience()));
    world.assert_nothing_left();
}

#[test]
fn a_container_that_ended_unseen_can_be_started_again() {
    let world = World::new();
    world.background(&["--name", "m"], &["sleep", "1000"]);
    let state = world.inspect("m")["State"].clone();
    for process in ["MonitorPid", "Pid"] {
        kill(Pid::from_raw(pid(&state[process])), Signal::SIGKILL).unwrap();
        assert!(events::process_end(pid(&state[process]), events::patience()));
    }
    assert_eq!(world.inspect("m")["State"]["Status"], "exited");
    world.run(&["wait", "m"]).exits(125).says("monitor");
    world.run(&["start", "m"]).ok();
    assert_eq!(world.inspect("m")["State"]["Status"], "running");
}

#[test]
fn a_monitor_needs_little_memory_and_holds_nothing_of_its_caller() {
    let world = World::new();
    // The pages of the program itself are the page cache's, and count as private only while one process alone
    // has them: the second monitor is that other one.
    world.background(&["--name", "other"], &["sleep", "1000"]);
    world.background(&["--name", "m"], &["sleep", "1000"]);
    let monitor = pid(&world.inspect("m")["State"]["MonitorPid"]);
    let rollup = std::fs::read_to_string(format!("/proc/{monitor}/smaps_rollup")).unwrap();
    let private: u64 = rollup
        .lines()
        .filter(|line| line.starts_with("Private_"))
        .map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap())
        .sum();
    assert!(private <= 500, "{private} KiB: {rollup}");
    let fds: Vec<_> = std::fs::read_dir(format!("/proc/{monitor}/fd"))
        .unwrap()
        .flatten()
        .map(|entry| std::fs::read_link(entry.path()).unwrap_or_default().display().to_string())
        .collect();
    assert!(fds.len() <= 10, "{fds:?}");
    let tasks = std::fs::read_dir(format!("/proc/{monitor}/task")).unwrap().count();
    assert_eq!(tasks, 1);
}

/// Nothing of a container is left when `run`, or `run` and its monitor, are killed at any of ten points.
#[test]
fn killed_anywhere_nothing_is_left_after_delete() {
    let world = World::new();
    let command = || world.corten(&["run", "-d", "--name", "k", IMAGE, "sleep", "1000"]);
    let stops = run_until(&command(), Fault::Kill(Victim::Tree), None, events::patience()).points;
    world.clean_up();
    for victim in [Victim::Tree, Victim::Command, Victim::Child] {
        for point in (1..=10).map(|part| stops * part / 11) {
            run_until(&command(), Fault::Kill(victim), Some(point), events::patience());
            world.clean_up();
            let left = world.left();
            assert!(left.is_empty(), "left after {victim:?} was killed at {point} of {stops}: {left:?}");
            world.fixture.assert_clean();
        }
    }
}
