//! Hooks of all six kinds.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use runtime_tests::{Bundle, Fixture, command};
use serde_json::{Value, json};
use std::path::PathBuf;

const KINDS: &[&str] =
    &["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A hook that appends its name to the log and keeps the state that it read.
fn recording(log: &str, kind: &str) -> Value {
    let script = format!("cat > {log}.{kind}; echo {kind} >> {log}");
    json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin", "HOOK=yes"]})
}

/// A bundle with a directory that the host and the container see at the same path, for the hooks' records.
fn with_records(fixture: &Fixture) -> (Bundle<'_>, PathBuf) {
    let log = fixture.file("records/log", "");
    let dir = fixture.path().join("records");
    let bundle = fixture.bundle().mount(dir.to_str().unwrap(), "bind", &dir, &["bind"]);
    (bundle, log)
}

#[test]
fn all_six_run_in_order_and_get_the_state() {
    let fixture = Fixture::new();
    let (mut bundle, log) = with_records(&fixture);
    let path = log.to_str().unwrap().to_owned();
    for kind in KINDS {
        bundle = bundle.push(&format!("/hooks/{kind}"), recording(&path, kind));
    }
    let bundle = bundle.args(["/probe", "wait"]).set("/annotations", json!({"note": "carried"}));
    let read =
        || std::fs::read_to_string(&log).unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let mut lines = bundle.created();
    assert_eq!(read(), KINDS[..3], "at create");
    let pid = bundle.pid();
    bundle.oci("start").ok();
    lines.next_line();
    assert_eq!(read(), KINDS[..5], "at start");
    bundle.kill_and_wait("KILL");
    bundle.oci("delete").ok();
    assert_eq!(read(), *KINDS, "at delete");

    for kind in KINDS {
        let text = std::fs::read_to_string(format!("{path}.{kind}")).unwrap();
        let state: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{kind}: {error}: {text}"));
        assert_eq!(state["id"], bundle.id.as_str(), "{kind}");
        assert_eq!(state["bundle"], bundle.dir.to_str().unwrap(), "{kind}");
        assert_eq!(state["annotations"], json!({"note": "carried"}), "{kind}");
        assert!(state["ociVersion"].is_string(), "{kind}");
        let status = state["status"].as_str().unwrap();
        match *kind {
            "poststart" => assert_eq!(status, "running"),
            "poststop" => assert_eq!(status, "stopped"),
            "prestart" | "startContainer" => assert_eq!(status, "created", "{kind}"),
            _ => assert_eq!(status, "creating", "{kind}"),
        }
        if !["createContainer", "startContainer", "poststop"].contains(kind) {
            assert_eq!(state["pid"], json!(pid), "{kind}: the pid on the host");
        }
    }
}

#[test]
fn namespaces_of_the_hooks() {
    let fixture = Fixture::new();
    let (mut bundle, log) = with_records(&fixture);
    let path = log.to_str().unwrap().to_owned();
    for kind in KINDS {
        // startContainer finds its program in the container, where readlink is busybox.
        let script = format!(
            "readlink /proc/self/ns/mnt /proc/self/ns/net > {path}.{kind} || \
                              (readlink /proc/self/ns/mnt; readlink /proc/self/ns/net) > {path}.{kind}"
        );
        let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]});
        bundle = bundle.push(&format!("/hooks/{kind}"), hook);
    }
    let bundle = bundle.args(["/probe", "wait"]);
    let mut lines = bundle.started();
    lines.next_line();
    let own = |link: &str| {
        std::fs::read_link(format!("/proc/{}/ns/{link}", bundle.pid())).unwrap().display().to_string()
    };
    let host =
        |link: &str| std::fs::read_link(format!("/proc/self/ns/{link}")).unwrap().display().to_string();
    let (own_mnt, own_net) = (own("mnt"), own("net"));
    bundle.kill_and_wait("KILL");
    bundle.oci("delete").ok();
    for kind in KINDS {
        let text = std::fs::read_to_string(format!("{path}.{kind}")).unwrap();
        let seen: Vec<_> = text.lines().collect();
        let inside = ["createContainer", "startContainer"].contains(kind);
        let expected = if inside { [own_mnt.clone(), own_net.clone()] } else { [host("mnt"), host("net")] };
        assert_eq!(seen, expected, "{kind}");
    }
}

