//! One test's store.
use runtime_tests::image::{Blobs, Image, Tar};
use runtime_tests::registry::{Answer, Registry, Site, site};
use runtime_tests::{Outcome, needs, run};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

pub const NAME: &str = "test/app";

/// A root directory for corten, below a directory with a name that nothing else has.
pub struct World {
    dir: tempfile::TempDir,
    root: PathBuf,
}

impl World {
    /// On this file system.
    pub fn within(parent: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("ct-store").tempdir_in(parent).unwrap();
        let root = dir.path().join("root");
        Self { dir, root }
    }

    /// On a disk, with whose blocks `du` counts.
    pub fn on_disk() -> Self {
        Self::within(Path::new("/var/tmp"))
    }

    /// In memory, where nothing waits for a disk.
    pub fn in_memory() -> Self {
        Self::within(Path::new("/dev/shm"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// With another root below the same directory.
    pub fn at(mut self, root: PathBuf) -> Self {
        self.root = root;
        self
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(needs::corten());
        command.arg("--root").arg(&self.root).arg("--state").arg(self.path("state")).args(args);
        // A time of its own would make each commit another image.
        command.env("SOURCE_DATE_EPOCH", "1600000000");
        command
    }

    #[track_caller]
    pub fn corten(&self, args: &[&str]) -> Outcome {
        run(&mut self.command(args))
    }

    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        self.corten(&[args, &["--format", "json"]].concat()).ok().json()
    }

    pub fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    #[track_caller]
    pub fn load(&self, image: &Image, name: &str) {
        let archive = self.file("archive.tar", &image.docker_archive(&format!("{name}:latest")));
        self.corten(&["load", "--replace", "--input", &archive]).ok();
    }

    /// `fsck` finds nothing.
    #[track_caller]
    pub fn assert_sound(&self) {
        let outcome = self.corten(&["fsck"]);
        assert_eq!(outcome.code, Some(0), "fsck: {}{}", outcome.stdout, outcome.stderr);
    }

    /// Every file below the root with its size, but for the locks, which come and stay.
    pub fn files(&self) -> BTreeMap<PathBuf, u64> {
        let mut found = BTreeMap::new();
        let mut waiting = vec![self.root.clone()];
        while let Some(dir) = waiting.pop() {
            for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
                let stat = entry.path().symlink_metadata().unwrap();
                let below = entry.path().strip_prefix(&self.root).unwrap().to_owned();
                if stat.is_dir() {
                    waiting.push(entry.path());
                    found.insert(below, 0);
                } else if !below.to_string_lossy().ends_with("lock") {
                    found.insert(below, stat.len());
                }
            }
        }
        found
    }

    /// Processes and mounts that have this test's directory in their command line or place.
    pub fn left(&self) -> Vec<String> {
        let token = self.dir.path().file_name().unwrap().to_str().unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut left: Vec<String> =
            mounts.lines().filter(|line| line.contains(token)).map(|line| format!("mount: {line}")).collect();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(words) = std::fs::read(entry.path().join("cmdline")) else { continue };
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            if words.contains(token) {
                left.push(format!("process {}: {words}", entry.file_name().display()));
            }
        }
        left
    }
}

/// Two layers of a few small files of all kinds, `seed` in each.
pub fn small(seed: &str) -> Image {
    let base = Tar::new()
        .dir("etc/")
        .file("etc/word", 0o644, seed.as_bytes())
        .file("etc/gone", 0o644, b"")
        .symlink("etc/link", "word")
        .hardlink("etc/second", "etc/word");
    let top = Tar::new().dir("etc/").file("etc/.wh.gone", 0o644, b"").file("top", 0o4755, seed.as_bytes());
    Image { layers: vec![base.finish(), top.finish()], config: json!({"Cmd": ["/bin/true"]}) }
}

/// One layer of a file of `size` bytes that no compression makes smaller.
pub fn large(seed: u64, size: usize) -> Image {
    let mut state = seed | 1;
    let content: Vec<u8> = std::iter::repeat_with(|| {
        // xorshift
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    })
    .take(size)
    .collect();
    let layer = Tar::new().file("blob", 0o644, &content).finish();
    Image { layers: vec![layer], config: json!({"Cmd": ["/bin/true"]}) }
}

/// A registry of this image under [`NAME`]; the reference of it.
pub fn serve(image: &Blobs) -> (Registry, String) {
    let site: Site = site(NAME, "latest", image);
    let registry = Registry::answering(move |asked| {
        if asked.path == "/v2/" {
            return Answer::new("application/json", "{}");
        }
        site.get(&asked.path).cloned().unwrap_or_else(|| Answer::status(404))
    });
    let reference = format!("{}/{NAME}:latest", registry.address());
    (registry, reference)
}
