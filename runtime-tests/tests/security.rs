//! Privileges of the process, and attacks that other runtimes have met (each test named after its kind).

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use nix::errno::Errno;
use runtime_tests::terminal::ConsoleSocket;
use runtime_tests::{Answer, Bundle, Fixture, answer_notification, command, events, run};
use serde_json::{Value, json};

const SETS: &[&str] = &["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
const NONE: &str = "0000000000000000";

fn report(bundle: Bundle<'_>) -> Value {
    bundle.args(["/probe", "report"]).run().ok().json()
}

#[test]
fn absent_capabilities_are_none() {
    let fixture = Fixture::new();
    for bundle in [
        fixture.bundle().unset("/process/capabilities"),
        fixture.bundle().set("/process/capabilities", json!({})),
    ] {
        let seen = report(bundle);
        for set in SETS {
            assert_eq!(seen["caps"][*set], NONE, "{set}");
        }
    }
}

#[test]
fn each_absent_capability_set_is_empty() {
    let fixture = Fixture::new();
    let kill = json!(["CAP_KILL"]);
    let seen = report(fixture.bundle().set("/process/capabilities", json!({"bounding": kill})));
    assert_eq!(seen["caps"]["CapBnd"], "0000000000000020");
    assert_eq!(seen["caps"]["CapAmb"], NONE);
    assert_eq!(seen["caps"]["CapInh"], NONE);
    let sets = json!({"bounding": kill, "permitted": kill, "effective": kill});
    let seen = report(fixture.bundle().set("/process/capabilities", sets));
    assert_eq!(
        (&seen["caps"]["CapEff"], &seen["caps"]["CapPrm"]),
        (&json!("0000000000000020"), &json!("0000000000000020"))
    );
    assert_eq!(seen["caps"]["CapAmb"], NONE);
}

#[test]
fn another_user_keeps_only_ambient_capabilities() {
    let fixture = Fixture::new();
    let seen = report(fixture.bundle().set("/process/user", json!({"uid": 1000, "gid": 1000})));
    assert_eq!(seen["uid"], json!([1000, 1000, 1000]));
    assert_eq!(seen["gid"], json!([1000, 1000, 1000]));
    // The default configuration has no inheritable set, without which nothing is ambient.
    assert_eq!(seen["caps"]["CapInh"], NONE);
}

#[test]
fn supplementary_groups_are_the_configured_ones() {
    let fixture = Fixture::new();
    let seen =
        report(fixture.bundle().set("/process/user", json!({"uid": 0, "gid": 0, "additionalGids": [7, 8]})));
    assert_eq!(seen["groups"], json!([7, 8]));
    let seen = report(fixture.bundle().set("/process/user", json!({"uid": 1000, "gid": 1000})));
    assert_eq!(seen["groups"], json!([]));
}

#[test]
fn no_new_privileges() {
    let fixture = Fixture::new();
    for (given, seen) in [(true, "1"), (false, "0")] {
        let bundle = fixture.bundle().set("/process/noNewPrivileges", json!(given));
        assert_eq!(report(bundle)["no_new_privs"], seen);
    }
}

fn seccomp(syscalls: Value) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": syscalls})
}

#[test]
fn seccomp_gives_an_error_number() {
    let fixture = Fixture::new();
    let rules = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 39}]);
    let bundle = fixture.bundle().script("mkdir /new; grep ^Seccomp: /proc/self/status");
    let outcome = bundle.set("/linux/seccomp", seccomp(rules)).run().ok();
    assert!(outcome.stderr.contains("Directory not empty"), "{}", outcome.stderr);
    assert_eq!(outcome.stdout, "Seccomp:\t2\n");
}

#[test]
fn seccomp_kills() {
    let fixture = Fixture::new();
    let rules = json!([{"names": ["sync"], "action": "SCMP_ACT_KILL_PROCESS"}]);
    let bundle = fixture.bundle().args(["/bin/sync"]).set("/linux/seccomp", seccomp(rules));
    // SIGSYS is 31.
    bundle.run().exits(128 + 31);
}

#[test]
fn seccomp_compares_arguments() {
    let fixture = Fixture::new();
    // kill(pid, 0) is refused, other signals are not.
    let arg = json!([{"index": 1, "value": 0, "op": "SCMP_CMP_EQ"}]);
    let rules = json!([{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "args": arg}]);
    let bundle = fixture.bundle().script("kill -0 1 2>/dev/null || echo refused; kill -CONT 1 && echo sent");
    assert_eq!(bundle.set("/linux/seccomp", seccomp(rules)).run().ok().stdout, "refused\nsent\n");
}