#[test]
fn environment_and_arguments_are_the_hooks_own() {
    let fixture = Fixture::new();
    let (bundle, log) = with_records(&fixture);
    let path = log.to_str().unwrap().to_owned();
    let script = format!(
        "echo \"$0 $1\" > {path}; cat /proc/self/environ | tr '\\0' '\\n' >> {path}; pwd >> {path}.cwd"
    );
    let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script, "zero", "one"], "env": ["HOOK=yes"]});
    bundle.push("/hooks/createRuntime", hook).args(["/bin/true"]).run().ok();
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.starts_with("zero one\n"), "{text}");
    assert!(text.contains("HOOK=yes"), "{text}");
    // Neither the caller's environment nor the image's reaches a program that runs on the host.
    assert!(!text.contains("CORTEN_TEST=") && !text.contains("TERM="), "{text}");
}

/// As with crun, and with runc but for createContainer, which that runs in the container's root.
#[test]
fn hooks_of_the_hosts_side_run_in_the_bundle() {
    let fixture = Fixture::new();
    let (mut bundle, log) = with_records(&fixture);
    let script = format!("readlink /proc/self/cwd >> {}", log.display());
    let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script]});
    let kinds = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];
    for kind in kinds {
        bundle = bundle.push(&format!("/hooks/{kind}"), hook.clone());
    }
    let bundle = bundle.args(["/probe", "wait"]);
    bundle.create().ok();
    for verb in [["start", &bundle.id].as_slice(), &["delete", "--force", &bundle.id]] {
        runtime_tests::run(fixture.oci(verb).current_dir("/usr")).ok();
    }
    let text = std::fs::read_to_string(&log).unwrap();
    assert_eq!(text.lines().collect::<Vec<_>>(), [bundle.dir.to_str().unwrap(); 5]);
    fixture.assert_clean();
}

/// As with runc and crun, whose hooks find their programs by the PATH of an engine.
#[test]
fn a_hook_of_the_host_that_names_no_environment_has_the_callers() {
    let fixture = Fixture::new();
    let (mut bundle, log) = with_records(&fixture);
    for kind in KINDS {
        let script = format!("echo {kind} $OF_CALLER $OF_IMAGE >> {}", log.display());
        bundle =
            bundle.push(&format!("/hooks/{kind}"), json!({"path": "/bin/sh", "args": ["sh", "-c", script]}));
    }
    let bundle = bundle.set("/process/env", json!(["PATH=/bin", "OF_IMAGE=image"])).args(["/bin/true"]);
    command::run(bundle.run_command(&[]).env("OF_CALLER", "caller")).ok();
    let text = std::fs::read_to_string(&log).unwrap();
    let inside = ["createContainer", "startContainer"];
    let expected = KINDS.iter().map(|kind| match inside.contains(kind) {
        true => format!("{kind}\n"),
        false => format!("{kind} caller\n"),
    });
    assert_eq!(text, expected.collect::<String>());
}

#[test]
fn a_failing_hook_fails_create_and_leaves_nothing() {
    let fixture = Fixture::new();
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", "echo from the hook >&2; exit 9"]});
        let outcome = fixture.bundle().push(&format!("/hooks/{kind}"), hook).create().exits(1);
        assert!(outcome.stderr.contains("hook"), "{kind}: {}", outcome.stderr);
        fixture.clean_up();
        fixture.assert_clean();
    }
}

#[test]
fn a_failing_start_container_hook_keeps_the_program_from_running() {
    let fixture = Fixture::new();
    let bundle =
        fixture.bundle().push("/hooks/startContainer", json!({"path": "/bin/false"})).script("touch /ran");
    let outcome = bundle.run();
    assert_ne!(outcome.code, Some(0));
    assert!(!std::fs::exists(bundle.rootfs().join("ran")).unwrap());
}

#[test]
fn a_failing_poststop_hook_does_not_stop_delete() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().push("/hooks/poststop", json!({"path": "/bin/false"})).args(["/bin/true"]);
    let mut lines = bundle.started();
    let pid = bundle.pid();
    assert_eq!(lines.try_line(), None);
    bundle.wait(pid);
    bundle.oci("delete").ok();
    fixture.assert_clean();
}

#[test]
fn a_hook_over_its_timeout_is_killed() {
    let fixture = Fixture::new();
    let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", "exec sleep 1000"], "timeout": 1});
    let begin = std::time::Instant::now();
    let bundle = fixture.bundle().push("/hooks/createRuntime", hook);
    bundle.create().exits(1).says("hook");
    assert!(begin.elapsed() < runtime_tests::events::patience());
    fixture.clean_up();
    fixture.assert_clean();
}

#[test]
fn a_missing_hook_program_is_named() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().push("/hooks/createRuntime", json!({"path": "/nosuch/hook"}));
    bundle.create().exits(1).says("/nosuch/hook");
    fixture.clean_up();
    fixture.assert_clean();
}
