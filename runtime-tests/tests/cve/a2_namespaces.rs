//! Namespaces, cgroups, terminals, sysctls and the defaults that hide the host.

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use runtime_tests::{Bundle, Fixture, command, needs};
use serde_json::{Value, json};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// A configuration's mount of the cgroups, which runc's default has read-only.
const CGROUP: &str = "/sys/fs/cgroup";

#[test]
fn cve_2023_25809_the_hosts_cgroups_are_not_writable_without_a_cgroup_namespace() {
    let fixture = Fixture::new();
    for bundle in [fixture.bundle(), fixture.bundle().user_namespace()] {
        let script = format!(
            "for dir in {CGROUP} {CGROUP}/*; do [ -d $dir ] && mkdir $dir/evil && echo made $dir; \
             echo 1 > $dir/cgroup.procs && echo moved $dir; done 2>/dev/null; echo done"
        );
        let bundle = bundle.without_namespace("cgroup").script(&script);
        assert_eq!(bundle.run().ok().stdout, "done\n");
        fixture.clean_up();
    }
}

#[test]
fn cve_2022_0492_release_agent_cannot_be_written() {
    let fixture = Fixture::new();
    let script = format!(
        "for file in {CGROUP}/*/release_agent {CGROUP}/release_agent; do echo /evil > $file && echo wrote $file; done; \
         mkdir /tmp/own; for kind in cgroup cgroup2; do mount -t $kind -o rdma none /tmp/own && echo mounted $kind; done; \
         echo done"
    );
    let quiet = format!("({script}) 2>/dev/null");
    assert_eq!(fixture.bundle().script(&quiet).run().ok().stdout, "done\n");
    let bundle = fixture.bundle().user_namespace().script(&quiet);
    assert_eq!(bundle.run().ok().stdout, "done\n", "as root of a user namespace");
}

/// More than 64 KiB of everything that crosses from the runtime to the container's process or back.
#[test]
fn cve_2021_43784_long_values_are_carried_whole_or_refused_by_name() {
    let fixture = Fixture::new();
    let long = "x".repeat(64 * 1024 + 1);
    let bundle = fixture
        .bundle()
        .push("/process/env", json!(format!("LONG={long}")))
        .set("/annotations", json!({"long": long}))
        .script("echo ${#LONG}");
    assert_eq!(bundle.run().ok().stdout, format!("{}\n", long.len()));
    // An error that quotes them must come through, too.
    for bundle in [
        fixture.bundle().args([long.as_str()]),
        fixture.bundle().args([format!("/{long}")]),
        fixture.bundle().set("/process/cwd", json!(format!("/{long}"))),
        fixture.bundle().mount(&format!("/mnt/{long}"), "tmpfs", "tmpfs", &[]),
        fixture.bundle().set("/linux/sysctl", json!({"net.ipv4.ip_forward": long})),
        fixture.bundle().set("/hostname", json!(long)),
    ] {
        let outcome = bundle.create().exits(1);
        assert!(!outcome.stderr.contains("recvmsg"), "{:.300}", outcome.stderr);
        assert!(!outcome.stderr.trim().is_empty());
        fixture.clean_up();
        fixture.assert_clean();
    }
    let many: Vec<Value> =
        (0..341).map(|id| json!({"containerID": id, "hostID": 100_000 + id, "size": 1})).collect();
    let bundle = fixture.bundle().user_namespace().set("/linux/uidMappings", json!(many));
    bundle.create().exits(1).says("linux.uidMappings");
    fixture.clean_up();
    // The kernel takes a page of them in one write.
    let most = &many[..200];
    let bundle = fixture
        .bundle()
        .user_namespace()
        .set("/linux/uidMappings", json!(most))
        .set("/linux/gidMappings", json!(most))
        .script("wc -l < /proc/self/uid_map");
    assert_eq!(bundle.run().ok().stdout.trim(), "200");
}

#[test]
fn cve_2020_15257_no_socket_of_ours_is_in_the_hosts_network() {
    let fixture = Fixture::new();
    let abstract_sockets = || -> Vec<String> {
        let table = std::fs::read_to_string("/proc/net/unix").unwrap();
        table.lines().filter_map(|line| line.split_once('@').map(|(_, name)| name.to_owned())).collect()
    };
    let bundle = fixture.bundle().without_namespace("network").args(["/probe", "wait"]);
    let mut lines = bundle.created();
    let ours: Vec<_> = abstract_sockets().into_iter().filter(|name| name.contains("corten")).collect();
    assert_eq!(ours, Vec::<String>::new());
    // The start socket, which is one of the file system, is out of reach for others than the owner.
    let socket = fixture.state_root().join(&bundle.id).join("start.sock");
    assert!(socket.exists());
    let mut other = Command::new(needs::busybox());
    let other = other.arg("stat").arg(&socket).uid(65534).gid(65534).output().unwrap();
    assert!(!other.status.success(), "another user reached {}", socket.display());
    bundle.oci("start").ok();
    assert_eq!(lines.next_line(), "ready");
}

