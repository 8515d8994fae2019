//! The runtime of an ordinary user: no right over the host, ids of its own, and a cgroup only where one is
//! delegated to it.

#![allow(clippy::disallowed_methods, reason = "the tests own the directories that they work on")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use runtime_tests::terminal::OnTerminal;
use runtime_tests::user::{self, FIRST_SUBORDINATE, ID, User};
use runtime_tests::{Bundle, Fixture, Outcome, cgroup, command, events, needs, run};
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Command, Stdio};

#[track_caller]
fn run_as(user: &User<'_>, bundle: &Bundle<'_>) -> Outcome {
    run(&mut user.on(bundle, "run", &[]))
}

/// The own id as root and ten subordinate ones.
fn many() -> Value {
    json!([{"containerID": 0, "hostID": ID, "size": 1},
        {"containerID": 1, "hostID": FIRST_SUBORDINATE, "size": 10}])
}

fn without_user_namespace(bundle: Bundle<'_>) -> Bundle<'_> {
    bundle.without_namespace("user").unset("/linux/uidMappings").unset("/linux/gidMappings")
}

#[test]
fn the_rootless_template_runs_as_its_user() {
    let fixture = Fixture::new();
    let user = User::new(&fixture);
    let bundle = user.bundle().script("id -u; cat /proc/self/uid_map; stat -c %u /etc; ls /dev; exit 7");
    let outcome = run_as(&user, &bundle).exits(7);
    let words: Vec<_> = outcome.stdout.split_whitespace().collect();
    assert_eq!(words[..5], ["0", "0", &ID.to_string(), "1", "0"], "{words:?}");
    for device in ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "fd"] {
        assert!(words.contains(&device), "{device} of {words:?}");
    }
    // The default state root, as runc has its: sticky, so that nobody sweeps it.
    let root = user.runtime_dir().join("corten/oci");
    let mode = root.metadata().unwrap().permissions().mode();
    assert_eq!((mode & 0o7777, root.read_dir().unwrap().count()), (0o1700, 0));
    fixture.assert_clean();
}

#[test]
fn the_verbs_work_for_the_user_without_a_cgroup() {
    let fixture = Fixture::new();
    let user = User::new(&fixture);
    let bundle = user.bundle().args(["/probe", "wait"]);
    let id = bundle.id.as_str();
    run(&mut user.on(&bundle, "create", &[])).ok();
    assert_eq!(user.run(["state", id]).ok().json()["status"], "created");
    user.run(["start", id]).ok();
    let state = user.run(["state", id]).ok().json();
    assert_eq!(state["status"], "running");
    assert!(user.run(["list"]).ok().stdout.contains(&format!("#{ID}")));
    assert_eq!(user.run(["exec", id, "sh", "-c", "echo joined; exit 5"]).exits(5).stdout, "joined\n");
    // Nothing but its PID namespace tells its processes from others.
    assert_eq!(user.run(["ps", "-f", "json", id]).ok().json(), json!([state["pid"]]));
    user.run(["pause", id]).fails().says("no freezer cgroup");
    user.run(["update", "--pids-limit", "5", id]).fails().says("the container has no cgroup");
    user.run(["exec", "--user", "5", id, "id"]).exits(255).says("cannot set uid to unmapped user");
    let groups = "cannot set any additional groups in a rootless container";
    user.run(["exec", "--additional-gids", "5", id, "id"]).exits(255).says(groups);
    user.run(["delete", id]).fails().says("not stopped");
    user.run(["kill", id, "KILL"]).ok();
    let pid = state["pid"].as_i64().unwrap() as i32;
    assert!(events::process_end(pid, events::patience()));
    user.run(["delete", id]).ok();
    user.run(["state", id]).fails().says("does not exist");
    fixture.assert_clean();
}