#[test]
fn seccomp_without_no_new_privs() {
    let fixture = Fixture::new();
    let rules = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]);
    let bundle =
        fixture.bundle().set("/process/noNewPrivileges", json!(false)).set("/linux/seccomp", seccomp(rules));
    let seen = report(bundle);
    assert_eq!((&seen["seccomp"], &seen["no_new_privs"]), (&json!("2"), &json!("0")));
}

/// Profiles that are older than these calls forbid them; without no_new_privs the filter is loaded before the last
/// steps of the runtime, which then must do without.
#[test]
fn a_seccomp_profile_without_new_system_calls_and_without_no_new_privs() {
    let fixture = Fixture::new();
    let names = ["openat2", "close_range", "faccessat2", "getcwd", "pidfd_open", "clone3", "mount_setattr"];
    let bundle = fixture
        .bundle()
        .args(["sh", "-c", "echo up; exec sleep 60"])
        .set("/process/noNewPrivileges", json!(false))
        .set("/process/cwd", json!("/tmp"))
        .set("/linux/seccomp", seccomp(json!([{"names": names, "action": "SCMP_ACT_ERRNO"}])));
    let mut lines = bundle.started();
    lines.next_line();
    assert_eq!(bundle.exec(&["readlink", "/proc/self/cwd"]).ok().stdout, "/tmp\n");
}

#[test]
fn seccomp_of_an_exec_ed_process() {
    let fixture = Fixture::new();
    let rules = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]);
    let bundle = fixture.bundle().args(["/probe", "wait"]).set("/linux/seccomp", seccomp(rules));
    let mut lines = bundle.started();
    lines.next_line();
    assert_eq!(bundle.exec(&["/probe", "report"]).ok().json()["seccomp"], "2");
    bundle.exec(&["/bin/mkdir", "/new"]).exits(1);
}

#[test]
fn resource_limits() {
    let fixture = Fixture::new();
    let limits = json!([
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        {"type": "RLIMIT_FSIZE", "soft": 1_000_000, "hard": 2_000_000},
    ]);
    let seen = report(fixture.bundle().set("/process/rlimits", limits))["rlimits"].clone();
    assert_eq!(seen["RLIMIT_NOFILE"], json!([100, 200]));
    assert_eq!(seen["RLIMIT_CORE"], json!([0, 0]));
    assert_eq!(seen["RLIMIT_FSIZE"], json!([1_000_000, 2_000_000]));
}

#[test]
fn oom_score_adj() {
    let fixture = Fixture::new();
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    assert_eq!(report(fixture.bundle())["oom_score_adj"], own.trim(), "absent: as the caller's");
    assert_eq!(report(fixture.bundle().set("/process/oomScoreAdj", json!(500)))["oom_score_adj"], "500");
}

#[test]
fn umask_and_environment() {
    let fixture = Fixture::new();
    let seen = report(
        fixture
            .bundle()
            .set("/process/env", json!(["PATH=/bin", "KEY=a=b c"]))
            .set("/process/cwd", json!("/tmp")),
    );
    assert_eq!(seen["umask"], "0022");
    assert_eq!(seen["env"]["KEY"], "a=b c");
    assert_eq!(seen["env"].get("CORTEN_TEST"), None, "the caller's environment stays outside");
    assert_eq!(seen["cwd"], "/tmp");
    assert_eq!(seen["signals"]["SigBlk"], NONE);
}

#[test]
fn a_working_directory_that_is_missing_is_made() {
    let fixture = Fixture::new();
    assert_eq!(report(fixture.bundle().set("/process/cwd", json!("/made/here")))["cwd"], "/made/here");
}

#[test]
fn only_standard_descriptors_are_open() {
    let fixture = Fixture::new();
    // The caller's own further descriptors stay outside.
    let bundle = fixture.bundle().args(["/probe", "report"]);
    let seen = with_descriptors(&bundle.run_command(&[]), 5).ok().json();
    assert_eq!(seen["fds"].as_object().unwrap().keys().collect::<Vec<_>>(), ["0", "1", "2"]);
}

#[test]
fn preserved_descriptors_come_along() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(["/probe", "report"]);
    let seen = with_descriptors(&bundle.run_command(&["--preserve-fds", "2"]), 5).ok().json();
    assert_eq!(seen["fds"].as_object().unwrap().keys().collect::<Vec<_>>(), ["0", "1", "2", "3", "4"]);
    assert_eq!(seen["fds"]["3"], "/dev/zero");
}

