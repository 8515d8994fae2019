//! What is remembered between requests: sizes of writable layers, and CPU times.
use super::error::Result;
use crate::engine::Engine;
use crate::engine::names::Id;
use crate::sys::SysError;
use crate::sys::disk::{self, Used};
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a size is good for: kubelets ask every ten seconds, and a walk costs.
const FRESH: Duration = Duration::from_secs(10);
/// Entries of one layer that are counted; a container must not keep us busy with files.
const MAX_ENTRIES: u64 = 200_000;
/// Rates over less time than this say nothing.
const LEAST_INTERVAL: u64 = 500_000_000;

#[derive(Debug, Clone, Copy)]
struct Sample {
    /// When, in nanoseconds since 1970.
    time: i64,
    /// CPU time until then in nanoseconds.
    total: u64,
    /// The rate that was told last, in nanoseconds for each second.
    rate: Option<u64>,
}

/// By id of a container or pod.
#[derive(Debug, Default)]
pub struct Seen {
    layers: Mutex<HashMap<String, (Instant, Used)>>,
    cpu: Mutex<HashMap<String, Sample>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is one call, so a panic elsewhere leaves the map whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seen {
    /// What the container wrote into its root, as of the last seconds.
    pub fn writable(&self, engine: &Engine, id: &Id) -> Result<Used> {
        if let Some((time, used)) = lock(&self.layers).get(id.as_str())
            && time.elapsed() < FRESH
        {
            return Ok(*used);
        }
        let used = match File::open(engine.directory(id)) {
            Ok(directory) => disk::used(directory.as_fd(), Path::new("upper"), MAX_ENTRIES)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Used::default()),
            Err(error) => return Err(SysError::io("open", id.as_str())(error).into()),
        };
        lock(&self.layers).insert(id.to_string(), (Instant::now(), used));
        Ok(used)
    }

    /// Nanoseconds of CPU time for each second since the last sample; `None` for the first one.
    pub fn rate(&self, id: &str, time: i64, total: u64) -> Option<u64> {
        let mut samples = lock(&self.cpu);
        let last = samples.get(id).copied();
        let Some(last) = last else {
            samples.insert(id.to_owned(), Sample { time, total, rate: None });
            return None;
        };
        let passed = u64::try_from(time.saturating_sub(last.time)).unwrap_or(0);
        if passed < LEAST_INTERVAL {
            return last.rate;
        }
        let used = u128::from(total.saturating_sub(last.total));
        let rate = u64::try_from(used * 1_000_000_000 / u128::from(passed)).ok();
        samples.insert(id.to_owned(), Sample { time, total, rate });
        rate
    }

    /// Forgets what was removed.
    pub fn forget(&self, id: &str) {
        lock(&self.layers).remove(id);
        lock(&self.cpu).remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        let seen = Seen::default();
        let second = 1_000_000_000;
        assert_eq!(seen.rate("a", 0, 5), None);
        assert_eq!(seen.rate("a", 2 * second, 5 + second.unsigned_abs()), Some(500_000_000));
        // Too soon: the last one is told again.
        assert_eq!(seen.rate("a", 2 * second + 1, 7 * second.unsigned_abs()), Some(500_000_000));
        seen.forget("a");
        assert_eq!(seen.rate("a", 0, 5), None);
    }
}
