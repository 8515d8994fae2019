//! `list`, `ps` and `state`.
use runtime_tests::{Fixture, needs};
use serde_json::{Value, json};

const WAIT: &[&str] = &["/probe", "wait"];

#[test]
fn list_has_runcs_formats() {
    let fixture = Fixture::new();
    let header = "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n";
    for format in [&["list"][..], &["list", "-f", "table"], &["list", "--format", "table"]] {
        assert_eq!(fixture.run_oci(format).ok().stdout, header);
    }
    assert_eq!(fixture.run_oci(["list", "--format=json"]).ok().stdout, "null\n");
    assert_eq!(fixture.run_oci(["list", "--quiet"]).ok().stdout, "");
    fixture.run_oci(["list", "--format=yaml"]).exits(1).says("invalid format option");
    let bundle = fixture.bundle().args(WAIT);
    let _lines = bundle.created();
    let state = bundle.state();
    let list = fixture.run_oci(["list", "-f=json"]).ok();
    assert_eq!(list.stdout.lines().count(), 1);
    let mut shown = list.json()[0].clone();
    assert_eq!(shown["owner"].take(), "root");
    let mut expected = state.clone();
    expected["owner"] = Value::Null;
    assert_eq!(shown, expected);
    assert_eq!(fixture.run_oci(["list", "-q"]).ok().stdout, format!("{}\n", bundle.id));
    let table = fixture.run_oci(["list"]).ok().stdout;
    let row: Vec<_> = table.lines().nth(1).unwrap().split_whitespace().map(str::to_owned).collect();
    let text = |name: &str| state[name].as_str().unwrap().to_owned();
    let pid = state["pid"].to_string();
    assert_eq!(row, [text("id"), pid, text("status"), text("bundle"), text("created"), "root".into()]);
}

#[test]
fn state_has_its_fields_in_runcs_order_and_a_time_of_nanoseconds() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(WAIT).set("/annotations", json!({"b": "2", "a": "1"}));
    let _lines = bundle.created();
    let text = bundle.oci("state").ok().stdout;
    let keys: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("  \"")?.split_once('"').map(|(key, _)| key))
        .collect();
    let order = ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "annotations", "owner"];
    assert_eq!(keys, order);
    assert!(!text.ends_with('\n'), "no newline, as with runc");
    let state: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(state["owner"], "");
    // RFC3339Nano: no zeros at the end of the fraction.
    let created = state["created"].as_str().unwrap().strip_suffix('Z').unwrap();
    let (seconds, fraction) = created.split_once('.').unwrap_or((created, "1"));
    assert_eq!(seconds.len(), "2026-11-22T10:27:22".len());
    assert!(fraction.len() <= 9 && !fraction.ends_with('0'), "{created}");
}

#[test]
fn ps_filters_the_hosts_ps() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().script("/probe wait & /probe wait & wait");
    let mut lines = bundle.started();
    assert_eq!((lines.next_line(), lines.next_line()), ("ready".into(), "ready".into()));
    let ps = |words: &[&str]| fixture.run_oci([&["ps"], words].concat());
    let id = bundle.id.as_str();
    let pids: Vec<i64> = serde_json::from_value(ps(&["-f", "json", id]).ok().json()).unwrap();
    assert_eq!(pids.len(), 3);
    assert!(pids.contains(&i64::from(bundle.pid())));
    ps(&["--format", "yaml", id]).exits(1).says("invalid format option");
    // The virtual machine's ps is busybox's.
    if needs::exists("/usr/bin/ps") {
        let rows = |words: &[&str]| ps(words).ok().stdout.lines().count();
        assert_eq!((rows(&[id]), rows(&[id, "-e", "-o", "pid,comm"]), rows(&[id, "aux"])), (4, 4, 4));
        ps(&[id, "-e", "-o", "comm"]).exits(1).says("couldn't find PID field in ps output");
        ps(&[id, "--nosuch"]).exits(1);
    }
    bundle.kill_and_wait("KILL");
    assert_eq!(ps(&["-f", "json", id]).ok().stdout, "null\n");
}

#[test]
fn delete_takes_a_regular_expression() {
    let fixture = Fixture::new();
    let bundles: Vec<_> = (0..3).map(|_| fixture.bundle().args(WAIT)).collect();
    let _lines: Vec<_> = bundles.iter().map(runtime_tests::Bundle::started).collect();
    let ids = || fixture.run_oci(["list", "-q"]).ok().stdout;
    fixture.run_oci(["delete", "--regex", "("]).exits(1).says("regular expression");
    fixture.run_oci(["delete", "--regex", "no such"]).ok();
    fixture.run_oci(["delete", "--regex", "."]).exits(1).says("that is not stopped");
    assert_eq!(ids().lines().count(), 3);
    let two = format!("^({}|{})$", bundles[0].id, bundles[2].id);
    fixture.run_oci(["delete", "--force", "--regex", &two]).ok();
    assert_eq!(ids(), format!("{}\n", bundles[1].id));
    // Also one whose record cannot be read.
    std::fs::write(fixture.state_root().join(&bundles[1].id).join("state.json"), "damaged").unwrap();
    fixture.run_oci(["delete", "-f", "--regex", "."]).ok();
    fixture.assert_clean();
}
