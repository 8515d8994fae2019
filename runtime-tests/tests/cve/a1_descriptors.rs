//! Descriptors of the host that a container must not reach, and the runtime's own executable.

use crate::races::rounds;
use runtime_tests::{Fixture, command, image, needs, run};
use serde_json::json;
use std::os::unix::fs::symlink;

#[test]
fn cve_2024_21626_no_directory_of_the_host_is_open_at_created() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(["/probe", "wait"]);
    let _lines = bundle.created();
    for entry in std::fs::read_dir(format!("/proc/{}/fd", bundle.pid())).unwrap().flatten() {
        let is_dir = std::fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_dir());
        assert!(
            !is_dir,
            "{} -> {}",
            entry.path().display(),
            std::fs::read_link(entry.path()).unwrap().display()
        );
    }
}

#[test]
fn cve_2024_21626_working_directory_through_a_descriptor() {
    let fixture = Fixture::new();
    let secret = fixture.file("secret", "of the host");
    // Refused, or a directory of the container: both are safe. From the host's one, a way up finds the file.
    let script = format!(
        "up=; for n in 0 1 2 3 4 5 6 7 8 9 10 11 12; do [ -e \"./$up{}\" ] && echo escaped; up=../$up; done; exit 0",
        secret.display()
    );
    for fd in 0..24 {
        let cwd = format!("/proc/self/fd/{fd}");
        let outcome = fixture.bundle().set("/process/cwd", json!(cwd)).script(&script).run();
        assert_eq!(outcome.stdout, "", "{cwd}");
        fixture.clean_up();
    }
    let bundle = fixture.bundle().args(["/probe", "wait"]);
    let mut lines = bundle.started();
    lines.next_line();
    for fd in 0..24 {
        let cwd = format!("/proc/self/fd/{fd}");
        let outcome = bundle.exec_with(&["--cwd", &cwd], &["/bin/sh", "-c", &script]);
        assert_eq!(outcome.stdout, "", "{cwd}");
    }
}

#[test]
fn cve_2019_5736_and_cve_2016_9962_hostile_init_while_others_join() {
    let fixture = Fixture::new();
    // A copy of the runtime, which an attack may spoil.
    let original = needs::oci();
    let copy = fixture.path().join("runtime");
    // By another process: a descriptor that writes the file must not be inherited by what other tests start
    // meanwhile, because a file that is open for writing cannot be executed.
    run(std::process::Command::new("cp").arg(original.get_program()).arg(&copy)).ok();
    let before = image::digest(&std::fs::read(&copy).unwrap());
    let secret = fixture.file("secret", "of the host");

    let caps =
        json!(["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_KILL", "CAP_SYS_ADMIN"]);
    let script = format!(
        "exec 3>&1; echo ready; while :; do for p in /proc/[0-9]*; do \
           case $p in /proc/1|/proc/$$|/proc/self) continue;; esac; \
           for way in root cwd; do [ -e $p/$way{secret} ] && echo found $p/$way; done; \
           for fd in $p/fd/*; do [ -e $fd{secret} ] && echo found $fd; done; \
           case $(readlink $p/exe) in /bin/busybox|/probe) continue;; esac; \
           (for n in 1 2 3 4 5 6 7 8; do (echo evil >/proc/self/fd/5) && echo wrote; done) 5<$p/exe; \
         done; done 2>/dev/null",
        secret = secret.display()
    );
    let bundle = fixture
        .bundle()
        .script(&script)
        .set("/process/capabilities", json!({"bounding": caps, "effective": caps, "permitted": caps}))
        // `#!/proc/self/exe` runs whatever runs it: the runtime, if it is not careful.
        .file("/bin/again", "#!/proc/self/exe\n");
    make_executable(&bundle.rootfs().join("bin/again"));
    let mut lines = bundle.started();
    assert_eq!(lines.next_line(), "ready");
    for round in 0..rounds() / 4 {
        let mut exec = std::process::Command::new(&copy);
        exec.args(original.get_args()).arg("--root").arg(fixture.state_root()).args(["exec", &bundle.id]);
        exec.arg(if round % 4 == 0 { "/bin/again" } else { "/bin/true" }).env("CORTEN_TEST", fixture.token());
        let outcome = command::run(&mut exec);
        assert!(outcome.code.is_some(), "exec was killed: {}", outcome.stderr);
    }
    bundle.kill_and_wait("KILL");
    let mut words = Vec::new();
    while let Some(line) = lines.try_line() {
        words.push(line);
    }
    assert_eq!(words, Vec::<String>::new(), "the container reached the host");
    assert_eq!(image::digest(&std::fs::read(&copy).unwrap()), before, "the runtime's binary was changed");
}

