//! The systemd cgroup driver, on a host that was booted with systemd: the virtual machines of
//! `scripts/systemd-test.sh`, one with cgroup v2 and one with v1.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use runtime_tests::kill_point::{Fault, Victim, run_until};
use runtime_tests::{Bundle, Fixture, Outcome, cgroup, command, events, run};
use serde_json::{Value, json};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::RwLock;

const WAIT: &[&str] = &["/probe", "wait"];
const MIB: u64 = 1 << 20;
const SLICE: &str = "corten-test.slice";

fn world() -> Fixture {
    Fixture::with_flags(&["--systemd-cgroup"])
}

/// A waiting container in the scope `pre-ID.scope`.
fn bundle(fixture: &Fixture) -> Bundle<'_> {
    let bundle = fixture.bundle().args(WAIT);
    let path = format!("{SLICE}:pre:{}", bundle.id);
    bundle.set("/linux/cgroupsPath", json!(path))
}

fn limited<'f>(fixture: &'f Fixture, resources: &Value) -> Bundle<'f> {
    let mut bundle = bundle(fixture);
    for (key, value) in resources.as_object().unwrap() {
        bundle = bundle.set(&format!("/linux/resources/{key}"), value.clone());
    }
    bundle
}

fn unit(bundle: &Bundle<'_>) -> String {
    format!("pre-{}.scope", bundle.id)
}

#[track_caller]
fn systemctl(args: &[&str]) -> String {
    run(Command::new("systemctl").args(args)).ok().stdout.trim().to_owned()
}

/// systemd is told to read its configuration again; it then looks at all units anew.
static RELOADS: RwLock<()> = RwLock::new(());

#[track_caller]
fn reload() {
    let _alone = RELOADS.write();
    systemctl(&["daemon-reload"]);
}

#[track_caller]
fn property(bundle: &Bundle<'_>, name: &str) -> String {
    systemctl(&["show", "--value", "--property", name, &unit(bundle)])
}

/// A value of the container's cgroup.
#[track_caller]
fn value(bundle: &Bundle<'_>, controller: &str, v1: &str, v2: &str) -> String {
    let path = format!("corten.slice/{SLICE}/{}", unit(bundle));
    cgroup::value(controller, &path, v1, v2)
}

/// Units with the test's token in their names.
fn units(fixture: &Fixture) -> String {
    let pattern = format!("*{}*", fixture.token());
    systemctl(&["list-units", "--all", "--plain", "--no-legend", &pattern])
}

/// `/proc/PID/cgroup` has the scope, of v2 or in the hierarchies of v1.
#[track_caller]
fn assert_in_scope(bundle: &Bundle<'_>, pid: i32) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = format!(":/corten.slice/{SLICE}/{}", unit(bundle));
    let hierarchies: &[&str] =
        if cgroup::is_v2() { &["0:"] } else { &["name=systemd", "memory", "devices", "freezer", "cpuset"] };
    for hierarchy in hierarchies {
        let line = text.lines().find(|line| line.contains(hierarchy)).unwrap_or_default();
        assert!(line.ends_with(&path), "{hierarchy}: {text}");
    }
}

#[test]
fn a_container_is_a_delegated_scope_in_its_slice() {
    let fixture = world();
    let bundle = bundle(&fixture);
    let _lines = bundle.started();
    assert_eq!(property(&bundle, "ActiveState"), "active");
    assert_eq!(property(&bundle, "Slice"), SLICE);
    assert_eq!(property(&bundle, "Delegate"), "yes");
    assert_eq!(property(&bundle, "ControlGroup"), format!("/corten.slice/{SLICE}/{}", unit(&bundle)));
    assert_in_scope(&bundle, bundle.pid());
    // The placeholder has gone.
    let dir = cgroup::of("devices").join(format!("corten.slice/{SLICE}/{}", unit(&bundle)));
    assert_eq!(cgroup::pids(&dir), [bundle.pid()]);
    assert_eq!(bundle.status(), "running");
    bundle.kill_and_wait("KILL");
    bundle.oci("delete").ok();
    assert_eq!(property(&bundle, "LoadState"), "not-found");
    assert_eq!(units(&fixture), "");
}

