use oci_spec::runtime::LinuxDeviceCgroup;

use super::program::compile;
use super::*;
use crate::error::{ErrorKind, Kind};
use crate::sys::bpf::Instruction;

fn rules(json: &str) -> Vec<LinuxDeviceCgroup> {
    serde_json::from_str(json).unwrap()
}

fn policy(json: &str) -> Policy {
    Policy::of(&rules(json)).unwrap()
}

/// What the kernel's v1 controller would say of the policy.
fn v1_allows(policy: &Policy, node: Node, major: u32, minor: u32, access: u8) -> bool {
    let of = |devices: &Devices| {
        devices.node == node
            && devices.major.is_none_or(|one| one == major)
            && devices.minor.is_none_or(|one| one == minor)
    };
    let mut matching = policy.exceptions.iter().filter(|(devices, _)| of(devices));
    if policy.default_allow {
        !matching.any(|(_, denied)| denied.0 & access != 0)
    } else {
        matching.any(|(_, allowed)| access & !allowed.0 == 0)
    }
}

/// What the program says. Access bits of the kernel: mknod 1, read 2, write 4.
fn v2_allows(policy: &Policy, node: Node, major: u32, minor: u32, access: u8) -> bool {
    let kind = if node == Node::Block { 1 } else { 2 };
    let bit = |ours: u8, kernel: u32| if access & ours != 0 { kernel } else { 0 };
    let access = bit(Access::MKNOD, 1) | bit(Access::READ, 2) | bit(Access::WRITE, 4);
    Instruction::run(&compile(policy), [access << 16 | kind, major, minor]) == 1
}

const R: u8 = Access::READ;
const W: u8 = Access::WRITE;
const M: u8 = Access::MKNOD;

#[test]
fn without_rules_the_default_nodes_and_mknod_are_allowed() {
    let policy = Policy::of(&[]).unwrap();
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (136, 77), (10, 200)] {
        assert!(v2_allows(&policy, Node::Char, major, minor, R | W | M), "{major}:{minor}");
    }
    for (node, major, minor) in
        [(Node::Block, 8, 0), (Node::Char, 1, 1), (Node::Char, 5, 1), (Node::Char, 10, 229)]
    {
        assert!(!v2_allows(&policy, node, major, minor, R), "{major}:{minor}");
        assert!(v2_allows(&policy, node, major, minor, M), "{major}:{minor}");
        assert!(!v2_allows(&policy, node, major, minor, R | M), "{major}:{minor}");
    }
}

