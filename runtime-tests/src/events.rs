//! Waiting for something to happen, with a deadline.

use crate::{needs, sys};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

/// How long anything may take before the test fails.
pub fn patience() -> Duration {
    needs::stretched(Duration::from_secs(20))
}

/// Waits until `fd` is readable (or hung up); false when the time is over.
pub fn readable(fd: BorrowedFd<'_>, within: Duration) -> bool {
    let end = Instant::now() + within;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => panic!("poll: {errno}"),
        }
    }
}

/// Waits for the end of a process that need not be our child; true when it has ended.
pub fn process_end(pid: i32, within: Duration) -> bool {
    match sys::pidfd_open(pid) {
        Ok(pidfd) => readable(pidfd.as_fd(), within),
        Err(nix::errno::Errno::ESRCH | nix::errno::Errno::EINVAL) => true,
        Err(errno) => panic!("pidfd_open {pid}: {errno}"),
    }
}

/// Asks again and again until `probe` gives something: for what the kernel tells nobody of, such as the number of
/// another process's descriptors. Fails the test with `what` when the time is over.
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + patience();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < end, "not within {:?}: {what}", patience());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until a file that somebody appends to has `lines` lines.
pub fn grown(file: &Path, lines: usize) {
    let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).expect("inotify");
    watch
        .add_watch(file, AddWatchFlags::IN_MODIFY)
        .unwrap_or_else(|errno| panic!("{}: {errno}", file.display()));
    loop {
        let bytes = std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let found = bytes.iter().filter(|byte| **byte == b'\n').count();
        if found >= lines {
            return;
        }
        let more = readable(watch.as_fd(), patience());
        assert!(
            more,
            "{}: {found} of {lines} lines, and nothing new within {:?}",
            file.display(),
            patience()
        );
        watch.read_events().expect("inotify events");
    }
}

/// What is made, renamed and removed in some directories: moments of somebody's work that are not the clock's.
#[derive(Debug)]
pub struct Changes(Inotify);

impl Changes {
    /// Of these directories, which must be there, from now on.
    pub fn of<'a>(directories: impl IntoIterator<Item = &'a Path>) -> Self {
        let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).expect("inotify");
        let flags = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVE | AddWatchFlags::IN_DELETE;
        for directory in directories {
            let added = watch.add_watch(directory, flags);
            added.unwrap_or_else(|errno| panic!("{}: {errno}", directory.display()));
        }
        Self(watch)
    }

    /// Waits until there were `count` of them or the child has ended; how many there were.
    pub fn wait(&self, count: usize, child: &Child) -> usize {
        let pidfd =
            sys::pidfd_open(i32::try_from(child.id()).expect("a pid")).expect("pidfd_open of a child");
        let mut seen = 0;
        while seen < count {
            let mut fds = [self.0.as_fd(), pidfd.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            let timeout = PollTimeout::try_from(patience()).unwrap_or(PollTimeout::MAX);
            assert_ne!(poll(&mut fds, timeout), Ok(0), "{seen} of {count} changes within {:?}", patience());
            match self.0.read_events() {
                Ok(events) => seen += events.len(),
                Err(_) if fds[1].any() == Some(true) => break,
                Err(_) => {}
            }
        }
        seen
    }
}

/// Lines that come through a pipe from a container, each awaited with a deadline.
#[derive(Debug)]
pub struct Lines<R> {
    source: R,
    pending: Vec<u8>,
}

impl<R: Read + AsFd> Lines<R> {
    /// Reads lines of `source`.
    pub fn new(source: R) -> Self {
        Self { source, pending: Vec::new() }
    }

    /// The next line without its end; fails the test at end of file and when the time is over.
    pub fn next_line(&mut self) -> String {
        self.try_line().unwrap_or_else(|| {
            panic!("end of file instead of a line; read so far: {:?}", String::from_utf8_lossy(&self.pending))
        })
    }

    /// Reads lines until one contains `text`.
    pub fn until(&mut self, text: &str) -> String {
        loop {
            let line = self.next_line();
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Reads and forgets everything until end of file, however long it takes.
    pub fn drain(mut self) {
        // An error ends it as well.
        let _ = std::io::copy(&mut self.source, &mut std::io::sink());
    }

    /// The next line, or None at end of file.
    pub fn try_line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let rest = self.pending.split_off(end + 1);
                let line = std::mem::replace(&mut self.pending, rest);
                return Some(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned());
            }
            assert!(
                readable(self.source.as_fd(), patience()),
                "no line within {:?}; read so far: {:?}",
                patience(),
                String::from_utf8_lossy(&self.pending)
            );
            let mut buffer = [0; 4096];
            match self.source.read(&mut buffer) {
                Ok(0) => return None,
                // A terminal whose other side is closed says EIO where a pipe says end of file.
                Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EIO as i32) => return None,
                Ok(count) => self.pending.extend_from_slice(&buffer[..count]),
                Err(error) => panic!("read: {error}"),
            }
        }
    }
}