#[test]
fn a_process_of_exec_lands_in_the_scope() {
    let fixture = world();
    let bundle = bundle(&fixture);
    let _lines = bundle.started();
    let file = fixture.path().join("exec.pid");
    bundle.exec_with(&["--detach", "--pid-file", file.to_str().unwrap()], &["/bin/sleep", "100"]).ok();
    let pid: i32 = std::fs::read_to_string(file).unwrap().parse().unwrap();
    assert_in_scope(&bundle, pid);
    bundle.oci("pause").ok();
    assert_eq!(bundle.status(), "paused");
    bundle.oci("resume").ok();
    // Not only init ends.
    fixture.run_oci(["delete", "--force", &bundle.id]).ok();
    assert!(events::process_end(pid, events::patience()));
}

#[test]
fn without_a_path_the_unit_has_the_names_of_runc() {
    let fixture = world();
    let bundle = fixture.bundle().args(WAIT).unset("/linux/cgroupsPath");
    let _lines = bundle.created();
    let name = format!("runc-{}.scope", bundle.id);
    assert_eq!(systemctl(&["show", "--value", "--property", "Slice", &name]), "system.slice");
    fixture.clean_up();
    assert_eq!(units(&fixture), "");
}

#[test]
fn limits_are_properties_and_values() {
    let fixture = world();
    let bundle = limited(
        &fixture,
        &json!({
            "memory": {"limit": 64 * MIB, "reservation": 32 * MIB, "swap": 96 * MIB},
            "cpu": {"shares": 512, "quota": 25_500, "period": 50_000, "cpus": "0", "mems": "0"},
            "pids": {"limit": 77},
        }),
    );
    let _lines = bundle.created();
    let v2 = cgroup::is_v2();
    let is = |v1: &str, on_v2: &str, expected: u64| {
        assert_eq!(property(&bundle, if v2 { on_v2 } else { v1 }), expected.to_string(), "{on_v2}");
    };
    is("MemoryLimit", "MemoryMax", 64 * MIB);
    is("CPUShares", "CPUWeight", if v2 { 59 } else { 512 });
    is("TasksMax", "TasksMax", 77);
    assert_eq!(property(&bundle, "CPUQuotaPerSecUSec"), "510ms");
    assert_eq!(property(&bundle, "AllowedCPUs"), "0");
    assert_eq!(property(&bundle, "DevicePolicy"), "strict");
    assert!(property(&bundle, "DeviceAllow").contains("/dev/char/1:3 rwm"));
    assert_eq!(value(&bundle, "memory", "memory.limit_in_bytes", "memory.max"), (64 * MIB).to_string());
    assert_eq!(value(&bundle, "pids", "pids.max", "pids.max"), "77");
    assert_eq!(value(&bundle, "cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    if v2 {
        is("", "MemoryLow", 32 * MIB);
        is("", "MemorySwapMax", 32 * MIB);
        assert_eq!(value(&bundle, "", "", "cpu.max"), "25500 50000");
        assert_eq!(value(&bundle, "", "", "memory.low"), (32 * MIB).to_string());
    } else {
        assert_eq!(value(&bundle, "cpu", "cpu.cfs_quota_us", ""), "25500");
        assert_eq!(value(&bundle, "cpu", "cpu.shares", ""), "512");
    }
    // What systemd was told it sets again.
    reload();
    assert_eq!(value(&bundle, "memory", "memory.limit_in_bytes", "memory.max"), (64 * MIB).to_string());
    assert_eq!(value(&bundle, "pids", "pids.max", "pids.max"), "77");
}

fn deny_all() -> Value {
    json!({"allow": false, "access": "rwm"})
}

/// A container that may make nodes, and open those of `rules`.
fn with_nodes<'f>(fixture: &'f Fixture, rules: &Value) -> Bundle<'f> {
    let caps = json!(["CAP_MKNOD", "CAP_SYS_ADMIN", "CAP_SYSLOG", "CAP_DAC_OVERRIDE"]);
    bundle(fixture)
        .set("/process/capabilities", json!({"bounding": caps, "effective": caps, "permitted": caps}))
        .set("/linux/resources/devices", rules.clone())
}

