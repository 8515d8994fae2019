use crate::world::{World, id, next, next_event, until};
use corten::engine::options::{Limits, Options};
use corten::engine::record::Status;
use corten::engine::task::{ExecRequest, ExecStdio, Next, TaskEvent, TaskStatus};
use runtime_tests::events;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

#[test]
fn a_task_lives_and_dies_with_its_containers() {
    let world = World::new();
    let begun = Instant::now();
    let task = world.task("whole");
    println!("run_task: {:?}", begun.elapsed());
    assert!(matches!(world.engine.task_status(&id(&task)).unwrap(), TaskStatus::Ready(_)));
    let mut events = world.events(&task);
    let record = world.container(&task, "whole-one", "echo out; echo err >&2; exit 7");
    assert!(matches!(world.status(&record), Status::Created(None)));
    let begun = Instant::now();
    world.engine.start_in_task(&record).unwrap();
    println!("start_in_task: {:?}", begun.elapsed());
    assert!(
        matches!(next_event(&mut events), TaskEvent::Started { container, .. } if container == record.id)
    );
    let TaskEvent::Exited { container, ended, restarts } = next_event(&mut events) else { panic!() };
    assert_eq!((container.as_str(), ended.code, restarts), (record.id.as_str(), 7, false));
    assert_eq!(world.ended(&record), ended);
    let log = world.log(&record);
    assert!(log.contains(" stdout F out\n") && log.contains(" stderr F err\n"), "{log}");

    let sleeper =
        world.started(&task, "whole-two", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done");
    assert!(matches!(world.status(&sleeper), Status::Running(_)));
    // Before it has set its trap, it is deaf to the signal.
    until(|| world.output(&sleeper) == "ready\n");
    let begun = Instant::now();
    world.engine.stop_task(&id(&task), None).unwrap();
    println!("stop_task: {:?}", begun.elapsed());
    assert!(begun.elapsed() < events::patience());
    assert_eq!(world.ended(&sleeper).code, 3);
    assert!(matches!(next_event(&mut events), TaskEvent::Started { .. }));
    assert!(matches!(next_event(&mut events), TaskEvent::Exited { .. }));
    assert_eq!(next_event(&mut events), TaskEvent::Stopped);
    assert_eq!(next(&mut events), Next::Gone);
    assert!(matches!(world.engine.task_status(&id(&task)).unwrap(), TaskStatus::Stopped { .. }));
    assert!(!world.engine.state.join("tasks").join(&task.id).exists());
}

#[test]
fn a_start_that_fails_says_why_and_is_recorded() {
    let world = World::new();
    let task = world.task("bad");
    let mut record = world.container(&task, "bad-one", "true");
    record.command.args = vec!["/no/such/program".to_owned()];
    let path = world.engine.directory(&record.id().unwrap()).join("record.json");
    std::fs::write(path, serde_json::to_vec(&record).unwrap()).unwrap();
    let error = world.engine.start_in_task(&record).unwrap_err();
    let corten::engine::EngineError::Start { failure } = error else { panic!("{error:?}") };
    assert_eq!(failure.exit_code, 127, "{failure}");
    let Status::Created(Some(ended)) = world.status(&record) else { panic!() };
    assert_eq!((ended.code, ended.error.as_deref()), (127, Some(failure.chain.as_str())));
    // The task goes on.
    let good = world.started(&task, "bad-two", "exit 0");
    assert_eq!(world.ended(&good).code, 0);
}

#[test]
fn processes_are_added_to_containers() {
    let world = World::new();
    let task = world.task("exec");
    let record = world.started(&task, "exec-one", "sleep 1000");
    let run = |script: &str| {
        let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        let request = ExecRequest {
            args: vec!["sh".into(), "-c".into(), script.into()],
            env: vec!["GIVEN=yes".into()],
            ..ExecRequest::default()
        };
        let stdio = ExecStdio::Fds { stdin: None, stdout: Some(write), stderr: None };
        let exec = world.engine.exec_in_task(&record, &request, stdio).unwrap();
        let code = exec.wait(Some(events::patience())).unwrap();
        assert_eq!(exec.wait(None).unwrap(), code);
        let mut text = String::new();
        File::from(read).read_to_string(&mut text).unwrap();
        (code, text)
    };
    assert_eq!(run("echo $GIVEN; exit 5"), (Some(5), "yes\n".to_owned()));
    assert_eq!(run("kill -9 $$"), (Some(137), String::new()));
    // A real-time signal; others are reaped all the same.
    assert_eq!(run("kill -37 $$"), (Some(165), String::new()));
    assert_eq!(run("true").0, Some(0));
    // Larger than a packet: it goes through a file.
    let long = "x".repeat(100_000);
    assert_eq!(run(&format!("a={long}; echo ${{#a}}")), (Some(0), "100000\n".to_owned()));

    let request = ExecRequest { args: vec!["sleep".into(), "1000".into()], ..ExecRequest::default() };
    let exec = world.engine.exec_in_task(&record, &request, ExecStdio::Terminal).unwrap();
    assert!(exec.console.is_some());
    assert_eq!(exec.wait(Some(Duration::from_millis(50))).unwrap(), None);
    exec.kill().unwrap();
    assert_eq!(exec.wait(Some(events::patience())).unwrap(), Some(137));

    let request = ExecRequest { args: vec!["/no/such".into()], ..ExecRequest::default() };
    let null = || -> Option<OwnedFd> { None };
    let stdio = ExecStdio::Fds { stdin: null(), stdout: null(), stderr: null() };
    let error = world.engine.exec_in_task(&record, &request, stdio).unwrap_err();
    assert!(error.to_string().contains("/no/such"), "{error}");
}

#[test]
fn a_container_that_wants_too_much_memory_is_told_so() {
    let world = World::new();
    let task = world.task("memory");
    let limits = Limits { memory: Some(20 << 20), memory_swap: Some(20 << 20), ..Limits::default() };
    let options = Options { limits, ..Options::default() };
    let record = world.container_with(&task, "memory-one", "x=abcdefgh; while :; do x=$x$x; done", options);
    world.engine.start_in_task(&record).unwrap();
    let ended = world.ended(&record);
    assert_eq!((ended.code, ended.oom_killed), (137, true));
}
