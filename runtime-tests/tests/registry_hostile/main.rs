//! `corten pull` against registries that lie, break off or never end. Each lie gives one clear error that
//! names its object, exit code 125, and leaves nothing in the store.
//!
//! [`table`] has the lies, one a row; [`honest`] what is no lie, and how a pull goes on after a failure; [`credentials`] who is
//! told them.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod credentials;
mod documents;
mod honest;
mod refusals;
mod sizes;
mod table;
mod truth;
mod wire;

use runtime_tests::image::{Blobs, Image, Tar};
use runtime_tests::{Outcome, needs, run};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A store of its own, under a home directory of its own.
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("temporary directory") }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(needs::corten());
        command.arg("--root").arg(self.root()).args(args);
        for name in ["REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG"] {
            command.env_remove(name);
        }
        command.env("HOME", self.dir.path());
        command
    }

    fn pull(&self, reference: &str) -> Outcome {
        run(&mut self.command(&["pull", reference]))
    }

    fn pull_with(&self, args: &[&str], reference: &str) -> Outcome {
        run(&mut self.command(&[&["pull"], args, &[reference]].concat()))
    }

    /// The blobs, layers and half-made things that are in the store; names are a failure.
    fn residue(&self) -> Vec<String> {
        let index = self.root().join("content/index.json");
        if let Ok(text) = std::fs::read(&index) {
            let index: Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(index["manifests"], json!([]));
        }
        let dirs = ["content/blobs/sha256", "layers", "staging", "leases"];
        dirs.iter()
            .flat_map(|dir| {
                names(&self.root().join(dir)).into_iter().map(move |name| format!("{dir}/{name}"))
            })
            .collect()
    }

    #[track_caller]
    fn is_empty(&self) {
        assert_eq!(self.residue(), Vec::<String>::new());
    }
}

fn names(dir: &Path) -> Vec<String> {
    match std::fs::read_dir(dir) {
        Ok(entries) => {
            entries.map(|e| e.expect("entry").file_name().to_string_lossy().into_owned()).collect()
        }
        Err(_) => Vec::new(),
    }
}

fn image() -> Blobs {
    layers(&[
        Tar::new().dir("etc/").file("etc/a", 0o644, &[b'a'; 40_000]).finish(),
        Tar::new().file("b", 0o600, b"bb").finish(),
    ])
}

fn layers(layers: &[Vec<u8>]) -> Blobs {
    Image { layers: layers.to_vec(), config: json!({"Cmd": ["/bin/true"]}) }.blobs()
}

/// What of one error of one line is not as it should be: it has all of `words`, and nothing was pulled.
fn expect_words<T: AsRef<str>>(stdout: &str, stderr: &str, words: &[T]) -> Result<(), String> {
    if !stdout.is_empty() || stderr.lines().count() != 1 || !stderr.starts_with("Error: ") {
        return Err(format!("no error of one line: {stdout}{stderr}"));
    }
    if let Some(odd) = stderr.trim_end().chars().find(|character| character.is_control()) {
        return Err(format!("{odd:?} in: {stderr:?}"));
    }
    match words.iter().find(|word| !stderr.contains(word.as_ref())) {
        Some(missing) => Err(format!("{:?} is not in: {stderr}", missing.as_ref())),
        None => Ok(()),
    }
}

#[track_caller]
fn expect_error(outcome: &Outcome, words: &[&str]) {
    expect_words(&outcome.stdout, &outcome.stderr, words).unwrap();
}
