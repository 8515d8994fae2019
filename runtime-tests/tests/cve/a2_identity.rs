//! Users, groups and capabilities.

use runtime_tests::{Bundle, Fixture, command, events, run, set_inheritable, with_groups};
use serde_json::{Value, json};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

const SETS: &[&str] = &["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
const NONE: &str = "0000000000000000";

fn report(bundle: Bundle<'_>) -> Value {
    bundle.args(["/probe", "report"]).run().ok().json()
}

/// Lets any user read and execute a file of the root file system.
fn open_to_all(path: &std::path::Path) {
    std::fs::File::open(path).unwrap().set_permissions(PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn cve_2022_29162_inheritable_capabilities_stay_empty() {
    let fixture = Fixture::new();
    let seen = report(fixture.bundle());
    assert_eq!(seen["caps"]["CapInh"], NONE, "run, with runc's default sets");
    let bundle = fixture.bundle().args(["/probe", "wait"]);
    let mut lines = bundle.started();
    assert_eq!(lines.next_line(), "ready");
    for options in [&[][..], &["--cap", "CAP_SYS_ADMIN"], &["--cap", "CAP_KILL", "--user", "1000:1000"]] {
        let seen = bundle.exec_with(options, &["/probe", "report"]).ok().json();
        assert_eq!(seen["caps"]["CapInh"], NONE, "exec {options:?}");
        assert_eq!(seen["caps"]["CapAmb"], NONE, "exec {options:?}");
    }
    // A file with inheritable capabilities gives what is in the process's inheritable set, to whichever user.
    let file = bundle.rootfs().join("privileged");
    run(Command::new("cp").arg(bundle.rootfs().join("probe")).arg(&file)).ok();
    open_to_all(&file);
    set_inheritable(&file, 1 << 5 | 1 << 10);
    let options = ["--cap", "CAP_KILL", "--user", "1000:1000"];
    let seen = bundle.exec_with(&options, &["/privileged", "report"]).ok().json();
    assert_eq!((&seen["caps"]["CapPrm"], &seen["caps"]["CapEff"]), (&json!(NONE), &json!(NONE)));
}

#[test]
fn cve_2016_8867_an_omitted_capability_set_is_empty() {
    let fixture = Fixture::new();
    let kill = json!(["CAP_KILL"]);
    let all =
        json!({"bounding": kill, "permitted": kill, "effective": kill, "inheritable": kill, "ambient": kill});
    // What is left when one set is missing; the kernel wants ambient ones permitted and inheritable, and effective
    // ones permitted.
    let (some, none) = ("0000000000000020", NONE);
    for (missing, left) in [
        ("inheritable", [none, some, some, some, none]),
        ("effective", [some, some, none, some, some]),
        ("ambient", [some, some, some, some, none]),
    ] {
        let mut sets = all.clone();
        sets.as_object_mut().unwrap().remove(missing);
        let bundle =
            fixture.bundle().set("/process/capabilities", sets).script("cat /proc/1/status; exec sleep 100");
        let lines = bundle.started();
        drop(lines);
        let status = std::fs::read_to_string(format!("/proc/{}/status", bundle.pid())).unwrap();
        let seen = SETS.map_status(&status);
        // execve as root gives root's permitted and effective sets back, up to the bounding set and the inheritable.
        assert_eq!(seen[0], left[0], "{missing}: inheritable");
        assert_eq!(seen[3], left[3], "{missing}: bounding");
        assert_eq!(seen[4], left[4], "{missing}: ambient");
        fixture.clean_up();
    }
    // The kernel wants inheritable ones bounded, so that without the bounding set there is none of these.
    let unbounded = json!({"permitted": kill, "effective": kill});
    let seen = report(fixture.bundle().set("/process/capabilities", unbounded));
    assert_eq!((&seen["caps"]["CapBnd"], &seen["caps"]["CapEff"]), (&json!(NONE), &json!(NONE)));
    for bundle in [
        fixture.bundle().unset("/process/capabilities"),
        fixture.bundle().set("/process/capabilities", json!({})),
    ] {
        let bundle = bundle.args(["/probe", "wait"]);
        let mut lines = bundle.started();
        assert_eq!(lines.next_line(), "ready");
        let status = std::fs::read_to_string(format!("/proc/{}/status", bundle.pid())).unwrap();
        assert_eq!(SETS.map_status(&status), [NONE; 5], "run");
        let seen = bundle.exec(&["/probe", "report"]).ok().json();
        for set in SETS {
            assert_eq!(seen["caps"][*set], NONE, "exec: {set}");
        }
    }
}

/// The values of some lines of proc_pid_status(5).
trait Status {
    fn map_status<'a>(&self, status: &'a str) -> Vec<&'a str>;
}

impl Status for &[&str] {
    fn map_status<'a>(&self, status: &'a str) -> Vec<&'a str> {
        let value = |name: &&str| {
            let mut lines = status.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t")).expect("a line of status")
        };
        self.iter().map(value).collect()
    }
}