#[test]
fn devices_are_denied_by_rule_also_where_systemd_has_no_word_for_it() {
    let fixture = world();
    // A reload at this moment would take our own rules back on v1.
    let _no_reload = RELOADS.read();
    let open = |rules: Value| {
        let script = "mknod /tmp/kmsg c 1 11; exec /probe open r /tmp/kmsg /dev/null";
        with_nodes(&fixture, &rules).script(script).run().ok().json()
    };
    let all = deny_all();
    assert_eq!(open(json!([all])), json!({"/tmp/kmsg": "EPERM", "/dev/null": "ok"}));
    if !cgroup::is_v2() {
        // On v1 the rest holds until systemd looks at the unit anew: see below.
        return;
    }
    let minor = json!({"allow": true, "type": "c", "minor": 11, "access": "rwm"});
    assert_eq!(open(json!([all, minor])), json!({"/tmp/kmsg": "ok", "/dev/null": "ok"}));
    let but = json!({"allow": false, "type": "c", "major": 1, "minor": 11, "access": "rw"});
    let rules = json!([{"allow": true, "access": "rwm"}, but]);
    assert_eq!(open(rules), json!({"/tmp/kmsg": "EPERM", "/dev/null": "ok"}));
}

/// systemd writes its own rules on v1 when it looks at its units anew. It has no words for exceptions from "all", and
/// opens all there; so is it with runc.
#[test]
fn what_is_denied_stays_so_when_systemd_looks_at_the_unit_anew() {
    let fixture = world();
    let but = json!({"allow": false, "type": "c", "major": 1, "minor": 11, "access": "rw"});
    let without_word = json!({"allow": true, "type": "c", "minor": 199, "access": "rwm"});
    let mut all = vec![json!([deny_all()]), json!([deny_all(), without_word])];
    if cgroup::is_v2() {
        all.push(json!([{"allow": true, "access": "rwm"}, but]));
    }
    for rules in all {
        let bundle = with_nodes(&fixture, &rules).script("mknod /tmp/kmsg c 1 11; exec /probe wait");
        let mut lines = bundle.started();
        lines.next_line();
        reload();
        let opened = bundle.exec(&["/probe", "open", "r", "/tmp/kmsg", "/dev/null"]).ok().json();
        assert_eq!(opened, json!({"/tmp/kmsg": "EPERM", "/dev/null": "ok"}), "{rules}");
    }
}

#[test]
fn a_memory_limit_bites_and_no_failed_unit_stays() {
    let fixture = world();
    let bundle = limited(&fixture, &json!({"memory": {"limit": 16 * MIB, "swap": 16 * MIB}}));
    bundle.args(["/probe", "memory", "64"]).run().exits(137);
    assert_eq!(units(&fixture), "");
}

#[test]
fn a_container_of_one_process_has_room_beside_the_placeholder() {
    let fixture = world();
    let bundle = limited(&fixture, &json!({"pids": {"limit": 1}}));
    let _lines = bundle.started();
    assert_eq!(value(&bundle, "pids", "pids.max", "pids.max"), "1");
    assert_in_scope(&bundle, bundle.pid());
}

#[test]
fn update_changes_properties_and_values() {
    let fixture = world();
    let bundle = limited(&fixture, &json!({"cpu": {"quota": 20_000, "period": 50_000}}));
    let _lines = bundle.started();
    let update = |args: &[&str]| {
        let mut words = vec!["update"];
        words.extend(args);
        words.push(&bundle.id);
        fixture.run_oci(words)
    };
    update(&["--memory", "96m", "--pids-limit", "55", "--cpu-share", "2048"]).ok();
    assert_eq!(property(&bundle, "TasksMax"), "55");
    let memory = if cgroup::is_v2() { "MemoryMax" } else { "MemoryLimit" };
    assert_eq!(property(&bundle, memory), (96 * MIB).to_string());
    assert_eq!(value(&bundle, "memory", "memory.limit_in_bytes", "memory.max"), (96 * MIB).to_string());
    assert_eq!(value(&bundle, "pids", "pids.max", "pids.max"), "55");
    // The period alone: the quota stays, for both.
    update(&["--cpu-period", "100000"]).ok();
    assert_eq!(property(&bundle, "CPUQuotaPerSecUSec"), "200ms");
    if cgroup::is_v2() {
        assert_eq!(value(&bundle, "", "", "cpu.max"), "20000 100000");
    }
    update(&["--cpu-quota", "-1"]).ok();
    assert_eq!(property(&bundle, "CPUQuotaPerSecUSec"), "infinity");
    if cgroup::is_v2() {
        let file = fixture.file("r.json", json!({"unified": {"memory.high": "50331648"}}).to_string());
        update(&["--resources", file.to_str().unwrap()]).ok();
        assert_eq!(property(&bundle, "MemoryHigh"), (48 * MIB).to_string());
        let check = json!({"memory": {"limit": 4096, "checkBeforeUpdate": true}}).to_string();
        let file = fixture.file("r.json", check);
        update(&["--resources", file.to_str().unwrap()]).fails().says("in use");
        assert_eq!(property(&bundle, "MemoryMax"), (96 * MIB).to_string());
    }
    assert_eq!(bundle.status(), "running");
}

