use super::*;

/// A directory that looks like resctrl, as far as plain files can.
fn fake() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for dir in ["info/L3", "info/MB", "gold/mon_groups", "mon_groups"] {
        std::fs::create_dir_all(root.path().join(dir)).unwrap();
    }
    std::fs::write(root.path().join("gold/schemata"), "    MB:0= 100;1= 50\n    L3:0=00ff;1=000c0\n")
        .unwrap();
    root
}

fn plan(json: &str, root: &Path) -> Result<Plan, RdtError> {
    Plan::new(&serde_json::from_str(json).unwrap(), "box", root)
}

fn read(root: &Path, file: &str) -> String {
    std::fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn without_a_class_the_group_is_the_containers_and_goes_with_it() {
    let root = fake();
    let schemata = r#""l3CacheSchema":"L3:0=f","memBwSchema":"MB:0=20","schemata":["L2:0=f"]"#;
    let plan = plan(&format!("{{{schemata}}}"), root.path()).unwrap();
    plan.make().unwrap();
    assert_eq!(read(root.path(), "box/schemata"), "L3:0=f\nMB:0=20\nL2:0=f\n");
    plan.group.add(Pid::from_raw(42)).unwrap();
    assert_eq!(read(root.path(), "box/tasks"), "42");
    // The kernel's own files go with their directory; these are ours.
    std::fs::remove_file(root.path().join("box/schemata")).unwrap();
    std::fs::remove_file(root.path().join("box/tasks")).unwrap();
    for _ in 0..2 {
        plan.group.remove().unwrap();
        assert!(!root.path().join("box").exists());
    }
}

#[test]
fn a_directory_of_somebody_else_stays() {
    let root = fake();
    std::fs::create_dir(root.path().join("box")).unwrap();
    let plan = plan("{}", root.path()).unwrap();
    plan.make().unwrap();
    plan.group.remove().unwrap();
    assert!(root.path().join("box").exists());
    assert!(!root.path().join("box/schemata").exists(), "nothing was asked for, nothing is written");
}

#[test]
fn a_class_is_used_when_it_is_there_and_made_when_it_can_be() {
    let root = fake();
    let used = plan(r#"{"closID":"gold"}"#, root.path()).unwrap();
    used.make().unwrap();
    used.group.remove().unwrap();
    assert!(root.path().join("gold").exists());
    let error = plan(r#"{"closID":"silver"}"#, root.path()).unwrap_err();
    assert!(matches!(error, RdtError::NoClass { .. }), "{error}");
    let made = plan(r#"{"closID":"silver","schemata":["L3:0=f"]}"#, root.path()).unwrap();
    made.make().unwrap();
    made.group.remove().unwrap();
    assert_eq!(read(root.path(), "silver/schemata"), "L3:0=f\n", "a class outlives its containers");
    let root_class = plan(r#"{"closID":"/"}"#, root.path()).unwrap();
    root_class.group.add(Pid::from_raw(7)).unwrap();
    assert_eq!(read(root.path(), "tasks"), "7");
}

#[test]
fn an_existing_class_must_match() {
    let root = fake();
    for same in
        [r#""l3CacheSchema":"L3:1=C0;0=ff""#, r#""memBwSchema":"MB:1=50""#, r#""l3CacheSchema":"L3:0=0ff""#]
    {
        let plan = plan(&format!(r#"{{"closID":"gold",{same}}}"#), root.path()).unwrap();
        let before = read(root.path(), "gold/schemata");
        plan.make().unwrap();
        assert_eq!(read(root.path(), "gold/schemata"), before, "{same}");
    }
    for other in [r#""l3CacheSchema":"L3:0=f""#, r#""memBwSchema":"MB:2=50""#] {
        let error = plan(&format!(r#"{{"closID":"gold",{other}}}"#), root.path()).unwrap_err();
        assert!(matches!(error, RdtError::Differs { .. }), "{other}: {error}");
    }
    plan(r#"{"closID":"gold","schemata":["L3:0=1"]}"#, root.path()).unwrap().make().unwrap();
    assert_eq!(read(root.path(), "gold/schemata"), "L3:0=1\n");
}

#[test]
fn a_monitoring_group_is_always_the_containers() {
    let root = fake();
    let plan = plan(r#"{"closID":"gold","enableMonitoring":true}"#, root.path()).unwrap();
    plan.make().unwrap();
    plan.group.add(Pid::from_raw(42)).unwrap();
    assert_eq!(read(root.path(), "gold/mon_groups/box/tasks"), "42");
    std::fs::remove_file(root.path().join("gold/mon_groups/box/tasks")).unwrap();
    plan.group.remove().unwrap();
    assert!(!root.path().join("gold/mon_groups/box").exists() && root.path().join("gold").exists());
}

#[test]
fn bad_values_and_missing_hardware_are_named() {
    let root = fake();
    std::fs::remove_dir(root.path().join("info/MB")).unwrap();
    for (json, words) in [
        (r#"{"closID":"a/b"}"#, "closID"),
        (r#"{"closID":".."}"#, "closID"),
        (r#"{"closID":"info"}"#, "closID"),
        (r#"{"l3CacheSchema":"MB:0=1"}"#, "l3CacheSchema"),
        (r#"{"l3CacheSchema":"L3:0=1\nMB:0=1"}"#, "newline"),
        (r#"{"schemata":["L3:0=1\nMB:0=1"]}"#, "newline"),
        (r#"{"memBwSchema":"MB:0=10"}"#, "does not offer"),
    ] {
        let text = plan(json, root.path()).unwrap_err().to_string();
        assert!(text.contains(words), "{json}: {text}");
    }
}

#[test]
fn what_the_kernel_says_is_passed_on() {
    let root = fake();
    std::fs::write(root.path().join("info/last_cmd_status"), "no free CLOSIDs\n").unwrap();
    let plan = plan(r#"{"schemata":["L3:0=f"]}"#, root.path()).unwrap();
    std::fs::create_dir(root.path().join("box")).unwrap();
    let error = plan.make().unwrap_err();
    assert!(error.to_string().ends_with("/box (the kernel says: no free CLOSIDs)"), "{error}");
}

#[test]
fn it_may_be_mounted_elsewhere() {
    let table = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n40 23 0:40 / /mnt/rdt rw - resctrl resctrl rw\n";
    assert_eq!(mounted_elsewhere(table), Some("/mnt/rdt".into()));
    assert_eq!(mounted_elsewhere("1 0 0:1 /resctrl /x rw - tmpfs resctrl rw"), None);
}
