use oci_spec::runtime::LinuxResources;

use super::v2::Current;
use super::*;
use crate::error::{ErrorKind, Kind};

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

/// `file=value` of each write, alternatives behind a bar.
fn lines(sets: &Sets) -> Vec<String> {
    let line = |set: &Set| {
        let each: Vec<_> = set.targets.iter().map(|(file, value)| format!("{file}={value}")).collect();
        each.join("|")
    };
    sets.0.iter().map(line).collect()
}

fn v1_lines(json: &str) -> Vec<String> {
    lines(&v1::sets(&resources(json)).unwrap())
}

fn v2_lines(json: &str) -> Vec<String> {
    lines(&v2::sets(&resources(json), &Current::default()).unwrap())
}

fn kind<T>(result: Result<T>) -> ErrorKind {
    result.err().unwrap().kind()
}

#[test]
fn shares_become_weights_by_the_new_formula() {
    let pairs = [(0, None), (1, Some(1)), (2, Some(1)), (1024, Some(100)), (262_144, Some(10_000))];
    for (shares, weight) in pairs {
        assert_eq!(v2::weight_of_shares(shares), weight, "{shares}");
    }
    // The edges of runc's TestConvertCPUSharesToCgroupV2Value, and a tenth and two of a processor of Kubernetes.
    assert_eq!(v2::weight_of_shares(3), Some(2));
    assert_eq!(v2::weight_of_shares(262_143), Some(10_000));
    assert_eq!(v2::weight_of_shares(102), Some(17));
    assert_eq!(v2::weight_of_shares(2048), Some(174));
    assert_eq!(v2::weight_of_shares(u64::MAX), Some(10_000));
    let weights: Vec<_> = (2..5000).map(|shares| v2::weight_of_shares(shares).unwrap()).collect();
    assert!(weights.is_sorted());
}

#[test]
fn a_sum_of_memory_and_swap_becomes_swap() {
    let swap = v2::swap_of_sum;
    assert_eq!(swap(Some(100), Some(100), Some(150)).unwrap(), Some(50));
    assert_eq!(swap(Some(100), Some(100), Some(100)).unwrap(), Some(0));
    assert_eq!(swap(Some(100), Some(100), Some(-1)).unwrap(), Some(-1));
    assert_eq!(swap(Some(100), Some(100), None).unwrap(), None);
    assert_eq!(swap(Some(-1), Some(-1), None).unwrap(), Some(-1));
    assert_eq!(swap(Some(-1), Some(-1), Some(70)).unwrap(), Some(70));
    assert_eq!(kind(swap(None, None, Some(70))), ErrorKind::InvalidInput);
    assert_eq!(kind(swap(Some(100), Some(100), Some(99))), ErrorKind::InvalidInput);
    // An update of swap alone refers to the limit in force, an unlimited one changes nothing by itself.
    assert_eq!(swap(Some(100), None, Some(150)).unwrap(), Some(50));
    assert_eq!(swap(Some(-1), None, None).unwrap(), None);
}

