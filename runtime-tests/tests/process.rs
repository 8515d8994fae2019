//! What `process` and `linux` of a configuration ask of the kernel for a process, one test for each.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use runtime_tests::{Bundle, Fixture, command, events};
use serde_json::{Value, json};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

fn report(bundle: Bundle<'_>) -> Value {
    bundle.args(["/probe", "report"]).run().ok().json()
}

/// Fields of proc_pid_stat(5), by their number there.
fn stat(pid: i32, field: usize) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = text.rsplit_once(')').unwrap().1;
    after_name.split_whitespace().nth(field - 3).unwrap().to_owned()
}

fn waiting(bundle: Bundle<'_>) -> (Bundle<'_>, events::Lines<std::io::PipeReader>) {
    let bundle = bundle.args(["/probe", "wait"]);
    let mut lines = bundle.started();
    assert_eq!(lines.next_line(), "ready");
    (bundle, lines)
}

fn process_file(bundle: &Bundle<'_>, change: impl FnOnce(&mut Value)) -> String {
    let mut process = bundle.config["process"].clone();
    process["args"] = json!(["/probe", "report"]);
    change(&mut process);
    let file = bundle.dir.join("process.json");
    std::fs::write(&file, process.to_string()).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn memory_policies_of_every_mode() {
    let fixture = Fixture::new();
    // Node 0 is there on every machine.
    for (policy, seen) in [
        (json!({"mode": "MPOL_DEFAULT"}), "default"),
        (json!({"mode": "MPOL_BIND", "nodes": "0"}), "bind:0"),
        (json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}), "bind=static:0"),
        (
            json!({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"]}),
            "interleave=relative:0",
        ),
        (json!({"mode": "MPOL_PREFERRED", "nodes": "0"}), "prefer:0"),
        (json!({"mode": "MPOL_PREFERRED_MANY", "nodes": "0"}), "prefer (many):0"),
        (json!({"mode": "MPOL_LOCAL"}), "local"),
        (json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NUMA_BALANCING"]}), "bind"),
    ] {
        let bundle = fixture.bundle().set("/linux/memoryPolicy", policy.clone());
        let (bundle, _lines) = waiting(bundle);
        let maps = std::fs::read_to_string(format!("/proc/{}/numa_maps", bundle.pid())).unwrap();
        assert!(maps.lines().any(|line| line.contains(&format!(" {seen}"))), "{policy}: {maps}");
        // A process that joins has it, too.
        let maps = bundle.exec(&["/bin/cat", "/proc/self/numa_maps"]).ok().stdout;
        assert!(maps.lines().any(|line| line.contains(&format!(" {seen}"))), "exec, {policy}: {maps}");
        fixture.clean_up();
    }
    // Since kernel 6.9; before it is an error that says so.
    let bundle = fixture
        .bundle()
        .set("/linux/memoryPolicy", json!({"mode": "MPOL_WEIGHTED_INTERLEAVE", "nodes": "0"}))
        .script("grep -q weighted /proc/self/numa_maps && echo seen");
    let outcome = bundle.run();
    match outcome.code {
        Some(0) => assert_eq!(outcome.stdout, "seen\n"),
        _ => assert!(outcome.stderr.contains("needs kernel 6.9"), "{}", outcome.stderr),
    }
    let refused = |policy: Value, words: &str| {
        fixture.bundle().set("/linux/memoryPolicy", policy).create().exits(1).says(words);
        fixture.clean_up();
    };
    refused(json!({"mode": "MPOL_BIND"}), "linux.memoryPolicy.nodes");
    refused(json!({"mode": "MPOL_BIND", "nodes": "1000"}), "set_mempolicy");
    refused(json!({"mode": "MPOL_NO_SUCH"}), "linux.memoryPolicy.mode");
}

#[test]
fn processors_of_an_exec() {
    let fixture = Fixture::new();
    let affinity = |initial: &str, last: &str| json!({"initial": initial, "final": last});
    let bundle = fixture.bundle().set("/process/execCPUAffinity", affinity("0-1", "1"));
    let (bundle, _lines) = waiting(bundle);
    let of_init = std::fs::read_to_string(format!("/proc/{}/status", bundle.pid())).unwrap();
    assert!(!of_init.contains("Cpus_allowed_list:\t1\n"), "it is not for the container's own process");
    let seen = |options: &[&str]| {
        bundle.exec_with(options, &["/probe", "report"]).ok().json()["cpus_allowed"].clone()
    };
    assert_eq!(seen(&[]), "1", "the configuration's");
    for (initial, last, expected) in [("0", "", "0"), ("", "0", "0"), ("1", "0-1", "0-1"), ("0", "1", "1")] {
        let file = process_file(&bundle, |process| process["execCPUAffinity"] = affinity(initial, last));
        let report = fixture.run_oci(["exec", "--process", &file, &bundle.id]).ok().json();
        // Without a final list the kernel decides at the transition: Linux 6.1 gives all of the cgroup's processors to
        // a process that is born in it.
        let by_kernel = last.is_empty() && report["cpus_allowed"] == "0-1";
        assert!(by_kernel || report["cpus_allowed"] == expected, "{initial:?} then {last:?}: {report}");
    }
    for bad in ["x", "1-0", "4096"] {
        let file = process_file(&bundle, |process| process["execCPUAffinity"] = affinity("", bad));
        fixture.run_oci(["exec", "--process", &file, &bundle.id]).exits(255).says("execCPUAffinity");
    }
}

#[test]
fn schedulers() {
    let fixture = Fixture::new();
    for (scheduler, policy, nice, priority) in [
        (json!({"policy": "SCHED_OTHER", "nice": 5}), "0", "5", "0"),
        (json!({"policy": "SCHED_BATCH", "nice": 7}), "3", "7", "0"),
        (json!({"policy": "SCHED_IDLE"}), "5", "0", "0"),
        (
            json!({"policy": "SCHED_FIFO", "priority": 10, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
            "1",
            "0",
            "10",
        ),
        (json!({"policy": "SCHED_RR", "priority": 11}), "2", "0", "11"),
    ] {
        let bundle = fixture.bundle().set("/process/scheduler", scheduler.clone());
        // cgroup v1 with CONFIG_RT_GROUP_SCHED: a new cgroup has no real-time share, and the kernel says no.
        if priority != "0" && Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists() {
            bundle.args(["/bin/true"]).run().exits(1).says("process.scheduler");
            fixture.clean_up();
            continue;
        }
        let (bundle, _lines) = waiting(bundle);
        let pid = bundle.pid();
        assert_eq!((stat(pid, 41), stat(pid, 40)), (policy.into(), priority.into()), "{scheduler}");
        // The others keep the caller's for when they are ordinary again.
        if nice != "0" {
            assert_eq!(stat(pid, 19), nice, "{scheduler}");
        }
        fixture.clean_up();
    }
    let deadline = json!({"policy": "SCHED_DEADLINE", "runtime": 10_000_000, "deadline": 100_000_000, "period": 100_000_000});
    let bundle = fixture.bundle().set("/process/scheduler", deadline).args(["/probe", "wait"]);
    let outcome = bundle.create();
    if outcome.code == Some(0) {
        assert_eq!(stat(bundle.pid(), 41), "6");
    } else {
        // A cpuset or a processor group without a share of it: the kernel says no, and we say to what.
        assert!(outcome.stderr.contains("process.scheduler"), "{}", outcome.stderr);
    }
    for bad in [
        json!({"policy": "SCHED_OTHER", "nice": 20}),
        json!({"policy": "SCHED_OTHER", "priority": 1}),
        json!({"policy": "SCHED_RR", "priority": 1, "runtime": 1}),
        json!({"policy": "SCHED_FIFO", "priority": 100}),
        json!({"policy": "SCHED_ISO"}),
    ] {
        fixture.bundle().set("/process/scheduler", bad.clone()).create().exits(1).says("process.scheduler");
        fixture.clean_up();
    }
}

#[test]
fn io_priorities() {
    let fixture = Fixture::new();
    for (class, word) in [("RT", "realtime"), ("BE", "best-effort"), ("IDLE", "idle")] {
        let bundle = fixture
            .bundle()
            .set("/process/ioPriority", json!({"class": format!("IOPRIO_CLASS_{class}"), "priority": 6}))
            .args(["/bin/busybox", "ionice", "-p", "1"]);
        let outcome = bundle.run();
        let text = outcome.stdout.to_lowercase();
        assert!(outcome.code == Some(0) && text.contains(word), "{class}: {text} {}", outcome.stderr);
        assert!(class == "IDLE" || text.contains('6'), "{text}");
        fixture.clean_up();
    }
    let bad = json!({"class": "IOPRIO_CLASS_BE", "priority": 8});
    fixture.bundle().set("/process/ioPriority", bad).create().exits(1).says("process.ioPriority");
}

#[test]
fn personalities() {
    let fixture = Fixture::new();
    for (wanted, bits, machine) in [
        (json!({"domain": "LINUX"}), 0, "x86_64"),
        (json!({"domain": "LINUX32"}), 8, "i686"),
        (json!({"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]}), 0x4_0000, "x86_64"),
        (
            json!({"domain": "LINUX32", "flags": ["ADDR_NO_RANDOMIZE", "ADDR_COMPAT_LAYOUT"]}),
            0x24_0008,
            "i686",
        ),
    ] {
        let seen = report(fixture.bundle().set("/linux/personality", wanted.clone()));
        let number = i64::from_str_radix(seen["personality"].as_str().unwrap(), 16).unwrap();
        assert_eq!(number, bits, "{wanted}");
        if cfg!(target_arch = "x86_64") {
            assert_eq!(seen["machine"], machine, "{wanted}");
        }
    }
    let unknown = json!({"domain": "LINUX", "flags": ["NO_SUCH"]});
    fixture.bundle().set("/linux/personality", unknown).create().exits(1).says("NO_SUCH");
}

#[test]
fn resctrl_is_used_where_it_is_and_missed_by_name_where_it_is_not() {
    let fixture = Fixture::new();
    let bundle =
        fixture.bundle().set("/linux/intelRdt", json!({"enableMonitoring": true})).args(["/bin/true"]);
    let outcome = bundle.run();
    if Path::new("/sys/fs/resctrl/tasks").exists() {
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        assert!(!Path::new("/sys/fs/resctrl").join(&bundle.id).exists(), "the group goes with its container");
    } else {
        outcome.exits(1).says("no resctrl file system is mounted");
    }
    fixture.clean_up();
    fixture.assert_clean();
}

#[test]
fn labels_of_a_security_module_that_is_not_there() {
    let fixture = Fixture::new();
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    let outcome =
        fixture.bundle().set("/process/apparmorProfile", json!("no-such-profile")).create().exits(1);
    let word = if enabled.starts_with('Y') { "process.apparmorProfile" } else { "AppArmor is not enabled" };
    assert!(outcome.stderr.contains(word), "{}", outcome.stderr);
    fixture.clean_up();
    fixture.bundle().set("/process/apparmorProfile", json!("unconfined")).args(["/bin/true"]).run().ok();
    if !Path::new("/sys/fs/selinux/enforce").exists() {
        let label = json!("system_u:system_r:container_t:s0");
        fixture.bundle().set("/process/selinuxLabel", label).create().exits(1).says("SELinux is not enabled");
    }
}

#[test]
fn a_capability_has_one_spelling_and_others_are_ignored_with_a_warning() {
    let fixture = Fixture::new();
    let caps = json!(["CAP_KILL", "NET_RAW", "cap_chown", "CAP_OF_TOMORROW"]);
    let bundle = fixture
        .bundle()
        .set("/process/capabilities", json!({"bounding": caps, "permitted": caps, "effective": caps}))
        .args(["/probe", "report"]);
    let outcome = bundle.run().ok();
    assert!(outcome.stderr.contains("unknown capability"), "{}", outcome.stderr);
    assert_eq!(outcome.json()["caps"]["CapBnd"], "0000000000000020");
}

#[test]
fn sockets_of_the_service_manager_come_along() {
    let fixture = Fixture::new();
    let listener = std::os::unix::net::UnixListener::bind(fixture.path().join("listening")).unwrap();
    let bundle = fixture.bundle().script("/probe report; exec /probe wait");
    let run = bundle.run_command(&["--detach"]);
    // As systemd does: LISTEN_PID is the process that is executed.
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\" 3<&0 0</dev/null", "sh"]);
    shell.arg(run.get_program()).args(run.get_args()).env("CORTEN_TEST", fixture.token());
    let (reader, writer) = std::io::pipe().unwrap();
    shell.stdin(std::os::fd::OwnedFd::from(listener)).stdout(writer);
    let mut child = shell.spawn().unwrap();
    drop(shell);
    let mut lines = events::Lines::new(reader);
    let seen: Value = serde_json::from_str(&lines.next_line()).unwrap();
    assert_eq!(command::wait(&mut child, events::patience()).unwrap().code(), Some(0));
    assert_eq!((&seen["env"]["LISTEN_FDS"], &seen["env"]["LISTEN_PID"]), (&json!("1"), &json!("1")));
    assert!(seen["fds"]["3"].as_str().unwrap().starts_with("socket:"), "{}", seen["fds"]);
    assert_eq!(seen["fds"].as_object().unwrap().len(), 4);
    // They are the first process's alone.
    assert_eq!(bundle.exec(&["/bin/env"]).ok().stdout.find("LISTEN_"), None);
}

/// A service manager's socket: what arrives is read with a deadline.
fn manager(fixture: &Fixture) -> (UnixDatagram, std::path::PathBuf) {
    let path = fixture.path().join("manager.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(events::patience())).unwrap();
    (socket, path)
}

fn heard(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).expect("a notification");
    // The barrier's descriptor, which recv(2) does not take, is closed by the kernel: that is the answer.
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[test]
fn readiness_is_passed_on_by_start_and_by_run() {
    let fixture = Fixture::new();
    let (socket, path) = manager(&fixture);
    let says = ["/probe", "notify", "STATUS=coming", "MAINPID=1\nREADY=1\nSTATUS=here", "STOPPING=1"];
    let bundle = fixture.bundle().args(says);
    let mut create = bundle.create_command(&[]);
    command::run(create.env("NOTIFY_SOCKET", &path)).ok();
    assert_eq!(bundle.exec(&["/bin/env"]).ok().stdout.find("NOTIFY_SOCKET"), None, "it is for one process");
    let mut start = fixture.oci(["start", &bundle.id]).env("NOTIFY_SOCKET", &path).spawn().unwrap();
    assert_eq!(heard(&socket), "READY=1\n");
    assert_eq!(heard(&socket), format!("MAINPID={}\n", bundle.pid()));
    // It ends when this has been read, which closes the descriptor that comes with it.
    assert_eq!(heard(&socket), "BARRIER=1");
    let status = command::wait(&mut start, events::patience()).expect("start ends");
    assert_eq!(status.code(), Some(0));
    fixture.clean_up();

    let bundle = fixture.bundle().args(says);
    let mut run = bundle.run_command(&[]);
    run.env("NOTIFY_SOCKET", &path).stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    let mut child = run.spawn().unwrap();
    assert_eq!(heard(&socket), "READY=1\n");
    assert_eq!(
        heard(&socket),
        format!("MAINPID={}\n", child.id()),
        "in the foreground the runtime is the service"
    );
    bundle.kill("KILL").ok();
    let status = command::wait(&mut child, events::patience()).expect("run ends");
    assert_eq!(status.code(), Some(137));
    drop(socket);
    fixture.assert_clean();
}

#[test]
fn a_service_that_ends_before_it_is_ready_does_not_hold_start() {
    let fixture = Fixture::new();
    let (socket, path) = manager(&fixture);
    let bundle = fixture.bundle().args(["/bin/true"]);
    command::run(bundle.create_command(&[]).env("NOTIFY_SOCKET", &path)).ok();
    command::run(fixture.oci(["start", &bundle.id]).env("NOTIFY_SOCKET", &path)).ok();
    let missing = fixture.bundle().args(["/bin/true"]);
    let outcome = command::run(missing.run_command(&[]).env("NOTIFY_SOCKET", "/nosuch/socket"));
    outcome.ok().says("/nosuch/socket");
    drop(socket);
    fixture.clean_up();
    fixture.assert_clean();
}

fn executable<'f>(bundle: Bundle<'f>, content: &[u8]) -> Bundle<'f> {
    let bundle = bundle.file("/bin/program", content).args(["/bin/program"]);
    let file = std::fs::File::open(bundle.rootfs().join("bin/program")).unwrap();
    file.set_permissions(PermissionsExt::from_mode(0o755)).unwrap();
    bundle
}

/// An ELF file for a machine, with a dynamic loader.
fn elf(machine: u8, loader: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 256];
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    (file[16], file[18], file[20]) = (2, machine, 1);
    (file[32], file[52], file[54], file[56]) = (64, 64, 56, 1);
    (file[64], file[64 + 4], file[64 + 8], file[64 + 32], file[64 + 40]) = (3, 4, 160, 0, 0);
    let length = u8::try_from(loader.len()).unwrap() + 1;
    (file[64 + 32], file[64 + 40]) = (length, length);
    file[160..160 + loader.len()].copy_from_slice(loader);
    file
}

#[test]
fn what_keeps_a_program_from_running_is_named() {
    let fixture = Fixture::new();
    for (content, words) in [
        (b"#!/nosuch/interpreter -x\n".to_vec(), "\"/nosuch/interpreter\" is not in the container"),
        (b"#!/bin/sh\r\necho\r\n".to_vec(), r#""/bin/sh\r" is not in the container"#),
        (elf(62, b"/nosuch/ld.so"), "dynamic loader \"/nosuch/ld.so\" is not in the container"),
        (elf(183, b"/lib/ld.so"), "a program for aarch64, and this machine is"),
        (Vec::new(), "it is an empty file"),
        (b"echo no header\n".to_vec(), "nor a script with a #! line"),
    ] {
        let outcome = executable(fixture.bundle(), &content).run().exits(1);
        // As the log quotes them.
        let said = outcome.stderr.replace("\\\"", "\"").replace(r"\\", r"\");
        assert!(said.contains(words), "{words:?} is not in: {said}");
        assert_eq!(outcome.stderr.trim_end().lines().count(), 1, "once: {}", outcome.stderr);
        fixture.clean_up();
        fixture.assert_clean();
    }
}

/// A profile that forbids mkdir(2) with an error number of its own, by which its file in the cache is known.
fn profile(errno: u32) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno}]})
}

