use super::*;

fn spec(json: &str) -> Spec {
    serde_json::from_str(&format!(r#"{{"ociVersion": "1.2.0", {json}}}"#)).unwrap()
}

const LINUX: &str = r#""linux": {"namespaces": [{"type": "mount"}, {"type": "ipc"}]}"#;

fn plan_mounts(mounts: &str) -> Result<RootfsPlan> {
    let spec = spec(&format!(r#""root": {{"path": "rootfs"}}, "mounts": [{mounts}], {LINUX}"#));
    plan(&spec, Path::new("/bundle"), PlanFacts::default())
}

fn one_mount(mount: &str) -> Result<MountStep> {
    plan_mounts(mount).map(|plan| plan.mounts[0].clone())
}

#[test]
fn paths_are_cleaned_lexically() {
    let table = [
        ("/proc", "proc"),
        ("proc", "proc"),
        ("//dev/./pts/", "dev/pts"),
        ("/../../etc", "etc"),
        ("/a/../b", "b"),
        ("/", ""),
    ];
    for (path, cleaned) in table {
        assert_eq!(clean(Path::new(path)), Path::new(cleaned), "{path}");
    }
}

#[test]
fn kinds_of_mounts() {
    let bind = |source: &str, scope| MountKind::Bind { source: source.into(), scope };
    let fresh = |fstype: &str, source: Option<&str>| MountKind::Fresh {
        fstype: fstype.to_owned(),
        source: source.map(str::to_owned),
    };
    let table = [
        (r#""type": "proc", "source": "proc""#, fresh("proc", Some("proc"))),
        (r#""type": "tmpfs""#, fresh("tmpfs", None)),
        (r#""type": "bind", "source": "/src""#, bind("/src", Scope::Mount)),
        (r#""type": "none", "source": "/src", "options": ["rbind"]"#, bind("/src", Scope::Tree)),
        (r#""type": "tmpfs", "source": "/src", "options": ["bind"]"#, bind("/src", Scope::Mount)),
        (r#""source": "relative/dir", "options": ["rbind"]"#, bind("/bundle/relative/dir", Scope::Tree)),
        (r#""type": "cgroup", "source": "cgroup""#, MountKind::Cgroup),
        (r#""type": "none", "options": ["remount", "ro"]"#, MountKind::Remount),
    ];
    for (json, kind) in table {
        let step = one_mount(&format!(r#"{{"destination": "/mnt/x", {json}}}"#)).unwrap();
        assert_eq!(step.kind, kind, "{json}");
        assert_eq!(step.destination, Path::new("mnt/x"));
    }
}

#[test]
fn what_is_wrong_with_a_mount() {
    for json in [
        r#"{"destination": "/x"}"#,
        r#"{"destination": "/x", "type": "none"}"#,
        r#"{"destination": "", "type": "tmpfs"}"#,
        r#"{"destination": "/", "type": "tmpfs"}"#,
        r#"{"destination": "/x/..", "type": "tmpfs"}"#,
        r#"{"destination": "/x", "type": "bind"}"#,
        r#"{"destination": "/x", "type": "proc", "options": ["tmpcopyup"]}"#,
    ] {
        assert!(matches!(one_mount(json), Err(RootfsError::InvalidMount { .. })), "{json}");
    }
    let unknown = r#"{"destination": "/x", "type": "bind", "source": "/s", "options": ["bind", "mode=5"]}"#;
    assert!(one_mount(unknown).is_ok());
}

#[test]
fn dev_is_filled_unless_it_is_bound() {
    assert!(plan_mounts("").unwrap().fill_dev);
    assert!(plan_mounts(r#"{"destination": "/dev", "type": "tmpfs"}"#).unwrap().fill_dev);
    assert!(!plan_mounts(r#"{"destination": "/dev/", "type": "bind", "source": "/dev"}"#).unwrap().fill_dev);
    assert!(plan_mounts(r#"{"destination": "/dev/x", "type": "bind", "source": "/dev"}"#).unwrap().fill_dev);
}

#[test]
fn the_root_and_what_becomes_of_it() {
    let bundle = Path::new("/bundle");
    let spec_of = |linux: &str| spec(&format!(r#""root": {{"path": "rootfs", "readonly": true}}, {linux}"#));
    let spec = spec_of(LINUX);
    let planned = plan(&spec, bundle, PlanFacts::default()).unwrap();
    assert_eq!((planned.rootfs(), planned.read_only), (Path::new("/bundle/rootfs"), true));
    assert_eq!(planned.change, RootChange::Pivot);
    assert_eq!(plan(&spec, bundle, PlanFacts { no_pivot: true }).unwrap().change, RootChange::Move);
    let shared = spec_of(r#""linux": {"rootfsPropagation": "rshared", "namespaces": [{"type": "mount"}]}"#);
    let planned = plan(&shared, bundle, PlanFacts::default()).unwrap();
    assert_eq!(planned.propagation, Some((Propagation::Shared, Scope::Tree)));
    let wrong = spec_of(r#""linux": {"rootfsPropagation": "ro", "namespaces": [{"type": "mount"}]}"#);
    assert!(matches!(plan(&wrong, bundle, PlanFacts::default()), Err(RootfsError::Propagation { .. })));
}

#[test]
fn without_a_mount_namespace_nothing_is_hidden_or_handed_on() {
    let bundle = Path::new("/bundle");
    let none = spec(r#""root": {"path": "rootfs"}, "linux": {"namespaces": []}"#);
    let planned = plan(&none, bundle, PlanFacts { no_pivot: true }).unwrap();
    assert_eq!(planned.change, RootChange::Chroot);
    assert!(planned.shares_mounts());
    let mounts = spec(
        r#""root": {"path": "r", "readonly": true}, "linux": {"rootfsPropagation": "rslave"},
           "mounts": [{"destination": "/proc", "type": "proc"}]"#,
    );
    assert_eq!(plan(&mounts, bundle, PlanFacts::default()).unwrap().mounts.len(), 1);
    for asked in [
        r#""root": {"path": "r"}, "linux": {"rootfsPropagation": "rshared"}"#,
        r#""root": {"path": "r"}, "linux": {"maskedPaths": ["/proc/kcore"]}"#,
        r#""root": {"path": "r"}, "linux": {"readonlyPaths": ["/proc/sys"]}"#,
    ] {
        let error = plan(&spec(asked), bundle, PlanFacts::default()).unwrap_err();
        assert!(matches!(error, RootfsError::NoMountNamespace { .. }), "{asked}");
    }
}

#[test]
fn a_fresh_volume_is_found_by_its_destination() {
    let mounts = r#"{"destination": "/data", "type": "bind", "source": "/vol"}, {"destination": "/t", "type": "tmpfs"}"#;
    let mut planned = plan_mounts(mounts).unwrap();
    assert!(planned.copy_up_volume(Path::new("/data/")));
    assert!(planned.mounts[0].copy_up_volume);
    assert!(!planned.copy_up_volume(Path::new("/t")));
    assert!(!planned.copy_up_volume(Path::new("/other")));
}

#[test]
fn console_sizes() {
    let plan_of = |process: &str| {
        let json = format!(
            r#""process": {{"cwd": "/", "user": {{"uid": 0, "gid": 0}}, {process}}}, "root": {{"path": "r"}}, {LINUX}"#
        );
        plan(&spec(&json), Path::new("/b"), PlanFacts::default()).unwrap().console
    };
    assert_eq!(plan_of(r#""terminal": false"#), None);
    assert_eq!(plan_of(r#""terminal": true"#), Some(Console { size: None }));
    let sized = plan_of(r#""terminal": true, "consoleSize": {"height": 25, "width": 80}"#);
    assert_eq!(sized.unwrap().size, Some(Size { rows: 25, columns: 80 }));
    let huge = plan_of(r#""terminal": true, "consoleSize": {"height": 70000, "width": 80}"#);
    assert_eq!(huge.unwrap().size, None);
}

/// CVE-2019-16884: a volume over /proc makes writes of security attributes hit a file of the image.
#[test]
fn nothing_hides_proc() {
    let bind =
        |path: &str| one_mount(&format!(r#"{{"destination": "{path}", "type": "bind", "source": "/s"}}"#));
    let tmpfs = |path: &str| one_mount(&format!(r#"{{"destination": "{path}", "type": "tmpfs"}}"#));
    for path in ["/proc/cpuinfo", "/proc/uptime", "/proc/sys/kernel/ns_last_pid", "/proc", "/procx"] {
        assert!(bind(path).is_ok(), "{path}");
    }
    for path in ["/proc/self", "/proc/sys", "/x/../proc/1", "/proc/sys/fs/binfmt_misc"] {
        assert!(matches!(bind(path), Err(RootfsError::InsideProc { .. })), "{path}");
    }
    for path in ["/proc", "/proc/cpuinfo", "/proc/x"] {
        assert!(matches!(tmpfs(path), Err(RootfsError::InsideProc { .. })), "{path}");
    }
}

#[test]
fn mapped_owners() {
    const MAP: &str = r#"[{"containerID": 0, "hostID": 1000, "size": 2}]"#;
    let lines = |scope, line: &str| {
        let mappings = Mappings::Lines { uid: line.to_owned(), gid: line.to_owned() };
        Some(IdMap { mappings, scope })
    };
    let own = format!(r#""uidMappings": {MAP}, "gidMappings": {MAP}"#);
    let one = |typ: &str, rest: &str, options: &str, linux: &str| {
        let mount = format!(
            r#"{{"destination": "/x", "source": "/s", "type": "{typ}", {rest} "options": [{options}]}}"#
        );
        let json = format!(
            r#""root": {{"path": "r"}}, "mounts": [{mount}], "linux": {{"namespaces": [{{"type": "mount"}} {linux}}}"#
        );
        plan(&spec(&json), Path::new("/"), PlanFacts::default()).map(|plan| plan.mounts[0].idmap.clone())
    };
    let own = format!("{own},");
    let in_user = r#", {"type": "user"}], "uidMappings": [{"containerID": 0, "hostID": 7, "size": 9}], "gidMappings": [{"containerID": 0, "hostID": 7, "size": 9}]"#;
    let joined = r#", {"type": "user", "path": "/u"}]"#;
    assert_eq!(one("bind", &own, "", "]").unwrap(), lines(Scope::Mount, "0 1000 2\n"));
    assert_eq!(one("bind", &own, r#""ridmap""#, in_user).unwrap(), lines(Scope::Tree, "0 1000 2\n"));
    assert_eq!(one("bind", "", r#""idmap""#, in_user).unwrap(), lines(Scope::Mount, "0 7 9\n"));
    let namespace = one("bind", "", r#""idmap""#, joined).unwrap().unwrap();
    assert_eq!(namespace.mappings, Mappings::Namespace("/u".into()));
    assert_eq!(
        one("bind", "", r#""ridmap=uids=1-2-3;gids=1-2-3""#, "]").unwrap(),
        lines(Scope::Tree, "1 2 3\n")
    );
    for (typ, rest, options) in [
        ("bind", "", r#""idmap""#),
        ("bind", r#""uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}],"#, ""),
        ("bind", own.as_str(), r#""idmap=uids=1-2-3;gids=1-2-3""#),
        ("bind", "", r#""idmap=uids=1-2-3""#),
        ("tmpfs", own.as_str(), ""),
    ] {
        let result = one(typ, rest, options, "]");
        assert!(
            matches!(result, Err(RootfsError::InvalidMount { .. })),
            "{typ} {rest} {options}: {result:?}"
        );
    }
}
