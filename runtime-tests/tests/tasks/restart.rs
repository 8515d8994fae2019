use crate::world::{World, id, next_event};
use corten::engine::options::{Options, RestartPolicy, TaskOptions};
use corten::engine::record::Status;
use corten::engine::task::TaskEvent;
use std::time::Duration;

fn with(restart: RestartPolicy) -> Options {
    Options { task: TaskOptions { restart, ..TaskOptions::default() }, ..Options::default() }
}

/// At once, whatever the exit code was.
fn at_once() -> Options {
    with(RestartPolicy::AfterRunning { ignored: vec![9], period: 0 })
}

#[test]
fn a_container_is_started_again_until_its_code_is_ignored() {
    let world = World::new();
    let task = world.task("again");
    let mut events = world.events(&task);
    // The writable layer stays, so that it can count its runs.
    let script = "echo run >> /runs; n=$(wc -l < /runs); echo run $n; [ $n = 3 ] && exit 9; exit 1";
    let record = world.container_with(&task, "again-one", script, at_once());
    world.engine.start_in_task(&record).unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        if let TaskEvent::Exited { ended, restarts, .. } = next_event(&mut events) {
            seen.push((ended.code, ended.restarts, restarts));
        }
    }
    assert_eq!(seen, [(1, 0, true), (1, 1, true), (9, 2, false)]);
    assert_eq!(world.ended(&record).restarts, 2);
    assert_eq!(world.output(&record), "run 1\nrun 2\nrun 3\n");
}

#[test]
fn who_stops_a_container_does_not_see_it_again() {
    let world = World::new();
    let task = world.task("halt");
    let record = world.container_with(&task, "halt-one", "sleep 1000", at_once());
    let mut events = world.events(&task);
    world.engine.start_in_task(&record).unwrap();
    assert!(matches!(next_event(&mut events), TaskEvent::Started { .. }));
    world.engine.stop(&record, Some(Duration::from_millis(50))).unwrap();
    let TaskEvent::Exited { ended, restarts, .. } = next_event(&mut events) else { panic!() };
    assert_eq!((ended.code, restarts), (137, false));
    // Started by request, it is restarted again.
    world.engine.start_in_task(&record).unwrap();
    assert!(matches!(next_event(&mut events), TaskEvent::Started { .. }));
    let Status::Running(run) = world.status(&record) else { panic!() };
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(run.pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    assert!(matches!(next_event(&mut events), TaskEvent::Exited { restarts: true, .. }));
    assert!(matches!(next_event(&mut events), TaskEvent::Started { .. }));
}

#[test]
fn a_pause_before_a_restart_ends_with_a_stop_or_a_removal() {
    let world = World::new();
    let task = world.task("pause");
    let mut events = world.events(&task);
    let record = world.container_with(&task, "pause-one", "exit 0", with(RestartPolicy::Always));
    world.engine.start_in_task(&record).unwrap();
    assert!(matches!(next_event(&mut events), TaskEvent::Started { .. }));
    assert!(matches!(next_event(&mut events), TaskEvent::Exited { restarts: true, .. }));
    // It waits for 10 s: a start by request is not made to wait.
    world.engine.start_in_task(&record).unwrap();
    assert!(matches!(next_event(&mut events), TaskEvent::Started { .. }));
    assert!(matches!(next_event(&mut events), TaskEvent::Exited { restarts: true, .. }));
    world.engine.delete(&world.store(), &record, false, true).unwrap();
    world.engine.stop_task(&id(&task), None).unwrap();
    assert_eq!(next_event(&mut events), TaskEvent::Stopped);
}

#[test]
fn a_failure_alone_is_tried_again_on_failure() {
    let world = World::new();
    let task = world.task("fail");
    let mut events = world.events(&task);
    for (name, script, again) in [("fail-one", "exit 0", false), ("fail-two", "exit 1", true)] {
        let record = world.container_with(&task, name, script, with(RestartPolicy::OnFailure));
        world.engine.start_in_task(&record).unwrap();
        assert!(matches!(next_event(&mut events), TaskEvent::Started { .. }));
        let TaskEvent::Exited { restarts, .. } = next_event(&mut events) else { panic!() };
        assert_eq!(restarts, again, "{name}");
    }
}