#[test]
fn annotations_are_properties() {
    let fixture = world();
    let annotated = |name: &str, text: &str| {
        let mut bundle = bundle(&fixture);
        bundle.config["annotations"][format!("org.systemd.property.{name}")] = json!(text);
        bundle
    };
    let one = annotated("TimeoutStopSec", "42");
    let _lines = one.created();
    assert_eq!(property(&one, "TimeoutStopUSec"), "42s");
    let two = annotated("Description", "'of the caller'");
    let _lines = two.created();
    assert_eq!(property(&two, "Description"), "of the caller");
    annotated("Bad-Name", "true").create().fails().says("org.systemd.property.Bad-Name");
    annotated("TimeoutStopSec", "'a\n[Service]'").create().fails().says("seconds");
    // What systemd does not know it says itself.
    annotated("NoSuchThing", "true").create().fails().says("NoSuchThing");
    fixture.clean_up();
    assert_eq!(units(&fixture), "");
}

#[test]
fn a_unit_of_somebody_else_is_left_alone() {
    let fixture = world();
    let one = bundle(&fixture);
    let _lines = one.started();
    let path = one.config["linux"]["cgroupsPath"].clone();
    let other = fixture.bundle().args(WAIT).set("/linux/cgroupsPath", path);
    other.create().fails();
    fixture.run_oci(["delete", "--force", &other.id]).ok();
    assert_eq!(one.status(), "running");
    assert_eq!(property(&one, "ActiveState"), "active");
}

#[test]
fn a_path_of_the_other_driver_is_refused() {
    let fixture = world();
    let bundle = fixture.bundle().args(WAIT);
    bundle.create().fails().says("slice:prefix:name");
    bundle.set("/linux/cgroupsPath", json!("system.slice:a/b:c")).create().fails().says("units");
}

#[test]
fn a_damaged_record_is_deleted_with_its_unit() {
    let fixture = world();
    // The unit's name is the caller's, and the one that a configuration without a path gives.
    for named in [true, false] {
        let bundle = bundle(&fixture).without_namespace("pid").script("/probe wait & /probe wait");
        let bundle = if named { bundle } else { bundle.unset("/linux/cgroupsPath") };
        let mut lines = bundle.started();
        assert_eq!((lines.next_line(), lines.next_line()), ("ready".into(), "ready".into()));
        std::fs::write(fixture.state_root().join(&bundle.id).join("state.json"), "{").unwrap();
        fixture.run_oci(["delete", "--force", &bundle.id]).ok();
        assert_eq!(units(&fixture), "");
        fixture.assert_clean();
    }
}

#[test]
fn a_container_ends_with_its_unit() {
    let fixture = world();
    // It ends of the SIGTERM that systemd sends first.
    let bundle = bundle(&fixture).args(["/probe", "trap", "SIGTERM", "0"]);
    let mut lines = bundle.started();
    lines.next_line();
    let pid = bundle.pid();
    systemctl(&["stop", &unit(&bundle)]);
    assert!(events::process_end(pid, events::patience()));
    assert_eq!(bundle.status(), "stopped");
    bundle.oci("delete").ok();
    assert_eq!(units(&fixture), "");
}