#[test]
fn delete_force_takes_what_a_kill_leaves() {
    let fixture = Fixture::new();
    let user = User::new(&fixture);
    let bundle = user.bundle().args(["/probe", "wait"]);
    run(&mut user.on(&bundle, "run", &["--detach"])).ok();
    user.run(["delete", "--force", &bundle.id]).ok();
    fixture.assert_clean();
    // A create that is killed before it is done: a hook holds it up.
    let bundle = bundle.set(
        "/hooks",
        json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "1000"],
        "env": [format!("CORTEN_TEST={}", fixture.token())]}]}),
    );
    let mut create = user.on(&bundle, "create", &[]).stdin(Stdio::null()).spawn().unwrap();
    let record = user.runtime_dir().join("corten/oci").join(&bundle.id).join("init.json");
    let begin = std::time::Instant::now();
    while !record.metadata().is_ok_and(|meta| meta.len() > 0) {
        assert!(begin.elapsed() < events::patience(), "no process was made");
        std::thread::yield_now();
    }
    create.kill().unwrap();
    create.wait().unwrap();
    user.run(["delete", "--force", &bundle.id]).ok();
    // The hook itself is nobody's but its maker's.
    for pid in runtime_tests::leaks::pids(fixture.token()) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
        assert!(events::process_end(pid, events::patience()));
    }
    assert_eq!(user.runtime_dir().join("corten/oci").read_dir().unwrap().count(), 0);
    fixture.assert_clean();
}

#[test]
fn a_terminal() {
    let fixture = Fixture::new();
    let user = User::new(&fixture);
    let bundle = user.bundle().set("/process/terminal", json!(true)).script("tty; read line; echo got $line");
    let mut screen = OnTerminal::new(&mut user.on(&bundle, "run", &[]));
    screen.until("/dev/pts/0");
    screen.types("typed\n");
    screen.until("got typed");
    assert!(command::wait(&mut screen.child, events::patience()).unwrap().success());
    fixture.assert_clean();
}

#[test]
fn what_cannot_be_had_is_said() {
    let fixture = Fixture::new();
    let user = User::new(&fixture);
    let refused = |bundle: Bundle<'_>, text: &str| {
        run_as(&user, &bundle).exits(1).says(text);
        fixture.assert_clean();
    };
    refused(without_user_namespace(user.bundle()), "rootless containers require user namespaces");
    let groups = user.bundle().set("/process/user/additionalGids", json!([5]));
    refused(groups, "cannot set any additional groups in a rootless container");
    let owner = user.bundle().mount("/mnt", "tmpfs", "tmpfs", &["gid=5"]);
    refused(owner, "options: gid=5: cannot be the owner in a rootless container");
    refused(user.bundle().set("/process/user/uid", json!(9)), "cannot set uid to unmapped user");
    let limited = user.bundle().set("/linux/resources", json!({"pids": {"limit": 9}}));
    refused(limited, "the container could not get a cgroup");
    let named = user.bundle();
    let path = json!(format!("/{}", named.id));
    refused(named.set("/linux/cgroupsPath", path), "permission denied");
    // More than the one own id needs a helper that may map it: here it is missing, or does not know the user.
    let mapped = user.bundle().set("/linux/uidMappings", many()).set("/linux/gidMappings", many());
    refused(mapped, "newuidmap");
}

/// `--rootless=false` forgives nothing, `--cgroup-manager=disabled` asks for no cgroup.
#[test]
fn what_is_forgiven_can_be_chosen() {
    let fixture = Fixture::new();
    let user = User::new(&fixture);
    let bundle = user.bundle();
    bundle.write();
    let with = |options: &[&str]| {
        let bundle_dir = bundle.dir.to_str().unwrap();
        user.run([options, &["run", "--bundle", bundle_dir, &bundle.id]].concat())
    };
    with(&["--rootless=false"]).exits(1).says("permission denied");
    with(&["--rootless=true"]).ok();
    with(&["--rootless=false", "--cgroup-manager=disabled"]).ok();
    with(&["--rootless=perhaps"]).exits(1).says("--rootless");
    with(&["--cgroup-manager=perhaps"]).exits(1).says("unknown cgroup manager");
    let root = Fixture::new();
    let bundle =
        root.bundle().unset("/linux/cgroupsPath").unset("/linux/resources").script("cat /proc/self/cgroup");
    bundle.write();
    let dir = bundle.dir.to_str().unwrap();
    let inside = root.run_oci(["--cgroup-manager=disabled", "run", "--bundle", dir, &bundle.id]).ok().stdout;
    assert!(!inside.contains(root.token()), "{inside}");
}