#[test]
fn cve_2017_5226_a_container_has_a_session_and_a_terminal_of_its_own() {
    let fixture = Fixture::new();
    let seen = fixture.bundle().args(["/probe", "report"]).run().ok().json();
    assert_eq!((&seen["sid"], &seen["pgrp"]), (&json!(1), &json!(1)));
    let bundle = fixture.bundle().args(["/probe", "wait"]);
    let mut lines = bundle.started();
    assert_eq!(lines.next_line(), "ready");
    let seen = bundle.exec(&["/probe", "report"]).ok().json();
    assert_eq!(seen["sid"], seen["pid"], "exec");
}

#[test]
fn cve_2019_10063_an_ioctl_is_compared_in_its_lower_half() {
    let fixture = Fixture::new();
    // TIOCSTI and TIOCLINUX, as profiles of the engines forbid them.
    let rule = |request: u64| {
        json!({"names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "args":
            [{"index": 1, "value": 0xffff_ffff_u64, "valueTwo": request, "op": "SCMP_CMP_MASKED_EQ"}]})
    };
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [rule(0x5412), rule(0x541c)]});
    for request in ["0x5412", "0x541c", "0x100005412", "0xffffffff00005412", "0x80000000541c"] {
        let bundle =
            fixture.bundle().set("/linux/seccomp", profile.clone()).args(["/probe", "ioctl", request]);
        assert_eq!(bundle.run().ok().stdout, "EPERM\n", "{request}");
    }
    let bundle = fixture.bundle().set("/linux/seccomp", profile).args(["/probe", "ioctl", "0x5413"]);
    assert_ne!(bundle.run().ok().stdout, "EPERM\n", "another request");
}

#[test]
fn cve_2015_3630_and_ghsa_7ww5_the_defaults_hide_what_the_others_defaults_hide() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle();
    let has = |field: &str, path: &str| {
        bundle.config["linux"][field].as_array().unwrap().iter().any(|entry| entry == path)
    };
    // runc 1.5's list; what containerd and moby add to it is in the lists of corten's own containers.
    for path in [
        "/proc/acpi",
        "/proc/asound",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/sys/firmware",
    ] {
        assert!(has("maskedPaths", path), "{path} is not masked: {}", bundle.config["linux"]["maskedPaths"]);
    }
    for path in ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"] {
        assert!(has("readonlyPaths", path), "{path} is not read-only");
    }
    let script = "for path in kcore keys timer_list sched_debug; do \
                    [ -e /proc/$path ] && [ -n \"$(head -c 1 /proc/$path)\" ] && echo /proc/$path; done; \
                  for dir in /proc/asound /proc/scsi /proc/acpi /sys/firmware; do \
                    [ -d $dir ] && ls $dir; done; \
                  for path in sysrq-trigger sys/kernel/core_pattern sys/kernel/hostname sys/kernel/panic irq/default_smp_affinity; do \
                    [ -e /proc/$path ] && (echo 1 > /proc/$path) && echo wrote $path; done 2>/dev/null; true";
    assert_eq!(bundle.script(script).run().ok().stdout, "", "shown or written in the container");
}

fn without<'f>(bundle: Bundle<'f>, kind: &str) -> Bundle<'f> {
    bundle.without_namespace(kind)
}

#[test]
fn cve_2022_0811_sysctls_are_of_the_containers_namespaces_alone() {
    let fixture = Fixture::new();
    let refused = |bundle: Bundle<'_>, name: &str, value: &str| {
        let outcome = bundle.set("/linux/sysctl", json!({name: value})).create().exits(1);
        assert!(outcome.stderr.contains("sysctl"), "{name:?}: {}", outcome.stderr);
        fixture.clean_up();
    };
    for name in [
        "kernel.core_pattern",
        "kernel.core_pattern ",
        "kernel/core_pattern",
        "kernel.shm_rmid_forced+kernel.core_pattern",
        "kernel.shm_rmid_forced=1+kernel.core_pattern",
        "net.ipv4.ip_forward\nkernel.core_pattern",
        "vm.overcommit_memory",
        "fs.file-max",
        "kernel.modprobe",
        "kernel.hostname",
        "user.max_user_namespaces",
        "",
        "net/../kernel/core_pattern",
    ] {
        refused(fixture.bundle(), name, "|/evil");
    }
    refused(without(fixture.bundle(), "network"), "net.ipv4.ip_forward", "1");
    refused(without(fixture.bundle(), "ipc"), "kernel.shmmax", "1");
    refused(without(fixture.bundle(), "ipc"), "fs.mqueue.msg_max", "10");
    refused(without(fixture.bundle().unset("/hostname"), "uts"), "kernel.domainname", "x");
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    assert!(!pattern.contains("evil"), "{pattern}");
    // CVE-2024-3154: an annotation is a note, and no property of a unit, to the cgroupfs driver.
    let bundle =
        fixture.bundle().set("/annotations", json!({"org.systemd.property.ExecStartPre": "['/evil']"}));
    bundle.args(["/bin/true"]).run().ok();
    // CVE-2022-0532: what the allowed ones say stays in the container.
    let own = std::fs::read_to_string("/proc/sys/kernel/shm_rmid_forced").unwrap();
    let other = if own.trim() == "1" { "0" } else { "1" };
    let bundle = fixture
        .bundle()
        .set("/linux/sysctl", json!({"kernel.shm_rmid_forced": other}))
        .script("cat /proc/sys/kernel/shm_rmid_forced");
    assert_eq!(bundle.run().ok().stdout.trim(), other);
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/shm_rmid_forced").unwrap(), own);
}

