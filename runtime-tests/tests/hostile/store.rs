//! A store of a test's own.

use runtime_tests::{Outcome, needs, run};
use std::path::PathBuf;
use std::process::Command;

/// An image store in a directory of its own, which is perhaps a file system of its own.
pub struct Store {
    dir: tempfile::TempDir,
    /// What is mounted, the first below the others.
    mounts: Vec<PathBuf>,
}

impl Store {
    /// On the disk: what a disk keeps is tested.
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir_in("/var/tmp").unwrap(), mounts: Vec::new() }
    }

    /// On a tmpfs with these options.
    pub fn on_tmpfs(options: &str) -> Self {
        let mut store = Self::new();
        std::fs::create_dir(store.root()).unwrap();
        let root = store.root();
        nix::mount::mount(Some("tmpfs"), &root, Some("tmpfs"), nix::mount::MsFlags::empty(), Some(options))
            .unwrap();
        store.mounts.push(root);
        store
    }

    /// On an ext4 of its own, in memory: a call syncs its file system, and waits there for nobody else's data.
    pub fn on_ext4() -> Self {
        let mut store = Self::new();
        let memory = store.path("memory");
        std::fs::create_dir(&memory).unwrap();
        std::fs::create_dir(store.root()).unwrap();
        nix::mount::mount(
            Some("tmpfs"),
            &memory,
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            Some("size=600m"),
        )
        .unwrap();
        store.mounts.push(memory.clone());
        let image = memory.join("image");
        run(Command::new("truncate").args(["-s", "512M"]).arg(&image)).ok();
        run(Command::new("/sbin/mkfs.ext4").arg("-q").arg(&image)).ok();
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(store.root())).ok();
        store.mounts.push(store.root());
        store
    }

    /// Removes all that is in it.
    pub fn clear(&self) {
        for entry in std::fs::read_dir(self.root()).unwrap() {
            let path = entry.unwrap().path();
            let removed =
                if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.unwrap();
        }
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// A path beside the store.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file beside the store.
    pub fn file(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.path(name), bytes).unwrap();
        self.path(name).to_str().unwrap().to_owned()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(needs::corten());
        command.arg("--root").arg(self.root()).arg("--state").arg(self.path("state")).args(arguments);
        command.env("HOME", self.dir.path()).env_remove("REGISTRY_AUTH_FILE").env_remove("DOCKER_CONFIG");
        command
    }

    pub fn corten(&self, arguments: &[&str]) -> Outcome {
        run(&mut self.command(arguments))
    }

    /// What of images is in it.
    pub fn residue(&self) -> Vec<String> {
        let mut found = Vec::new();
        for dir in ["content/blobs/sha256", "layers", "staging", "leases"] {
            let Ok(entries) = std::fs::read_dir(self.root().join(dir)) else { continue };
            found.extend(entries.map(|entry| format!("{dir}/{:?}", entry.unwrap().file_name())));
        }
        found
    }

    #[track_caller]
    pub fn is_empty(&self) {
        assert_eq!(self.residue(), Vec::<String>::new());
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        for mount in self.mounts.iter().rev() {
            let _ = nix::mount::umount2(mount, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}
