//! Bad input: one clear error, the right exit code, nothing left behind.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
#![expect(clippy::disallowed_methods, reason = "the tests own the directories that they work on")]

use runtime_tests::{Fixture, Outcome, run};
use serde_json::json;

/// A failed create: exit code 1, one line, these words, and nothing left even before `delete`.
#[track_caller]
fn refused(fixture: &Fixture, outcome: Outcome, words: &[&str]) {
    let outcome = outcome.exits(1);
    let text = outcome.stderr.to_lowercase();
    for word in words {
        assert!(text.contains(&word.to_lowercase()), "{word:?} is not in: {}", outcome.stderr);
    }
    assert_eq!(outcome.stdout, "");
    assert_eq!(outcome.stderr.trim_end().lines().count(), 1, "one line: {}", outcome.stderr);
    assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
    fixture.assert_clean();
}

#[test]
fn a_missing_bundle() {
    let fixture = Fixture::new();
    let outcome = fixture.run_oci(["create", "--bundle", "/nosuch/bundle", fixture.token()]);
    refused(&fixture, outcome, &["/nosuch/bundle"]);
}

#[test]
fn a_bundle_without_configuration() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle();
    std::fs::remove_file(bundle.dir.join("config.json")).unwrap();
    let outcome = fixture.run_oci(["create", "--bundle", bundle.dir.to_str().unwrap(), &bundle.id]);
    refused(&fixture, outcome, &["config.json"]);
}

#[test]
fn a_configuration_that_is_not_json() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle();
    for text in ["", "{", "[]", "null", "{\"ociVersion\": }", "\u{0}\u{1}"] {
        std::fs::write(bundle.dir.join("config.json"), text).unwrap();
        let outcome = fixture.run_oci(["create", "--bundle", bundle.dir.to_str().unwrap(), &bundle.id]);
        refused(&fixture, outcome, &[]);
    }
}

#[test]
fn a_value_of_the_wrong_type_is_named() {
    let fixture = Fixture::new();
    let cases = [
        ("/process/args", json!("sh"), "args"),
        ("/process/user/uid", json!("root"), "uid"),
        ("/process/user/uid", json!(-1), "uid"),
        ("/process/terminal", json!(1), "terminal"),
        ("/linux/resources/memory", json!({"limit": "64m"}), "limit"),
        ("/linux/namespaces", json!({}), "namespaces"),
        ("/mounts", json!([{"destination": 5}]), "destination"),
        ("/root", json!("rootfs"), "root"),
    ];
    for (pointer, value, word) in cases {
        let outcome = fixture.bundle().set(pointer, value).create();
        refused(&fixture, outcome, &[word]);
    }
}

#[test]
fn an_unknown_namespace() {
    let fixture = Fixture::new();
    let outcome = fixture.bundle().push("/linux/namespaces", json!({"type": "quantum"})).create();
    refused(&fixture, outcome, &["quantum"]);
}

#[test]
fn a_namespace_twice() {
    let fixture = Fixture::new();
    let outcome = fixture.bundle().push("/linux/namespaces", json!({"type": "pid"})).create();
    refused(&fixture, outcome, &["pid"]);
}

#[test]
fn a_missing_executable() {
    let fixture = Fixture::new();
    let cases = [
        ("/bin/nosuch", "no such file or directory"),
        ("nosuch", "executable file not found in"),
        ("/etc/passwd", "permission denied"),
        ("/etc", ""),
    ];
    for (program, word) in cases {
        let outcome = fixture.bundle().args([program]).create();
        refused(&fixture, outcome, &[program, word]);
    }
}

#[test]
fn run_of_a_missing_executable_fails_the_same_way() {
    let fixture = Fixture::new();
    let outcome = fixture.bundle().args(["/bin/nosuch"]).run();
    refused(&fixture, outcome, &["/bin/nosuch", "no such file or directory"]);
}

#[test]
fn nothing_to_run() {
    let fixture = Fixture::new();
    let none: [&str; 0] = [];
    let outcome = fixture.bundle().args(none).create();
    refused(&fixture, outcome, &["args"]);
    let outcome = fixture.bundle().unset("/process/args").create();
    refused(&fixture, outcome, &["args"]);
    let outcome = fixture.bundle().unset("/process").create();
    refused(&fixture, outcome, &["process"]);
    let outcome = fixture.bundle().set("/process/cwd", json!("relative")).create();
    refused(&fixture, outcome, &["cwd"]);
}