fn make_executable(path: &std::path::Path) {
    let file = std::fs::File::open(path).unwrap();
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn cve_2016_9962_a_hostile_init_finds_nothing_to_trace_or_to_open() {
    let fixture = Fixture::new();
    let secret = fixture.file("secret", "of the host");
    // All that helps but CAP_SYS_PTRACE: who has that in the host's user namespace may trace whoever it sees, with
    // every runtime.
    let caps = json!(["CAP_SYS_CHROOT", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_SYS_ADMIN"]);
    let bundle = fixture
        .bundle()
        .args(["/probe", "hunt", secret.to_str().unwrap()])
        .set("/process/capabilities", json!({"bounding": caps, "effective": caps, "permitted": caps}));
    let mut lines = bundle.started();
    assert_eq!(lines.next_line(), "ready");
    for _ in 0..rounds() {
        // It may be traced when it is a program of the container; its exit code is then still its own.
        bundle.exec(&["/bin/true"]).ok();
    }
    bundle.kill_and_wait("KILL");
    let mut words = Vec::new();
    while let Some(line) = lines.try_line() {
        words.push(line);
    }
    assert_eq!(words, Vec::<String>::new(), "the container reached the host");
}

#[test]
fn cve_2024_21626_ways_to_a_descriptor_that_are_not_told() {
    let fixture = Fixture::new();
    let secret = fixture.file("secret", "of the host");
    let script = format!(
        "up=; for n in 0 1 2 3 4 5 6 7 8 9 10 11 12; do [ -e \"./$up{}\" ] && echo escaped; up=../$up; done; exit 0",
        secret.display()
    );
    let container = fixture.bundle().args(["/probe", "wait"]);
    for fd in [3, 5, 7, 8, 9] {
        symlink(format!("/proc/self/fd/{fd}"), container.rootfs().join(format!("link{fd}"))).unwrap();
    }
    symlink("/proc/self/fd", container.rootfs().join("fds")).unwrap();
    let mut lines = container.started();
    lines.next_line();
    let mut ways = vec![
        "/proc/self/cwd".to_owned(),
        "/proc/thread-self/cwd".into(),
        "/proc/self/root/proc/self/cwd".into(),
    ];
    ways.extend([3, 5, 7, 8, 9].map(|fd| format!("/link{fd}")));
    ways.extend((3..12).map(|fd| format!("/fds/{fd}")));
    ways.extend((3..12).map(|fd| format!("/proc/thread-self/fd/{fd}/../..")));
    ways.extend([24, 31, 63, 64, 255, 512, 1023].map(|fd| format!("/proc/self/fd/{fd}")));
    for way in ways {
        let outcome = container.exec_with(&["--cwd", &way], &["/bin/sh", "-c", &script]);
        assert_eq!(outcome.stdout, "", "{way}");
    }
}

/// What a process that waits for its start holds: its three streams, and the socket of the start.
#[test]
fn cve_2024_21626_descriptors_at_created_are_few_and_known() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(["/probe", "wait"]);
    let _lines = bundle.created();
    for entry in std::fs::read_dir(format!("/proc/{}/fd", bundle.pid())).unwrap().flatten() {
        let number: u32 = entry.file_name().to_str().unwrap().parse().unwrap();
        let target = std::fs::read_link(entry.path()).unwrap().display().to_string();
        let known = number < 3 || target.starts_with("socket:");
        assert!(known, "{number} -> {target}");
    }
}

/// Docker's of 2015: the descriptor of standard output, opened before the root was changed.
#[test]
fn cve_2015_3627_streams_are_the_callers_whatever_the_image_says() {
    let fixture = Fixture::new();
    let secret = fixture.file("secret", "of the host");
    let bundle = fixture.bundle().own_dev().script("echo told");
    for name in ["stdin", "stdout", "stderr", "fd"] {
        symlink(&secret, bundle.rootfs().join("dev").join(name)).unwrap();
    }
    assert_eq!(bundle.run().ok().stdout, "told\n");
    assert_eq!(std::fs::read_to_string(secret).unwrap(), "of the host");
}