#[test]
fn cve_2026_30892_a_user_is_two_numbers_or_an_error() {
    let fixture = Fixture::new();
    // CVE-2016-3697: a number is never a name of the image.
    let hostile = "root:x:0:0::/:/bin/sh\n1:x:0:0::/:/bin/sh\n4294967296:x:0:0::/:/bin/sh\n\
                   99999999999999999999:x:0:0::/:/bin/sh\n0x1:x:0:0::/:/bin/sh\n";
    let bundle = fixture.bundle().file("/etc/passwd", hostile).args(["/probe", "wait"]);
    let mut lines = bundle.started();
    assert_eq!(lines.next_line(), "ready");
    for (user, uid, gid) in [("1", 1, 0), ("1:2", 1, 2), ("2147483648", 2_147_483_648_u32, 0), ("007", 7, 0)]
    {
        let seen = bundle.exec_with(&["--user", user], &["/probe", "report"]).ok().json();
        assert_eq!(seen["uid"], json!([uid, uid, uid]), "{user}");
        assert_eq!(seen["gid"], json!([gid, gid, gid]), "{user}");
    }
    for user in [
        ":",
        "1:",
        ":1",
        "0x1",
        "-1",
        "+1",
        " 1",
        "1 ",
        "1:2:3",
        "1:-1",
        "root",
        "4294967295",
        "4294967296",
        "99999999999999999999",
        "1\n",
        "１",
    ] {
        let outcome = bundle.exec_with(&[&format!("--user={user}")], &["/bin/true"]).exits(255);
        assert!(outcome.stderr.contains("parsing"), "{user:?}: {}", outcome.stderr);
    }
}

#[test]
fn cve_2024_40635_ids_out_of_range_are_refused() {
    let fixture = Fixture::new();
    for (field, id) in [
        ("uid", json!(4_294_967_295_u32)),
        ("gid", json!(4_294_967_295_u32)),
        ("additionalGids", json!([4_294_967_295_u32])),
        ("uid", json!(4_294_967_296_u64)),
        ("gid", json!(-1)),
        ("uid", json!(1.5)),
        ("uid", json!("0")),
    ] {
        let outcome = fixture.bundle().set(&format!("/process/user/{field}"), id.clone()).create().exits(1);
        assert!(outcome.stderr.contains("user"), "{field} {id}: {}", outcome.stderr);
        fixture.clean_up();
    }
    // The largest that is one, and the first with the sign bit, are themselves and not root.
    for id in [2_147_483_648_u32, 4_294_967_294] {
        let bundle = fixture.bundle().set("/process/user", json!({"uid": id, "gid": id}));
        open_to_all(&bundle.rootfs().join("probe"));
        assert_eq!(report(bundle)["uid"], json!([id, id, id]));
    }
}

#[test]
fn cve_2022_36109_groups_are_the_configured_ones_and_the_callers_are_dropped() {
    let fixture = Fixture::new();
    let bundle = fixture
        .bundle()
        .set("/process/user", json!({"uid": 1000, "gid": 1000, "additionalGids": [1000, 7]}))
        .script("id -G");
    let mut run = bundle.run_command(&[]);
    assert_eq!(command::run(with_groups(&mut run, vec![0, 4, 27])).ok().stdout, "1000 7\n");
    // Unless the configuration says that they stay.
    let bundle = bundle.set("/annotations", json!({"run.oci.keep_original_groups": "1"}));
    let mut run = bundle.run_command(&[]);
    assert_eq!(command::run(with_groups(&mut run, vec![0, 4, 27])).ok().stdout, "1000 0 4 27\n");
    // CVE-2023-25173: every form of the user has its primary group.
    let bundle = fixture.bundle().args(["/probe", "wait"]);
    let mut lines = bundle.started();
    assert_eq!(lines.next_line(), "ready");
    for (options, groups) in [
        (&["--user", "1000:1000"][..], "1000\n"),
        (&["--user", "1000"], "0\n"),
        (&["--user", "1000:50", "-g", "7"], "50 7\n"),
    ] {
        assert_eq!(bundle.exec_with(options, &["/bin/id", "-G"]).ok().stdout, groups, "{options:?}");
    }
}

#[test]
fn cve_2026_47262_hostile_passwd_and_group_files_hold_nobody_up() {
    let fixture = Fixture::new();
    let secret = fixture.file("shadow", "root:x:0:0::/of-the-host:/bin/sh\n");
    for kind in ["sparse", "fifo", "zero", "link", "dir", "socket"] {
        let bundle = fixture.bundle().args(["/bin/env"]);
        for name in ["etc/passwd", "etc/group"] {
            let path = bundle.rootfs().join(name);
            std::fs::remove_file(&path).unwrap();
            match kind {
                "sparse" => std::fs::File::create(&path).unwrap().set_len(4 << 30).unwrap(),
                "fifo" => nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
                "zero" => symlink("/dev/zero", &path).unwrap(),
                "link" => symlink(&secret, &path).unwrap(),
                "dir" => std::fs::create_dir(&path).unwrap(),
                _ => drop(std::os::unix::net::UnixListener::bind(&path).unwrap()),
            }
        }
        let begin = std::time::Instant::now();
        let outcome = bundle.run().ok();
        assert!(begin.elapsed() < events::patience() / 4, "{kind}: {:?}", begin.elapsed());
        assert!(!outcome.stdout.contains("of-the-host"), "{kind}: {}", outcome.stdout);
        fixture.clean_up();
    }
}
