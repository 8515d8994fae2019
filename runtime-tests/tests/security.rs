//! Privileges of the process, and attacks that other runtimes have met (each test named after its kind).

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use runtime_tests::{Bundle, Fixture, command, events, image, needs, run};
use serde_json::{Value, json};
use std::os::unix::fs::symlink;

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
fn cve_2024_21626_no_directory_of_the_host_is_open_at_created() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(["/probe", "wait"]);
    let _lines = bundle.created();
    for entry in std::fs::read_dir(format!("/proc/{}/fd", bundle.pid())).unwrap().flatten() {
        let is_dir = std::fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_dir());
        assert!(
            !is_dir,
            "{} -> {}",
            entry.path().display(),
            std::fs::read_link(entry.path()).unwrap().display()
        );
    }
}

#[test]
fn cve_2024_21626_working_directory_through_a_descriptor() {
    let fixture = Fixture::new();
    let secret = fixture.file("secret", "of the host");
    // Refused, or a directory of the container: both are safe. From the host's one, a way up finds the file.
    let script = format!(
        "up=; for n in 0 1 2 3 4 5 6 7 8 9 10 11 12; do [ -e \"./$up{}\" ] && echo escaped; up=../$up; done; exit 0",
        secret.display()
    );
    for fd in 0..24 {
        let cwd = format!("/proc/self/fd/{fd}");
        let outcome = fixture.bundle().set("/process/cwd", json!(cwd)).script(&script).run();
        assert_eq!(outcome.stdout, "", "{cwd}");
        fixture.clean_up();
    }
    let bundle = fixture.bundle().args(["/probe", "wait"]);
    let mut lines = bundle.started();
    lines.next_line();
    for fd in 0..24 {
        let cwd = format!("/proc/self/fd/{fd}");
        let outcome = bundle.exec_with(&["--cwd", &cwd], &["/bin/sh", "-c", &script]);
        assert_eq!(outcome.stdout, "", "{cwd}");
    }
}

#[test]
fn cve_2019_5736_and_cve_2016_9962_hostile_init_while_others_join() {
    let fixture = Fixture::new();
    // A copy of the runtime, which an attack may spoil.
    let original = needs::oci();
    let copy = fixture.path().join("runtime");
    // By another process: a descriptor that writes the file must not be inherited by what other tests start
    // meanwhile, because a file that is open for writing cannot be executed.
    run(std::process::Command::new("cp").arg(original.get_program()).arg(&copy)).ok();
    let before = image::digest(&std::fs::read(&copy).unwrap());
    let secret = fixture.file("secret", "of the host");

    let caps =
        json!(["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_KILL", "CAP_SYS_ADMIN"]);
    let script = format!(
        "exec 3>&1; echo ready; while :; do for p in /proc/[0-9]*; do \
           case $p in /proc/1|/proc/$$|/proc/self) continue;; esac; \
           for way in root cwd; do [ -e $p/$way{secret} ] && echo found $p/$way; done; \
           for fd in $p/fd/*; do [ -e $fd{secret} ] && echo found $fd; done; \
           case $(readlink $p/exe) in /bin/busybox|/probe) continue;; esac; \
           (for n in 1 2 3 4 5 6 7 8; do (echo evil >/proc/self/fd/5) && echo wrote; done) 5<$p/exe; \
         done; done 2>/dev/null",
        secret = secret.display()
    );
    let bundle = fixture
        .bundle()
        .script(&script)
        .set("/process/capabilities", json!({"bounding": caps, "effective": caps, "permitted": caps}))
        // `#!/proc/self/exe` runs whatever runs it: the runtime, if it is not careful.
        .file("/bin/again", "#!/proc/self/exe\n");
    make_executable(&bundle.rootfs().join("bin/again"));
    let mut lines = bundle.started();
    assert_eq!(lines.next_line(), "ready");
    for round in 0..20 {
        let mut exec = std::process::Command::new(&copy);
        exec.args(original.get_args()).arg("--root").arg(fixture.state_root()).args(["exec", &bundle.id]);
        exec.arg(if round % 4 == 0 { "/bin/again" } else { "/bin/true" }).env("CORTEN_TEST", fixture.token());
        let outcome = command::run(&mut exec);
        assert!(outcome.code.is_some(), "exec was killed: {}", outcome.stderr);
    }
    bundle.kill_and_wait("KILL");
    let mut words = Vec::new();
    while let Some(line) = lines.try_line() {
        words.push(line);
    }
    assert_eq!(words, Vec::<String>::new(), "the container reached the host");
    assert_eq!(image::digest(&std::fs::read(&copy).unwrap()), before, "the runtime's binary was changed");
}

