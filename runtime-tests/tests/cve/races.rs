//! Somebody who exchanges names in a directory that a container's set-up walks through.

use nix::dir::Dir;
use nix::fcntl::{OFlag, RenameFlags, renameat2};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::stat::Mode;
use runtime_tests::{Fixture, needs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// How often each race is run: `CORTEN_TEST_RACES`, or 200 on a machine that is not emulated.
pub fn rounds() -> usize {
    let slow = needs::stretched(std::time::Duration::from_secs(1)).as_secs();
    let default = 200 / usize::try_from(slow.max(1)).unwrap();
    std::env::var("CORTEN_TEST_RACES").map_or(default, |text| text.parse().expect("CORTEN_TEST_RACES"))
}

/// Exchanges two names of a directory (`RENAME_EXCHANGE`), as fast as it can, until it is dropped.
pub struct Racer {
    stop: Arc<AtomicBool>,
    exchanges: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Racer {
    pub fn new(directory: &Path, one: &'static str, other: &'static str) -> Self {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = Dir::open(directory, flags, Mode::empty()).unwrap();
        let (stop, exchanges) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&exchanges));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if renameat2(&directory, one, &directory, other, RenameFlags::RENAME_EXCHANGE).is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { stop, exchanges, thread: Some(thread) }
    }
}

impl Drop for Racer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        if !std::thread::panicking() {
            assert!(self.exchanges.load(Ordering::Relaxed) > 0, "nothing was raced with");
        }
    }
}

/// A directory of the host that nobody may write to: with a file `secret`, and watched.
pub struct Canary {
    pub dir: PathBuf,
    watch: Inotify,
    before: std::fs::Metadata,
}

/// What the secret says.
pub const SECRET: &str = "of the host";

impl Canary {
    pub fn new(fixture: &Fixture) -> Self {
        let secret = fixture.file("canary/secret", SECRET);
        let dir = fixture.path().join("canary");
        let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).unwrap();
        let events = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_ATTRIB;
        watch.add_watch(&dir, events).unwrap();
        Self { before: std::fs::metadata(secret).unwrap(), dir, watch }
    }

    pub fn secret(&self) -> PathBuf {
        self.dir.join("secret")
    }

    /// Its path from a directory deep below the root, for links that climb.
    pub fn climbing(&self) -> String {
        format!("../../../../../../../../..{}", self.dir.display())
    }

    /// Fails the test if anything was made, changed or removed.
    #[track_caller]
    pub fn assert_untouched(&self) {
        use std::os::unix::fs::MetadataExt;
        match self.watch.read_events() {
            Err(nix::errno::Errno::EAGAIN) => {}
            other => panic!("the host's directory was touched: {other:?}"),
        }
        let now = std::fs::symlink_metadata(self.secret()).unwrap();
        let of = |metadata: &std::fs::Metadata| {
            (
                metadata.ino(),
                metadata.mode(),
                metadata.uid(),
                metadata.rdev(),
                metadata.mtime_nsec(),
                metadata.ctime_nsec(),
            )
        };
        assert_eq!(of(&now), of(&self.before), "the host's file was changed");
        assert_eq!(std::fs::read_to_string(self.secret()).unwrap(), SECRET);
    }
}
