//! The root file system: mounts, devices, masked and read-only paths, propagation, the console.

use crate::{mount_of, report};
use runtime_tests::terminal::ConsoleSocket;
use runtime_tests::{Fixture, events, needs, run};
use serde_json::{Value, json};

#[test]
fn default_mounts() {
    let fixture = Fixture::new();
    let seen = report(fixture.bundle());
    let expected = [
        ("/proc", "proc"),
        ("/dev", "tmpfs"),
        ("/dev/pts", "devpts"),
        ("/dev/shm", "tmpfs"),
        ("/dev/mqueue", "mqueue"),
        ("/sys", "sysfs"),
    ];
    for (point, kind) in expected {
        assert_eq!(mount_of(&seen, point).1, kind, "{point}");
    }
    let (options, _, _) = mount_of(&seen, "/dev/shm");
    for option in ["nosuid", "nodev", "noexec"] {
        assert!(options.split(',').any(|word| word == option), "{option} in {options}");
    }
    assert!(mount_of(&seen, "/sys").0.starts_with("ro"));
    assert!(mount_of(&seen, "/dev").2.contains("size=65536k"));
    assert!(
        mount_of(&seen, "/dev/pts").2.contains("mode=620")
            && mount_of(&seen, "/dev/pts").2.contains("ptmxmode=666")
    );
}

#[test]
fn default_devices_and_links() {
    let fixture = Fixture::new();
    let dev = report(fixture.bundle())["dev"].clone();
    let nodes = [
        ("null", "1:3"),
        ("zero", "1:5"),
        ("full", "1:7"),
        ("random", "1:8"),
        ("urandom", "1:9"),
        ("tty", "5:0"),
    ];
    for (name, numbers) in nodes {
        assert_eq!(dev[name], format!("c {numbers} 666 0:0"), "{name}");
    }
    let links = [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ];
    for (name, target) in links {
        assert_eq!(dev[name], format!("-> {target}"), "{name}");
    }
    assert_eq!(dev.get("console"), None, "without a terminal there is no console");
}