const CACHE: &str = "/run/corten/seccomp";

/// The file of the cache whose program returns this error number.
fn cached(errno: u32) -> std::path::PathBuf {
    let value = (0x0005_0000 | errno).to_le_bytes();
    let entries = std::fs::read_dir(CACHE).unwrap().flatten();
    let mut paths = entries.map(|entry| entry.path()).filter(|path| path.extension().is_none());
    let has = |path: &std::path::PathBuf| {
        path.symlink_metadata().is_ok_and(|meta| meta.is_file())
            && std::fs::read(path).is_ok_and(|bytes| bytes.windows(4).any(|window| window == value))
    };
    paths.find(has).unwrap_or_else(|| panic!("no file for {errno} in {CACHE}"))
}

#[test]
fn a_kept_filter_that_others_wrote_is_compiled_again_and_never_loaded() {
    let fixture = Fixture::new();
    let errno = 2000 + std::process::id() % 2000;
    let filtered = || {
        let bundle = fixture.bundle().set("/linux/seccomp", profile(errno)).args(["/bin/mkdir", "/tmp/made"]);
        let outcome = bundle.run();
        assert_ne!(outcome.code, Some(0), "the filter was not in force");
        fixture.clean_up();
    };
    filtered();
    let file = cached(errno);
    let good = std::fs::read(&file).unwrap();
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&path.symlink_metadata().unwrap());
    let first = inode(&file);
    filtered();
    assert_eq!(inode(&file), first, "a good one is used, not written again");

    // One that allows everything, as whoever can write there would make it.
    let allow = [0x06, 0, 0, 0, 0, 0, 0xff, 0x7f];
    let evil: Vec<u8> = allow.iter().chain(&good[good.len() - 32..]).copied().collect();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    for bytes in [&evil[..], &flipped, &good[..good.len() - 1], &[]] {
        std::fs::write(&file, bytes).unwrap();
        filtered();
        assert_eq!(std::fs::read(&file).unwrap(), good, "compiled again and replaced");
    }
    let mode =
        |mode| std::fs::File::open(&file).unwrap().set_permissions(PermissionsExt::from_mode(mode)).unwrap();
    let changed = inode(&file);
    mode(0o666);
    filtered();
    assert_ne!(inode(&file), changed, "writable by others");
    let changed = inode(&file);
    std::os::unix::fs::fchown(std::fs::File::open(&file).unwrap(), Some(1000), Some(1000)).unwrap();
    filtered();
    assert_ne!(inode(&file), changed, "owned by another");
    let away = fixture.file("away", &good);
    std::fs::remove_file(&file).unwrap();
    symlink(&away, &file).unwrap();
    filtered();
    assert!(file.symlink_metadata().unwrap().is_file(), "a link");
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn features_tell_everything_of_the_specification() {
    let fixture = Fixture::new();
    let features = fixture.run_oci(["features"]).ok().json();
    assert_eq!(features["ociVersionMin"], "1.0.0");
    assert_eq!(features["hooks"].as_array().unwrap().len(), 6);
    let linux = &features["linux"];
    assert_eq!(linux["namespaces"].as_array().unwrap().len(), 8);
    assert_eq!(linux["capabilities"].as_array().unwrap().len(), 41);
    for part in ["seccomp", "apparmor", "selinux", "intelRdt"] {
        assert_eq!(linux[part]["enabled"], true, "{part}");
    }
    assert_eq!(
        (&linux["intelRdt"]["schemata"], &linux["intelRdt"]["monitoring"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(linux["memoryPolicy"]["modes"].as_array().unwrap().len(), 7);
    assert_eq!(linux["memoryPolicy"]["flags"].as_array().unwrap().len(), 3);
    for part in
        ["mountExtensions/idmap/enabled", "netDevices/enabled", "cgroup/systemd", "cgroup/systemdUser"]
    {
        assert!(linux.pointer(&format!("/{part}")).unwrap().is_boolean(), "{part}");
    }
    assert!(features["potentiallyUnsafeConfigAnnotations"].is_array());
    // Every mode that is told is taken (a kernel that lacks one says so by itself).
    for mode in linux["memoryPolicy"]["modes"].as_array().unwrap() {
        let outcome =
            fixture.bundle().set("/linux/memoryPolicy", json!({"mode": mode, "nodes": "x"})).create();
        assert!(outcome.stderr.contains("linux.memoryPolicy.nodes"), "{mode}: {}", outcome.stderr);
        fixture.clean_up();
    }
}
