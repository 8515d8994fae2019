//! `exec`: another process in a running container.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use runtime_tests::terminal::ConsoleSocket;
use runtime_tests::{Bundle, Fixture, cgroup, command, events, leaks, run};
use serde_json::{Value, json};
use std::io::Write;

const REPORT: &[&str] = &["/probe", "report"];

/// A started container; its output must be kept as long as it runs.
macro_rules! running {
    ($fixture:ident, $bundle:ident, $change:expr) => {
        let $fixture = Fixture::new();
        let change: fn(Bundle<'_>) -> Bundle<'_> = $change;
        let $bundle = change($fixture.bundle().args(["/probe", "wait"]));
        let mut lines = $bundle.started();
        assert_eq!(lines.next_line(), "ready");
    };
}

#[test]
fn runs_in_the_containers_namespaces_and_cgroup() {
    running!(fixture, bundle, |bundle| bundle);
    let report = bundle.exec(REPORT).ok().json();
    let mut differing = Vec::new();
    for kind in ["pid", "net", "mnt", "ipc", "uts", "cgroup"] {
        let init = std::fs::read_link(format!("/proc/{}/ns/{kind}", bundle.pid())).unwrap();
        if report["namespaces"][kind] != init.to_str().unwrap() {
            differing.push(kind);
        }
    }
    assert_eq!(differing, Vec::<&str>::new());
    assert_eq!(report["cwd"], "/");
    assert_eq!(report["fds"].as_object().unwrap().keys().collect::<Vec<_>>(), ["0", "1", "2"]);

    let mut exec = fixture.oci(["exec", &bundle.id, "/probe", "trap", "SIGTERM", "3"]);
    let (reader, writer) = std::io::pipe().unwrap();
    exec.stdin(std::process::Stdio::null()).stdout(writer);
    let mut child = exec.spawn().unwrap();
    drop(exec);
    assert_eq!(events::Lines::new(reader).next_line(), "ready");
    let own = cgroup::of("pids").join(&bundle.id);
    let pids = cgroup::pids(&own);
    assert_eq!(pids.len(), 2, "{pids:?}");
    let other = pids.into_iter().find(|pid| *pid != bundle.pid()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(other), nix::sys::signal::Signal::SIGTERM).unwrap();
    let status = command::wait(&mut child, events::patience()).expect("exec ends");
    assert_eq!(status.code(), Some(3));
}

#[test]
fn every_cgroup_hierarchy_holds_the_new_process() {
    running!(fixture, bundle, |bundle| bundle.without_namespace("cgroup"));
    let of_init = std::fs::read_to_string(format!("/proc/{}/cgroup", bundle.pid())).unwrap();
    let report = bundle.exec(REPORT).ok().json();
    assert_eq!(report["cgroup"], of_init.trim_end());
    assert!(of_init.contains(&bundle.id), "{of_init}");
    drop(fixture);
}

#[test]
fn exit_codes() {
    running!(_fixture, bundle, |bundle| bundle);
    for code in [0, 1, 42, 255] {
        bundle.exec(&["/probe", "exit", &code.to_string()]).exits(code);
    }
    bundle.exec(&["/bin/sh", "-c", "kill -9 $$"]).exits(137);
}

#[test]
fn a_missing_program_is_255_and_named() {
    running!(_fixture, bundle, |bundle| bundle);
    let outcome = bundle.exec(&["/bin/nosuch"]).exits(255);
    assert!(outcome.stderr.contains("/bin/nosuch"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("no such file or directory"), "{}", outcome.stderr);
    bundle.exec(&["nosuch"]).exits(255).says("executable file not found in");
    bundle.exec(&["/etc/passwd"]).exits(255).says("permission denied");
}

#[test]
fn env_and_cwd() {
    running!(_fixture, bundle, |bundle| bundle.push("/process/env", json!("FROM=config")));
    let options = ["--cwd", "/tmp", "-e", "ONE=1", "-e", "TWO=2 and more", "-e=FROM=exec"];
    let report = bundle.exec_with(&options, REPORT).ok().json();
    assert_eq!(report["cwd"], "/tmp");
    assert_eq!(report["env"]["ONE"], "1");
    assert_eq!(report["env"]["TWO"], "2 and more");
    assert_eq!(report["env"]["FROM"], "exec");
    assert!(report["env"]["PATH"].is_string());
}

#[test]
fn users_and_groups() {
    running!(_fixture, bundle, |bundle| bundle);
    let report = bundle.exec_with(&["--user", "1000:50", "-g", "7", "-g", "8"], REPORT).ok().json();
    assert_eq!(report["uid"], json!([1000, 1000, 1000]));
    assert_eq!(report["gid"], json!([50, 50, 50]));
    let groups = report["groups"].as_array().unwrap();
    assert!(groups.contains(&json!(7)) && groups.contains(&json!(8)), "{groups:?}");
    let report = bundle.exec_with(&["--user", "1000"], REPORT).ok().json();
    assert_eq!(report["uid"][0], 1000);
    // CVE-2026-30892: what is not quite a uid is not root.
    for user in ["0x1", "4294967296", "1 ", "1:2:3", "x", "-1"] {
        bundle.exec_with(&["--user", user], &["/bin/true"]).fails();
    }
}

#[test]
fn capabilities_are_the_containers_and_what_is_added() {
    running!(_fixture, bundle, |bundle| bundle);
    let caps = bundle.exec(REPORT).ok().json()["caps"].clone();
    // CAP_AUDIT_WRITE, CAP_KILL, CAP_NET_BIND_SERVICE; never inheritable (CVE-2022-29162).
    assert_eq!(caps["CapEff"], "0000000020000420");
    assert_eq!(caps["CapInh"], "0000000000000000");
    let caps = bundle.exec_with(&["--cap", "CAP_SYS_TIME"], REPORT).ok().json()["caps"].clone();
    assert_eq!(caps["CapEff"], "0000000022000420");
    assert_eq!(caps["CapInh"], "0000000000000000");
}

#[test]
fn no_new_privs() {
    running!(_fixture, bundle, |bundle| bundle.set("/process/noNewPrivileges", json!(false)));
    assert_eq!(bundle.exec(REPORT).ok().json()["no_new_privs"], "0");
    assert_eq!(bundle.exec_with(&["--no-new-privs"], REPORT).ok().json()["no_new_privs"], "1");
}

fn process(bundle: &Bundle<'_>, change: impl FnOnce(&mut Value)) -> String {
    let mut process = bundle.config["process"].clone();
    process["args"] = json!(REPORT);
    change(&mut process);
    let file = bundle.dir.join("process.json");
    std::fs::write(&file, process.to_string()).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn process_file() {
    running!(fixture, bundle, |bundle| bundle);
    let file = process(&bundle, |process| {
        process["cwd"] = json!("/tmp");
        process["env"] = json!(["PATH=/bin", "KEY=value"]);
        process["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [5], "umask": 0o077});
        process["oomScoreAdj"] = json!(500);
        process["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]);
        process["capabilities"] = json!({});
    });
    let report = fixture.run_oci(["exec", "--process", &file, &bundle.id]).ok().json();
    assert_eq!(report["cwd"], "/tmp");
    assert_eq!(report["env"]["KEY"], "value");
    assert_eq!(report["uid"][0], 1000);
    assert_eq!(report["umask"], "0077");
    assert_eq!(report["oom_score_adj"], "500");
    assert_eq!(report["rlimits"]["RLIMIT_NOFILE"], json!([100, 200]));
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(report["caps"][set], "0000000000000000", "{set}");
    }
}

#[test]
fn detached_with_pid_file() {
    running!(fixture, bundle, |bundle| bundle);
    let (reader, writer) = std::io::pipe().unwrap();
    let file = fixture.path().join("exec-pid");
    let mut exec = fixture.oci(["exec", "--detach", "--pid-file", file.to_str().unwrap(), &bundle.id]);
    exec.args(["/probe", "trap", "SIGTERM", "0"]).stdin(std::process::Stdio::null()).stdout(writer);
    let mut child = exec.spawn().unwrap();
    drop(exec);
    let status = command::wait(&mut child, events::patience()).expect("exec --detach comes back");
    assert_eq!(status.code(), Some(0));
    assert_eq!(events::Lines::new(reader).next_line(), "ready");
    let text = std::fs::read_to_string(file).unwrap();
    let pid: i32 = text.parse().expect("digits alone");
    assert_ne!(pid, bundle.pid());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).unwrap();
    bundle.wait(pid);
}

#[test]
fn terminal_through_a_console_socket() {
    running!(fixture, bundle, |bundle| bundle);
    let socket = ConsoleSocket::new(fixture.path().join("console"));
    let file = process(&bundle, |process| {
        process["terminal"] = json!(true);
        process["consoleSize"] = json!({"height": 33, "width": 77});
        process["args"] = json!(["/probe", "terminal"]);
    });
    let options = ["exec", "--detach", "--console-socket", socket.path(), "--process", &file, &bundle.id];
    run(&mut fixture.oci(options)).ok();
    let line = events::Lines::new(socket.master()).next_line();
    let seen: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
    assert_eq!(seen["terminal"], true);
    assert_eq!(seen["controlling"], "ok");
    assert!(seen["name"].as_str().unwrap().starts_with("/dev/pts/"), "{seen}");
}

#[test]
fn needs_a_running_container() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(["/bin/true"]);
    let mut lines = bundle.started();
    let pid = bundle.pid();
    assert_eq!(lines.try_line(), None);
    bundle.wait(pid);
    bundle.exec(&["/bin/true"]).exits(255).says("stopped");
}

#[test]
fn in_a_created_container() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(["/probe", "wait"]);
    let _lines = bundle.created();
    assert_eq!(bundle.exec(&["/bin/echo", "early"]).ok().stdout, "early\n");
}

#[test]
fn sees_the_processes_and_files_of_the_container() {
    running!(_fixture, bundle, |bundle| bundle);
    let out = bundle.exec(&["/bin/sh", "-c", "cat /proc/1/cmdline; echo new > /tmp/from-exec"]).ok();
    assert!(out.stdout.contains("/probe\0wait"), "{}", out.stdout);
    assert_eq!(std::fs::read_to_string(bundle.rootfs().join("tmp/from-exec")).unwrap(), "new\n");
}

#[test]
fn in_a_user_namespace() {
    running!(_fixture, bundle, |bundle| bundle.user_namespace());
    let report = bundle.exec(REPORT).ok().json();
    assert_eq!(report["uid"], json!([0, 0, 0]));
    let init = std::fs::read_link(format!("/proc/{}/ns/user", bundle.pid())).unwrap();
    assert_eq!(report["namespaces"]["user"], init.to_str().unwrap());
}

#[test]
fn standard_input() {
    running!(fixture, bundle, |bundle| bundle);
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"words\n").unwrap();
    drop(writer);
    let mut exec = fixture.oci(["exec", &bundle.id, "/bin/cat"]);
    exec.stdin(reader);
    assert_eq!(command::run_with_stdin(&mut exec, events::patience()).ok().stdout, "words\n");
}

#[test]
fn options_after_the_id_belong_to_the_program() {
    running!(_fixture, bundle, |bundle| bundle);
    let out = bundle.exec(&["/bin/sh", "-c", "echo \"$0 $@\"", "a", "--cwd", "-e"]).ok();
    assert_eq!(out.stdout, "a --cwd -e\n");
}

#[test]
fn exec_leaves_no_process_behind_when_it_fails() {
    running!(fixture, bundle, |bundle| bundle);
    for _ in 0..3 {
        bundle.exec(&["/bin/nosuch"]).exits(255);
        bundle.exec_with(&["--cwd", "/nosuch"], &["/bin/true"]).exits(255);
    }
    assert_eq!(cgroup::pids(&cgroup::of("pids").join(&bundle.id)), [bundle.pid()]);
    assert_eq!(leaks::processes(fixture.token()).len(), 1, "init alone");
}
