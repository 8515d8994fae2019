//! What each namespace hides.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use runtime_tests::{Fixture, leaks, needs};
use serde_json::{Value, json};

const REPORT: &[&str] = &["/probe", "report"];

fn report(bundle: &runtime_tests::Bundle<'_>) -> Value {
    bundle.run().ok().json()
}

fn host_namespace(kind: &str) -> String {
    std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string()
}

#[test]
fn default_namespaces_are_new_and_the_others_the_hosts() {
    let fixture = Fixture::new();
    let report = report(&fixture.bundle().args(REPORT));
    for kind in ["pid", "net", "mnt", "ipc", "uts"] {
        assert_ne!(report["namespaces"][kind], host_namespace(kind), "{kind}");
    }
    for kind in ["user", "time"] {
        assert_eq!(report["namespaces"][kind], host_namespace(kind), "{kind}");
    }
}

#[test]
fn each_namespace_can_be_left_out() {
    let fixture = Fixture::new();
    for (kind, link) in [("network", "net"), ("ipc", "ipc"), ("cgroup", "cgroup"), ("pid", "pid")] {
        let bundle = fixture
            .bundle()
            .without_namespace(kind)
            .args(["/bin/readlink", &format!("/proc/self/ns/{link}")]);
        // sysfs of the host's network may not be mounted anew from a namespace that does not own it.
        assert_eq!(bundle.run().ok().stdout.trim(), host_namespace(link), "{kind}");
    }
    let bundle = fixture.bundle().without_namespace("uts").unset("/hostname").args(["/bin/hostname"]);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(bundle.run().ok().stdout, host);
}

#[test]
fn pid_namespace_hides_the_hosts_processes() {
    let fixture = Fixture::new();
    let report = report(&fixture.bundle().args(REPORT));
    assert_eq!((&report["pid"], &report["ppid"]), (&json!(1), &json!(0)));
    assert_eq!(report["processes"], json!([1]));
}

#[test]
fn mount_namespace_hides_the_hosts_files() {
    let fixture = Fixture::new();
    let secret = fixture.file("secret", "host");
    let bundle =
        fixture.bundle().args(["/probe", "open", "r", secret.to_str().unwrap(), "/proc/1/root/proc/version"]);
    let opened = report(&bundle);
    assert_eq!(opened[secret.to_str().unwrap()], "ENOENT");
    let mounts = report(&fixture.bundle().args(REPORT))["mountinfo"].as_str().unwrap().to_owned();
    for line in mounts.lines() {
        let point = line.split(' ').nth(4).unwrap();
        let known = ["/proc", "/dev", "/sys"].iter().any(|top| point.starts_with(top));
        assert!(point == "/" || known, "{line}");
    }
}

#[test]
fn mounts_of_the_container_stay_there() {
    let fixture = Fixture::new();
    let caps = json!(["CAP_SYS_ADMIN"]);
    let bundle = fixture
        .bundle()
        .script("mount -t tmpfs none /tmp && echo inside > /tmp/file && echo ready; exec /probe wait")
        .set("/process/capabilities", json!({"bounding": caps, "effective": caps, "permitted": caps}));
    let mut lines = bundle.started();
    assert_eq!(lines.next_line(), "ready");
    assert!(!needs::exists(bundle.rootfs().join("tmp/file")), "the mount came through to the host");
    assert!(fixture.leaks().iter().all(|line| !line.starts_with("mount")), "{:?}", fixture.leaks());
}

#[test]
fn uts_namespace_has_its_own_names() {
    let fixture = Fixture::new();
    let bundle =
        fixture.bundle().args(REPORT).set("/hostname", json!("box")).set("/domainname", json!("example"));
    let seen = report(&bundle);
    assert_eq!(seen["hostname"], "box");
    assert_eq!(seen["domainname"], "example");
    assert_ne!(std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim(), "box");
}

#[test]
fn ipc_namespace_hides_the_hosts_queues() {
    let fixture = Fixture::new();
    let bundle = fixture
        .bundle()
        .script("cat /proc/sys/kernel/msgmni; ls /dev/mqueue")
        .set("/linux/sysctl", json!({"kernel.msgmni": "77"}));
    assert_eq!(bundle.run().ok().stdout, "77\n");
    assert_ne!(std::fs::read_to_string("/proc/sys/kernel/msgmni").unwrap().trim(), "77");
}

#[test]
fn network_namespace_has_the_loopback_alone() {
    let fixture = Fixture::new();
    let seen = report(&fixture.bundle().args(REPORT));
    assert_eq!(seen["interfaces"], json!(["lo"]));
    let flags = fixture.bundle().args(["/bin/cat", "/sys/class/net/lo/flags"]).run().ok().stdout;
    assert_eq!(flags.trim(), "0x9", "loopback is up");
}

#[test]
fn cgroup_namespace_hides_the_path() {
    let fixture = Fixture::new();
    let seen = report(&fixture.bundle().namespace("cgroup", None).args(REPORT));
    let text = seen["cgroup"].as_str().unwrap();
    for line in text.lines() {
        assert!(line.ends_with(":/"), "{line}");
    }
    let seen = report(&fixture.bundle().without_namespace("cgroup").args(REPORT));
    assert!(seen["cgroup"].as_str().unwrap().contains(fixture.token()));
}

