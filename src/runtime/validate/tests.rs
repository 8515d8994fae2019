use super::*;
use serde_json::{Value, json};

fn base() -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {"user": {}, "args": ["sh"], "cwd": "/"},
        "root": {"path": "rootfs"},
        "hostname": "h",
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"]
        }
    })
}

/// The base with the value at a JSON pointer replaced, checked.
fn with(pointer: &str, value: Value) -> Result<(), ValidateError> {
    let mut spec = base();
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    let parent = spec.pointer_mut(parent).expect("a parent").as_object_mut().expect("an object");
    if value.is_null() {
        parent.remove(key);
    } else {
        parent.insert(key.into(), value);
    }
    check(&serde_json::from_value(spec).expect("the types accept it"))
}

#[test]
fn the_usual_configuration_is_fine() {
    assert_eq!(with("/hostname", json!("h")), Ok(()));
    assert_eq!(with("/mounts", json!([{"destination": "relative"}])), Ok(()), "runc only warns");
}

#[test]
fn each_contradiction_names_its_field() {
    let user = json!([{"type": "user"}, {"type": "mount"}, {"type": "uts"}]);
    let cases = [
        ("/root", Value::Null, "root must be specified"),
        ("/process", Value::Null, "process must be specified"),
        ("/process/args", json!([]), "process.args must not be empty"),
        ("/process/args", json!(["a\u{0}b"]), "process.args, process.env: an entry contains a NUL byte"),
        ("/process/cwd", json!("rel"), "process.cwd must be an absolute path, is \"rel\""),
        ("/process/user", json!({"uid": 4294967295_u32}), "process.user: 4294967295 is no valid id"),
        (
            "/linux/namespaces",
            json!([{"type": "pid"}, {"type": "pid"}]),
            "malformed spec file: duplicated ns \"pid\" (linux.namespaces)",
        ),
        (
            "/linux/namespaces",
            json!([{"type": "pid", "path": "ns"}]),
            "linux.namespaces[pid].path must be an absolute path, is \"ns\"",
        ),
        (
            "/linux/namespaces",
            json!([{"type": "mount"}]),
            "unable to set hostname without a private UTS namespace (hostname)",
        ),
        (
            "/linux/namespaces",
            json!([{"type": "uts"}]),
            "unable to restrict sys entries without a private MNT namespace (linux.maskedPaths)",
        ),
        ("/linux/namespaces", user, "linux.uidMappings: a new user namespace needs mappings"),
        ("/linux/maskedPaths", json!(["proc"]), "linux.maskedPaths must be an absolute path, is \"proc\""),
        (
            "/linux/rootfsPropagation",
            json!("foo"),
            "linux.rootfsPropagation=foo is not supported: it is none of (r)shared, (r)private, (r)slave, (r)unbindable",
        ),
        (
            "/linux/uidMappings",
            json!([{"hostID": 4294967295_u32, "containerID": 0, "size": 2}]),
            "linux.uidMappings[0]: reaches beyond the largest id",
        ),
        (
            "/linux/uidMappings",
            json!(vec![json!({"hostID": 1, "containerID": 0, "size": 1}); 341]),
            "linux.uidMappings: has more than 340 entries",
        ),
        (
            "/hooks",
            json!({"poststop": [{"path": "true"}]}),
            "hooks.poststop[0].path must be an absolute path, is \"true\"",
        ),
        (
            "/linux/timeOffsets",
            json!({"monotonic": {"secs": 1}}),
            "unable to set clock offsets without a private time namespace (linux.timeOffsets)",
        ),
    ];
    for (pointer, value, text) in cases {
        assert_eq!(with(pointer, value).expect_err(text).to_string(), text);
    }
}

#[test]
fn a_sysctl_must_belong_to_a_namespace_of_the_container() {
    let sysctl = |name: &str| with("/linux/sysctl", json!({name: "1"}));
    for good in
        ["net.ipv4.ip_forward", "net/ipv4/conf/eth0.1/forwarding", "kernel.shmmax", "fs.mqueue.msg_max"]
    {
        assert_eq!(sysctl(good), Ok(()), "{good}");
    }
    for bad in [
        "kernel.core_pattern",
        "vm.swappiness",
        "kernel.hostname",
        "net..ipv4",
        "net.ipv4.x=1\nkernel.core_pattern",
        "net/../kernel/core_pattern",
        "",
    ] {
        assert!(sysctl(bad).is_err(), "{bad}");
    }
}
