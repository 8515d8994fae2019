use super::*;

#[test]
fn lists_numbers_and_page_sizes() {
    assert_eq!(parse::cpu_list("0-2,5\n"), Some(vec![0, 1, 2, 5]));
    assert_eq!(parse::cpu_list("\n"), Some(vec![]));
    assert_eq!(parse::cpu_list("a"), None);
    assert_eq!(parse::number("max"), Some(u64::MAX));
    assert_eq!(parse::huge_page_size("hugepages-2048kB").as_deref(), Some("2MB"));
    assert_eq!(parse::huge_page_size("hugepages-1048576kB").as_deref(), Some("1GB"));
    assert_eq!(parse::huge_page_size("hugepages-64kB").as_deref(), Some("64KB"));
    assert_eq!(parse::huge_page_size("other"), None);
    let pairs: Vec<_> = parse::pairs("usage_usec 5\nodd\nmax max\n").collect();
    assert_eq!(pairs, [("usage_usec", 5), ("max", u64::MAX)]);
}

#[test]
fn pressure_of_both_kinds() {
    let text =
        "some avg10=1.50 avg60=0.00 avg300=0.10 total=99\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
    let pressure = parse::pressure(text).unwrap();
    assert_eq!((pressure.some.avg10, pressure.some.total, pressure.full.total), (1.5, 99, 7));
    assert_eq!(parse::pressure(""), None);
}

#[test]
fn block_figures_of_v1_and_v2_end_in_the_same_tables() {
    let v1 = block::v1("8:0 Read 10\n8:0 Write 20\n8:0 Total 30\nTotal 30\n").unwrap();
    let read = BlockEntry { major: 8, minor: 0, op: "Read".into(), value: 10 };
    assert_eq!(v1.len(), 3);
    assert_eq!(v1[0], read);
    assert_eq!(block::v1("259:70000 6792\n").unwrap()[0].minor, 70_000);
    assert_eq!(block::v1("nonsense\n"), None);
    let v2 = block::v2("8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n8:16 \n").unwrap();
    assert_eq!(v2.io_service_bytes_recursive[0], read);
    assert_eq!(v2.io_serviced_recursive[1].value, 2);
}

#[test]
fn the_shape_is_runc_s() {
    let mut stats = Stats::default();
    stats.cpu.usage.total = 5;
    stats.memory.usage.limit = 9;
    stats.blkio.io_service_bytes_recursive.push(BlockEntry {
        major: 8,
        minor: 0,
        op: "Read".into(),
        value: 1,
    });
    let json = serde_json::to_value(&stats).unwrap();
    assert_eq!(json["cpu"]["usage"], serde_json::json!({"total": 5, "kernel": 0, "user": 0}));
    // Go's omitempty leaves no struct out.
    assert_eq!(json["cpu"]["throttling"], serde_json::json!({}));
    let none = serde_json::json!({"limit": 0, "failcnt": 0});
    let memory = serde_json::json!({
        "usage": {"limit": 9, "failcnt": 0}, "swap": none, "kernel": none, "kernelTCP": none,
    });
    assert_eq!(json["memory"], memory);
    assert_eq!(
        json["blkio"]["ioServiceBytesRecursive"][0],
        serde_json::json!({"major": 8, "op": "Read", "value": 1})
    );
    assert_eq!(json["pids"], serde_json::json!({}));
    assert_eq!(json["cpuset"]["sched_relax_domain_level"], 0);
    assert_eq!(json["hugetlb"], serde_json::json!({}));
}
