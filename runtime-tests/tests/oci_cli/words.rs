//! How words become flags, ids and errors.

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

/// Words, exit code, and what standard error says (runc's words, where it has any).
const TABLE: &[(&str, i32, &str)] = &[
    // Verbs and counts.
    ("nosuchverb", 3, "No help topic for 'nosuchverb'"),
    ("help nosuchverb", 3, "No help topic for 'nosuchverb'"),
    ("init", 3, "No help topic for 'init'"),
    ("state", 1, "\\\"state\\\" requires exactly 1 argument(s)"),
    ("state a b", 1, "\\\"state\\\" requires exactly 1 argument(s)"),
    ("list x", 1, "requires exactly 0 argument(s)"),
    ("spec x", 1, "requires exactly 0 argument(s)"),
    ("exec", 1, "requires a minimum of 1 argument(s)"),
    ("ps", 1, "requires a minimum of 1 argument(s)"),
    ("kill", 1, "requires a minimum of 1 argument(s)"),
    ("kill a b c", 1, "requires a maximum of 2 argument(s)"),
    // Flags.
    ("create --nosuch x", 1, "flag provided but not defined: -nosuch"),
    ("--nosuch state x", 1, "flag provided but not defined: -nosuch"),
    ("create --bundle", 1, "flag needs an argument: -bundle"),
    ("--root", 1, "flag needs an argument: -root"),
    ("run --preserve-fds x y", 1, "invalid value \\\"x\\\" for flag -preserve-fds: parse error"),
    ("events --interval 5 x", 1, "invalid value \\\"5\\\" for flag -interval: parse error"),
    ("--debug=maybe list", 1, "invalid boolean value \\\"maybe\\\" for -debug: parse error"),
    ("exec -t=maybe x true", 1, "invalid boolean value \\\"maybe\\\" for -tty: parse error"),
    // Of a flag that stands twice the last one counts; an empty value is none.
    ("--log-format=nosuch --log-format=text state x", 1, "does not exist"),
    ("--log= --log /dev/null --log= state x", 1, "does not exist"),
    ("list --quiet=0 -quiet=false", 0, ""),
    ("delete -f --force=true nosuch", 0, ""),
    // Flags behind the id, but not with exec, kill and ps.
    ("delete nosuch --force", 0, ""),
    ("create x --bundle", 1, "flag needs an argument: -bundle"),
    ("exec nosuch --nosuchflag", 255, "container does not exist"),
    ("kill nosuch -9", 1, "unknown signal \\\"-9\\\""),
    ("ps nosuch --nosuchflag", 1, "container does not exist"),
    ("state -- nosuch", 1, "container does not exist"),
    // Global flags.
    ("--log-format xml state x", 1, "invalid log-format: xml"),
    ("--log /proc/nosuch/log state x", 1, "no such file or directory"),
    ("--root / list", 1, "--root must not be /"),
    ("--rootless maybe list", 1, "--rootless"),
    ("--rootless auto list", 0, ""),
    ("--rootless=true list", 0, ""),
    ("--rootless=false list", 0, ""),
    ("--criu /proc/nosuch list", 0, ""),
    ("--systemd-cgroup list", 0, ""),
    ("--cgroup-manager cgroupfs list", 0, ""),
    ("--cgroup-manager systemd list", 0, ""),
    ("--cgroup-manager disabled list", 0, ""),
    ("--cgroup-manager nosuch list", 1, "unknown cgroup manager specified: nosuch"),
    // What is not there.
    ("delete --force nosuch", 0, ""),
    ("delete nosuch", 1, "container does not exist"),
    ("start nosuch", 1, "container does not exist"),
    ("pause nosuch", 1, "container does not exist"),
    ("resume nosuch", 1, "container does not exist"),
    ("update nosuch", 1, "container does not exist"),
    ("events nosuch", 1, "container does not exist"),
    ("events --stats nosuch", 1, "container does not exist"),
    ("kill nosuch FOO", 1, "unknown signal \\\"FOO\\\""),
    ("create --bundle /proc/nosuch/dir x", 1, "o such file or directory"),
    ("create --bundle /tmp x", 1, "config.json"),
    ("run --bundle /tmp x", 1, "corten-oci run failed: "),
    ("exec nosuch true", 255, "exec failed: container does not exist"),
    // Checkpoints: understood, and not supported.
    (
        "checkpoint --image-path /i --work-path /w --leave-running -tcp-established --status-fd -1 nosuch",
        1,
        "checkpoint is not supported",
    ),
    ("restore -no-subreaper --image-path /i -d --pid-file /p -b /b nosuch", 1, "restore is not supported"),
    ("checkpoint --nosuch x", 1, "flag provided but not defined: -nosuch"),
    ("restore --lsm-mount-context", 1, "flag needs an argument: -lsm-mount-context"),
    ("checkpoint", 1, "requires exactly 1 argument(s)"),
];

#[test]
fn words_mean_what_they_mean_to_runc() {
    let fixture = Fixture::new();
    for (words, code, says) in TABLE {
        let outcome = fixture.run_oci(words.split(' ')).exits(*code);
        assert!(outcome.stderr.contains(says), "{words}: {says:?} is not in {}", outcome.stderr);
        assert!(*code != 0 || outcome.stderr.is_empty(), "{words}: {}", outcome.stderr);
    }
}

#[test]
fn each_verb_has_help() {
    let fixture = Fixture::new();
    let verbs = "checkpoint create delete events exec features kill list pause ps restore resume run spec start \
                 state update";
    let all = fixture.run_oci(["--help"]).ok().stdout;
    assert_eq!(fixture.run_oci([""; 0]).ok().stdout, all);
    for verb in verbs.split(' ') {
        assert!(all.contains(&format!("\n  {verb} ")), "{verb}: {all}");
        let text = fixture.run_oci([verb, "--help"]).ok().stdout;
        assert!(text.contains(&format!("corten-oci {verb}")), "{text}");
        assert_eq!(fixture.run_oci([verb, "-h"]).ok().stdout, text);
        assert_eq!(fixture.run_oci(["help", verb]).ok().stdout, text);
    }
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
    assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], true);
    assert!(options.contains(&"idmap".into()) && options.contains(&"ridmap".into()));
}