#[test]
fn v1_writes_the_rules_in_the_order_of_the_configuration_before_the_defaults() {
    let given = [("c", 10, 229, "rwm"), ("b", 8, 20, "rw"), ("b", 1, 1, "r")];
    let rule = |(kind, major, minor, access)| {
        format!(r#"{{"allow":true,"type":"{kind}","major":{major},"minor":{minor},"access":"{access}"}}"#)
    };
    let (_, _, lines) = policy(&format!("[{}]", given.map(rule).join(","))).writes();
    assert_eq!(lines[..4], ["c 10:229 rwm", "b 8:20 rw", "b 1:1 r", "c *:* m"]);
}

#[test]
fn v1_writes_reset_first() {
    let (reset, file, lines) = policy(
        r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"}]"#,
    )
    .writes()
    .to_owned();
    assert_eq!((reset, file), ("devices.deny", "devices.allow"));
    assert_eq!(lines.len(), DEFAULTS.len() + 1);
    for line in ["b *:* m", "c *:* m", "c 1:3 rwm", "c 136:* rwm", "c 10:229 rw"] {
        assert!(lines.iter().any(|one| one == line), "{line}");
    }
    let (reset, file, lines) = policy(r#"[{"allow":true,"access":"rwm"}]"#).writes();
    assert_eq!((reset, file, lines.len()), ("devices.allow", "devices.deny", 0));
}

#[test]
fn a_privileged_container_may_open_all_and_lose_single_devices() {
    let all = policy(r#"[{"allow":true,"access":"rwm"}]"#);
    assert!(v2_allows(&all, Node::Block, 8, 0, R | W | M));
    let but = policy(r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"b","major":8,"access":"w"}]"#);
    assert!(v2_allows(&but, Node::Block, 8, 3, R));
    assert!(!v2_allows(&but, Node::Block, 8, 3, W));
    // Denied as a whole: an open for both must not pass because reading alone would.
    assert!(!v2_allows(&but, Node::Block, 8, 3, R | W));
    assert!(v2_allows(&but, Node::Char, 8, 3, W));
}

#[test]
fn later_rules_win() {
    let json = r#"[{"allow":true,"type":"c","major":4,"minor":1,"access":"rwm"},
        {"allow":false,"type":"c","major":4,"minor":1,"access":"w"}]"#;
    let taken = policy(json);
    assert!(v2_allows(&taken, Node::Char, 4, 1, R) && !v2_allows(&taken, Node::Char, 4, 1, W));
    let reset =
        policy(r#"[{"allow":true,"type":"b","major":8,"access":"rwm"},{"allow":false,"access":"rwm"}]"#);
    assert!(!v2_allows(&reset, Node::Block, 8, 0, R));
}

#[test]
fn a_hole_in_an_earlier_range_is_refused() {
    let json = r#"[{"allow":true,"type":"b","access":"r"},{"allow":false,"type":"b","major":8,"minor":0,"access":"r"}]"#;
    let error = Policy::of(&rules(json)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("devices[1]"), "{error}");
}

#[test]
fn a_rule_for_both_types_of_one_number_opens_no_others() {
    let narrow = policy(r#"[{"allow":true,"major":10,"minor":229,"access":"rwm"}]"#);
    assert!(v2_allows(&narrow, Node::Char, 10, 229, R) && v2_allows(&narrow, Node::Block, 10, 229, R));
    assert!(!v2_allows(&narrow, Node::Char, 10, 228, R));
    let reading = policy(r#"[{"allow":true,"type":"a","access":"r"}]"#);
    assert!(v2_allows(&reading, Node::Block, 8, 0, R) && !v2_allows(&reading, Node::Block, 8, 0, W));
}

#[test]
fn malformed_rules_are_refused() {
    for json in [
        r#"[{"allow":true,"type":"c","major":1,"minor":1}]"#,
        r#"[{"allow":true,"type":"c","access":""}]"#,
        r#"[{"allow":true,"type":"c","access":"rwx"}]"#,
        r#"[{"allow":true,"type":"p","access":"rwm"}]"#,
        r#"[{"allow":true,"type":"c","major":-2,"access":"r"}]"#,
        r#"[{"allow":true,"type":"c","major":4294967296,"access":"r"}]"#,
    ] {
        assert_eq!(Policy::of(&rules(json)).unwrap_err().kind(), ErrorKind::InvalidInput, "{json}");
    }
    assert!(
        policy(r#"[{"allow":true,"type":"c","major":-1,"minor":-1,"access":"r"}]"#).exceptions.len() > 10
    );
}

#[test]
fn numbers_above_two_to_the_31_compare_as_they_are() {
    let high = policy(r#"[{"allow":true,"type":"c","major":4294967295,"minor":2147483648,"access":"r"}]"#);
    assert!(v2_allows(&high, Node::Char, u32::MAX, 1 << 31, R));
    assert!(!v2_allows(&high, Node::Char, 1, 1 << 31, R));
}

proptest::proptest! {
    #[test]
    fn the_program_means_the_same_as_the_v1_controller(
        rules in proptest::collection::vec((
            proptest::bool::ANY, 0..3_u8, -1..4_i64, -1..4_i64, 1..8_u8,
        ), 0..12),
        asked in (proptest::bool::ANY, 0..4_u32, 0..4_u32, 1..8_u8),
    ) {
        let mut policy = Policy::default();
        for (index, (allow, kind, major, minor, access)) in rules.into_iter().enumerate() {
            let mut rule = LinuxDeviceCgroup::default();
            let kinds = [LinuxDeviceType::A, LinuxDeviceType::B, LinuxDeviceType::C];
            rule.set_allow(allow).set_typ(Some(kinds[usize::from(kind)])).set_major(Some(major))
                .set_minor(Some(minor)).set_access(Some(Access(access).text()));
            // Rules that are refused leave the others.
            let _ = policy.apply(index, &rule);
        }
        let (block, major, minor, access) = asked;
        let node = if block { Node::Block } else { Node::Char };
        proptest::prop_assert_eq!(
            v2_allows(&policy, node, major, minor, access),
            v1_allows(&policy, node, major, minor, access)
        );
    }
}

#[test]
fn systemd_is_told_what_it_has_words_for() {
    let rules = r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","minor":11,"access":"rwm"}]"#;
    let words = |rules: &str| policy(rules).allowed();
    let (named, complete) = words("[]").unwrap();
    assert!(complete && named.contains(&("/dev/char/1:3".into(), "rwm".into())));
    assert_eq!(words(rules), Some((named, false)));
    assert_eq!(words(r#"[{"allow":true,"access":"rwm"}]"#), None);
}
