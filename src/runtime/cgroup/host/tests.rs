use super::*;

const HYBRID_OWN: &str =
    "9:name=systemd:/\n4:memory:/own/agent\n1:cpu,cpuacct:/\n12:name=custom:/x\n0::/me\n";
const HYBRID_MOUNTS: &str = "\
23 1 0:20 / / rw - ext4 /dev/vda rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:5 - cgroup cgroup rw,cpuacct,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

fn mounted(host: &Host, controller: Controller) -> &Mounted {
    host.hierarchies().iter().find(|one| one.controllers.contains(&controller)).unwrap()
}

#[test]
fn a_hybrid_host_has_v1_hierarchies_and_one_of_v2() {
    let host = Host::from_texts(HYBRID_OWN, HYBRID_MOUNTS).unwrap();
    assert_eq!(host.mode(), Mode::Hybrid);
    assert_eq!(host.hierarchies().len(), 4);
    let cpu = mounted(&host, Controller::Cpuacct);
    assert_eq!(cpu.controllers, [Controller::Cpu, Controller::Cpuacct]);
    assert_eq!(cpu.mount_point, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
    assert_eq!(mounted(&host, Controller::Memory).own, Path::new("own/agent"));
    let v2 = host.hierarchies().iter().find(|one| one.version == Version::V2).unwrap();
    assert_eq!(v2.own, Path::new("me"));
}

#[test]
fn without_a_v2_mount_the_host_is_v1() {
    let mounts: String = HYBRID_MOUNTS
        .lines()
        .filter(|line| !line.contains("cgroup2"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(Host::from_texts(HYBRID_OWN, &mounts).unwrap().mode(), Mode::V1);
}

#[test]
fn a_v2_mount_elsewhere_is_found_too() {
    let host = Host::from_texts("0::/a/b\n", "41 31 0:38 / /cg rw - cgroup2 none rw\n").unwrap();
    assert_eq!(host.mode(), Mode::Unified);
    assert_eq!(host.hierarchies()[0].mount_point, Path::new("/cg"));
}

#[test]
fn a_mount_of_a_part_shifts_our_own_place() {
    let mounts = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
    let host = Host::from_texts("4:memory:/docker/abc/inner\n", mounts).unwrap();
    assert_eq!(host.hierarchies()[0].own, Path::new("inner"));
    // Seen from within a cgroup namespace whose root is elsewhere.
    let host = Host::from_texts("4:memory:/../../other\n", mounts).unwrap();
    assert_eq!(host.hierarchies()[0].own, Path::new(""));
}

#[test]
fn the_first_mount_of_a_hierarchy_counts_and_escapes_are_undone() {
    let mounts =
        "1 1 0:1 / /a\\040b rw - cgroup cgroup rw,pids\n2 1 0:1 / /later rw - cgroup cgroup rw,pids\n";
    let host = Host::from_texts("3:pids:/\n", mounts).unwrap();
    assert_eq!(host.hierarchies().len(), 1);
    assert_eq!(host.hierarchies()[0].mount_point, Path::new("/a b"));
}

#[test]
fn no_hierarchy_and_no_sense_are_errors() {
    assert!(matches!(Host::from_texts("0::/\n", "1 1 0:1 / / rw - ext4 x rw\n"), Err(Error::NoHierarchy)));
    assert!(matches!(Host::from_texts("nonsense\n", ""), Err(Error::Malformed { .. })));
}
