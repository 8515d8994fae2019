//! An ordinary user of the host, as whom the runtime and its callers run.

use crate::{Bundle, Fixture, Outcome, command, needs};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::{Value, json};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// User and group id of a user whom the host need not know.
pub const ID: u32 = 54_321;
/// The name that [`User::known`] gives it.
pub const NAME: &str = "cortentest";
/// First of the 65536 ids that [`User::known`] lends it.
pub const FIRST_SUBORDINATE: u32 = 7_000_000;

/// A user with directories of its own and a copy of the binary that it can reach.
#[derive(Debug)]
pub struct User<'f> {
    fixture: &'f Fixture,
    runtime: PathBuf,
}

impl<'f> User<'f> {
    /// In the test's world; what the user makes is below its directory.
    pub fn new(fixture: &'f Fixture) -> Self {
        std::fs::set_permissions(fixture.path(), PermissionsExt::from_mode(0o755)).expect("chmod");
        let runtime = match std::env::var_os("CORTEN_OCI") {
            Some(peer) => PathBuf::from(peer),
            None => {
                // The build directory may be below a home directory; the name selects runc's command line.
                let runtime = fixture.path().join("corten-oci");
                let copied = Command::new("cp").arg(needs::corten()).arg(&runtime).status().expect("cp");
                assert!(copied.success(), "cp: {copied}");
                std::fs::set_permissions(&runtime, PermissionsExt::from_mode(0o755)).expect("chmod");
                runtime
            }
        };
        let user = Self { fixture, runtime };
        for dir in [user.home(), user.runtime_dir()] {
            std::fs::create_dir(&dir).expect("directory");
            std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o700)).expect("chmod");
            chown(&dir, Some(ID), Some(ID)).expect("chown");
        }
        user
    }

    /// Its home directory.
    pub fn home(&self) -> PathBuf {
        self.fixture.path().join("home")
    }

    /// `$XDG_RUNTIME_DIR`.
    pub fn runtime_dir(&self) -> PathBuf {
        self.fixture.path().join("xdg")
    }

    /// The runtime under test, with runc's command line.
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    fn environment<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        command.env_clear().env("PATH", path).env("HOME", self.home()).env("USER", NAME);
        command.env("XDG_RUNTIME_DIR", self.runtime_dir()).env("CORTEN_TEST", self.fixture.token());
        command.current_dir(self.home())
    }

    /// `program` as this user, with no group but its own.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        self.environment(&mut command).uid(ID).gid(ID);
        command
    }

    /// The same in a mount namespace in which the host knows the user and lends it subordinate ids: the host's own
    /// files stay as they are. Needs util-linux and the package uidmap.
    pub fn known(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let passwd = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd");
        let home = self.home();
        let line = format!("{NAME}:x:{ID}:{ID}::{}:/bin/sh\n", home.display());
        let passwd = self.fixture.file("passwd", passwd + &line);
        let group = std::fs::read_to_string("/etc/group").expect("/etc/group");
        let group = self.fixture.file("group", group + &format!("{NAME}:x:{ID}:\n"));
        let ids = self.fixture.file("subordinate", format!("{NAME}:{FIRST_SUBORDINATE}:65536\n"));
        let tun = self.fixture.path().join("tun");
        if !tun.exists() {
            let everybody = Mode::from_bits_truncate(0o666);
            mknod(&tun, SFlag::S_IFCHR, everybody, makedev(10, 200)).expect("mknod");
            std::fs::set_permissions(&tun, PermissionsExt::from_mode(0o666)).expect("chmod");
        }
        let script = r#"set -e
            mount --bind "$1" /etc/passwd; mount --bind "$2" /etc/group
            for file in /etc/subuid /etc/subgid; do [ -e $file ] || : > $file; mount --bind "$3" $file; done
            # A host that starts by udev has it open to users.
            mount --bind "$4" /dev/net/tun
            id=$5
            shift 5
            exec setpriv --reuid "$id" --regid "$id" --clear-groups "$@""#;
        let mut command = Command::new(needs::program("unshare", "util-linux"));
        needs::program("newuidmap", "uidmap");
        self.environment(&mut command);
        command.args(["--mount", "--propagation", "slave", "sh", "-c", script, "sh"]);
        command.args([passwd, group, ids, tun]).arg(ID.to_string()).arg(program);
        command
    }

    /// The runtime as this user.
    pub fn oci<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.command(&self.runtime);
        command.args(args);
        command
    }

    /// The runtime as this user, to its end.
    #[track_caller]
    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Outcome {
        command::run(&mut self.oci(args))
    }

    /// A bundle of this user with the configuration of `spec --rootless`, and no terminal.
    pub fn bundle(&self) -> Bundle<'f> {
        let mut bundle = self.fixture.bundle();
        std::fs::remove_file(bundle.dir.join("config.json")).expect("config.json");
        give(&bundle.dir);
        command::run(self.oci(["spec", "--rootless"]).current_dir(&bundle.dir)).ok();
        let text = std::fs::read_to_string(bundle.dir.join("config.json")).expect("config.json");
        bundle.config = serde_json::from_str::<Value>(&text).expect("JSON");
        bundle.set("/process/terminal", json!(false)).set("/root/readonly", json!(false))
    }

    /// `verb` on a bundle, whose configuration is written first.
    pub fn on(&self, bundle: &Bundle<'_>, verb: &str, options: &[&str]) -> Command {
        bundle.write();
        let mut command = self.oci([verb, "--bundle"]);
        command.arg(&bundle.dir).args(options).arg(&bundle.id);
        command
    }
}

/// Gives a tree to the user.
pub fn give(path: &Path) {
    std::os::unix::fs::lchown(path, Some(ID), Some(ID)).expect("lchown");
    if path.symlink_metadata().expect("metadata").is_dir() {
        for entry in std::fs::read_dir(path).expect("directory").flatten() {
            give(&entry.path());
        }
    }
}
