use crate::world::{World, id, text_of, until};
use corten::engine::attach::{FromClient, FromMonitor, MAX_FRAME, Streams};
use corten::engine::client::Client;
use corten::engine::options::{Options, TaskOptions};
use corten::engine::record::Record;
use runtime_tests::events;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

#[test]
fn every_byte_of_ten_containers_is_in_its_log_once() {
    let world = World::new();
    let task = world.task("ten");
    let records: Vec<Record> = (0..10)
        .map(|number| {
            let script =
                format!("i=0; while [ $i -lt 2000 ]; do echo line {number} $i; i=$((i+1)); done; printf end");
            world.started(&task, &format!("ten-{number}"), &script)
        })
        .collect();
    for (number, record) in records.iter().enumerate() {
        assert_eq!(world.ended(record).code, 0);
        let mut expected: String = (0..2000).map(|line| format!("line {number} {line}\n")).collect();
        expected.push_str("end");
        assert_eq!(world.output(record), expected);
    }
    // All end at once.
    let sleepers: Vec<Record> =
        (0..10).map(|number| world.started(&task, &format!("sleep-{number}"), "sleep 1000")).collect();
    world.engine.stop_task(&id(&task), Some(Duration::from_millis(100))).unwrap();
    for record in &sleepers {
        assert_eq!(world.ended(record).code, 137);
    }
}

fn with_log(path: &Path) -> Options {
    Options {
        task: TaskOptions { log_path: Some(path.to_owned()), ..TaskOptions::default() },
        ..Options::default()
    }
}

#[test]
fn a_log_that_is_renamed_goes_on_in_a_new_file() {
    let world = World::new();
    let task = world.task("rotate");
    let path = world.fixture.path().join("rotated.log");
    let script = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done";
    let record = world.container_with(&task, "rotate-one", script, with_log(&path));
    world.engine.start_in_task(&record).unwrap();
    let mut names = Vec::new();
    for number in 0..20 {
        let aside = world.fixture.path().join(format!("rotated.{number}"));
        std::fs::rename(&path, &aside).unwrap();
        names.push(aside);
        // It may have ended meanwhile, which closes its log.
        if world.engine.reopen_log(&record).is_err() {
            break;
        }
    }
    assert_eq!(world.ended(&record).code, 0);
    names.push(path);
    let all: String = names.iter().filter_map(|name| std::fs::read_to_string(name).ok()).collect();
    let expected: String = (0..3000).map(|line| format!("line {line}\n")).collect();
    assert_eq!(text_of(&all), expected);
    world.engine.reopen_log(&record).unwrap_err();
}

fn interactive(stdin_once: bool) -> Options {
    Options {
        interactive: true,
        task: TaskOptions { stdin_once, ..TaskOptions::default() },
        ..Options::default()
    }
}

/// Connects, gives some standard input, waits for its echo and goes.
fn give(world: &World, record: &Record, text: &str) {
    let streams = Streams { stdin: true, output: true };
    let client = Client::connect(&world.engine, &record.id().unwrap(), streams).unwrap().unwrap();
    corten::sys::socket::send(client.socket(), &FromClient::Stdin(text.as_bytes()).encode(), &[]).unwrap();
    let mut buffer = [0; MAX_FRAME];
    let mut heard = String::new();
    while heard != text {
        let received = corten::sys::socket::receive(client.socket(), &mut buffer).unwrap();
        match FromMonitor::decode(&buffer[..received.length]).unwrap() {
            FromMonitor::Output(_, bytes) => heard.push_str(std::str::from_utf8(bytes).unwrap()),
            other => panic!("{other:?}"),
        }
    }
    corten::sys::socket::send(client.socket(), &FromClient::StdinEof.encode(), &[]).unwrap();
}

#[test]
fn standard_input_ends_with_the_first_client_only_if_asked() {
    let world = World::new();
    let task = world.task("input");
    let once = world.container_with(&task, "input-once", "cat; echo over", interactive(true));
    world.engine.start_in_task(&once).unwrap();
    give(&world, &once, "hello\n");
    assert_eq!(world.ended(&once).code, 0);
    assert_eq!(world.output(&once), "hello\nover\n");

    let kept = world.container_with(&task, "input-kept", "cat", interactive(false));
    world.engine.start_in_task(&kept).unwrap();
    give(&world, &kept, "one\n");
    give(&world, &kept, "two\n");
    world.engine.stop(&kept, Some(Duration::ZERO)).unwrap();
    assert_eq!(world.output(&kept), "one\ntwo\n");
}

/// KiB of memory that a process shares with nobody.
fn private_dirty(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let fields: BTreeMap<&str, u64> = text
        .lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name, value.trim().strip_suffix(" kB")?.parse().ok()?))
        })
        .collect();
    fields["Private_Dirty"]
}

#[test]
fn an_idle_monitor_is_small() {
    let world = World::new();
    let task = world.task("small");
    for name in ["small-one", "small-two"] {
        world.started(&task, name, "yes | head -n 100000; sleep 1000");
    }
    // Processes that are added and end, too.
    let record = world.engine.find("small-one").unwrap();
    let request = corten::engine::task::ExecRequest { args: vec!["true".into()], ..Default::default() };
    let stdio = corten::engine::task::ExecStdio::Fds { stdin: None, stdout: None, stderr: None };
    let exec = world.engine.exec_in_task(&record, &request, stdio).unwrap();
    assert_eq!(exec.wait(Some(events::patience())).unwrap(), Some(0));
    let pid = world.monitor(&task);
    // Without optimization the code's own data is larger.
    let release = runtime_tests::needs::corten().parent().is_some_and(|path| path.ends_with("release"));
    let limit = if release { 400 } else { 4000 };
    let mut dirty = private_dirty(pid);
    until(|| {
        dirty = private_dirty(pid);
        dirty <= limit
    });
    println!("private dirty memory of an idle monitor with two containers: {dirty} KiB");
}
