//! The life of a container: create, start, state, kill, delete, run, list, ps.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use nix::sys::signal::Signal;
use runtime_tests::{Fixture, events, needs, run};
use serde_json::{Value, json};

const WAIT: &[&str] = &["/probe", "wait"];

#[test]
fn whole_life() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(["/probe", "trap", "SIGTERM", "7"]);
    let mut lines = bundle.created();
    assert_eq!(bundle.status(), "created");
    bundle.oci("start").ok();
    assert_eq!(lines.next_line(), "ready");
    assert_eq!(bundle.status(), "running");
    let pid = bundle.pid();
    bundle.kill("TERM").ok();
    bundle.wait(pid);
    assert_eq!(bundle.status(), "stopped");
    bundle.oci("delete").ok();
    bundle.oci("state").exits(1).says("does not exist");
    fixture.assert_clean();
}

#[test]
fn create_does_not_run_the_program() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().script("echo ran; touch /ran");
    let mut lines = bundle.created();
    assert!(!needs::exists(bundle.rootfs().join("ran")), "the program ran before start");
    bundle.oci("start").ok();
    assert_eq!(lines.next_line(), "ran");
    assert_eq!(lines.try_line(), None);
}

#[test]
fn state_has_runcs_keys_in_runcs_form() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(WAIT).set("/annotations", json!({"org.example.key": "value"}));
    let _lines = bundle.created();
    let text = bundle.oci("state").ok().stdout;
    assert!(text.starts_with("{\n  \"ociVersion\": \""), "two-space indentation, ociVersion first: {text}");
    let state: Value = serde_json::from_str(&text).unwrap();
    let mut keys: Vec<_> = state.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    let expected =
        ["annotations", "bundle", "created", "id", "ociVersion", "owner", "pid", "rootfs", "status"];
    assert_eq!(keys, expected);
    assert_eq!(state["id"], bundle.id.as_str());
    assert_eq!(state["bundle"], bundle.dir.to_str().unwrap());
    assert_eq!(state["rootfs"], bundle.rootfs().to_str().unwrap());
    assert_eq!(state["annotations"], json!({"org.example.key": "value"}));
    let created = state["created"].as_str().unwrap();
    assert!(created.len() >= 20 && created.ends_with('Z') && created.as_bytes()[10] == b'T', "{created}");
    let pid = bundle.pid();
    assert!(needs::exists(format!("/proc/{pid}")));
    bundle.kill_and_wait("KILL");
    let stopped = bundle.state();
    assert_eq!((&stopped["status"], &stopped["pid"]), (&json!("stopped"), &json!(0)));
}

#[test]
fn state_without_annotations_has_no_such_key() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(WAIT);
    let _lines = bundle.created();
    assert_eq!(bundle.state().get("annotations"), None);
}

#[test]
fn queries_write_nothing_to_stderr() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(WAIT);
    let _lines = bundle.started();
    for outcome in [
        bundle.oci("state"),
        fixture.run_oci(["ps", "--format", "json", &bundle.id]),
        fixture.run_oci(["list", "--format", "json"]),
        fixture.run_oci(["--version"]),
    ] {
        assert_eq!(outcome.ok().stderr, "");
    }
}

#[test]
fn run_passes_the_exit_code_on() {
    let fixture = Fixture::new();
    for code in [0, 1, 42, 255] {
        let bundle = fixture.bundle().args(["/probe", "exit", &code.to_string()]);
        bundle.run().exits(code);
    }
    fixture.assert_clean();
}

#[test]
fn run_tells_a_deadly_signal_as_128_and_its_number() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(WAIT);
    let mut run = bundle.run_command(&[]);
    let (reader, writer) = std::io::pipe().unwrap();
    run.stdout(writer).stdin(std::process::Stdio::null());
    let mut child = run.spawn().unwrap();
    drop(run);
    let mut lines = events::Lines::new(reader);
    assert_eq!(lines.next_line(), "ready");
    bundle.kill("KILL").ok();
    let status = runtime_tests::command::wait(&mut child, events::patience()).expect("run ends");
    assert_eq!(status.code(), Some(137));
}

#[test]
fn run_forwards_signals() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(["/probe", "trap", "SIGTERM", "9"]);
    let mut run = bundle.run_command(&[]);
    let (reader, writer) = std::io::pipe().unwrap();
    run.stdout(writer).stdin(std::process::Stdio::null());
    let mut child = run.spawn().unwrap();
    drop(run);
    assert_eq!(events::Lines::new(reader).next_line(), "ready");
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
    let status = runtime_tests::command::wait(&mut child, events::patience()).expect("run ends");
    assert_eq!(status.code(), Some(9));
}

