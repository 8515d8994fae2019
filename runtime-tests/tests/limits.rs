//! Limits that bite, on cgroup v1 and v2.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use runtime_tests::{Bundle, Fixture, cgroup, events, needs, run};
use serde_json::{Value, json};

const WAIT: &[&str] = &["/probe", "wait"];
const MIB: u64 = 1 << 20;

fn limited<'f>(fixture: &'f Fixture, resources: &Value) -> Bundle<'f> {
    let mut bundle = fixture.bundle().args(WAIT);
    for (key, value) in resources.as_object().expect("an object") {
        bundle = bundle.set(&format!("/linux/resources/{key}"), value.clone());
    }
    bundle
}

#[test]
fn a_process_over_its_memory_limit_is_killed_and_counted() {
    let fixture = Fixture::new();
    let memory = json!({"memory": {"limit": 16 * MIB, "swap": 16 * MIB}});
    let bundle = limited(&fixture, &memory).script("/probe memory 64; echo code $?; /probe wait");
    let mut lines = bundle.started();
    assert_eq!(lines.until("code"), "code 137");
    let text = bundle.cgroup_value("memory", "memory.oom_control", "memory.events");
    let killed = text.lines().find_map(|line| line.strip_prefix("oom_kill ")).expect("oom_kill");
    assert_eq!(killed, "1");
    lines.until("ready");
}

#[test]
fn a_container_over_its_memory_limit_ends_by_sigkill() {
    let fixture = Fixture::new();
    let bundle = limited(&fixture, &json!({"memory": {"limit": 16 * MIB, "swap": 16 * MIB}}));
    bundle.args(["/probe", "memory", "64"]).run().exits(137);
    fixture.assert_clean();
}

#[test]
fn below_the_memory_limit_nothing_happens() {
    let fixture = Fixture::new();
    let bundle = limited(&fixture, &json!({"memory": {"limit": 64 * MIB, "swap": 64 * MIB}}));
    assert_eq!(bundle.args(["/probe", "memory", "16"]).run().ok().stdout, "touched\n");
}

