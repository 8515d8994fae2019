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

/// What is asked for, the controller, and the file with its value on v1 and on v2; an empty file is not there.
type Row = (Value, &'static str, (&'static str, &'static str), (&'static str, &'static str));

fn table() -> Vec<Row> {
    let huge = json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]});
    vec![
        (json!({"cpu": {"shares": 2}}), "cpu", ("cpu.shares", "2"), ("cpu.weight", "1")),
        (json!({"cpu": {"shares": 1024}}), "cpu", ("cpu.shares", "1024"), ("cpu.weight", "100")),
        (json!({"cpu": {"shares": 262_144}}), "cpu", ("cpu.shares", "262144"), ("cpu.weight", "10000")),
        (json!({"cpu": {"quota": -1}}), "cpu", ("cpu.cfs_quota_us", "-1"), ("cpu.max", "max 100000")),
        (json!({"cpu": {"period": 50_000}}), "cpu", ("cpu.cfs_period_us", "50000"), ("cpu.max", "max 50000")),
        (
            json!({"cpu": {"quota": 20_000, "burst": 10_000}}),
            "cpu",
            ("cpu.cfs_burst_us", "10000"),
            ("cpu.max.burst", "10000"),
        ),
        (json!({"cpu": {"idle": 1}}), "cpu", ("cpu.idle", "1"), ("cpu.idle", "1")),
        (json!({"cpu": {"cpus": "0"}}), "cpuset", ("cpuset.cpus", "0"), ("cpuset.cpus", "0")),
        (json!({"cpu": {"mems": "0"}}), "cpuset", ("cpuset.mems", "0"), ("cpuset.mems", "0")),
        (
            json!({"memory": {"limit": -1}}),
            "memory",
            ("memory.limit_in_bytes", "9223372036854771712"),
            ("memory.max", "max"),
        ),
        (
            json!({"memory": {"reservation": MIB}}),
            "memory",
            ("memory.soft_limit_in_bytes", "1048576"),
            ("memory.low", "1048576"),
        ),
        // Only v1 has these; v2 tells that it leaves them out, as runc.
        (json!({"memory": {"swappiness": 7}}), "memory", ("memory.swappiness", "7"), ("memory.max", "max")),
        (
            json!({"memory": {"disableOOMKiller": true}}),
            "memory",
            ("memory.oom_control", ""),
            ("memory.max", "max"),
        ),
        (json!({"network": {"classID": 1_048_577}}), "net_cls", ("net_cls.classid", "1048577"), ("", "")),
        (
            json!({"network": {"priorities": [{"name": "lo", "priority": 5}]}}),
            "net_prio",
            ("net_prio.prioidx", ""),
            ("", ""),
        ),
        (json!({"pids": {"limit": 0}}), "pids", ("pids.max", "1"), ("pids.max", "1")),
        (json!({"pids": {"limit": -1}}), "pids", ("pids.max", "max"), ("pids.max", "max")),
        (huge.clone(), "hugetlb", ("hugetlb.2MB.limit_in_bytes", "4194304"), ("hugetlb.2MB.max", "4194304")),
        (
            huge,
            "hugetlb",
            ("hugetlb.2MB.rsvd.limit_in_bytes", "4194304"),
            ("hugetlb.2MB.rsvd.max", "4194304"),
        ),
    ]
}

/// Whether the host has a controller on the version that its containers use.
fn has(controller: &str) -> bool {
    if cgroup::is_v2() {
        let list = std::fs::read_to_string(cgroup::of("").join("cgroup.controllers")).unwrap();
        return list.split_whitespace().any(|name| name == controller);
    }
    cgroup::hierarchies().iter().any(|one| one.controllers.iter().any(|name| name == controller))
}

#[test]
fn every_limit_has_its_file_or_names_its_controller() {
    for (resources, controller, v1, v2) in table() {
        let fixture = Fixture::new();
        let bundle = limited(&fixture, &resources);
        let (file, expected) = if cgroup::is_v2() { v2 } else { v1 };
        if !file.is_empty() && !has(controller) {
            // Only what is asked for is missed, and by its name.
            bundle.create().fails().says(&format!("the cgroup controller {controller} is not available"));
            continue;
        }
        let _lines = bundle.created();
        if !file.is_empty() {
            let value = bundle.cgroup_value(controller, file, file);
            let fits = expected.is_empty() || value == expected;
            assert!(fits, "{resources}: {file} is {value:?}, not {expected:?}");
        }
    }
}