#[test]
fn run_detached_comes_back_and_keep_keeps() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(WAIT);
    run(&mut bundle.run_command(&["--detach"])).ok();
    assert_eq!(bundle.status(), "running");
    fixture.watch(bundle.pid());
    bundle.kill_and_wait("KILL");
    bundle.oci("delete").ok();
}

#[test]
fn standard_input_reaches_the_container() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(["/bin/cat"]);
    let input = fixture.file("input", "through\n");
    let mut command = bundle.run_command(&[]);
    command.stdin(std::fs::File::open(input).unwrap());
    let outcome = runtime_tests::command::run_with_stdin(&mut command, events::patience()).ok();
    assert_eq!(outcome.stdout, "through\n");
}

#[test]
fn an_id_is_taken_once() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(WAIT);
    let _lines = bundle.created();
    bundle.create().exits(1).says("container with given ID already exists");
    assert_eq!(bundle.status(), "created", "the first one is untouched");
}

#[test]
fn ids_that_could_be_paths_are_refused() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle();
    bundle.write();
    let dir = bundle.dir.to_str().unwrap();
    for id in ["..", ".", "a/b", "../x", "a b", "ä", "a\nb"] {
        fixture.run_oci(["create", "--bundle", dir, id]).exits(1).says("invalid container ID format");
    }
    let empty = fixture.run_oci(["create", "--bundle", dir, ""]).fails();
    assert!(
        empty.stderr.contains("empty") || empty.stderr.contains("invalid container ID"),
        "{}",
        empty.stderr
    );
    fixture.assert_clean();
}

#[test]
fn start_is_for_created_containers() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(WAIT);
    let mut lines = bundle.started();
    lines.next_line();
    bundle.oci("start").exits(1).says("running container");
    bundle.kill_and_wait("KILL");
    bundle.oci("start").exits(1).says("stopped");
}

#[test]
fn kill_knows_names_and_numbers() {
    let fixture = Fixture::new();
    for signal in ["KILL", "SIGKILL", "9", "kill"] {
        let bundle = fixture.bundle().args(WAIT);
        let mut lines = bundle.started();
        lines.next_line();
        bundle.kill_and_wait(signal);
        bundle.oci("delete").ok();
    }
    let bundle = fixture.bundle().args(["/probe", "trap", "SIGTERM", "0"]);
    let mut lines = bundle.started();
    lines.next_line();
    let pid = bundle.pid();
    bundle.kill("NOSUCH").fails();
    // Without a signal it is TERM.
    bundle.oci("kill").ok();
    bundle.wait(pid);
}

#[test]
fn kill_of_a_created_container_works_and_of_a_stopped_one_says_so() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(WAIT);
    let _lines = bundle.created();
    bundle.kill_and_wait("KILL");
    assert_eq!(bundle.status(), "stopped");
    bundle.kill("KILL").exits(1).says("container not running");
}

#[test]
fn kill_all_reaches_every_process_of_a_shared_pid_namespace() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().without_namespace("pid").script("/probe wait & /probe wait & wait");
    let mut lines = bundle.started();
    assert_eq!((lines.next_line(), lines.next_line()), ("ready".into(), "ready".into()));
    let pids: Vec<i64> =
        serde_json::from_value(fixture.run_oci(["ps", "--format", "json", &bundle.id]).ok().json()).unwrap();
    assert_eq!(pids.len(), 3, "{pids:?}");
    fixture.run_oci(["kill", "--all", &bundle.id, "KILL"]).ok();
    for pid in pids {
        bundle.wait(i32::try_from(pid).unwrap());
    }
}

#[test]
fn delete_refuses_a_running_container() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(WAIT);
    let mut lines = bundle.started();
    lines.next_line();
    bundle.oci("delete").exits(1).says("is not stopped");
    assert_eq!(bundle.status(), "running");
    fixture.run_oci(["delete", "--force", &bundle.id]).ok();
    fixture.assert_clean();
}

#[test]
fn delete_of_a_created_container_kills_it() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(WAIT);
    let _lines = bundle.created();
    let pid = bundle.pid();
    bundle.oci("delete").ok();
    bundle.wait(pid);
    fixture.assert_clean();
}

#[test]
fn delete_by_force_can_be_repeated() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(WAIT);
    let _lines = bundle.started();
    for _ in 0..3 {
        fixture.run_oci(["delete", "--force", &bundle.id]).ok();
    }
    fixture.assert_clean();
}

#[test]
fn verbs_on_a_container_that_is_not_there() {
    let fixture = Fixture::new();
    for verb in ["state", "start", "kill", "delete", "pause", "resume", "ps"] {
        fixture.run_oci([verb, "nosuch"]).exits(1).says("does not exist");
    }
    fixture.run_oci(["exec", "nosuch", "true"]).fails().says("does not exist");
}

