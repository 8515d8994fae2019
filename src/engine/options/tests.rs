use super::parse::*;
use super::*;

fn reject<T: std::fmt::Debug>(
    values: &[&str],
    parser: impl Fn(&str) -> Result<T, crate::engine::error::EngineError>,
) {
    for value in values {
        let error = parser(value).expect_err(value).to_string();
        assert!(!error.is_empty());
    }
}

#[test]
fn sizes() {
    let at = |text| bytes("--memory", text).unwrap();
    assert_eq!(at("0"), 0);
    assert_eq!(at("512"), 512);
    assert_eq!(at("512m"), 512 << 20);
    assert_eq!(at("1.5G"), 3 << 29);
    assert_eq!(at("2KiB"), 2048);
    assert_eq!(at("1t"), 1 << 40);
    reject(
        &[
            "",
            "m",
            "-1",
            "1x",
            "1.",
            ".5m",
            "1..5m",
            "9999999999999g",
            "99999999999999999999999",
            "1 m",
            "0x10",
        ],
        |text| bytes("--memory", text),
    );
}

#[test]
fn memory_limits() {
    assert_eq!(memory("6m").unwrap(), 6 << 20);
    reject(&["1m", "0"], memory);
    assert_eq!(memory_swap("-1", Some(1)).unwrap(), -1);
    assert_eq!(memory_swap("64m", Some(64 << 20)).unwrap(), 64 << 20);
    memory_swap("32m", Some(64 << 20)).unwrap_err();
    memory_swap("32m", None).unwrap_err();
}

#[test]
fn cpu_limits() {
    assert_eq!(cpus("0.5").unwrap(), 500_000_000);
    assert_eq!(cpus(".25").unwrap(), 250_000_000);
    assert_eq!(cpus("2").unwrap(), 2_000_000_000);
    reject(&["", ".", "0", "0.001", "-1", "1e3", "nan", "99999", "1,5"], cpus);
    assert_eq!(cpu_shares("1024").unwrap(), 1024);
    reject(&["0", "1", "262145", "x"], cpu_shares);
    assert_eq!(cpuset("0-3,5").unwrap(), "0-3,5");
    reject(&["", "a", "3-1", "0,", "-1", "0-", "0\n"], cpuset);
    assert_eq!(pids_limit("-1").unwrap(), -1);
    assert_eq!(pids_limit("100").unwrap(), 100);
    reject(&["", "-2", "x"], pids_limit);
}

#[test]
fn ulimits() {
    let limit = ulimit("nofile=1024:4096").unwrap();
    assert_eq!((limit.name.as_str(), limit.soft, limit.hard), ("RLIMIT_NOFILE", 1024, 4096));
    assert_eq!(ulimit("core=0").unwrap().hard, 0);
    assert_eq!(ulimit("memlock=-1:-1").unwrap().soft, u64::MAX);
    reject(
        &["", "nofile", "nofile=", "nofile=x", "files=1", "nofile=2:1", "nofile=1:2:3", "NOFILE=1"],
        ulimit,
    );
}

#[test]
fn volumes() {
    let bind = volume("/data:/mnt:ro,rshared").unwrap();
    assert_eq!(bind.source, VolumeSource::Host("/data".into()));
    assert_eq!((bind.destination.as_str(), bind.copy_up), ("/mnt", false));
    assert_eq!(bind.options, ["ro", "rshared"]);
    let named = volume("cache:/var//cache/").unwrap();
    assert_eq!(named.source, VolumeSource::Named("cache".into()));
    assert_eq!((named.destination.as_str(), named.copy_up), ("/var/cache", true));
    assert!(!volume("cache:/c:nocopy").unwrap().copy_up);
    assert_eq!(volume("/only").unwrap().source, VolumeSource::Anonymous(None));
    assert_eq!(volume("./here:/x").unwrap().source, VolumeSource::Host("./here".into()));
    reject(
        &[
            "",
            "relative",
            "/a:b",
            ":/b",
            "/a:/b:ro:x",
            "/a:/",
            "/a:/b/../c",
            "/a:/b:zz",
            "/a:/b:z",
            "/a:/b:Z",
            "a b:/x",
            "/a:/b:U",
        ],
        volume,
    );
}

#[test]
fn temporary_file_systems() {
    let plain = tmpfs("/run").unwrap();
    assert_eq!(plain.options, ["nosuid", "nodev", "noexec"]);
    let asked = tmpfs("/run:exec,size=64m,mode=1777").unwrap();
    assert_eq!(asked.options, ["nosuid", "nodev", "exec", "size=64m", "mode=1777"]);
    tmpfs("/run:size=50%").unwrap();
    reject(&["", "run", "/", "/run:size=x", "/run:mode=9", "/run:bogus", "/run:uid=-1", "/run:ro=1"], tmpfs);
}

#[test]
fn signals() {
    let at = |text| signal("--signal", text).unwrap().0;
    assert_eq!((at("9"), at("KILL"), at("sigterm"), at("RTMIN+3"), at("SIGRTMAX")), (9, 9, 15, 37, 64));
    reject(&["", "0", "65", "-1", "NOPE", "RTMIN-1", "RTMIN+99", "SIGSIG"], |text| signal("--signal", text));
    assert_eq!(signal_name(Signal(2)), "SIGINT");
    assert_eq!(signal_name(Signal(37)), "37");
}

#[test]
fn security_options() {
    let of = |list: &[&str]| security(&list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
    assert!(of(&["no-new-privileges"]).unwrap().no_new_privileges);
    assert!(!of(&["no-new-privileges:false"]).unwrap().no_new_privileges);
    assert_eq!(of(&["seccomp=unconfined"]).unwrap().seccomp, Seccomp::Unconfined);
    assert_eq!(of(&["seccomp=/p.json"]).unwrap().seccomp, Seccomp::File("/p.json".into()));
    assert_eq!(of(&["apparmor=docker-default"]).unwrap().apparmor.as_deref(), Some("docker-default"));
    of(&["label=disable"]).unwrap();
    for wrong in ["label=type:x", "seccomp=", "bogus", "unmask=ALL", "no-new-privileges=maybe"] {
        of(&[wrong]).unwrap_err();
    }
}

#[test]
fn environment() {
    let lookup = |name: &str| (name == "HERE").then(|| "x".to_owned());
    assert_eq!(env("A=b=c", lookup).unwrap().unwrap(), "A=b=c");
    assert_eq!(env("HERE", lookup).unwrap().unwrap(), "HERE=x");
    assert_eq!(env("GONE", lookup).unwrap(), None);
    reject(&["", "=x"], |text| env(text, lookup));
    let lines = env_file("\u{feff}# comment\nA=1\n\n  B=\"2\"\nHERE\nGONE\n", lookup).unwrap();
    assert_eq!(lines, ["A=1", "B=\"2\"", "HERE=x"]);
    env_file("BAD KEY=1", lookup).unwrap_err();
}

#[test]
fn other_values() {
    reject(&["", "-a", "a b", &"a".repeat(65)], hostname);
    assert_eq!(label("a=b=c").unwrap(), ("a".into(), "b=c".into()));
}
