//! The configuration that `spec` writes: runc's, value for value.
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Value, json};

/// How the host's cgroups are mounted: what decides whether a container gets a cgroup namespace by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cgroups {
    /// One hierarchy, version 2: a namespace of its own hides the host's.
    Unified,
    /// Version 1 or both: runc leaves the namespace out, for programs that expect the full paths.
    Legacy,
}

/// A new config.json; with ids, one for a rootless container of that user and group.
pub fn template(oci_version: &str, cgroups: Cgroups, rootless: Option<(u32, u32)>) -> Value {
    let mut spec = rootful(oci_version);
    if let (Cgroups::Unified, Some(namespaces)) = (cgroups, spec["linux"]["namespaces"].as_array_mut()) {
        namespaces.push(json!({"type": "cgroup"}));
    }
    if let Some((uid, gid)) = rootless {
        make_rootless(&mut spec, uid, gid);
    }
    spec
}

/// The fields of all objects in the order in which runc's types have them; none of it contradicts another.
const ORDER: [&str; 43] = [
    "ociVersion",
    "process",
    "root",
    "hostname",
    "mounts",
    "linux",
    "terminal",
    "user",
    "uid",
    "gid",
    "args",
    "env",
    "cwd",
    "capabilities",
    "rlimits",
    "noNewPrivileges",
    "bounding",
    "effective",
    "inheritable",
    "permitted",
    "ambient",
    "path",
    "readonly",
    "destination",
    "type",
    "source",
    "options",
    "hard",
    "soft",
    "uidMappings",
    "gidMappings",
    "containerID",
    "hostID",
    "size",
    "resources",
    "devices",
    "allow",
    "access",
    "namespaces",
    "maskedPaths",
    "readonlyPaths",
    "sysctl",
    "cgroupsPath",
];

/// A configuration with its fields in runc's order, for people who compare the two.
#[derive(Debug)]
pub struct Ordered<'a>(pub &'a Value);

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(fields) => {
                let place = |name: &str| ORDER.iter().position(|known| *known == name);
                let mut fields: Vec<_> = fields.iter().collect();
                fields.sort_by_key(|(name, _)| place(name).unwrap_or(ORDER.len()));
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (name, field) in fields {
                    map.serialize_entry(name, &Ordered(field))?;
                }
                map.end()
            }
            Value::Array(items) => serializer.collect_seq(items.iter().map(Ordered)),
            value => value.serialize(serializer),
        }
    }
}

fn rootful(oci_version: &str) -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": oci_version,
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
                "ambient": capabilities
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "runc",
        "mounts": mounts(),
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

fn mounts() -> Value {
    json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
         "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
         "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
         "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
         "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs",
         "options": ["nosuid", "noexec", "nodev", "ro"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
         "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}
    ])
}

/// What runc's specconv.ToRootless does.
fn make_rootless(spec: &mut Value, uid: u32, gid: u32) {
    let linux = &mut spec["linux"];
    // An unprivileged user has no cgroups to limit.
    if let Some(linux) = linux.as_object_mut() {
        linux.remove("resources");
    }
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        // Without privileges on the host nobody could connect a new network namespace.
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({"type": "user"}));
    }
    linux["uidMappings"] = json!([{"containerID": 0, "hostID": uid, "size": 1}]);
    linux["gidMappings"] = json!([{"containerID": 0, "hostID": gid, "size": 1}]);
    for mount in spec["mounts"].as_array_mut().into_iter().flatten() {
        if mount["destination"] == "/sys" {
            // A sysfs can only be mounted by who owns the network namespace.
            *mount = json!({"destination": "/sys", "type": "none", "source": "/sys",
                "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]});
        }
        if let Some(options) = mount.get_mut("options").and_then(Value::as_array_mut) {
            // The one mapped id is 0: no other owner can be given.
            options.retain(|option| {
                !option.as_str().is_some_and(|text| text.starts_with("uid=") || text.starts_with("gid="))
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_templates_are_valid_configurations() {
        for ids in [None, Some((1000, 1000))] {
            let spec = serde_json::from_value(template("1.2.0", Cgroups::Unified, ids))
                .expect("the types accept it");
            crate::runtime::validate::check(&spec).expect("valid");
        }
    }

    #[test]
    fn the_rootless_template_needs_no_privileges() {
        let spec = template("1.2.0", Cgroups::Legacy, Some((1000, 100)));
        assert_eq!(spec["linux"]["uidMappings"][0]["hostID"], 1000);
        assert_eq!(spec["linux"]["gidMappings"][0]["hostID"], 100);
        let text = spec.to_string();
        assert!(!text.contains("gid=5") && !text.contains("resources") && !text.contains("network"));
    }
}