/// The command in a mount namespace of its own, in which `sockets` are hidden.
fn without(sockets: &[&str], command: &Command) -> Outcome {
    let hide: String = sockets.iter().map(|socket| format!("mount --bind /dev/null {socket} && ")).collect();
    let mut shell = Command::new("unshare");
    shell.args(["-m", "sh", "-c", &format!("{hide}exec \"$@\""), "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    command::run(&mut shell)
}

#[test]
fn the_message_bus_is_as_good_as_systemd_s_own_socket() {
    let fixture = world();
    let bundle = bundle(&fixture).args(["/bin/true"]);
    bundle.write();
    without(&["/run/systemd/private"], &bundle.run_command(&[])).ok();
    assert_eq!(units(&fixture), "");
}

#[test]
fn without_systemd_the_error_names_its_sockets() {
    let fixture = world();
    let bundle = bundle(&fixture);
    bundle.write();
    let hidden = ["/run/systemd/private", "/run/dbus/system_bus_socket"];
    let outcome = without(&hidden, &bundle.create_command(&[])).fails();
    for socket in hidden {
        assert!(outcome.stderr.contains(socket), "{}", outcome.stderr);
    }
}

/// Kills create at points spread over its system calls; after each, delete by force must leave no unit.
fn sweep(victim: Victim) {
    let fixture = world();
    let prepare = || bundle(&fixture).args(["/bin/true"]);
    let within = events::patience();
    let total = run_until(&prepare().create_command(&[]), Fault::Kill(victim), None, within).points;
    fixture.clean_up();
    assert!(total > 100, "only {total} system call stops seen");
    let mut failures = Vec::new();
    for point in (1..=10).map(|index| index * total / 10) {
        let bundle = prepare();
        run_until(&bundle.create_command(&[]), Fault::Kill(victim), Some(point), within);
        let deleted = fixture.run_oci(["delete", "--force", &bundle.id]);
        if deleted.code != Some(0) {
            failures.push(format!("point {point}: delete --force: {}", deleted.stderr.trim()));
        }
        // Of a scope that was being made, systemd learns only now that its process has ended.
        if !gone(&fixture) {
            failures.push(format!("point {point}: {}", units(&fixture)));
        }
        failures.extend(fixture.leaks().into_iter().map(|left| format!("point {point}: {left}")));
        fixture.clean_up();
    }
    assert!(failures.is_empty(), "in {total} stops:\n  {}", failures.join("\n  "));
}

fn gone(fixture: &Fixture) -> bool {
    let end = std::time::Instant::now() + events::patience();
    while !units(fixture).is_empty() {
        if std::time::Instant::now() > end {
            return false;
        }
    }
    true
}

#[test]
fn a_killed_runtime_leaves_no_unit() {
    sweep(Victim::Command);
}

#[test]
fn a_runtime_killed_with_its_children_leaves_no_unit() {
    sweep(Victim::Tree);
}

#[test]
fn an_ordinary_user_gets_a_scope_of_his_own_systemd() {
    let fixture = world();
    let bundle = bundle(&fixture);
    std::fs::remove_file(bundle.dir.join("config.json")).unwrap();
    run(fixture.oci(["spec", "--rootless"]).current_dir(&bundle.dir)).ok();
    let text = std::fs::read_to_string(bundle.dir.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/bin/sleep", "1000"]);
    config["linux"]["cgroupsPath"] = json!(format!(":pre:{}", bundle.id));
    config["linux"]["resources"] = json!({"pids": {"limit": 33}});
    for kind in ["uidMappings", "gidMappings"] {
        config["linux"][kind] = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
    }
    let mut bundle = bundle;
    bundle.config = config;
    bundle.write();
    run(Command::new("chown").args(["-R", "1000:1000"]).arg(fixture.path())).ok();
    let as_user = |words: &[&str]| {
        let command = fixture.oci(words);
        let mut shell = Command::new("/bin/sh");
        // The container must not hold the pipes of this test.
        let script = if words[0] == "create" { "exec \"$@\" </dev/null >log 2>&1" } else { "exec \"$@\"" };
        shell.args(["-c", script, "sh"]).arg(command.get_program()).args(command.get_args());
        shell.uid(1000).gid(1000).current_dir(&bundle.dir);
        run(shell.env("XDG_RUNTIME_DIR", "/run/user/1000").env("CORTEN_TEST", fixture.token()))
    };
    let created = as_user(&["create", "--bundle", bundle.dir.to_str().unwrap(), &bundle.id]);
    let log = std::fs::read_to_string(bundle.dir.join("log")).unwrap();
    if !cgroup::is_v2() {
        assert_ne!(created.code, Some(0));
        assert!(log.contains("needs cgroup v2"), "{log}");
        return;
    }
    assert_eq!(created.code, Some(0), "{log}");
    as_user(&["start", &bundle.id]).ok();
    let pid = as_user(&["state", &bundle.id]).ok().json()["pid"].as_i64().unwrap();
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = format!("/user.slice/user-1000.slice/user@1000.service/user.slice/{}", unit(&bundle));
    assert_eq!(text.trim(), format!("0::{path}"));
    assert_eq!(cgroup::value("pids", &path, "", "pids.max"), "33");
    as_user(&["exec", &bundle.id, "/bin/true"]).ok();
    as_user(&["delete", "--force", &bundle.id]).ok();
    assert!(!cgroup::of("pids").join(path.trim_start_matches('/')).exists());
}