#[test]
fn update_changes_every_limit_and_leaves_the_rest() {
    let fixture = Fixture::new();
    let bundle = limited(
        &fixture,
        &json!({"cpu": {"quota": 20_000, "period": 50_000}, "memory": {"limit": 64 * MIB}, "pids": {"limit": 9}}),
    );
    let _lines = bundle.started();
    let update = |args: &[&str]| {
        let mut words = vec!["update"];
        words.extend(args);
        words.push(&bundle.id);
        fixture.run_oci(words)
    };
    let value = |controller, v1, v2| bundle.cgroup_value(controller, v1, v2);
    let v2 = cgroup::is_v2();
    update(&["--cpu-period", "100000"]).ok();
    let quota = if v2 { "20000 100000" } else { "20000" };
    assert_eq!(value("cpu", "cpu.cfs_quota_us", "cpu.max"), quota);
    update(&["--cpu-quota", "30000", "--cpu-burst", "5000"]).ok();
    assert_eq!(value("cpu", "cpu.cfs_burst_us", "cpu.max.burst"), "5000");
    update(&["--cpu-share", "512", "--cpuset-cpus", "0", "--cpuset-mems", "0"]).ok();
    assert_eq!(value("cpu", "cpu.shares", "cpu.weight"), if v2 { "59" } else { "512" });
    assert_eq!(value("cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    update(&["--cpu-idle", "1"]).ok();
    assert_eq!(value("cpu", "cpu.idle", "cpu.idle"), "1");
    update(&["--memory-reservation", "1m", "--pids-limit", "-1"]).ok();
    assert_eq!(value("memory", "memory.soft_limit_in_bytes", "memory.low"), MIB.to_string());
    assert_eq!(value("pids", "pids.max", "pids.max"), "max");
    assert_eq!(value("memory", "memory.limit_in_bytes", "memory.max"), (64 * MIB).to_string());
    // Raised together above the old limits, and lowered again.
    update(&["--memory", "256m", "--memory-swap", "512m"]).ok();
    update(&["--memory", "32m", "--memory-swap", "64m"]).ok();
    assert_eq!(value("memory", "memory.limit_in_bytes", "memory.max"), (32 * MIB).to_string());
    if v2 {
        let check = json!({"memory": {"limit": 4096, "checkBeforeUpdate": true}}).to_string();
        let file = fixture.file("check.json", check);
        update(&["--resources", file.to_str().unwrap()]).fails().says("in use");
        assert_eq!(value("memory", "", "memory.max"), (32 * MIB).to_string());
        let missing = fixture.file("missing.json", json!({"unified": {"nosuch.max": "1"}}).to_string());
        update(&["--resources", missing.to_str().unwrap()]).fails().says("controller nosuch");
    }
}

#[test]
fn relative_and_climbing_paths_stay_below_the_hierarchy() {
    let fixture = Fixture::new();
    for path in ["/../../{}", "x{}/../{}/y"] {
        let mut bundle = fixture.bundle().args(WAIT);
        let path = path.replace("{}", &bundle.id);
        bundle = bundle.set("/linux/cgroupsPath", json!(path));
        let _lines = bundle.created();
        let name = if path.starts_with('/') { bundle.id.as_str() } else { "y" };
        let inside = std::fs::read_to_string(format!("/proc/{}/cgroup", bundle.pid())).unwrap();
        let line = inside.lines().find(|line| line.contains("pids") || line.starts_with("0::/")).unwrap();
        assert!(line.ends_with(name) && line.contains(&bundle.id), "{inside}");
        fixture.clean_up();
        // A cgroup above the container's stays, as with runc: this one is the test's.
        for above in cgroup::named(fixture.token()) {
            let _ = std::fs::remove_dir(above);
        }
    }
}

#[test]
fn a_writable_cgroup_is_the_user_s_of_a_user_namespace() {
    use std::os::unix::fs::MetadataExt;
    let fixture = Fixture::new();
    let mut bundle = fixture.bundle().args(WAIT).user_namespace();
    let mapping = bundle.config["linux"]["uidMappings"][0]["hostID"].as_u64().unwrap();
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    for mount in mounts.iter_mut().filter(|mount| mount["type"] == "cgroup") {
        mount["options"].as_array_mut().unwrap().retain(|option| option != "ro");
    }
    let _lines = bundle.created();
    let dir = cgroup::of("pids").join(&bundle.id);
    let owner = |file: &str| u64::from(std::fs::metadata(dir.join(file)).unwrap().uid());
    if cgroup::is_v2() {
        assert_eq!([owner("."), owner("cgroup.procs"), owner("cgroup.subtree_control")], [mapping; 3]);
        assert_eq!(owner("pids.max"), 0, "limits stay the host's");
    } else {
        assert_eq!(owner("."), 0);
    }
}

#[test]
fn without_systemd_its_driver_names_the_socket() {
    if std::path::Path::new("/run/systemd/private").exists() {
        panic!("missing need: a host that is not booted with systemd");
    }
    let fixture = Fixture::with_flags(&["--systemd-cgroup"]);
    let bundle = fixture.bundle().args(WAIT);
    bundle.create().fails().says("slice:prefix:name");
    let bundle = bundle.unset("/linux/cgroupsPath");
    bundle.create().fails().says("systemd does not answer at /run/systemd/private");
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
