//! One test's own world on the host.

use crate::{Bundle, Outcome, command, leaks, needs, run};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A temporary directory, a state root and a token that is in every name the test makes. Dropping it deletes
/// the test's containers and then fails the test if anything that carries the token is left on the host.
#[derive(Debug)]
pub struct Fixture {
    token: String,
    /// Flags of the runtime before the verb.
    flags: &'static [&'static str],
    dir: tempfile::TempDir,
    bundles: AtomicU32,
    ids: Mutex<Vec<String>>,
    namespaces: Mutex<leaks::Namespaces>,
}

impl Default for Fixture {
    fn default() -> Self {
        Self::new()
    }
}

impl Fixture {
    /// A new world; any number may exist at a time.
    pub fn new() -> Self {
        Self::with_flags(&[])
    }

    /// The same, in which every call of the runtime has these flags before the verb.
    pub fn with_flags(flags: &'static [&'static str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // The end mark keeps one token from being the beginning of another.
        let token = format!("ct{:x}-{count}x", std::process::id());
        let dir = tempfile::Builder::new().prefix(&token).tempdir().expect("temporary directory");
        std::fs::create_dir(dir.path().join("state")).expect("state root");
        let (bundles, ids, namespaces) = Default::default();
        Self { token, flags, dir, bundles, ids, namespaces }
    }

    /// The string that is in every name of this test.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The temporary directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The `--root` of the OCI runtime.
    pub fn state_root(&self) -> PathBuf {
        self.path().join("state")
    }

    /// A new bundle with an id of its own.
    pub fn bundle(&self) -> Bundle<'_> {
        let number = self.bundles.fetch_add(1, Ordering::Relaxed);
        Bundle::new(self, format!("{}{number}", self.token))
    }

    /// The OCI runtime with this test's state root and `args`.
    pub fn oci<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = needs::oci();
        command
            .arg("--root")
            .arg(self.state_root())
            .args(self.flags)
            .args(args)
            .env("CORTEN_TEST", &self.token);
        command
    }

    /// Runs the OCI runtime with `args` to its end.
    #[track_caller]
    pub fn run_oci<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Outcome {
        run(&mut self.oci(args))
    }

    /// Remembers an id, to delete it when the test ends.
    pub fn adopt(&self, id: &str) {
        locked(&self.ids).push(id.to_owned());
    }

    /// Remembers the namespaces of a container's process: none may be held by anyone when the test ends.
    pub fn watch(&self, pid: i32) {
        locked(&self.namespaces).add(pid);
    }

    /// Deletes every container of this test by force.
    pub fn clean_up(&self) {
        for id in std::mem::take(&mut *locked(&self.ids)) {
            let mut delete = self.oci(["delete", "--force", &id]);
            let outcome = command::run(&mut delete);
            if outcome.code != Some(0) && !std::thread::panicking() {
                panic!("delete --force {id}: {}", outcome.stderr);
            }
        }
    }

    /// What is left of this test on the host, in words.
    pub fn leaks(&self) -> Vec<String> {
        leaks::of(&self.token, &[&self.state_root()], &locked(&self.namespaces))
    }

    /// Fails the test if anything of it is left on the host.
    #[track_caller]
    pub fn assert_clean(&self) {
        let left = self.leaks();
        assert!(left.is_empty(), "left on the host:\n  {}", left.join("\n  "));
    }

    /// Writes a file below the temporary directory and gives its path.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("directory");
        std::fs::write(&path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }
}

/// What a panicking thread leaves is still good for cleaning up.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.clean_up();
        if !std::thread::panicking() {
            self.assert_clean();
        }
    }
}