#[test]
fn a_missing_root_file_system() {
    let fixture = Fixture::new();
    let outcome = fixture.bundle().set("/root/path", json!("nosuch")).create();
    refused(&fixture, outcome, &["nosuch"]);
    let outcome = fixture.bundle().unset("/root").create();
    refused(&fixture, outcome, &["root"]);
}

#[test]
fn a_root_that_is_a_file() {
    let fixture = Fixture::new();
    let outcome = fixture.bundle().file("file", "").set("/root/path", json!("rootfs/file")).create();
    refused(&fixture, outcome, &["rootfs/file"]);
}

#[test]
fn limits_that_the_host_cannot_give() {
    let fixture = Fixture::new();
    let outcome = fixture.bundle().set("/linux/resources/cpu", json!({"cpus": "9999"})).create();
    refused(&fixture, outcome, &["cpuset.cpus"]);
    let outcome = fixture.bundle().set("/linux/resources/cpu", json!({"quota": 1, "period": 1})).create();
    refused(&fixture, outcome, &["cpu"]);
    let limit = json!([{"type": "RLIMIT_NOFILE", "soft": 4_294_967_295u64, "hard": 4_294_967_295u64}]);
    let outcome = fixture.bundle().set("/process/rlimits", limit).create();
    refused(&fixture, outcome, &["RLIMIT_NOFILE"]);
}

#[test]
fn unknown_names() {
    let fixture = Fixture::new();
    let outcome = fixture
        .bundle()
        .set("/process/rlimits", json!([{"type": "RLIMIT_NOSUCH", "soft": 1, "hard": 1}]))
        .create();
    refused(&fixture, outcome, &["RLIMIT_NOSUCH"]);
    let outcome = fixture.bundle().mount("/mnt", "nosuchfs", "none", &[]).create();
    refused(&fixture, outcome, &["nosuchfs"]);
    let outcome =
        fixture.bundle().set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_NOSUCH"})).create();
    refused(&fixture, outcome, &["SCMP_ACT_NOSUCH"]);
    let outcome = fixture.bundle().set("/linux/rootfsPropagation", json!("sideways")).create();
    refused(&fixture, outcome, &["rootfsPropagation"]);
}

#[test]
fn a_hostname_without_its_namespace() {
    let fixture = Fixture::new();
    let outcome = fixture.bundle().without_namespace("uts").set("/hostname", json!("other")).create();
    refused(&fixture, outcome, &["hostname"]);
}

#[test]
fn wrong_command_lines() {
    let fixture = Fixture::new();
    for args in
        [vec!["create"], vec!["nosuchverb"], vec!["start"], vec!["create", "--nosuch", "id"], vec!["kill"]]
    {
        let outcome = fixture.run_oci(&args);
        assert_ne!(outcome.code, Some(0), "{args:?}");
        assert!(!(outcome.stdout + &outcome.stderr).is_empty(), "{args:?} failed without a word");
    }
    fixture.assert_clean();
}

#[test]
fn a_state_root_that_cannot_be() {
    let fixture = Fixture::new();
    let file = fixture.file("a-file", "");
    let bundle = fixture.bundle();
    bundle.write();
    let mut create = runtime_tests::needs::oci();
    create
        .arg("--root")
        .arg(file.join("state"))
        .args(["create", "--bundle"])
        .arg(&bundle.dir)
        .arg(&bundle.id);
    run(&mut create).exits(1).says("a-file");
}

#[test]
fn a_damaged_state_file_is_named() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(["/probe", "wait"]);
    let dir = fixture.state_root().join(&bundle.id);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("state.json"), "{\"half\": ").unwrap();
    for verb in ["state", "start", "delete"] {
        bundle.oci(verb).exits(1);
    }
    // Which cgroups it had nobody knows any more: whoever looks at them removes the directory.
    std::fs::remove_dir_all(&dir).unwrap();
    fixture.assert_clean();
}

#[test]
fn errors_go_to_the_log_as_one_json_object() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(["/bin/nosuch"]);
    bundle.write();
    let log = fixture.path().join("log.json");
    let mut create =
        fixture.oci(["--log", log.to_str().unwrap(), "--log-format", "json", "create", "--bundle"]);
    run(create.arg(&bundle.dir).arg(&bundle.id)).exits(1);
    let text = std::fs::read_to_string(&log).unwrap();
    let entry: serde_json::Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(entry["level"], "error");
    assert!(entry["msg"].as_str().unwrap().contains("/bin/nosuch"), "{text}");
    assert!(entry["time"].is_string(), "{text}");
}