#[test]
fn devices_of_the_configuration() {
    let fixture = Fixture::new();
    let bundle = fixture
        .bundle()
        .push("/linux/devices", json!({"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 3, "gid": 4}))
        .push("/linux/devices", json!({"path": "/dev/pipe", "type": "p", "fileMode": 0o600}))
        .push("/linux/devices", json!({"path": "/dev/deep/er/loop", "type": "b", "major": 7, "minor": 1}));
    let bundle = bundle.script("/probe report; stat -c %F /dev/deep/er/loop");
    let out = bundle.run().ok().stdout;
    let (first, rest) = out.split_once('\n').unwrap();
    let dev = serde_json::from_str::<Value>(first).unwrap()["dev"].clone();
    assert_eq!(dev["fuse"], "c 10:229 640 3:4");
    assert_eq!(dev["pipe"], "p 600 0:0");
    assert_eq!(rest.trim(), "block special file");
}

#[test]
fn bind_mounts_of_directories_and_files() {
    let fixture = Fixture::new();
    fixture.file("shared/file", "from the host");
    let single = fixture.file("single", "one file");
    let bundle = fixture
        .bundle()
        .mount("/mnt/dir", "bind", fixture.path().join("shared"), &["bind"])
        .mount("/etc/single", "bind", single, &["rbind", "ro"])
        .script("cat /mnt/dir/file; echo; cat /etc/single; echo; echo back > /mnt/dir/new; echo no > /etc/single || echo refused");
    let out = bundle.run().ok().stdout;
    assert_eq!(out, "from the host\none file\nrefused\n");
    assert_eq!(std::fs::read_to_string(fixture.path().join("shared/new")).unwrap(), "back\n");
}

#[test]
fn read_only_binds_are_read_only() {
    let fixture = Fixture::new();
    fixture.file("shared/file", "x");
    let bundle = fixture
        .bundle()
        .mount("/mnt", "none", fixture.path().join("shared"), &["bind", "ro", "nosuid", "nodev", "noexec"])
        .args(["/probe", "report"]);
    let (options, _, _) = mount_of(&bundle.run().ok().json(), "/mnt");
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(options.split(',').any(|word| word == option), "{option} in {options}");
    }
    let opened = bundle.args(["/probe", "open", "w", "/mnt/file"]).run().ok().json();
    assert_eq!(opened["/mnt/file"], "EROFS");
}

#[test]
fn tmpfs_options_reach_the_file_system() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().mount(
        "/cache",
        "tmpfs",
        "tmpfs",
        &["nosuid", "noexec", "nodev", "mode=0701", "size=1m", "uid=5", "gid=6"],
    );
    let bundle = bundle.script("/probe report; stat -c '%a %u %g' /cache; dd if=/dev/zero of=/cache/big bs=1k count=2000 2>/dev/null || echo full");
    let out = bundle.run().ok().stdout;
    let lines: Vec<_> = out.lines().collect();
    let (options, kind, of_super) = mount_of(&serde_json::from_str(lines[0]).unwrap(), "/cache");
    assert_eq!(kind, "tmpfs");
    assert!(options.contains("noexec") && of_super.contains("size=1024k"), "{options} {of_super}");
    assert_eq!(&lines[1..], ["701 5 6", "full"]);
}

#[test]
fn access_time_options() {
    let fixture = Fixture::new();
    for (given, expected) in [("noatime", "noatime"), ("relatime", "relatime"), ("nodiratime", "nodiratime")]
    {
        let seen = report(fixture.bundle().mount("/t", "tmpfs", "tmpfs", &[given]));
        let (options, _, _) = mount_of(&seen, "/t");
        assert!(options.split(',').any(|word| word == expected), "{given}: {options}");
    }
    let seen = report(fixture.bundle().mount("/t", "tmpfs", "tmpfs", &["strictatime"]));
    assert!(!mount_of(&seen, "/t").0.contains("atime"), "strictatime is shown as none of the others");
}

#[test]
fn mounts_come_in_the_order_of_the_list() {
    let fixture = Fixture::new();
    let file = fixture.file("inner", "seen");
    let bundle = fixture
        .bundle()
        .mount("/outer", "tmpfs", "tmpfs", &[])
        .mount("/outer/a/b/file", "bind", file, &["bind"])
        .args(["/bin/cat", "/outer/a/b/file"]);
    assert_eq!(bundle.run().ok().stdout, "seen");
}

#[test]
fn masked_paths_show_nothing() {
    let fixture = Fixture::new();
    let bundle = fixture
        .bundle()
        .file("/secret/inner", "hidden")
        .file("/second/inner", "hidden")
        .file("/file", "hidden")
        .push("/linux/maskedPaths", json!("/secret"))
        .push("/linux/maskedPaths", json!("/second"))
        .push("/linux/maskedPaths", json!("/file"))
        .push("/linux/maskedPaths", json!("/proc/timer_list"))
        .push("/linux/maskedPaths", json!("/does/not/exist"))
        .script(
            "ls -A /secret; ls -A /second; cat /file; wc -c < /proc/timer_list; \
             for dir in secret second; do (echo x > /$dir/new) || echo refused; done",
        );
    assert_eq!(bundle.run().ok().stdout, "0\nrefused\nrefused\n");
}

#[test]
fn read_only_paths_refuse_writes() {
    let fixture = Fixture::new();
    let bundle = fixture
        .bundle()
        .file("/data/file", "x")
        .push("/linux/readonlyPaths", json!("/data"))
        .push("/linux/readonlyPaths", json!("/does/not/exist"))
        .args(["/probe", "open", "w", "/data/file", "/proc/sys/kernel/hostname", "/etc/passwd"]);
    let opened = bundle.run().ok().json();
    for path in ["/data/file", "/proc/sys/kernel/hostname"] {
        assert_eq!(opened[path], "EROFS", "{path}");
    }
    assert_eq!(opened["/etc/passwd"], "ok");
}

#[test]
fn read_only_root() {
    let fixture = Fixture::new();
    let bundle = fixture
        .bundle()
        .set("/root/readonly", json!(true))
        .script("touch /new 2>/dev/null || echo refused; echo x > /dev/shm/ok && echo shm; echo x > /dev/null && echo null");
    assert_eq!(bundle.run().ok().stdout, "refused\nshm\nnull\n");
    assert!(!needs::exists(bundle.rootfs().join("new")));
}

#[test]
fn root_path_may_be_absolute() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle();
    let root = bundle.rootfs();
    bundle.set("/root/path", json!(root)).args(["/bin/true"]).run().ok();
}