#[test]
fn user_namespace_maps_ids() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().user_namespace().args(["/probe", "trap", "SIGTERM", "0"]);
    let mut lines = bundle.started();
    lines.next_line();
    let status = std::fs::read_to_string(format!("/proc/{}/status", bundle.pid())).unwrap();
    assert!(status.contains("Uid:\t100000\t100000\t100000\t100000"), "{status}");
    bundle.kill_and_wait("TERM");
    let seen = report(&fixture.bundle().user_namespace().args(REPORT));
    assert_eq!(seen["uid"], json!([0, 0, 0]));
    let words: Vec<_> = seen["uid_map"].as_str().unwrap().split_whitespace().map(str::to_owned).collect();
    assert_eq!(words, ["0", "100000", "65536"]);
    let out = fixture
        .bundle()
        .user_namespace()
        .script("touch /tmp/mine; stat -c %u /tmp/mine /proc/version")
        .run()
        .ok();
    assert_eq!(out.stdout, "0\n65534\n");
}

#[test]
fn user_namespace_gives_no_power_over_the_host() {
    let fixture = Fixture::new();
    let all = json!(["CAP_SYS_ADMIN", "CAP_MKNOD", "CAP_DAC_OVERRIDE", "CAP_SYS_PTRACE", "CAP_SYS_TIME"]);
    let bundle = fixture
        .bundle()
        .user_namespace()
        .script(
            "mknod /tmp/mem c 1 1 && echo mknod; \
             echo 1 > /proc/sys/kernel/panic && echo sysctl; echo x > /proc/sysrq-trigger && echo sysrq; \
             mount -t ext4 /dev/vda /tmp && echo mount; echo end",
        )
        .set("/process/capabilities", json!({"bounding": all, "effective": all, "permitted": all}));
    assert_eq!(bundle.run().ok().stdout, "end\n");
}

#[test]
fn time_namespace_has_offsets() {
    let fixture = Fixture::new();
    let bundle = fixture
        .bundle()
        .namespace("time", None)
        .set(
            "/linux/timeOffsets",
            json!({"boottime": {"secs": 1_000_000, "nanosecs": 0}, "monotonic": {"secs": 5, "nanosecs": 7}}),
        )
        .args(REPORT);
    let seen = report(&bundle);
    assert_ne!(seen["namespaces"]["time"], host_namespace("time"));
    let uptime: f64 = seen["uptime"].as_str().unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(uptime >= 1_000_000.0, "{uptime}");
    let offsets: Vec<_> = seen["timens_offsets"].as_str().unwrap().split_whitespace().collect();
    assert_eq!(offsets, ["monotonic", "5", "7", "boottime", "1000000", "0"]);
}

#[test]
fn namespaces_can_be_joined_by_path() {
    let fixture = Fixture::new();
    let first = fixture.bundle().args(["/probe", "wait"]).namespace("cgroup", None);
    let mut lines = first.started();
    lines.next_line();
    let pid = first.pid();
    for (kind, link) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid")] {
        let path = format!("/proc/{pid}/ns/{link}");
        let expected = std::fs::read_link(&path).unwrap().display().to_string();
        let mut bundle = fixture
            .bundle()
            .namespace(kind, Some(&path))
            .args(["/bin/readlink", &format!("/proc/self/ns/{link}")]);
        if kind == "uts" {
            // The name of a joined namespace is not this container's to set.
            bundle = bundle.unset("/hostname");
        }
        assert_eq!(bundle.run().ok().stdout.trim(), expected, "{kind}");
    }
}

#[test]
fn a_path_that_is_not_that_namespace_is_refused() {
    let fixture = Fixture::new();
    let file = fixture.file("not-a-namespace", "");
    let cases = [
        ("network", "/nosuch/namespace".to_owned()),
        ("network", file.to_str().unwrap().to_owned()),
        ("network", format!("/proc/{}/ns/uts", std::process::id())),
    ];
    for (kind, path) in cases {
        fixture.bundle().namespace(kind, Some(&path)).create().fails();
    }
    fixture.clean_up();
    fixture.assert_clean();
}

#[test]
fn two_containers_do_not_see_each_other() {
    let fixture = Fixture::new();
    let (first, second) =
        (fixture.bundle().args(["/probe", "wait"]), fixture.bundle().args(["/probe", "wait"]));
    let _lines = (first.started(), second.started());
    let mut of = [first.pid(), second.pid()].map(|pid| {
        let mut names = leaks::Namespaces::default();
        names.add(pid);
        names.names()
    });
    let second_names = std::mem::take(&mut of[1]);
    // A cgroup namespace is not in the default list of every runtime.
    let shared: Vec<_> = of[0].intersection(&second_names).collect();
    assert_eq!(shared, Vec::<&String>::new());
    assert_eq!(first.exec(&["/bin/sh", "-c", "ls -d /proc/[0-9]* | wc -l"]).ok().stdout.trim(), "4");
}