#[test]
fn cve_2024_0132_hooks_get_nothing_of_the_image() {
    let fixture = Fixture::new();
    let log = fixture.file("hook", "");
    let script = format!(
        "cat /proc/self/environ > {0}; (readlink /proc/self/cwd; readlink /proc/self/root) >> {0}",
        log.display()
    );
    let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["OWN=yes"]});
    let bundle = fixture
        .bundle()
        .push("/hooks/createRuntime", hook)
        .set("/process/env", json!(["LD_PRELOAD=/evil.so", "PATH=/evil", "BASH_ENV=/evil"]))
        .args(["/bin/true"]);
    let mut run = bundle.run_command(&[]);
    command::run(run.env("LD_AUDIT_OF_CALLER", "x")).ok();
    let seen = std::fs::read_to_string(&log).unwrap();
    // A shell of busybox tells its programs of variables of its own beside it.
    assert!(seen.contains("OWN=yes\0"), "{seen:?}");
    for word in ["evil", "LD_", "CORTEN_TEST"] {
        assert!(!seen.contains(word), "{word}: {seen:?}");
    }
    assert!(seen.trim_end().ends_with("\n/"), "its root is the host's: {seen:?}");
}

#[test]
fn cve_2019_14271_nothing_of_the_container_is_loaded_or_executed_by_the_runtime() {
    let fixture = Fixture::new();
    let binary = needs::oci();
    assert!(!has_loader(binary.get_program().as_ref()), "the runtime is a static program");
    let trojan = "#!/bin/sh\necho evil >&2\n";
    let mut bundle = fixture.bundle().script("true; exit 0");
    let names = [
        "bin/xz",
        "bin/unpigz",
        "bin/igzip",
        "bin/newuidmap",
        "sbin/iptables",
        "lib/libnss_files.so.2",
        "lib/x86_64-linux-gnu/libnss_files.so.2",
        "lib/libc.so.6",
        "etc/nsswitch.conf",
        "etc/ld.so.preload",
    ];
    for name in names {
        bundle = bundle.file(name, trojan);
    }
    let watch = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).unwrap();
    for name in names {
        watch.add_watch(&bundle.rootfs().join(name), AddWatchFlags::IN_OPEN).unwrap();
    }
    let bundle = bundle.args(["/probe", "wait"]);
    let mut lines = bundle.started();
    assert_eq!(lines.next_line(), "ready");
    bundle.exec(&["/probe", "exit", "0"]).ok();
    bundle.kill_and_wait("KILL");
    bundle.oci("delete").ok();
    assert_eq!(watch.read_events().unwrap_err(), Errno::EAGAIN, "nobody opened or executed any of them");
}

/// Whether a program has a segment PT_INTERP (elf(5), 64 bits).
fn has_loader(program: &Path) -> bool {
    let file = std::fs::read(program).unwrap();
    let number = |at: usize, length: usize| {
        file[at..at + length].iter().rev().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte))
    };
    let (headers, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count).any(|index| number(headers + index * size, 4) == 3)
}

#[test]
fn cve_2016_8867_a_misspelt_capability_gives_nothing() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().set("/process/capabilities", json!({})).args(["/probe", "wait"]);
    let mut lines = bundle.started();
    assert_eq!(lines.next_line(), "ready");
    for name in ["CAP_NO_SUCH", "kill", "KILL", "cap_kill"] {
        let outcome = bundle.exec_with(&["--cap", name], &["/probe", "report"]).ok();
        assert!(outcome.stderr.contains(name), "a warning that names {name}: {}", outcome.stderr);
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(outcome.json()["caps"][set], "0000000000000000", "{name}: {set}");
        }
    }
}
