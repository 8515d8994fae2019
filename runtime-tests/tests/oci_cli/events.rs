//! `events`.
use runtime_tests::{Fixture, cgroup, command, events};
use serde_json::{Value, json};
use std::process::Stdio;

/// The fields that runc's types/events.go always writes.
const FIELDS: &[&str] = &[
    "/cpu/usage/kernel",
    "/cpu/usage/user",
    "/cpu/throttling",
    "/cpuset",
    "/memory/usage/limit",
    "/memory/usage/failcnt",
    "/memory/swap/limit",
    "/memory/kernel/limit",
    "/memory/kernelTCP/limit",
    "/memory/raw",
    "/pids/current",
    "/blkio",
    "/hugetlb",
    "/intel_rdt",
    "/network_interfaces",
];

fn check(line: &Value, id: &str) {
    assert_eq!((&line["type"], &line["id"]), (&json!("stats"), &json!(id)));
    for field in FIELDS {
        assert!(line["data"].pointer(field).is_some(), "{field} is missing: {line}");
    }
    assert!(line["data"]["memory"]["usage"]["usage"].as_u64().is_some_and(|bytes| bytes > 0), "{line}");
    assert!(line["data"]["cpu"]["usage"]["total"].as_u64().is_some_and(|total| total > 0), "{line}");
    if cgroup::is_v2() && runtime_tests::needs::exists("/proc/pressure/cpu") {
        let psi = &line["data"]["cpu"]["psi"];
        assert!(psi["some"]["avg10"].is_number() && psi["full"]["total"].is_number(), "{line}");
    }
}

#[test]
fn statistics_have_runcs_form() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(["/probe", "wait"]);
    let mut lines = bundle.started();
    lines.next_line();
    let one = fixture.run_oci(["events", "--stats", &bundle.id]).ok();
    assert_eq!(one.stdout.lines().count(), 1);
    check(&one.json(), &bundle.id);
    for wrong in ["5", "-1s", "x", ""] {
        fixture.run_oci(["events", "--interval", wrong, &bundle.id]).exits(1).says("-interval: parse error");
    }
    fixture.run_oci(["events", "--interval", "0", &bundle.id]).exits(1).says("greater than 0");
    // At intervals, until the container ends.
    let mut follow = fixture.oci(["events", "--interval", "20ms", &bundle.id]);
    let mut follow = follow.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
    let mut told = events::Lines::new(follow.stdout.take().unwrap());
    for _ in 0..3 {
        check(&serde_json::from_str(&told.next_line()).unwrap(), &bundle.id);
    }
    bundle.kill_and_wait("KILL");
    assert!(command::wait(&mut follow, events::patience()).unwrap().success());
    fixture.run_oci(["events", "--stats", &bundle.id]).exits(1).says("is not running");
}

#[test]
fn running_out_of_memory_is_told() {
    let fixture = Fixture::new();
    let limit = json!({"memory": {"limit": 16 << 20}});
    let bundle = fixture.bundle().script("read line; /probe memory 64").set("/linux/resources", limit);
    let (stdin, mut go) = std::io::pipe().unwrap();
    let mut create = bundle.create_command(&[]);
    create.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(command::wait(&mut create.spawn().unwrap(), events::patience()).unwrap().success());
    drop(create);
    bundle.oci("start").ok();
    let mut follow = fixture.oci(["events", "--interval", "20ms", &bundle.id]);
    let mut follow = follow.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
    let mut told = events::Lines::new(follow.stdout.take().unwrap());
    // The first line says that it is being watched.
    told.next_line();
    std::io::Write::write_all(&mut go, b"go\n").unwrap();
    let line: Value = serde_json::from_str(&told.until("\"oom\"")).unwrap();
    assert_eq!(line, json!({"type": "oom", "id": bundle.id}));
    bundle.kill("KILL");
    command::wait(&mut follow, events::patience()).expect("events ends with the container");
}