#[test]
fn root_propagation() {
    let fixture = Fixture::new();
    for (given, mark) in [("private", None), ("slave", Some("master:")), ("shared", Some("shared:"))] {
        let bundle = fixture.bundle().set("/linux/rootfsPropagation", json!(given));
        let seen = report(bundle);
        let table = seen["mountinfo"].as_str().unwrap();
        let line = table.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
        let fields = line.split_once(" - ").unwrap().0;
        match mark {
            // Slave of a private mount is private.
            Some("master:") => assert!(!fields.contains("shared:"), "{given}: {line}"),
            Some(mark) => assert!(fields.contains(mark), "{given}: {line}"),
            None => assert!(!fields.contains("shared:") && !fields.contains("master:"), "{given}: {line}"),
        }
    }
}

#[test]
fn propagation_of_one_mount() {
    let fixture = Fixture::new();
    for (given, mark) in
        [("shared", true), ("rshared", true), ("private", false), ("rprivate", false), ("slave", false)]
    {
        fixture.file(&format!("{given}/file"), "");
        let bundle = fixture.bundle().mount("/mnt", "bind", fixture.path().join(given), &["bind", given]);
        let seen = report(bundle);
        let table = seen["mountinfo"].as_str().unwrap();
        let line = table.lines().find(|line| line.split(' ').nth(4) == Some("/mnt")).unwrap();
        assert_eq!(line.contains(" shared:"), mark, "{given}: {line}");
    }
}

#[test]
fn sysctl() {
    let fixture = Fixture::new();
    let values =
        json!({"net.ipv4.ip_forward": "1", "kernel.shmmax": "123456", "net.ipv4.ping_group_range": "0 10"});
    let bundle = fixture
        .bundle()
        .set("/linux/sysctl", values)
        .script("cd /proc/sys; cat net/ipv4/ip_forward kernel/shmmax net/ipv4/ping_group_range");
    assert_eq!(bundle.run().ok().stdout, "1\n123456\n0\t10\n");
}

#[test]
fn sysctl_of_the_host_is_refused() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().set("/linux/sysctl", json!({"kernel.panic": "7"}));
    bundle.create().exits(1).says("kernel.panic");
    let bundle = fixture
        .bundle()
        .without_namespace("network")
        .set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
    bundle.create().exits(1).says("net.ipv4.ip_forward");
    fixture.clean_up();
    fixture.assert_clean();
}

#[test]
fn terminal_of_the_container() {
    let fixture = Fixture::new();
    let socket = ConsoleSocket::new(fixture.path().join("console"));
    let bundle = fixture
        .bundle()
        .set("/process/terminal", json!(true))
        .set("/process/consoleSize", json!({"height": 33, "width": 77}))
        .script("/probe terminal; /probe report | grep -c '\"console\":\"c '; exec /probe wait");
    run(&mut bundle.create_command(&["--console-socket", socket.path()])).ok();
    let mut lines = events::Lines::new(socket.master());
    fixture.watch(bundle.pid());
    bundle.oci("start").ok();
    let seen: Value = serde_json::from_str(&lines.next_line()).unwrap();
    let expected = json!({"terminal": true, "controlling": "ok", "size": "33 77", "name": "/dev/pts/0"});
    assert_eq!(seen, expected);
    assert_eq!(lines.next_line(), "1", "/dev/console is a character device");
    lines.until("ready");
}

#[test]
fn a_terminal_needs_its_socket_and_a_socket_its_terminal() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().set("/process/terminal", json!(true));
    bundle.create().exits(1).says("console");
    let socket = ConsoleSocket::new(fixture.path().join("console"));
    let bundle = fixture.bundle();
    run(&mut bundle.create_command(&["--console-socket", socket.path()])).exits(1).says("console");
    fixture.clean_up();
}

#[test]
fn cgroup_mount_is_read_only_and_shows_the_own_cgroup() {
    let fixture = Fixture::new();
    let bundle = fixture
        .bundle()
        .namespace("cgroup", None)
        .mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"])
        .set("/linux/resources/pids", json!({"limit": 77}));
    let script = "cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max; \
                  mkdir /sys/fs/cgroup/pids/x 2>/dev/null || mkdir /sys/fs/cgroup/x 2>/dev/null || echo refused";
    assert_eq!(bundle.script(script).run().ok().stdout, "77\nrefused\n");
}

#[test]
fn a_mount_source_that_is_missing_is_named() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().mount("/mnt", "bind", "/nosuch/source", &["bind"]);
    bundle.create().exits(1).says("/nosuch/source");
    fixture.clean_up();
    fixture.assert_clean();
}

#[test]
fn no_pivot_works_too() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(["/bin/ls", "/"]);
    let out = run(&mut bundle.run_command(&["--no-pivot"])).ok().stdout;
    assert!(out.contains("probe"), "{out}");
}