#[test]
fn memory_values_reach_the_kernel() {
    let fixture = Fixture::new();
    let memory = json!({"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 32 * MIB});
    let bundle = limited(&fixture, &json!({"memory": memory}));
    let _lines = bundle.created();
    let value = |v1, v2| bundle.cgroup_value("memory", v1, v2).parse::<u64>().unwrap();
    assert_eq!(value("memory.limit_in_bytes", "memory.max"), 64 * MIB);
    assert_eq!(value("memory.soft_limit_in_bytes", "memory.low"), 32 * MIB);
    // A kernel without swap accounting has no such file, on which the limit then has no effect.
    let swap = if cgroup::is_v2() { "memory.swap.max" } else { "memory.memsw.limit_in_bytes" };
    if cgroup::of("memory").join(&bundle.id).join(swap).exists() {
        // v1 counts memory and swap together, v2 swap alone.
        let expected = if cgroup::is_v2() { 32 * MIB } else { 96 * MIB };
        assert_eq!(value("memory.memsw.limit_in_bytes", "memory.swap.max"), expected);
    }
}

#[test]
fn a_fork_bomb_stops_at_the_pids_limit() {
    let fixture = Fixture::new();
    let bundle = limited(&fixture, &json!({"pids": {"limit": 16}}));
    let report = bundle.args(["/probe", "forks", "200"]).run().ok().json();
    assert_eq!(report["error"], "EAGAIN");
    let started = report["started"].as_u64().unwrap();
    assert!((8..16).contains(&started), "{started} started under a limit of 16");
}

#[test]
fn a_quota_of_half_a_cpu_gives_half_a_cpu() {
    let fixture = Fixture::new();
    // A slow machine needs a longer window for the same accuracy; two threads make sure that it is the quota
    // that limits.
    let seconds = needs::stretched(std::time::Duration::from_secs(2)).as_secs().min(10).to_string();
    let mut shares = Vec::new();
    // More than the quota must never be; less may be when others want the machine too, then it is tried again.
    for _ in 0..6 {
        let bundle = limited(&fixture, &json!({"cpu": {"quota": 50_000, "period": 100_000}}));
        let report = bundle.args(["/probe", "burn", &seconds, "2"]).run().ok().json();
        let share = report["cpu"].as_f64().unwrap() / report["wall"].as_f64().unwrap();
        assert!(share <= 0.575, "got {share:.3} CPUs for a quota of 0.5");
        if share >= 0.425 {
            return;
        }
        shares.push(share);
    }
    panic!("never got 0.425 CPUs or more for a quota of 0.5: {shares:.3?}");
}

#[test]
fn cpu_values_reach_the_kernel() {
    let fixture = Fixture::new();
    let bundle = limited(&fixture, &json!({"cpu": {"shares": 512, "quota": 20_000, "period": 50_000}}));
    let _lines = bundle.created();
    if cgroup::is_v2() {
        assert_eq!(bundle.cgroup_value("cpu", "", "cpu.max"), "20000 50000");
        let weight: u64 = bundle.cgroup_value("cpu", "", "cpu.weight").parse().unwrap();
        // The linear conversion gives 20, the logarithmic one of newer runtimes 59.
        assert!([20, 59].contains(&weight), "{weight}");
    } else {
        assert_eq!(bundle.cgroup_value("cpu", "cpu.cfs_quota_us", ""), "20000");
        assert_eq!(bundle.cgroup_value("cpu", "cpu.cfs_period_us", ""), "50000");
        assert_eq!(bundle.cgroup_value("cpu", "cpu.shares", ""), "512");
    }
}

#[test]
fn a_cpuset_binds_to_its_cpus() {
    let fixture = Fixture::new();
    let bundle = limited(&fixture, &json!({"cpu": {"cpus": "0", "mems": "0"}}));
    let report = bundle.args(["/probe", "report"]).run().ok().json();
    assert_eq!(report["cpus_allowed"], "0");
    assert_eq!(report["mems_allowed"], "0");
}

#[test]
fn devices_are_denied_but_for_the_default_ones() {
    let fixture = Fixture::new();
    let nodes = "mknod /tmp/mem c 1 1; mknod /tmp/disk b 7 0; mknod /tmp/kmsg c 1 11; exec /probe open r \
                 /tmp/mem /tmp/disk /tmp/kmsg /dev/null /dev/zero /dev/full /dev/random /dev/urandom";
    let caps = json!(["CAP_MKNOD", "CAP_SYS_RAWIO", "CAP_SYS_ADMIN", "CAP_SYSLOG", "CAP_DAC_OVERRIDE"]);
    let bundle = fixture
        .bundle()
        .script(nodes)
        .set("/process/capabilities", json!({"bounding": caps, "effective": caps, "permitted": caps}));
    let opened = bundle.run().ok().json();
    for path in ["/tmp/mem", "/tmp/disk", "/tmp/kmsg"] {
        assert_eq!(opened[path], "EPERM", "{path}");
    }
    for path in ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"] {
        assert_eq!(opened[path], "ok", "{path}");
    }
}

#[test]
fn a_device_can_be_allowed_for_reading_alone() {
    let fixture = Fixture::new();
    let caps = json!(["CAP_MKNOD", "CAP_SYS_ADMIN", "CAP_SYSLOG", "CAP_DAC_OVERRIDE"]);
    let rules = json!([
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rm"},
    ]);
    let bundle = fixture
        .bundle()
        .script("mknod /tmp/kmsg c 1 11; /probe open r /tmp/kmsg; /probe open w /tmp/kmsg; /probe open rw /tmp/kmsg")
        .set("/process/capabilities", json!({"bounding": caps, "effective": caps, "permitted": caps}))
        .set("/linux/resources/devices", rules);
    let out = bundle.run().ok().stdout;
    let words: Vec<_> =
        out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["/tmp/kmsg"].clone()).collect();
    assert_eq!(words, ["ok", "EPERM", "EPERM"]);
}

