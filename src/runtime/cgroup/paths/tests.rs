use super::*;
use crate::error::{ErrorKind, Kind};

const MOUNTS: &str = "\
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
";

fn v1() -> Host {
    Host::from_texts("4:memory:/own/agent\n3:pids:/\n", MOUNTS).unwrap()
}

fn dirs(host: &Host, path: Option<&str>) -> Vec<String> {
    let paths = plan(host, path.map(Path::new), "id", Driver::Cgroupfs).unwrap();
    paths.hierarchies.iter().map(|one| one.dir().to_str().unwrap().to_owned()).collect()
}

#[test]
fn an_absolute_path_is_below_the_mount_point() {
    assert_eq!(dirs(&v1(), Some("/a/b")), ["/sys/fs/cgroup/memory/a/b", "/sys/fs/cgroup/pids/a/b"]);
    let v2 = Host::unified_for_test("0::/user.slice/session\n").unwrap();
    assert_eq!(dirs(&v2, Some("/a/b")), ["/sys/fs/cgroup/a/b"]);
}

#[test]
fn a_relative_or_absent_path_is_below_us_on_v1_and_beside_us_on_v2() {
    assert_eq!(dirs(&v1(), None), ["/sys/fs/cgroup/memory/own/agent/id", "/sys/fs/cgroup/pids/id"]);
    assert_eq!(dirs(&v1(), Some("x/y")), ["/sys/fs/cgroup/memory/own/agent/x/y", "/sys/fs/cgroup/pids/x/y"]);
    let v2 = Host::unified_for_test("0::/user.slice/session\n").unwrap();
    assert_eq!(dirs(&v2, None), ["/sys/fs/cgroup/user.slice/id"]);
    assert_eq!(dirs(&Host::unified_for_test("0::/\n").unwrap(), Some("")), ["/sys/fs/cgroup/id"]);
}

#[test]
fn no_path_climbs_out() {
    for path in ["/../../x", "/./a/../x", "//x/"] {
        assert_eq!(dirs(&v1(), Some(path))[1], "/sys/fs/cgroup/pids/x", "{path}");
    }
    assert_eq!(dirs(&v1(), Some("../../../x"))[0], "/sys/fs/cgroup/memory/own/agent/x");
}

#[test]
fn the_root_is_no_container_s_cgroup() {
    for path in ["/", "/..", "a/..", "/a\n"] {
        let error = plan(&v1(), Some(Path::new(path)), "id", Driver::Cgroupfs).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{path:?}");
    }
    let long = format!("/{}", "a/".repeat(2100));
    assert!(plan(&v1(), Some(Path::new(&long)), "id", Driver::Cgroupfs).is_err());
}

#[test]
fn the_systemd_driver_wants_the_form_of_a_unit() {
    let error = plan(&v1(), Some(Path::new("/docker/id")), "id", Driver::Systemd).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("slice:prefix:name"));
}

#[test]
fn paths_survive_the_state_file() {
    let paths = plan(&v1(), Some(Path::new("/a")), "id", Driver::Cgroupfs).unwrap();
    let text = serde_json::to_string(&paths).unwrap();
    assert_eq!(serde_json::from_str::<Paths>(&text).unwrap(), paths);
    assert!(paths.explicit);
    assert!(paths.of(Controller::Pids).is_some() && paths.v2().is_none());
}

#[test]
fn a_record_without_a_unit_is_read() {
    let paths = plan(&v1(), None, "id", Driver::Cgroupfs).unwrap();
    let text = serde_json::to_string(&paths).unwrap();
    assert!(!text.contains("unit"), "{text}");
    let unit = Unit {
        name: "a-b.scope".into(),
        slice: "c.slice".into(),
        manager: crate::runtime::cgroup::Manager::User,
    };
    let with = Paths { unit: Some(unit), ..paths };
    assert_eq!(serde_json::from_str::<Paths>(&serde_json::to_string(&with).unwrap()).unwrap(), with);
}
