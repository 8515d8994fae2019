//! The command line of the OCI runtime, where its callers depend on details.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use runtime_tests::Fixture;
use serde_json::Value;

#[test]
fn version_has_the_lines_that_dockerd_reads() {
    let fixture = Fixture::new();
    for flag in ["--version", "-v", "-version"] {
        let text = fixture.run_oci([flag]).ok().stdout;
        let first = text.lines().next().unwrap();
        assert!(first.starts_with("corten-oci version "), "{text}");
        assert!(text.contains("\ncommit: ") && text.contains("\nspec: "), "{text}");
    }
}

#[test]
fn one_dash_and_values_of_switches_are_taken() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().script("exit 3");
    let dir = bundle.write().dir.to_str().unwrap().to_string();
    let words =
        ["-debug=false", "run", "-no-pivot=false", "-bundle", &dir, "--keep=false", bundle.id.as_str()];
    fixture.run_oci(words).exits(3);
    fixture.assert_clean();
}

#[test]
fn flags_of_the_program_are_the_programs() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(["/probe", "wait"]);
    let _lines = bundle.started();
    let shown = bundle.exec(&["/bin/sh", "-c", "echo $0 $1", "-debug", "--version"]).ok().stdout;
    assert_eq!(shown, "-debug --version\n");
    bundle.kill_and_wait("KILL");
    bundle.oci("delete").ok();
}

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
}

#[test]
fn wrong_words_are_told_as_runc_does() {
    let fixture = Fixture::new();
    fixture.run_oci(["nosuchverb"]).exits(3).says("No help topic for 'nosuchverb'");
    fixture.run_oci(["state"]).exits(1).says("requires exactly 1 argument(s)");
    fixture.run_oci(["create", "--nosuch", "x"]).exits(1).says("flag provided but not defined: -nosuch");
    fixture.run_oci(["create", "--bundle"]).exits(1).says("flag needs an argument: -bundle");
    fixture.run_oci(["--log-format", "xml", "state", "x"]).exits(1).says("invalid log-format");
    fixture.run_oci(["--root", "/", "list"]).exits(1);
    fixture.run_oci(["delete", "--force", "nosuch"]).ok();
}

#[test]
fn a_new_specification_never_overwrites_one() {
    let fixture = Fixture::new();
    let bundle = fixture.path().join("new");
    std::fs::create_dir(&bundle).unwrap();
    let dir = bundle.to_str().unwrap();
    fixture.run_oci(["spec", "--bundle", dir]).ok();
    let text = std::fs::read_to_string(bundle.join("config.json")).unwrap();
    let spec: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(spec["root"]["path"], "rootfs");
    fixture.run_oci(["spec", "-b", dir]).exits(1).says("exists. Remove it first");
    assert_eq!(std::fs::read_to_string(bundle.join("config.json")).unwrap(), text);
}

#[test]
fn features_tell_what_containerd_and_crio_look_for() {
    let fixture = Fixture::new();
    let features = fixture.run_oci(["features"]).ok().json();
    assert_eq!(features["ociVersionMin"], "1.0.0");
    let options = features["mountOptions"].as_array().unwrap();
    assert!(options.contains(&"rro".into()));
    // Mounts with mapped owners are refused, and whoever believes otherwise fails later and harder.
    assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], false);
    assert!(!options.contains(&"idmap".into()));
}