#[test]
fn no_device_rules_at_all_still_leave_the_default_devices() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(["/probe", "open", "rw", "/dev/null", "/dev/zero", "/dev/full"]);
    let opened = bundle.unset("/linux/resources").run().ok().json();
    assert_eq!(opened, json!({"/dev/null": "ok", "/dev/zero": "ok", "/dev/full": "ok"}));
}

#[test]
fn one_that_is_exec_ed_shares_the_limits() {
    let fixture = Fixture::new();
    let bundle = limited(&fixture, &json!({"pids": {"limit": 16}}));
    let mut lines = bundle.started();
    lines.next_line();
    let report = bundle.exec(&["/probe", "forks", "200"]).ok().json();
    assert_eq!(report["error"], "EAGAIN");
}

#[test]
fn update_changes_a_running_containers_limits() {
    let fixture = Fixture::new();
    let bundle = limited(&fixture, &json!({"pids": {"limit": 100}, "memory": {"limit": 64 * MIB}}));
    let mut lines = bundle.started();
    lines.next_line();
    run(&mut fixture.oci(["update", "--pids-limit", "20", "--memory", "32m", &bundle.id])).ok();
    assert_eq!(bundle.cgroup_value("pids", "pids.max", "pids.max"), "20");
    let memory = bundle.cgroup_value("memory", "memory.limit_in_bytes", "memory.max");
    assert_eq!(memory, (32 * MIB).to_string());
    let file = fixture.file("resources.json", json!({"pids": {"limit": 25}}).to_string());
    run(&mut fixture.oci(["update", "--resources", file.to_str().unwrap(), &bundle.id])).ok();
    assert_eq!(bundle.cgroup_value("pids", "pids.max", "pids.max"), "25");
}

#[test]
fn block_io_weight_and_throttle() {
    // Which device there is depends on the machine: the first whole disk.
    let Some(disk) = std::fs::read_dir("/sys/block").ok().and_then(|entries| {
        entries
            .flatten()
            .map(|entry| entry.path())
            .find_map(|path| std::fs::read_to_string(path.join("dev")).ok())
    }) else {
        panic!("missing need: a block device")
    };
    let (major, minor) = disk.trim().split_once(':').unwrap();
    let (major, minor): (u64, u64) = (major.parse().unwrap(), minor.parse().unwrap());
    let fixture = Fixture::new();
    let throttle = json!({"throttleReadBpsDevice": [{"major": major, "minor": minor, "rate": 1_048_576}]});
    let bundle = limited(&fixture, &json!({"blockIO": throttle}));
    let _lines = bundle.created();
    let text = bundle.cgroup_value("blkio", "blkio.throttle.read_bps_device", "io.max");
    assert!(text.contains(&format!("{major}:{minor}")) && text.contains("1048576"), "{text}");
}

#[test]
fn unified_values_reach_a_v2_cgroup_and_are_refused_on_v1() {
    let fixture = Fixture::new();
    let bundle = limited(&fixture, &json!({"unified": {"pids.max": "33"}}));
    if cgroup::is_v2() {
        let _lines = bundle.created();
        assert_eq!(bundle.cgroup_value("pids", "", "pids.max"), "33");
    } else {
        bundle.create().exits(1).says("unified");
        fixture.clean_up();
        fixture.assert_clean();
    }
}

#[test]
fn the_end_of_the_container_empties_its_cgroup() {
    let fixture = Fixture::new();
    // The children are in their own sessions and would outlive a lesser end.
    let bundle = fixture.bundle().script("/probe wait & /probe wait & echo up; exec /probe trap SIGTERM 0");
    let mut lines = bundle.started();
    for _ in 0..4 {
        lines.next_line();
    }
    let pids = cgroup::pids(&cgroup::of("pids").join(&bundle.id));
    assert_eq!(pids.len(), 3);
    bundle.kill_and_wait("TERM");
    for pid in pids {
        assert!(events::process_end(pid, events::patience()));
    }
}