/// CVE-2023-25809: the cgroups of the host are not writable in a rootless container, whatever it asks for.
#[test]
fn cve_2023_25809_the_hosts_cgroups_cannot_be_written() {
    let fixture = Fixture::new();
    let user = User::new(&fixture);
    // On v1 the directory of the hierarchies is a tmpfs of the container's own.
    let place = if cgroup::is_v2() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/*/" };
    let script = format!(
        "for dir in {place}; do mkdir $dir/x; echo 1 > $dir/cgroup.procs; done 2>&1 |
            grep -v -e 'Read-only file system' -e nonexistent; true"
    );
    for cgroup_namespace in [false, true] {
        let mut bundle = user.bundle().script(&script);
        if cgroup_namespace {
            bundle = bundle.namespace("cgroup", None);
        } else {
            bundle = bundle.without_namespace("cgroup");
        }
        for mount in bundle.config["mounts"].as_array_mut().unwrap() {
            if mount["type"] == "cgroup" {
                mount["options"] = json!(["nosuid", "noexec", "nodev", "relatime"]);
            }
        }
        assert_eq!(run_as(&user, &bundle).ok().stdout, "", "cgroup namespace: {cgroup_namespace}");
    }
    fixture.assert_clean();
}

#[test]
fn helpers_map_many_ids() {
    let fixture = Fixture::new();
    let user = User::new(&fixture);
    let script = "cat /proc/self/uid_map /proc/self/gid_map; id; touch /owned; stat -c %u:%g /owned";
    let bundle = user.bundle().set("/linux/uidMappings", many()).set("/linux/gidMappings", many());
    let bundle =
        bundle.script(script).set("/process/user", json!({"uid": 5, "gid": 6, "additionalGids": [7, 8]}));
    std::fs::set_permissions(bundle.rootfs(), PermissionsExt::from_mode(0o777)).unwrap();
    if !needs::exists("/usr/bin/newuidmap") {
        // The virtual machine has no helpers.
        run_as(&user, &bundle).exits(1).says("newuidmap").says("install the package uidmap");
        return;
    }
    bundle.write();
    let mut command = user.known(user.runtime());
    command.args(["run", "--bundle"]).arg(&bundle.dir).arg(&bundle.id);
    let text = run(&mut command).ok().stdout;
    let words: Vec<_> = text.split_whitespace().collect();
    let (own, first) = (ID.to_string(), FIRST_SUBORDINATE.to_string());
    let map = ["0", &own, "1", "1", &first, "10"];
    assert_eq!(words[..12], [map, map].concat(), "{text}");
    assert_eq!(words[12..], ["uid=5", "gid=6", "groups=7,8", "5:6"], "{text}");
    let outside =
        json!([{"containerID": 0, "hostID": ID, "size": 1}, {"containerID": 1, "hostID": 1, "size": 1}]);
    bundle.set("/linux/uidMappings", outside).write();
    run(&mut command).exits(1).says("newuidmap did not map").says("not allowed");
    fixture.assert_clean();
}

#[test]
fn a_helper_of_the_users_own_is_not_run() {
    let fixture = Fixture::new();
    let user = User::new(&fixture);
    let fake = user.home().join("newuidmap");
    std::fs::write(&fake, "#!/bin/sh\necho ran > /tmp/no\necho it ran >&2\nexit 1\n").unwrap();
    std::fs::set_permissions(&fake, PermissionsExt::from_mode(0o755)).unwrap();
    let bundle = user.bundle().set("/linux/uidMappings", many()).set("/linux/gidMappings", many());
    let outcome = run(user.on(&bundle, "run", &[]).env("PATH", user.home())).exits(1);
    assert!(
        outcome.stderr.contains("no directory of PATH that belongs to root has it"),
        "{}",
        outcome.stderr
    );
}

/// podman's way: the caller has made a user namespace and is root of it.
#[test]
fn root_of_a_user_namespace_of_somebody_else() {
    let fixture = Fixture::new();
    let user = User::new(&fixture);
    let inside = |bundle: &Bundle<'_>, options: &[&str]| {
        bundle.write();
        let mut command = user.command(needs::program("unshare", "util-linux"));
        command.args(["-U", "-r", "-m"]).arg(user.runtime()).args(options);
        command.args(["run", "--bundle"]).arg(&bundle.dir).arg(&bundle.id);
        run(&mut command)
    };
    let bundle = without_user_namespace(user.bundle()).script("id -u; ls /dev/null /sys/class; exit 3");
    inside(&bundle, &[]).exits(3);
    // sysfs is mounted by who owns the network namespace: the host's is shown in its place.
    let mut bundle = bundle;
    bundle.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/sys");
    let bundle = bundle.mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]);
    inside(&bundle, &[]).exits(3);
    inside(&bundle, &["--rootless=false"]).exits(1).says("permission denied");
    // And one user namespace more.
    let own = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
    let nested = user.bundle().set("/linux/uidMappings", own.clone()).set("/linux/gidMappings", own);
    assert_eq!(inside(&nested.script("id -u"), &[]).ok().stdout, "0\n");
    fixture.assert_clean();
}

/// A cgroup that is the user's, with a leaf in which its processes are: v2 has no processes in a cgroup whose
/// children have controllers.
struct Delegated {
    dirs: Vec<PathBuf>,
}

impl Delegated {
    fn new(fixture: &Fixture) -> Self {
        let mounts: Vec<_> = match cgroup::is_v2() {
            true => vec![cgroup::of("pids")],
            false => ["pids", "memory", "freezer"].map(cgroup::of).to_vec(),
        };
        let dirs: Vec<_> = mounts.iter().map(|mount| mount.join(format!("{}d", fixture.token()))).collect();
        for dir in &dirs {
            for dir in [dir.clone(), dir.join("leaf")] {
                std::fs::create_dir(&dir).unwrap();
                chown(&dir, Some(ID), Some(ID)).unwrap();
                for file in ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "tasks"] {
                    let file = dir.join(file);
                    assert!(!needs::exists(&file) || chown(&file, Some(ID), Some(ID)).is_ok());
                }
            }
        }
        Self { dirs }
    }

    /// A file of the container's cgroup: beside the leaf on v2, in it on v1 (as runc).
    fn value(&self, controller: &str, id: &str, v1: &str, v2: &str) -> String {
        let place = if cgroup::is_v2() { String::new() } else { "leaf/".into() };
        let own = self.dirs[0].file_name().unwrap().to_str().unwrap();
        cgroup::value(controller, &format!("{own}/{place}{id}"), v1, v2)
    }

    /// Runs `command` in the leaf.
    fn run(&self, user: &User<'_>, command: &Command) -> Outcome {
        let mut shell = user.command("sh");
        shell.args(["-c", r#"read go; exec "$0" "$@""#]).arg(command.get_program()).args(command.get_args());
        let (out, err) = (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
        shell.stdout(out.reopen().unwrap()).stderr(err.reopen().unwrap()).stdin(Stdio::piped());
        let mut child = shell.spawn().unwrap();
        for dir in &self.dirs {
            std::fs::write(dir.join("leaf/cgroup.procs"), child.id().to_string()).unwrap();
        }
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        let status = command::wait(&mut child, events::patience()).expect("an end in time");
        let text = |file: &tempfile::NamedTempFile| std::fs::read_to_string(file.path()).unwrap();
        assert!(status.success(), "{command:?}: {status} {}{}", text(&out), text(&err));
        // The same once more, as an outcome, for what it wrote.
        command::run(Command::new("cat").arg(out.path()))
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for dir in &self.dirs {
            for dir in [dir.join("leaf"), dir.clone()] {
                let removed = std::fs::remove_dir(&dir);
                assert!(removed.is_ok() || std::thread::panicking(), "{}: {removed:?}", dir.display());
            }
        }
    }
}

#[test]
fn limits_in_a_delegated_cgroup() {
    let fixture = Fixture::new();
    let user = User::new(&fixture);
    let delegated = Delegated::new(&fixture);
    let limits = json!({"pids": {"limit": 20}, "memory": {"limit": 64 << 20}});
    let bundle = user.bundle().args(["/probe", "wait"]).set("/linux/resources", limits);
    let id = bundle.id.as_str();
    delegated.run(&user, &user.on(&bundle, "run", &["--detach"]));
    let memory = |v1, v2| delegated.value("memory", id, v1, v2);
    assert_eq!(delegated.value("pids", id, "pids.max", "pids.max"), "20");
    assert_eq!(memory("memory.limit_in_bytes", "memory.max"), (64 << 20).to_string());
    user.run(["update", "--pids-limit", "30", id]).ok();
    assert_eq!(delegated.value("pids", id, "pids.max", "pids.max"), "30");
    user.run(["pause", id]).ok();
    assert_eq!(user.run(["state", id]).ok().json()["status"], "paused");
    user.run(["resume", id]).ok();
    let inside =
        delegated.run(&user, &user.oci(["exec", id, "grep", "-e", "pids", "-e", "^0:", "/proc/self/cgroup"]));
    assert!(inside.stdout.contains(id) || inside.stdout.contains("/\n"), "{}", inside.stdout);
    let pid = user.run(["state", id]).ok().json()["pid"].clone();
    assert_eq!(user.run(["ps", "-f", "json", id]).ok().json(), json!([pid]));
    // Who calls from elsewhere may not move a process into the user's cgroups on v2; the namespaces hold it.
    user.run(["exec", id, "true"]).ok();
    user.run(["delete", "--force", id]).ok();
    for dir in &delegated.dirs {
        let left = cgroup::named(id);
        assert!(left.is_empty(), "{} {left:?}", dir.display());
    }
}

#[test]
fn the_users_oom_score() {
    let fixture = Fixture::new();
    let user = User::new(&fixture);
    let bundle = user.bundle().set("/process/oomScoreAdj", json!(900)).script("cat /proc/self/oom_score_adj");
    assert_eq!(run_as(&user, &bundle).ok().stdout, "900\n");
    let bundle = bundle.set("/process/oomScoreAdj", json!(-900));
    run_as(&user, &bundle).exits(1).says("process.oomScoreAdj");
    user::give(&bundle.dir);
    fixture.assert_clean();
}

#[test]
fn a_user_without_a_runtime_directory_is_told_what_to_set() {
    let fixture = Fixture::new();
    let user = User::new(&fixture);
    let bundle = user.bundle().args(["/bin/true"]);
    let mut create = user.on(&bundle, "create", &[]);
    run(create.env_remove("XDG_RUNTIME_DIR")).exits(1).says("XDG_RUNTIME_DIR").says("--root");
    fixture.assert_clean();
}

/// The limits are of the user namespace that is made here, and go with it.
#[test]
fn a_limit_on_namespaces_is_named() {
    let fixture = Fixture::new();
    for (kind, bundle) in [("uts", fixture.bundle()), ("time", fixture.bundle().namespace("time", None))] {
        let create = bundle.create_command(&[]);
        let script = format!("echo 0 > /proc/sys/user/max_{kind}_namespaces && exec \"$@\"");
        let mut shell = Command::new("unshare");
        shell.args(["-Ur", "-m", "/bin/sh", "-c", &script, "sh"]);
        run(shell.arg(create.get_program()).args(create.get_args()))
            .exits(1)
            .says("no space left")
            .says(&format!("user.max_{kind}_namespaces = 0"));
    }
    fixture.clean_up();
    fixture.assert_clean();
}