/// Runs a command with descriptors 3 to `last` open.
fn with_descriptors(command: &std::process::Command, last: u32) -> runtime_tests::Outcome {
    let opens: String = (3..=last).map(|fd| format!("exec {fd}</dev/zero; ")).collect();
    let mut shell = std::process::Command::new("/bin/sh");
    shell
        .arg("-c")
        .arg(format!("{opens} exec \"$@\""))
        .arg("sh")
        .arg(command.get_program())
        .args(command.get_args());
    run(&mut shell)
}

#[test]
fn sysctl_names_cannot_leave_their_tree() {
    let fixture = Fixture::new();
    for name in [
        "net/../kernel/panic",
        "net.ipv4../../kernel/panic",
        "kernel.shmmax\nkernel.panic",
        "fs.mqueue/../../kernel/panic",
    ] {
        fixture.bundle().set("/linux/sysctl", json!({name: "7"})).create().exits(1);
        fixture.clean_up();
    }
    assert_ne!(std::fs::read_to_string("/proc/sys/kernel/panic").unwrap().trim(), "7");
}

#[test]
fn the_session_is_the_containers_own() {
    let fixture = Fixture::new();
    let seen = report(fixture.bundle());
    assert_eq!(seen["sid"], 1, "the process leads its own session (CVE-2017-5226)");
}

#[test]
fn a_dead_container_frees_its_id_for_another() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(["/probe", "wait"]);
    for _ in 0..3 {
        let mut lines = bundle.started();
        assert_eq!(lines.next_line(), "ready");
        let pid = bundle.pid();
        fixture.run_oci(["delete", "--force", &bundle.id]).ok();
        assert!(events::process_end(pid, events::patience()));
    }
}

/// Numbers of this machine's system calls.
const MKDIR: [i32; 2] = if cfg!(target_arch = "aarch64") { [34, 34] } else { [83, 258] };

/// A seccomp agent: answers all calls of one listener until the last process of the filter has ended, and tells what it
/// was sent and whether it saw mkdir.
fn agent(socket: ConsoleSocket, mkdir: Answer) -> std::thread::JoinHandle<(Value, bool)> {
    std::thread::spawn(move || {
        let (message, listener) = socket.receive_message();
        let mut seen = false;
        // Readable, or hung up when nobody is left.
        while events::readable(std::os::fd::AsFd::as_fd(&listener), events::patience()) {
            let answered = answer_notification(&listener, |call| {
                let is_mkdir = MKDIR.contains(&call);
                seen |= is_mkdir;
                if is_mkdir { mkdir } else { Answer::Continue }
            });
            if answered.is_none() {
                break;
            }
        }
        (serde_json::from_str(&message).unwrap(), seen)
    })
}

#[test]
fn seccomp_notifies_the_agent_of_a_rule_and_of_everything() {
    let fixture = Fixture::new();
    let rule = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]);
    // The filter is loaded before the user is taken on without no_new_privs, and right before execve with it.
    for (number, (default, rules, no_new_privileges)) in [
        ("SCMP_ACT_ALLOW", rule.clone(), true),
        ("SCMP_ACT_ALLOW", rule, false),
        (
            "SCMP_ACT_ALLOW",
            json!([{"names": ["mkdir", "mkdirat", "sendmsg", "write"], "action": "SCMP_ACT_NOTIFY"}]),
            true,
        ),
        ("SCMP_ACT_NOTIFY", json!([]), true),
        ("SCMP_ACT_NOTIFY", json!([{"names": ["read", "brk"], "action": "SCMP_ACT_ALLOW"}]), false),
    ]
    .into_iter()
    .enumerate()
    {
        let path = fixture.path().join(format!("agent-{number}"));
        let agent = agent(ConsoleSocket::new(&path), Answer::Fail(Errno::EUCLEAN));
        let profile = json!({"defaultAction": default, "architectures": ["SCMP_ARCH_X86_64"], "listenerPath": path,
            "listenerMetadata": "carried", "syscalls": rules});
        let bundle = fixture
            .bundle()
            .set("/linux/seccomp", profile)
            .set("/process/noNewPrivileges", json!(no_new_privileges))
            .script("mkdir /tmp/refused; echo done");
        let outcome = bundle.run().ok();
        assert_eq!(outcome.stdout, "done\n", "{default} {number}");
        assert!(outcome.stderr.contains("tructure needs cleaning"), "{default} {number}: {}", outcome.stderr);
        let (state, seen) = agent.join().unwrap();
        assert!(seen, "{default} {number}");
        assert_eq!((&state["fds"], &state["metadata"]), (&json!(["seccompFd"]), &json!("carried")));
        assert_eq!(
            (&state["state"]["id"], &state["state"]["bundle"]),
            (&json!(bundle.id), &json!(bundle.dir))
        );
        assert_eq!(state["pid"], state["state"]["pid"]);
        assert!(state["ociVersion"].is_string() && state["state"]["status"].is_string(), "{state}");
    }
}

