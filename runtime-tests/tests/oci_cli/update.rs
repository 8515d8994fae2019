//! `update`: every flag reaches its cgroup file.
use runtime_tests::{Bundle, Fixture, cgroup, command, run};
use serde_json::json;
use std::process::{Command, Stdio};

fn running(fixture: &Fixture) -> Bundle<'_> {
    let bundle = fixture.bundle().args(["/probe", "wait"]);
    let mut lines = bundle.started();
    lines.next_line();
    bundle
}

/// Flags; controller, file and value on v1; file and value on v2.
type Row = (&'static str, (&'static str, &'static str, &'static str), (&'static str, &'static str));

const TABLE: &[Row] = &[
    ("--memory 512m", ("memory", "memory.limit_in_bytes", "536870912"), ("memory.max", "536870912")),
    ("--memory=1gb", ("memory", "memory.limit_in_bytes", "1073741824"), ("memory.max", "1073741824")),
    (
        "--memory-reservation 100MiB",
        ("memory", "memory.soft_limit_in_bytes", "104857600"),
        ("memory.low", "104857600"),
    ),
    (
        "--memory -1 --memory-swap -1",
        ("memory", "memory.limit_in_bytes", "9223372036854771712"),
        ("memory.max", "max"),
    ),
    ("--cpu-share 512", ("cpu", "cpu.shares", "512"), ("cpu.max", "max 100000")),
    (
        "--cpu-period 50000 --cpu-quota 25000",
        ("cpu", "cpu.cfs_quota_us", "25000"),
        ("cpu.max", "25000 50000"),
    ),
    ("--cpu-burst 1000", ("cpu", "cpu.cfs_burst_us", "1000"), ("cpu.max.burst", "1000")),
    ("--cpu-burst 0", ("cpu", "cpu.cfs_burst_us", "0"), ("cpu.max.burst", "0")),
    ("--cpu-quota -1", ("cpu", "cpu.cfs_quota_us", "-1"), ("cpu.max", "max 50000")),
    ("--cpu-idle 1", ("cpu", "cpu.idle", "1"), ("cpu.idle", "1")),
    ("--cpu-idle 0", ("cpu", "cpu.idle", "0"), ("cpu.idle", "0")),
    ("--cpuset-cpus 0", ("cpuset", "cpuset.cpus", "0"), ("cpuset.cpus", "0")),
    ("--cpuset-mems 0", ("cpuset", "cpuset.mems", "0"), ("cpuset.mems", "0")),
    ("--pids-limit 50", ("pids", "pids.max", "50"), ("pids.max", "50")),
    ("--pids-limit -1", ("pids", "pids.max", "max"), ("pids.max", "max")),
    (
        "--kernel-memory 50m --kernel-memory-tcp 50m --pids-limit 9",
        ("pids", "pids.max", "9"),
        ("pids.max", "9"),
    ),
];

#[test]
fn flags_reach_their_files() {
    let fixture = Fixture::new();
    let bundle = running(&fixture);
    for (flags, (controller, v1, on_v1), (v2, on_v2)) in TABLE {
        let mut words = vec!["update"];
        words.extend(flags.split(' '));
        words.push(&bundle.id);
        fixture.run_oci(words).ok();
        let expected = if cgroup::is_v2() { on_v2 } else { on_v1 };
        assert_eq!(bundle.cgroup_value(controller, v1, v2), *expected, "{flags}");
    }
}

#[test]
fn wrong_values_are_refused_by_name() {
    let fixture = Fixture::new();
    let bundle = running(&fixture);
    for (flag, value, says) in [
        ("--memory", "0x10", "invalid value for memory"),
        ("--memory", "-5", "invalid value for memory"),
        ("--memory-swap", "1e3", "invalid value for memory-swap"),
        ("--memory-reservation", "lots", "invalid value for memory-reservation"),
        ("--cpu-share", "x", "cpu-share"),
        ("--l3-cache-schema", "L3:0=f", "l3 cache schema is not enabled"),
        ("--mem-bw-schema", "MB:0=50", "memory bandwidth schema is not enabled"),
        ("--resources", "/no/such", "/no/such"),
    ] {
        fixture.run_oci(["update", flag, value, &bundle.id]).exits(1).says(says);
    }
    fixture.run_oci(["update", "--memory", "", "--resources=", &bundle.id]).ok();
    bundle.kill_and_wait("KILL");
    fixture.run_oci(["update", "--memory", "10m", &bundle.id]).exits(1).says("container not running");
}

fn update_from_stdin(fixture: &Fixture, words: &[&str], text: &str) -> runtime_tests::Outcome {
    let input = fixture.file("input.json", text);
    let mut update: Command = fixture.oci(words);
    update.stdin(Stdio::from(std::fs::File::open(input).unwrap()));
    command::run_with_stdin(&mut update, runtime_tests::events::patience())
}

#[test]
fn resources_come_from_standard_input_and_other_flags_are_ignored_then() {
    let fixture = Fixture::new();
    let bundle = running(&fixture);
    let id = bundle.id.as_str();
    let pids = || bundle.cgroup_value("pids", "pids.max", "pids.max");
    for (limit, words) in [
        (41, ["update", "--pids-limit=7", "--resources", "-", id]),
        (42, ["update", "-r", "-", "--pids-limit=7", id]),
    ] {
        // Callers hand over the whole of linux.resources; devices never change.
        let resources = json!({"pids": {"limit": limit}, "devices": [{"allow": false, "access": "rwm"}]});
        update_from_stdin(&fixture, &words, &resources.to_string()).ok();
        assert_eq!(pids(), limit.to_string());
    }
    bundle.exec(&["sh", "-c", "echo > /dev/null"]).ok();
    update_from_stdin(&fixture, &["update", "--resources=-", id], "{").exits(1);
    let file = fixture.file("resources.json", json!({"pids": {"limit": 43}}).to_string());
    run(&mut fixture.oci(["update", "-r", file.to_str().unwrap(), "--pids-limit=7", id])).ok();
    assert_eq!(pids(), "43");
}
