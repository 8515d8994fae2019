use super::*;
use crate::engine::specgen::capabilities;

fn allowed_without_condition(profile: &LinuxSeccomp, name: &str) -> bool {
    profile.syscalls().iter().flatten().any(|rule| {
        rule.action() == LinuxSeccompAction::ScmpActAllow
            && rule.args().is_none()
            && rule.names().iter().any(|listed| listed == name)
    })
}

#[test]
fn default_profile_denies_what_moby_denies() {
    let profile = default_profile(&capabilities::default_set()).unwrap();
    assert_eq!(profile.default_action(), LinuxSeccompAction::ScmpActErrno);
    for name in [
        "add_key",
        "bpf",
        "clone",
        "clone3",
        "create_module",
        "finit_module",
        "io_uring_setup",
        "kexec_load",
        "keyctl",
        "mount",
        "move_mount",
        "move_pages",
        "open_by_handle_at",
        "open_tree",
        "perf_event_open",
        "personality",
        "pivot_root",
        "process_madvise",
        "quotactl",
        "reboot",
        "request_key",
        "setns",
        "settimeofday",
        "socket",
        "swapon",
        "syslog",
        "umount2",
        "unshare",
        "userfaultfd",
        "vhangup",
    ] {
        assert!(!allowed_without_condition(&profile, name), "{name}");
    }
    for name in ["openat2", "read", "clock_gettime", "chroot", "ptrace", "seccomp", "wait4"] {
        assert!(allowed_without_condition(&profile, name), "{name}");
    }
}

#[test]
fn default_profile_follows_capabilities() {
    let mut set = capabilities::default_set();
    set.insert(Capability::SysAdmin);
    let profile = default_profile(&set).unwrap();
    assert!(allowed_without_condition(&profile, "mount"));
    assert!(allowed_without_condition(&profile, "clone3"));
    set.remove(&Capability::SysChroot);
    assert!(!allowed_without_condition(&default_profile(&set).unwrap(), "chroot"));
}

#[test]
fn clone_with_namespaces_is_refused_on_a_masked_comparison() {
    let profile = default_profile(&capabilities::default_set()).unwrap();
    let rule = profile.syscalls().iter().flatten().find(|rule| rule.names() == &["clone"]).unwrap();
    let argument = &rule.args().as_ref().unwrap()[0];
    assert_eq!(argument.op(), LinuxSeccompOperator::ScmpCmpMaskedEq);
    assert_eq!((argument.value(), argument.value_two()), (0x7E02_0000, Some(0)));
}

#[test]
fn file_conditions() {
    let text = br#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,
        "archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]},
                   {"architecture":"SCMP_ARCH_AARCH64","subArchitectures":null}],
        "syscalls":[
          {"names":["read"],"action":"SCMP_ACT_ALLOW"},
          {"name":"write","action":"SCMP_ACT_ALLOW","args":[]},
          {"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
          {"names":["chroot"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_SYS_CHROOT"]}},
          {"names":["ptrace"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}},
          {"names":["future"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"99.0"}},
          {"names":["s390"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["s390x"]}}]}"#;
    let capabilities = capabilities::default_set();
    let facts = file::Facts { capabilities: &capabilities, kernel: (6, 1) };
    let profile = file::parse("p.json", text, &facts).unwrap();
    let names: Vec<&String> = profile.syscalls().iter().flatten().flat_map(|rule| rule.names()).collect();
    assert_eq!(names, ["read", "write", "ptrace"]);
    assert_eq!(profile.default_errno_ret(), Some(1));
}

#[test]
fn file_errors_name_the_file() {
    let capabilities = HashSet::new();
    let facts = file::Facts { capabilities: &capabilities, kernel: (6, 1) };
    for text in ["", "[]", "{}", r#"{"defaultAction":"SCMP_ACT_MAYBE"}"#] {
        let error = file::parse("p.json", text.as_bytes(), &facts).unwrap_err();
        assert!(error.to_string().contains("p.json"), "{error}");
    }
}

#[test]
fn kernel_versions() {
    assert_eq!(file::parse_kernel("6.18.5-cloud-amd64"), Some((6, 18)));
    assert_eq!(file::parse_kernel("6.1"), Some((6, 1)));
    assert_eq!(file::parse_kernel("6"), None);
}