#[test]
fn seccomp_notifies_of_an_exec_ed_and_of_a_created_process() {
    let fixture = Fixture::new();
    let path = fixture.path().join("agent");
    let profile = |default: &str| {
        json!({"defaultAction": default, "architectures": ["SCMP_ARCH_X86_64"], "listenerPath": path,
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}, {"names": ["read"], "action": "SCMP_ACT_ALLOW"}]})
    };
    for default in ["SCMP_ACT_ALLOW", "SCMP_ACT_NOTIFY"] {
        let init = agent(ConsoleSocket::new(&path), Answer::Continue);
        let bundle = fixture
            .bundle()
            .set("/linux/seccomp", profile(default))
            .script("mkdir /tmp/init; echo ready; exec /probe wait");
        let mut lines = bundle.started();
        assert_eq!(lines.next_line(), "ready");
        std::fs::remove_file(&path).unwrap();
        let second = agent(ConsoleSocket::new(&path), Answer::Fail(Errno::EUCLEAN));
        let outcome = bundle.exec(&["/bin/mkdir", "/tmp/exec"]);
        assert!(outcome.stderr.contains("tructure needs cleaning"), "{default}: {}", outcome.stderr);
        let (state, seen) = second.join().unwrap();
        assert!(seen && state["state"]["status"] == "running", "{state}");
        assert_ne!(state["pid"], state["state"]["pid"], "the process that joined, and init");
        bundle.kill_and_wait("KILL");
        let (state, seen) = init.join().unwrap();
        assert!(seen && bundle.rootfs().join("tmp/init").exists(), "{state}");
        std::fs::remove_file(&path).unwrap();
        fixture.clean_up();
    }
}

#[test]
fn seccomp_without_its_agent_fails_and_leaves_nothing() {
    let fixture = Fixture::new();
    for default in ["SCMP_ACT_ALLOW", "SCMP_ACT_NOTIFY"] {
        let rules = json!([{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]);
        let profile = json!({"defaultAction": default, "listenerPath": "/nosuch/agent", "syscalls": rules});
        let bundle = fixture.bundle().set("/linux/seccomp", profile).args(["/bin/true"]);
        bundle.run().exits(1).says("linux.seccomp.listenerPath /nosuch/agent");
        fixture.clean_up();
        fixture.assert_clean();
    }
}

#[test]
fn seccomp_of_every_action_and_flag() {
    let fixture = Fixture::new();
    let with = |change: Value| {
        let mut rule = json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"});
        rule.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86",
            "SCMP_ARCH_X32"], "syscalls": [rule]});
        let bundle =
            fixture.bundle().set("/linux/seccomp", profile).script("/bin/busybox mkdir /tmp/made; echo $?");
        let outcome = command::run(&mut bundle.run_command(&[]));
        fixture.clean_up();
        outcome
    };
    for (action, last) in [
        ("SCMP_ACT_ERRNO", "1"),
        ("SCMP_ACT_ALLOW", "0"),
        ("SCMP_ACT_LOG", "0"),
        // SIGSYS.
        ("SCMP_ACT_KILL", "159"),
        ("SCMP_ACT_KILL_THREAD", "159"),
        ("SCMP_ACT_KILL_PROCESS", "159"),
        ("SCMP_ACT_TRAP", "159"),
        // Nobody traces: ENOSYS.
        ("SCMP_ACT_TRACE", "1"),
    ] {
        let outcome = with(json!({"action": action}));
        assert_eq!(outcome.stdout.lines().last(), Some(last), "{action}: {}", outcome.stderr);
    }
    for flag in ["LOG", "SPEC_ALLOW", "TSYNC"] {
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": [format!("SECCOMP_FILTER_FLAG_{flag}")],
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]});
        let bundle =
            fixture.bundle().set("/linux/seccomp", profile).script("/bin/busybox mkdir /tmp/made; echo $?");
        assert_eq!(bundle.run().ok().stdout, "1\n", "{flag}");
        fixture.clean_up();
    }
}