#[test]
fn pid_file_has_digits_alone() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(WAIT);
    let file = fixture.path().join("pid");
    run(&mut bundle.create_command(&["--pid-file", file.to_str().unwrap()])).ok();
    assert_eq!(std::fs::read_to_string(file).unwrap(), bundle.pid().to_string());
}

#[test]
fn list_shows_all_containers() {
    let fixture = Fixture::new();
    assert_eq!(fixture.run_oci(["list", "--format", "json"]).ok().stdout.trim(), "null");
    let (first, second) = (fixture.bundle().args(WAIT), fixture.bundle().args(WAIT));
    let _lines = (first.created(), second.started());
    let list = fixture.run_oci(["list", "--format", "json"]).ok().json();
    let status_of = |id: &str| {
        let entry = list.as_array().unwrap().iter().find(|entry| entry["id"] == id);
        entry.map(|entry| entry["status"].clone())
    };
    assert_eq!(status_of(&first.id), Some(json!("created")));
    assert_eq!(status_of(&second.id), Some(json!("running")));
    let table = fixture.run_oci(["list"]).ok().stdout;
    let columns: Vec<_> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(columns, ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    let quiet = fixture.run_oci(["list", "-q"]).ok().stdout;
    let mut ids: Vec<_> = quiet.lines().collect();
    ids.sort_unstable();
    assert_eq!(ids, [first.id.as_str(), second.id.as_str()]);
}

#[test]
fn ps_lists_the_processes_of_the_container() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().script("/probe wait & wait");
    let mut lines = bundle.started();
    lines.next_line();
    let pids = fixture.run_oci(["ps", "--format", "json", &bundle.id]).ok().json();
    let pids: Vec<_> = pids.as_array().unwrap().iter().map(|pid| pid.as_i64().unwrap()).collect();
    assert_eq!(pids.len(), 2);
    assert!(pids.contains(&i64::from(bundle.pid())));
    let table = fixture.run_oci(["ps", &bundle.id]).ok().stdout;
    assert!(table.contains("PID") && table.contains(&bundle.pid().to_string()), "{table}");
}

#[test]
fn pause_stops_the_processes_and_resume_lets_them_go_on() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(["/probe", "trap", "SIGTERM", "0"]);
    let mut lines = bundle.started();
    lines.next_line();
    let pid = bundle.pid();
    bundle.oci("pause").ok();
    assert_eq!(bundle.status(), "paused");
    bundle.kill("TERM").ok();
    let short = std::time::Duration::from_millis(300);
    assert!(!events::process_end(pid, short), "a frozen process does not handle a signal");
    bundle.oci("resume").ok();
    bundle.wait(pid);
}

#[test]
fn a_paused_container_can_be_deleted_by_force() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(WAIT);
    let mut lines = bundle.started();
    lines.next_line();
    bundle.oci("pause").ok();
    fixture.run_oci(["delete", "--force", &bundle.id]).ok();
    fixture.assert_clean();
}

#[test]
fn init_does_not_die_with_the_command_that_made_it() {
    // Callers set PDEATHSIG=KILL on the runtime; the container must outlive `create` and `start`.
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(["/probe", "trap", "SIGTERM", "0"]);
    let mut lines = bundle.started();
    assert_eq!(lines.next_line(), "ready");
    let status = format!("/proc/{}/status", bundle.pid());
    // It has yet to fall asleep after it said so.
    events::eventually("init that waits", || {
        std::fs::read_to_string(&status).unwrap().contains("State:\tS").then_some(())
    });
}

#[test]
fn an_empty_cgroups_path_gets_one_of_the_runtimes_own() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(WAIT).unset("/linux/cgroupsPath");
    let _lines = bundle.started();
    let found = runtime_tests::cgroup::named(&bundle.id);
    assert!(!found.is_empty(), "the container's cgroup carries its id");
    fixture.run_oci(["delete", "--force", &bundle.id]).ok();
    fixture.assert_clean();
}

#[test]
fn a_cgroups_path_may_be_deep() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle();
    let path = format!("/{}/a/b", bundle.id);
    let bundle = bundle.args(WAIT).set("/linux/cgroupsPath", json!(path));
    let _lines = bundle.started();
    let own = runtime_tests::cgroup::of("pids").join(path.trim_start_matches('/'));
    assert_eq!(runtime_tests::cgroup::pids(&own), [bundle.pid()]);
    fixture.run_oci(["delete", "--force", &bundle.id]).ok();
    // The directories above it may stay, as with other runtimes; the container's own is gone.
    assert!(!needs::exists(&own));
    for dir in runtime_tests::cgroup::named(&bundle.id) {
        let _ = std::fs::remove_dir(dir.join("a"));
        let _ = std::fs::remove_dir(dir);
    }
}
