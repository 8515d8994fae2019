//! Waiting for something to happen, with a deadline.

use crate::{needs, sys};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
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
