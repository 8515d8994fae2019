//! `--log`, which containerd and podman parse.
use runtime_tests::{Fixture, needs, run};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_failure_is_one_json_line_in_the_log_and_text_on_standard_error() {
    let fixture = Fixture::new();
    let log = fixture.path().join("log.json");
    let words = ["--log", log.to_str().unwrap(), "--log-format=json", "state", "nosuch"];
    let outcome = fixture.run_oci(words).exits(1);
    assert_eq!(outcome.stderr, "container does not exist: \"nosuch\"\n");
    let text = std::fs::read_to_string(&log).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    let record: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(record["level"], "error");
    assert_eq!(record["msg"], "container does not exist: \"nosuch\"");
    let keys: Vec<_> = record.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["level", "msg", "time"]);
    assert_eq!(record["time"].as_str().unwrap().len(), "2026-11-22T10:27:22Z".len());
}

#[test]
fn a_failure_after_warnings_is_still_one_line() {
    let fixture = Fixture::new();
    let log = fixture.path().join("log.json");
    let log = log.to_str().unwrap();
    // A warning of its own, and a failure of the container's side.
    let bundle =
        fixture.bundle().args(["/nosuch"]).push("/process/capabilities/bounding", json!("CAP_NOSUCH"));
    let dir = bundle.write().dir.to_str().unwrap();
    let words = ["--log", log, "--log-format", "json", "create", "--bundle", dir, &bundle.id];
    fixture.run_oci(words).exits(1).says("/nosuch");
    let text = std::fs::read_to_string(log).unwrap();
    let record: Value = serde_json::from_str(&text).expect("podman reads the whole file as one object");
    assert!(record["msg"].as_str().unwrap().contains("no such file or directory"), "{text}");
}

#[test]
fn the_log_is_appended_to_and_others_may_read_it() {
    let fixture = Fixture::new();
    let log = fixture.path().join("log");
    for lines in 1..4 {
        fixture.run_oci(["--log", log.to_str().unwrap(), "state", "nosuch"]).exits(1);
        let text = std::fs::read_to_string(&log).unwrap();
        assert_eq!(text.lines().count(), lines, "{text}");
        assert!(
            text.lines().all(|line| line.starts_with("time=\"") && line.contains("\" level=error msg=\""))
        );
    }
    assert_eq!(log.metadata().unwrap().permissions().mode() & 0o777, 0o644);
}

#[test]
fn warnings_of_a_call_that_succeeds_reach_the_log_and_nothing_else() {
    let fixture = Fixture::new();
    let log = fixture.path().join("log.json");
    let log = log.to_str().unwrap();
    let bundle = fixture.bundle().push("/process/capabilities/bounding", json!("CAP_NOSUCH"));
    let dir = bundle.write().dir.to_str().unwrap();
    let words = ["--log", log, "--log-format", "json", "run", "--bundle", dir, &bundle.id];
    assert_eq!(fixture.run_oci(words).ok().stderr, "");
    let text = std::fs::read_to_string(log).unwrap();
    let record: Value = serde_json::from_str(text.trim()).unwrap();
    assert_eq!(record["level"], "warning", "{text}");
    assert!(record["msg"].as_str().unwrap().contains("CAP_NOSUCH"), "{text}");
    let bundle = bundle.set("/root/readonly", json!(true));
    bundle.run().ok().says("level=warning");
}

/// Their standard output and standard error are read as one, and one warning would break what is parsed.
#[test]
fn what_callers_parse_is_clean() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(["/probe", "wait"]);
    let mut lines = bundle.started();
    lines.next_line();
    let log = fixture.path().join("log.json");
    let globals =
        ["--criu", "/proc/nosuch", "--rootless=true", "--log", log.to_str().unwrap(), "--log-format=json"];
    let id = bundle.id.as_str();
    let verbs: [&[&str]; 6] = [
        &["state", id],
        &["ps", "--format", "json", id],
        &["list", "--format=json"],
        &["features"],
        &["events", "--stats", id],
        &["--version"],
    ];
    for verb in verbs {
        for globals in [&globals[..3], &globals[..]] {
            let mut command = fixture.oci(globals);
            let outcome = run(command.args(verb).env("NOTIFY_SOCKET", "/proc/nosuch")).ok();
            assert_eq!(outcome.stderr, "", "{verb:?}");
            let parsed = serde_json::from_str::<Value>(&outcome.stdout).is_ok();
            assert!(parsed || verb[0] == "--version", "{verb:?}: {}", outcome.stdout);
        }
    }
    assert!(!needs::exists(&log) || std::fs::read_to_string(&log).unwrap().is_empty());
}
