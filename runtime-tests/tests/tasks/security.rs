//! What a container of a task may do, and what it sees of the host.
use crate::world::World;
use corten::engine::options::{
    Device, GroupsPolicy, HostMount, MountAccess, Options, Propagation, Seccomp, Security, TaskOptions,
};
use corten::engine::task::TaskRecord;
use runtime_tests::command;
use std::path::PathBuf;
use std::process::Command;

/// Runs a script to its end; its exit code and output.
fn run(world: &World, task: &TaskRecord, name: &str, script: &str, options: Options) -> (u8, String) {
    let record = world.container_with(task, name, script, options);
    world.engine.start_in_task(&record).unwrap();
    let code = world.ended(&record).code;
    (code, world.output(&record))
}

fn of(task: TaskOptions) -> Options {
    Options { task, ..Options::default() }
}

#[test]
fn users_groups_and_capabilities() {
    let world = World::new();
    let task = world.task("caps");
    let groups =
        |groups_policy| of(TaskOptions { groups: vec![4321], groups_policy, ..TaskOptions::default() });
    let (code, text) = run(&world, &task, "caps-merge", "id -G", groups(GroupsPolicy::Merge));
    assert_eq!(code, 0);
    assert!(text.split_whitespace().any(|group| group == "4321"), "{text}");
    let (_, text) = run(&world, &task, "caps-strict", "id -G", groups(GroupsPolicy::Strict));
    assert_eq!(text.trim(), "0 4321");

    let ambient = of(TaskOptions { cap_ambient: vec!["NET_RAW".into()], ..TaskOptions::default() });
    let mut request = world.request("caps-ambient", "grep Cap /proc/self/status");
    request.overrides.user = Some("1000:1000".into());
    request.options = Options { cap_drop: vec!["ALL".into()], ..ambient };
    let record = world.make(&task, request);
    world.engine.start_in_task(&record).unwrap();
    world.ended(&record);
    for line in world.output(&record).lines() {
        assert!(line.ends_with("0000000000002000"), "{line}");
    }

    let security = |no_new_privileges, seccomp| Options {
        security: Security { no_new_privileges, seccomp, ..Security::default() },
        ..Options::default()
    };
    let status = "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status | tr -d '\\t\\n'";
    let (_, text) = run(&world, &task, "caps-nnp", status, security(true, Seccomp::Default));
    assert_eq!(text, "NoNewPrivs:1Seccomp:2");
    let (_, text) = run(&world, &task, "caps-free", status, security(false, Seccomp::Unconfined));
    assert_eq!(text, "NoNewPrivs:0Seccomp:0");
    let profile = world.fixture.file("profile.json", r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":1}]}"#);
    let (code, _) = run(&world, &task, "caps-file", "mkdir /x", security(false, Seccomp::File(profile)));
    assert_ne!(code, 0);

    let apparmor = |profile: &str| Options {
        security: Security { apparmor: Some(profile.to_owned()), ..Security::default() },
        ..Options::default()
    };
    assert_eq!(run(&world, &task, "caps-unconfined", "true", apparmor("unconfined")).0, 0);
    let record = world.container_with(&task, "caps-profile", "true", apparmor("no-such-profile"));
    assert!(world.engine.start_in_task(&record).unwrap_err().to_string().contains("no-such-profile"));
}

#[test]
fn read_only_privileged_and_hidden_paths() {
    let world = World::new();
    let task = world.task("hidden");
    let read_only = Options { read_only: true, ..Options::default() };
    let (_, text) = run(
        &world,
        &task,
        "hidden-ro",
        "for f in /x /etc/hosts /dev/shm/x; do (echo x >> $f) 2> /dev/null && echo $f; done; true",
        read_only,
    );
    assert_eq!(text, "/dev/shm/x\n");
    // Masked paths are empty or /dev/null, and nothing can be written to /proc/sys.
    let look = "wc -c < /proc/keys; (echo 4000 > /proc/sys/kernel/shmmni) 2> /dev/null && echo written; true";
    let (_, text) = run(&world, &task, "hidden-default", look, Options::default());
    assert_eq!(text, "0\n");
    let none = of(TaskOptions {
        masked_paths: Some(vec![]),
        readonly_paths: Some(vec![]),
        ..TaskOptions::default()
    });
    let (_, text) = run(&world, &task, "hidden-none", look, none);
    assert!(text.ends_with("written\n") && text != "0\nwritten\n", "{text}");
    let privileged = Options { privileged: true, ..Options::default() };
    let (_, text) = run(
        &world,
        &task,
        "hidden-privileged",
        "mount -t tmpfs none /tmp && echo mounted; grep Seccomp: /proc/self/status | tr -d '\\t'; [ -w /sys ] && \
         grep -q ' /sys sysfs rw' /proc/mounts && echo writable; ls /dev | wc -l",
        privileged,
    );
    let (text, devices) = text.trim_end().rsplit_once('\n').unwrap();
    assert_eq!(text, "mounted\nSeccomp:0\nwritable");
    assert!(devices.parse::<u32>().unwrap() > 15, "{devices}");
    // As every pod asks; here it may be that it cannot be given.
    let score = of(TaskOptions { oom_score_adj: Some(-998), ..TaskOptions::default() });
    assert_eq!(run(&world, &task, "hidden-low", "cat /proc/self/oom_score_adj", score).0, 0);
    let score = of(TaskOptions { oom_score_adj: Some(900), ..TaskOptions::default() });
    assert_eq!(run(&world, &task, "hidden-high", "cat /proc/self/oom_score_adj", score).1, "900\n");
}

#[test]
fn devices_of_the_host() {
    let world = World::new();
    let task = world.task("devices");
    let device = |source: &str, destination: &str, access: &str| Device {
        source: source.into(),
        destination: destination.into(),
        access: access.into(),
    };
    let with = |devices| of(TaskOptions { devices, ..TaskOptions::default() });
    let directory = world.fixture.path().join("nodes");
    std::fs::create_dir(&directory).unwrap();
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
    let kmsg = nix::sys::stat::makedev(1, 11);
    nix::sys::stat::mknod(&directory.join("kmsg"), nix::sys::stat::SFlag::S_IFCHR, mode, kmsg).unwrap();
    let devices =
        vec![device("/dev/zero", "/dev/nought", "r"), device(directory.to_str().unwrap(), "/dev/all", "rwm")];
    let (_, text) = run(
        &world,
        &task,
        "devices-some",
        "head -c 3 /dev/nought | wc -c; ls /dev/all; (exec 3< /dev/all/kmsg) && echo open; \
         mknod /tmp/kmem c 1 2; (exec 3< /tmp/kmem) 2> /dev/null || echo closed",
        // The kernel wants this capability of who reads its messages.
        Options { cap_add: vec!["SYSLOG".into()], ..with(devices) },
    );
    assert_eq!(text, "3\nkmsg\nopen\nclosed\n");
    for (wrong, why) in [
        (device("/no/such", "/dev/x", "r"), "no such path"),
        (device("/etc/passwd", "/dev/x", "r"), "no device"),
        (device("/dev/null", "/dev/x", "q"), "access"),
    ] {
        let name = format!("devices-{}", why.replace(' ', "-"));
        let record = world.container_with(&task, &name, "true", with(vec![wrong]));
        let error = world.engine.start_in_task(&record).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
}

/// Mounts made by a test, unmounted when it ends.
struct Mounts(Vec<PathBuf>);

impl Mounts {
    fn mount(&mut self, args: &[&str], at: &PathBuf) {
        command::run(Command::new("mount").args(args).arg(at)).ok();
        self.0.push(at.clone());
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            let _ = Command::new("umount").arg("-l").arg(path).status();
        }
    }
}

#[test]
fn mounts_and_their_propagation() {
    let world = World::new();
    let task = world.task("mounts");
    let source = world.fixture.path().join("source");
    std::fs::create_dir_all(source.join("below")).unwrap();
    let mut mounts = Mounts(Vec::new());
    mounts.mount(&["-t", "tmpfs", "none"], &source);
    let mount = |access, propagation| HostMount {
        source: source.clone(),
        destination: "/mnt".into(),
        access,
        propagation,
    };
    let with = |mounts: Vec<HostMount>| of(TaskOptions { mounts, ..TaskOptions::default() });
    // Private: nothing of the container may come out.
    command::run(Command::new("mount").arg("--make-private").arg(&source)).ok();
    let both = mount(MountAccess::ReadWrite, Propagation::Bidirectional);
    let record = world.container_with(&task, "mounts-private", "true", with(vec![both.clone()]));
    let error = world.engine.start_in_task(&record).unwrap_err();
    assert!(error.to_string().contains("not shared"), "{error}");
    command::run(Command::new("mount").arg("--make-shared").arg(&source)).ok();
    std::fs::create_dir_all(source.join("late")).unwrap();
    std::fs::create_dir_all(source.join("out")).unwrap();

    let wait = "until [ -e /mnt/late/file ] || [ -e /mnt/stop ]; do :; done; [ -e /mnt/late/file ] && echo seen; true";
    let slave = mount(MountAccess::ReadOnly, Propagation::HostToContainer);
    let record = world.container_with(
        &task,
        "mounts-slave",
        &format!("(echo x > /mnt/x) 2> /dev/null || echo ro; {wait}"),
        with(vec![slave]),
    );
    world.engine.start_in_task(&record).unwrap();
    world.await_output(&record, "ro");
    mounts.mount(&["-t", "tmpfs", "none"], &source.join("late"));
    std::fs::write(source.join("late/file"), b"x").unwrap();
    assert_eq!(world.ended(&record).code, 0);
    assert_eq!(world.output(&record), "ro\nseen\n");

    let out = Options { privileged: true, ..with(vec![both]) };
    let script = "mount -t tmpfs none /mnt/out && echo done > /mnt/out/file";
    assert_eq!(run(&world, &task, "mounts-out", script, out).0, 0);
    assert_eq!(std::fs::read_to_string(source.join("out/file")).unwrap(), "done\n");
    mounts.0.push(source.join("out"));

    let writable = "echo x > /mnt/x && echo above; (echo x > /mnt/late/x) 2> /dev/null && echo below; true";
    for (access, expected) in [
        (MountAccess::ReadWrite, "above\nbelow\n"),
        (MountAccess::ReadOnly, "below\n"),
        (MountAccess::RecursiveReadOnly, ""),
    ] {
        let name = format!("mounts-{expected}").replace('\n', "");
        let options = with(vec![mount(access, Propagation::Private)]);
        let (_, text) = run(&world, &task, &name, &format!("({writable}) 2> /dev/null"), options);
        assert_eq!(text, expected, "{access:?}");
    }
}

#[test]
fn a_kubelets_files_are_mounted() {
    let world = World::new();
    let task = world.task("files");
    let file = |name: &str, destination: &str| HostMount {
        source: world.fixture.file(name, format!("of {name}\n")),
        destination: destination.to_owned(),
        access: MountAccess::ReadWrite,
        propagation: Propagation::Private,
    };
    let mounts = vec![
        file("hosts", "/etc/hosts"),
        file("message", "/dev/termination-log"),
        file("token", "/var/run/secrets/kubernetes.io/serviceaccount/token"),
    ];
    let (_, text) = run(
        &world,
        &task,
        "files-one",
        "cat /etc/hosts /dev/termination-log /var/run/secrets/kubernetes.io/serviceaccount/token; echo told > /dev/termination-log",
        of(TaskOptions { mounts, ..TaskOptions::default() }),
    );
    assert_eq!(text, "of hosts\nof message\nof token\n");
    assert_eq!(std::fs::read_to_string(world.fixture.path().join("message")).unwrap(), "told\n");
}