fn make_executable(path: &std::path::Path) {
    let file = std::fs::File::open(path).unwrap();
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn cve_2019_19921_proc_and_sys_must_be_directories() {
    let fixture = Fixture::new();
    for name in ["proc", "sys"] {
        for kind in ["link", "dangling", "file"] {
            let bundle = fixture.bundle();
            let path = bundle.rootfs().join(name);
            std::fs::remove_dir(&path).unwrap();
            match kind {
                "link" => symlink("/tmp", &path).unwrap(),
                "dangling" => symlink("/nosuch", &path).unwrap(),
                _ => std::fs::write(&path, "").unwrap(),
            }
            bundle.create().exits(1).says(name);
            fixture.clean_up();
        }
    }
    fixture.assert_clean();
}

#[test]
fn cve_2025_31133_dev_null_of_the_image_masks_nothing() {
    let fixture = Fixture::new();
    for kind in ["link", "file"] {
        let bundle = fixture
            .bundle()
            .file("/etc/target", "evil")
            .script("cat /proc/timer_list; echo wrote > /proc/timer_list");
        let mounts = bundle.config["mounts"].as_array().unwrap().clone();
        let without_dev: Vec<_> = mounts
            .into_iter()
            .filter(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"))
            .collect();
        let bundle =
            bundle.set("/mounts", json!(without_dev)).set("/linux/maskedPaths", json!(["/proc/timer_list"]));
        let null = bundle.rootfs().join("dev/null");
        match kind {
            "link" => symlink("/etc/target", &null).unwrap(),
            _ => std::fs::write(&null, "evil").unwrap(),
        }
        let outcome = bundle.run();
        // Refused, or masked by the real device: both are safe.
        assert!(!outcome.stdout.contains("evil"), "{kind}: {}", outcome.stdout);
        assert_eq!(std::fs::read_to_string(bundle.rootfs().join("etc/target")).unwrap(), "evil", "{kind}");
    }
}

#[test]
fn cve_2026_41579_links_in_the_image_do_not_lead_outside() {
    let fixture = Fixture::new();
    let canary = fixture.path().join("canary");
    std::fs::create_dir(&canary).unwrap();
    for name in ["dev", "mnt", "etc/deep"] {
        for target in
            [canary.to_str().unwrap().to_owned(), format!("../../../../../../../..{}", canary.display())]
        {
            let bundle = fixture.bundle();
            let path = bundle.rootfs().join(name);
            let _ = std::fs::remove_dir(&path);
            symlink(&target, &path).unwrap();
            let mut bundle = bundle.mount("/mnt/new/dir", "tmpfs", "tmpfs", &[]).mount(
                "/etc/deep/er",
                "tmpfs",
                "tmpfs",
                &[],
            );
            if name == "dev" {
                let mounts = bundle.config["mounts"].as_array().unwrap().clone();
                let kept: Vec<_> = mounts
                    .into_iter()
                    .filter(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"))
                    .collect();
                bundle = bundle.set("/mounts", json!(kept)).push(
                    "/linux/devices",
                    json!({"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}),
                );
            }
            // Whether it is refused or kept inside is the runtime's choice; the host is not.
            let _ = bundle.run();
            let inside: Vec<_> =
                std::fs::read_dir(&canary).unwrap().flatten().map(|entry| entry.file_name()).collect();
            assert!(inside.is_empty(), "{name} -> {target}: {inside:?}");
            fixture.clean_up();
        }
    }
    fixture.assert_clean();
}

#[test]
fn bind_mounts_survive_the_deletion_of_the_container() {
    let fixture = Fixture::new();
    let canary = fixture.file("shared/canary", "alive");
    let bundle = fixture
        .bundle()
        .mount("/mnt", "bind", fixture.path().join("shared"), &["rbind"])
        .args(["/probe", "wait"]);
    let _lines = bundle.started();
    fixture.run_oci(["delete", "--force", &bundle.id]).ok();
    assert_eq!(std::fs::read_to_string(canary).unwrap(), "alive");
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
