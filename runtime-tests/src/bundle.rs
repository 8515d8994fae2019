//! Bundles: a root file system and a `config.json`.

use crate::{Fixture, Outcome, command, needs};
use serde_json::{Value, json};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The busybox tools that the tests' shells call.
const TOOLS: &[&str] = &[
    "sh", "true", "false", "cat", "echo", "ls", "id", "mount", "umount", "sleep", "touch", "mkdir", "rm",
    "ln", "stat", "hostname", "head", "wc", "grep", "sed", "awk", "ps", "kill", "chmod", "chown", "mknod",
    "readlink", "dd", "env", "pwd", "test", "seq", "sort", "ip", "mv", "cp", "stty", "tty", "date", "uname",
    "nproc", "tr", "od", "sync",
];

/// A bundle of a test, and the container that is made of it.
#[derive(Debug)]
pub struct Bundle<'f> {
    fixture: &'f Fixture,
    /// The container's id; also the name of its cgroup.
    pub id: String,
    /// The bundle's directory.
    pub dir: PathBuf,
    /// What `config.json` will say.
    pub config: Value,
}

impl<'f> Bundle<'f> {
    /// A bundle with the runtime's own default configuration, without a terminal, in a cgroup of its own.
    pub(crate) fn new(fixture: &'f Fixture, id: String) -> Self {
        let dir = fixture.path().join(format!("bundle-{id}"));
        let rootfs = dir.join("rootfs");
        populate(&rootfs);
        command::run(fixture.oci(["spec"]).current_dir(&dir)).ok();
        let text = std::fs::read_to_string(dir.join("config.json")).expect("config.json made by spec");
        let mut config: Value = serde_json::from_str(&text).expect("config.json made by spec");
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["/bin/true"]);
        config["root"]["readonly"] = json!(false);
        config["linux"]["cgroupsPath"] = json!(format!("/{id}"));
        Self { fixture, id, dir, config }
    }

    /// The root file system's directory.
    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// Sets the process's arguments.
    pub fn args<S: AsRef<str>>(self, args: impl IntoIterator<Item = S>) -> Self {
        let args: Vec<_> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        self.set("/process/args", json!(args))
    }

    /// Runs a shell script.
    pub fn script(self, script: &str) -> Self {
        self.args(["/bin/sh", "-c", script])
    }

    /// Sets a value of `config.json` by JSON pointer; objects on the way are made.
    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        let mut place = &mut self.config;
        for key in pointer.trim_start_matches('/').split('/') {
            place = match key.parse::<usize>() {
                Ok(index) if place.is_array() => &mut place[index],
                _ => &mut place[key],
            };
        }
        *place = value;
        self
    }

    /// Removes a key of an object in `config.json`.
    pub fn unset(mut self, pointer: &str) -> Self {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        self.config
            .pointer_mut(parent)
            .and_then(Value::as_object_mut)
            .unwrap_or_else(|| panic!("no object {parent} in config.json"))
            .remove(key);
        self
    }

    /// Adds a value to an array of `config.json`, which is made if it is missing.
    pub fn push(mut self, pointer: &str, value: Value) -> Self {
        match self.config.pointer_mut(pointer).and_then(Value::as_array_mut) {
            Some(array) => array.push(value),
            None => return self.set(pointer, json!([value])),
        }
        self
    }

    /// Adds a mount.
    pub fn mount(self, destination: &str, kind: &str, source: impl AsRef<Path>, options: &[&str]) -> Self {
        let source = source.as_ref().to_str().expect("UTF-8");
        self.push(
            "/mounts",
            json!({"destination": destination, "type": kind, "source": source, "options": options}),
        )
    }

    /// Leaves out the mounts at /dev and below: the container has the image's own.
    pub fn own_dev(mut self) -> Self {
        let mounts = self.config["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|mount| !mount["destination"].as_str().is_some_and(|path| path.starts_with("/dev")));
        self
    }

    /// Removes a namespace from the list.
    pub fn without_namespace(mut self, kind: &str) -> Self {
        self.namespaces().retain(|namespace| namespace["type"] != kind);
        self
    }

    /// Without a mount namespace, and without what cannot be had then.
    pub fn sharing_mounts(self) -> Self {
        self.without_namespace("mount").unset("/linux/maskedPaths").unset("/linux/readonlyPaths")
    }

    /// Adds a namespace, or the path of one to join.
    pub fn namespace(mut self, kind: &str, path: Option<&str>) -> Self {
        self.namespaces().retain(|namespace| namespace["type"] != kind);
        let namespace =
            path.map_or_else(|| json!({"type": kind}), |path| json!({"type": kind, "path": path}));
        self.namespaces().push(namespace);
        self
    }

    fn namespaces(&mut self) -> &mut Vec<Value> {
        self.config["linux"]["namespaces"].as_array_mut().expect("namespaces")
    }

    /// A user namespace that maps ids 0..65536 to 100000 and up; the root file system is given to its root.
    pub fn user_namespace(self) -> Self {
        const HOST: u32 = 100_000;
        // The directories above must let the mapped root through.
        for dir in [self.fixture.path(), &self.dir] {
            std::fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).expect("chmod");
        }
        give(&self.rootfs(), HOST);
        let map = json!([{"containerID": 0, "hostID": HOST, "size": 65536}]);
        self.namespace("user", None).set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map)
    }

    /// Writes a file of the root file system.
    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let file = self.rootfs().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(file.parent().expect("a parent")).expect("directory");
        std::fs::write(&file, content).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        self
    }

    /// Writes `config.json`.
    pub fn write(&self) -> &Self {
        let text = serde_json::to_vec_pretty(&self.config).expect("JSON");
        std::fs::write(self.dir.join("config.json"), text).expect("config.json");
        self.fixture.adopt(&self.id);
        self
    }

    fn verb(&self, verb: &str, options: &[&str]) -> Command {
        self.write();
        let mut command = self.fixture.oci([verb, "--bundle"]);
        command.arg(&self.dir).args(options).arg(&self.id);
        command
    }

    /// The command `create`, not yet started.
    pub fn create_command(&self, options: &[&str]) -> Command {
        self.verb("create", options)
    }

    /// The command `run`, not yet started.
    pub fn run_command(&self, options: &[&str]) -> Command {
        self.verb("run", options)
    }

    /// `run` in the foreground, to its end.
    #[track_caller]
    pub fn run(&self) -> Outcome {
        command::run(&mut self.run_command(&[]))
    }

    /// `create`.
    #[track_caller]
    pub fn create(&self) -> Outcome {
        command::run(&mut self.create_command(&[]))
    }

    /// `create` and `start`, with the container's output in a pipe.
    #[track_caller]
    pub fn started(&self) -> crate::events::Lines<std::io::PipeReader> {
        let lines = self.created();
        self.oci("start").ok();
        lines
    }

    /// `create`, with the container's output in a pipe.
    #[track_caller]
    pub fn created(&self) -> crate::events::Lines<std::io::PipeReader> {
        let (reader, writer) = std::io::pipe().expect("pipe");
        let stderr = self.dir.join("stderr");
        let log = std::fs::File::create(&stderr).expect("stderr file");
        let mut command = self.create_command(&[]);
        command.stdin(Stdio::null()).stdout(writer).stderr(log);
        let mut child = command.spawn().expect("spawn the runtime");
        let status = command::wait(&mut child, crate::events::patience()).expect("create ends in time");
        // The pipe ends when the container does: our own copy of its writing end goes with the command.
        drop(command);
        assert!(status.success(), "create: {}", std::fs::read_to_string(&stderr).expect("stderr file"));
        self.fixture.watch(self.pid());
        crate::events::Lines::new(reader)
    }

    /// Runs the verb with the id as its argument.
    #[track_caller]
    pub fn oci(&self, verb: &str) -> Outcome {
        self.fixture.run_oci([verb, &self.id])
    }

    /// What `state` prints.
    #[track_caller]
    pub fn state(&self) -> Value {
        self.oci("state").ok().json()
    }

    /// The status in the state.
    #[track_caller]
    pub fn status(&self) -> String {
        self.state()["status"].as_str().expect("status").to_owned()
    }

    /// The pid of the container's process on the host.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.state()["pid"].as_i64().expect("pid")).expect("pid")
    }

    /// Sends a signal.
    #[track_caller]
    pub fn kill(&self, signal: &str) -> Outcome {
        self.fixture.run_oci(["kill", &self.id, signal])
    }

    /// Sends a signal and waits for the end of the container's process.
    #[track_caller]
    pub fn kill_and_wait(&self, signal: &str) {
        let pid = self.pid();
        self.kill(signal).ok();
        self.wait(pid);
    }

    /// Waits for the end of the container's process.
    #[track_caller]
    pub fn wait(&self, pid: i32) {
        assert!(crate::events::process_end(pid, crate::events::patience()), "the container did not end");
    }

    /// `exec` with options, in the foreground, to its end.
    #[track_caller]
    pub fn exec_with(&self, options: &[&str], args: &[&str]) -> Outcome {
        let mut command = self.fixture.oci(["exec"]);
        command::run(command.args(options).arg(&self.id).args(args))
    }

    /// `exec` in the foreground, to its end.
    #[track_caller]
    pub fn exec(&self, args: &[&str]) -> Outcome {
        self.exec_with(&[], args)
    }

    /// A value of the container's cgroup, seen from the host.
    #[track_caller]
    pub fn cgroup_value(&self, controller: &str, v1: &str, v2: &str) -> String {
        crate::cgroup::value(controller, &self.id, v1, v2)
    }
}