#[test]
fn v1_memory() {
    let json =
        r#"{"memory":{"limit":100,"swap":200,"reservation":50,"swappiness":7,"disableOOMKiller":true}}"#;
    assert_eq!(
        v1_lines(json),
        [
            "memory.limit_in_bytes=100",
            "memory.memsw.limit_in_bytes=200",
            "memory.soft_limit_in_bytes=50",
            "memory.oom_control=1",
            "memory.swappiness=7",
        ]
    );
    let unlimited = ["memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=-1"];
    assert_eq!(v1_lines(r#"{"memory":{"limit":-1}}"#), unlimited);
    assert!(v1_lines(r#"{"memory":{"limit":0,"swap":0,"reservation":0}}"#).is_empty());
    assert_eq!(kind(v1::sets(&resources(r#"{"memory":{"limit":2,"swap":1}}"#))), ErrorKind::InvalidInput);
    assert_eq!(kind(v1::sets(&resources(r#"{"memory":{"swappiness":101}}"#))), ErrorKind::InvalidInput);
}

#[test]
fn a_v1_memory_limit_above_the_old_sum_is_tried_again_after_the_new_sum() {
    let sets = v1::sets(&resources(r#"{"memory":{"limit":100,"swap":200}}"#)).unwrap();
    let tolerances: Vec<_> = sets.0.iter().map(|set| set.tolerance).collect();
    assert_eq!(tolerances, [Tolerance::Again, Tolerance::None]);
}

#[test]
fn v2_memory() {
    let json = r#"{"memory":{"limit":100,"swap":150,"reservation":50}}"#;
    assert_eq!(v2_lines(json), ["memory.swap.max=50", "memory.max=100", "memory.low=50"]);
    assert_eq!(v2_lines(r#"{"memory":{"limit":-1}}"#), ["memory.swap.max=max", "memory.max=max"]);
    assert_eq!(v2_lines(r#"{"memory":{"limit":5}}"#), ["memory.max=5"]);
    // As runc, whose callers set these without a look at the host.
    for only_v1 in [r#"{"memory":{"swappiness":1}}"#, r#"{"memory":{"disableOOMKiller":true}}"#] {
        assert!(v2_lines(only_v1).is_empty(), "{only_v1}");
    }
}

#[test]
fn v1_processors() {
    let json = r#"{"cpu":{"shares":512,"quota":5000,"period":10000,"burst":7,"idle":1,"cpus":"0-1","mems":"0",
        "realtimePeriod":9,"realtimeRuntime":8}}"#;
    assert_eq!(
        v1_lines(json),
        [
            "cpu.shares=512",
            "cpu.cfs_period_us=10000",
            "cpu.cfs_burst_us=7",
            "cpu.cfs_quota_us=5000",
            "cpu.idle=1",
            "cpu.rt_period_us=9",
            "cpu.rt_runtime_us=8",
            "cpuset.cpus=0-1",
            "cpuset.mems=0",
        ]
    );
    assert_eq!(kind(v1::sets(&resources(r#"{"cpu":{"shares":1}}"#))), ErrorKind::InvalidInput);
    assert!(v1_lines(r#"{"cpu":{"shares":0,"quota":0,"period":0,"cpus":""}}"#).is_empty());
}

#[test]
fn v2_processors() {
    let json =
        r#"{"cpu":{"shares":1024,"quota":5000,"period":10000,"burst":7,"idle":0,"cpus":"0","mems":"0"}}"#;
    let expected = [
        "cpu.idle=0",
        "cpu.weight=100",
        "cpu.max.burst=7",
        "cpu.max=5000 10000",
        "cpuset.cpus=0",
        "cpuset.mems=0",
    ];
    assert_eq!(v2_lines(json), expected);
    assert_eq!(v2_lines(r#"{"cpu":{"quota":-1}}"#), ["cpu.max=max"]);
    let current = Current { quota: Some("7000".into()), memory: None };
    let period = v2::sets(&resources(r#"{"cpu":{"period":20000}}"#), &current).unwrap();
    assert_eq!(lines(&period), ["cpu.max=7000 20000"]);
    assert!(v2_lines(r#"{"cpu":{"realtimeRuntime":1}}"#).is_empty());
}

#[test]
fn block_devices() {
    let json = r#"{"blockIO":{"weight":500,"weightDevice":[{"major":8,"minor":0,"weight":10}],
        "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":100}],
        "throttleWriteIOPSDevice":[{"major":8,"minor":1,"rate":0}]}}"#;
    assert_eq!(
        v1_lines(json),
        [
            "blkio.weight=500|blkio.bfq.weight=500",
            "blkio.weight_device=8:0 10|blkio.bfq.weight_device=8:0 10",
            "blkio.throttle.read_bps_device=8:0 100",
            "blkio.throttle.write_iops_device=8:1 0",
        ]
    );
    assert_eq!(
        v2_lines(json),
        [
            "io.bfq.weight=500|io.weight=4950",
            "io.bfq.weight=8:0 10|io.weight=8:0 1",
            "io.max=8:0 rbps=100",
            "io.max=8:1 wiops=max",
        ]
    );
    let bad = resources(r#"{"blockIO":{"weight":9}}"#);
    assert_eq!(kind(v2::sets(&bad, &Current::default())), ErrorKind::InvalidInput);
}

#[test]
fn pids_huge_pages_and_rdma() {
    assert_eq!(v1_lines(r#"{"pids":{"limit":7}}"#), ["pids.max=7"]);
    assert_eq!(v2_lines(r#"{"pids":{"limit":0}}"#), ["pids.max=1"]);
    assert_eq!(v2_lines(r#"{"pids":{"limit":-1}}"#), ["pids.max=max"]);
    let huge = r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#;
    assert_eq!(
        v1_lines(huge),
        ["hugetlb.2MB.limit_in_bytes=4194304", "hugetlb.2MB.rsvd.limit_in_bytes=4194304"]
    );
    assert_eq!(v2_lines(huge), ["hugetlb.2MB.max=4194304", "hugetlb.2MB.rsvd.max=4194304"]);
    for size in ["../../x", "MB", "2", "2MB/..", ""] {
        let json = format!(r#"{{"hugepageLimits":[{{"pageSize":"{size}","limit":1}}]}}"#);
        assert_eq!(kind(v1::sets(&resources(&json))), ErrorKind::InvalidInput, "{size}");
    }
    let rdma = r#"{"rdma":{"mlx5_0":{"hcaHandles":3,"hcaObjects":9}}}"#;
    assert_eq!(v1_lines(rdma), ["rdma.max=mlx5_0 hca_handle=3 hca_object=9"]);
}

#[test]
fn networks_are_of_v1_and_unified_is_of_v2() {
    let network = r#"{"network":{"classID":9,"priorities":[{"name":"eth0","priority":5}]}}"#;
    assert_eq!(v1_lines(network), ["net_cls.classid=9", "net_prio.ifpriomap=eth0 5"]);
    assert!(v2_lines(network).is_empty());
    let unified = resources(r#"{"unified":{"memory.high":"5","io.max":"8:0 rbps=1\n8:1 rbps=2"}}"#);
    assert_eq!(kind(v1::sets(&unified)), ErrorKind::Unsupported);
    let expected = [("io.max", "8:0 rbps=1"), ("io.max", "8:1 rbps=2"), ("memory.high", "5")];
    assert_eq!(v2::unified(&unified).unwrap(), expected);
    for file in ["../x.y", "memory", ".max", "memory.", "cgroup.procs", "cgroup.kill"] {
        let json = format!(r#"{{"unified":{{"{file}":"1"}}}}"#);
        assert_eq!(kind(v2::unified(&resources(&json))), ErrorKind::InvalidInput, "{file}");
    }
}
