use crate::world::{World, id, next_event, spec, until};
use corten::engine::record::Status;
use corten::engine::task::{TaskEvent, TaskStatus};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime_tests::events;
use std::os::fd::AsFd;
use std::process::Command;

fn kill_now(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

#[test]
fn a_killed_monitor_leaves_nothing_after_the_next_call() {
    let world = World::new();
    let task = world.task("orphan");
    let record = world.started(&task, "orphan-one", "sleep 1000");
    let Status::Running(run) = world.status(&record) else { panic!() };
    let monitor = world.monitor(&task);
    kill_now(monitor);
    assert!(events::process_end(monitor, events::patience()));
    assert!(matches!(world.engine.task_status(&id(&task)).unwrap(), TaskStatus::Stopped { .. }));
    assert!(matches!(world.status(&record), Status::Exited(ended) if ended.code == 255));
    assert!(!std::path::Path::new(&format!("/proc/{}/root", run.pid)).exists());
    world.engine.start_in_task(&record).unwrap_err();
}

#[test]
fn a_client_that_dies_during_a_call_leaves_the_task_whole() {
    let world = World::new();
    let task = world.task("client");
    // The connection is closed right after the request: as if the client were killed at that moment.
    for number in 0..5 {
        let record = world.container(&task, &format!("client-{number}"), "exit 4");
        let mut events = world.events(&task);
        let directory = std::fs::File::open(world.engine.task_run_directory(&id(&task))).unwrap();
        let socket = corten::sys::socket::connect_at(&directory, "control.sock").unwrap();
        let request = format!(r#"{{"start":{{"container":"{}"}}}}"#, record.id);
        corten::sys::socket::send(&socket, request.as_bytes(), &[]).unwrap();
        drop(socket);
        assert!(matches!(next_event(&mut events), TaskEvent::Started { .. }));
        assert!(matches!(next_event(&mut events), TaskEvent::Exited { .. }));
        assert_eq!(world.ended(&record).code, 4);
    }
    // Nonsense is not answered, and harms nobody.
    for nonsense in
        [&b"{"[..], b"[]", b"{\"start\":{}}", b"{\"start\":{\"container\":\"../..\"}}", &[0xff; 9000]]
    {
        let directory = std::fs::File::open(world.engine.task_run_directory(&id(&task))).unwrap();
        let socket = corten::sys::socket::connect_at(&directory, "control.sock").unwrap();
        corten::sys::socket::send(&socket, nonsense, &[]).unwrap();
        let received = corten::sys::socket::receive(&socket, &mut [0; 4096]);
        assert!(received.is_err() || received.is_ok_and(|received| received.length != 6));
    }
    assert_eq!(world.ended(&world.started(&task, "client-last", "exit 0")).code, 0);
}

/// The children of a process.
fn children(pid: i32) -> Vec<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

#[test]
fn a_killed_worker_leaves_nothing_of_its_start() {
    let world = World::new();
    let task = world.task("worker");
    let monitor = world.monitor(&task);
    let mut broken = 0;
    for number in 0..20 {
        let record = world.container(&task, &format!("worker-{number}"), "sleep 1000");
        let started = std::thread::scope(|scope| {
            let start = scope.spawn(|| world.engine.start_in_task(&record));
            // The worker is the only child that was forked from the monitor.
            let before: Vec<i32> = Vec::new();
            until(|| {
                let mut found = children(monitor);
                found.retain(|pid| !before.contains(pid));
                for pid in found {
                    if std::fs::read_to_string(format!("/proc/{pid}/comm"))
                        .is_ok_and(|name| name.trim() == "corten-monitor")
                    {
                        // Each a little later in its work.
                        std::thread::sleep(std::time::Duration::from_millis(number * 2));
                        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                        return true;
                    }
                }
                start.is_finished()
            });
            start.join().unwrap()
        });
        match started {
            Ok(()) => assert!(matches!(world.status(&record), Status::Running(_))),
            Err(_) => {
                broken += 1;
                assert!(
                    matches!(world.status(&record), Status::Created(Some(_))),
                    "{:?}",
                    world.status(&record)
                );
                let id = record.id().unwrap();
                assert!(!world.engine.run_directory(&id).exists());
                assert!(!world.engine.runtime_root().join(id.as_str()).exists());
            }
        }
        world.engine.delete(&world.store(), &record, true, true).unwrap();
    }
    assert!(broken > 0, "no worker was hit");
    // The monitor goes on.
    assert_eq!(world.ended(&world.started(&task, "worker-last", "exit 0")).code, 0);
}

#[test]
fn a_set_up_that_fails_leaves_nothing() {
    let world = World::new();
    let mut asked = spec("nothing");
    asked.sysctls.insert("net.no.such.thing".into(), "1".into());
    let error = world.engine.run_task(asked).unwrap_err();
    assert!(!error.to_string().is_empty());
    assert!(world.engine.tasks().unwrap().is_empty());
    // Its name is free again.
    world.task("nothing");
}

#[test]
fn the_end_of_who_made_the_task_is_not_its_end() {
    let world = World::new();
    let task = world.task("outlive");
    let monitor = world.monitor(&task);
    // It is in a session of its own, and no child of ours.
    let stat = std::fs::read_to_string(format!("/proc/{monitor}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    assert_ne!(fields[1], std::process::id().to_string());
    assert_ne!(fields[3], nix::unistd::getsid(None).unwrap().to_string());
    let name = std::fs::read_to_string(format!("/proc/{monitor}/comm")).unwrap();
    assert_eq!(name.trim(), "corten-monitor");
}

#[test]
fn the_death_of_who_makes_a_task_does_not_stop_its_monitor() {
    let world = World::new();
    let (task, lock) = world.engine.make_task(spec("alone")).unwrap();
    let (ours, theirs) = corten::sys::socket::pair().unwrap();
    corten::sys::socket::send(&ours, b"lock", &[lock.as_fd()]).unwrap();
    let status = Command::new(runtime_tests::needs::corten())
        .arg("monitor")
        .args([&world.engine.root, &world.engine.state])
        .args([&task.id, "auto"])
        .stdin(theirs)
        .status();
    assert!(status.unwrap().success());
    // As if we had been killed before the answer.
    drop((ours, lock));
    until(|| !matches!(world.engine.task_status(&id(&task)).unwrap(), TaskStatus::Making));
    assert_eq!(world.ended(&world.started(&task, "alone-one", "exit 6")).code, 6);
    world.engine.stop_task(&id(&task), None).unwrap();

    // One that was killed before it gave the lock leaves a task that the next call removes.
    let (task, lock) = world.engine.make_task(spec("abandoned")).unwrap();
    drop(lock);
    assert!(matches!(world.engine.task_status(&id(&task)).unwrap(), TaskStatus::Stopped { .. }));
}

#[test]
fn a_monitor_that_is_killed_at_any_moment_of_a_start_leaves_nothing() {
    let world = World::new();
    for number in 0..10 {
        let task = world.task(&format!("moment-{number}"));
        let monitor = world.monitor(&task);
        let first = world.started(&task, &format!("moment-{number}-a"), "sleep 1000");
        let second = world.container(&task, &format!("moment-{number}-b"), "sleep 1000");
        std::thread::scope(|scope| {
            let start = scope.spawn(|| world.engine.start_in_task(&second));
            std::thread::sleep(std::time::Duration::from_millis(number * 4));
            kill_now(monitor);
            // It was faster, or its monitor is lost.
            let _ = start.join().unwrap();
        });
        // It and its workers die at about the same time.
        until(|| matches!(world.engine.task_status(&id(&task)).unwrap(), TaskStatus::Stopped { .. }));
        assert!(!world.status(&first).is_live());
        until(|| !world.status(&second).is_live());
        world.engine.remove_task(&world.store(), &id(&task)).unwrap();
        assert!(world.engine.ids().unwrap().is_empty());
    }
}