/// A root file system with the probe, busybox and the directories that every container has.
fn populate(rootfs: &Path) {
    for dir in ["bin", "proc", "sys", "dev", "tmp", "etc", "root"] {
        std::fs::create_dir_all(rootfs.join(dir)).expect("directory");
    }
    for (source, name) in [(needs::probe(), "probe"), (needs::busybox(), "bin/busybox")] {
        // By another process: a child that a parallel test starts while a copy is open here for writing would
        // hold it open, and executing it would fail (ETXTBSY).
        let copied = Command::new("cp").arg(&source).arg(rootfs.join(name)).status().expect("cp");
        assert!(copied.success(), "cp {}: {copied}", source.display());
    }
    for tool in TOOLS {
        symlink("busybox", rootfs.join("bin").join(tool)).expect("symlink");
    }
    std::fs::write(
        rootfs.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n",
    )
    .expect("passwd");
    std::fs::write(rootfs.join("etc/group"), "root:x:0:\nuser:x:1000:\n").expect("group");
}

/// Gives a tree to another owner.
fn give(path: &Path, owner: u32) {
    std::os::unix::fs::lchown(path, Some(owner), Some(owner)).expect("lchown");
    if path.symlink_metadata().expect("metadata").is_dir() {
        for entry in std::fs::read_dir(path).expect("directory").flatten() {
            give(&entry.path(), owner);
        }
    }
}
