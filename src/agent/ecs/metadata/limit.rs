//! How often a task may ask: 40 requests a second, 60 at once, as of an ECS agent.
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

const A_SECOND: f64 = 40.0;
const AT_ONCE: f64 = 60.0;
/// Who asks is remembered for so many; then for those who ask at this moment alone.
const REMEMBERED: usize = 4096;

/// A bucket for each who asks.
#[derive(Debug, Default)]
pub(super) struct Limiter(Mutex<HashMap<String, (f64, Instant)>>);

impl Limiter {
    /// Whether one more request of `key` is answered.
    pub(super) fn admit(&self, key: &str, now: Instant) -> bool {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let filled = |left: f64, since: Instant| {
            AT_ONCE.min(left + now.saturating_duration_since(since).as_secs_f64() * A_SECOND)
        };
        if buckets.len() >= REMEMBERED && !buckets.contains_key(key) {
            buckets.retain(|_, (left, since)| filled(*left, *since) < AT_ONCE);
            if buckets.len() >= REMEMBERED {
                return false;
            }
        }
        let bucket = buckets.entry(key.to_owned()).or_insert((AT_ONCE, now));
        let left = filled(bucket.0, bucket.1);
        let admitted = left >= 1.0;
        *bucket = (if admitted { left - 1.0 } else { left }, now);
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn sixty_at_once_and_forty_a_second() {
        let (limiter, begin) = (Limiter::default(), Instant::now());
        let admitted = |key, at| (0..200).filter(|_| limiter.admit(key, at)).count();
        assert_eq!(admitted("a", begin), 60);
        assert_eq!(admitted("b", begin), 60);
        assert_eq!(admitted("a", begin + Duration::from_millis(500)), 20);
        assert_eq!(admitted("a", begin + Duration::from_secs(60)), 60);
    }

    #[test]
    fn no_more_than_a_bound_are_remembered() {
        let (limiter, begin) = (Limiter::default(), Instant::now());
        for number in 0..2 * REMEMBERED {
            limiter.admit(&number.to_string(), begin);
        }
        assert!(limiter.0.lock().unwrap().len() <= REMEMBERED);
        // Those who have been quiet are forgotten.
        assert!(limiter.admit("new", begin + Duration::from_secs(10)));
    }
}
