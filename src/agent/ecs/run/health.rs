//! Health checks: a program that is run in the container now and then.
use crate::agent::Node;
use crate::agent::ecs::definition::HealthCheck;
use crate::agent::ecs::record::{Health, HealthStatus};
use crate::agent::streaming::exec_sync;
use crate::engine::record::Record;
use crate::engine::timestamp::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// docker's: the beginning of what a check wrote.
const MAX_OUTPUT: usize = 4096;

/// What the checks of a container have come to; pure.
#[derive(Debug)]
pub struct Verdict {
    retries: i64,
    start_period: Duration,
    failures: i64,
    status: HealthStatus,
}

impl Verdict {
    /// Before the first check.
    pub fn new(check: &HealthCheck) -> Self {
        let seconds = u64::try_from(check.start_period.unwrap_or(0)).unwrap_or(0);
        Self {
            retries: check.retries,
            start_period: Duration::from_secs(seconds),
            failures: 0,
            status: HealthStatus::Unknown,
        }
    }

    /// Counts a check that was made when the container had run for `age`. The first one is made at once, so that
    /// its failure says nothing.
    pub fn count(&mut self, success: bool, first: bool, age: Duration) -> HealthStatus {
        if success {
            self.failures = 0;
            self.status = HealthStatus::Healthy;
        } else if !first && (age >= self.start_period || self.status != HealthStatus::Unknown) {
            self.failures += 1;
            if self.failures >= self.retries {
                self.status = HealthStatus::Unhealthy;
            }
        }
        self.status
    }
}

/// Checks a container until this future is dropped, and tells what each check found.
pub async fn watch(
    node: Arc<Node>,
    record: Record,
    check: HealthCheck,
    container: usize,
    tell: mpsc::Sender<(usize, Health)>,
) {
    let Some(args) = check.args() else { return };
    let span = |seconds: i64| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let (interval, timeout) = (span(check.interval), span(check.timeout));
    let began = Instant::now();
    let mut verdict = Verdict::new(&check);
    let (mut status, mut since) = (HealthStatus::Unknown, Timestamp::now());
    let mut first = true;
    loop {
        let age = began.elapsed();
        let (exit_code, output) =
            match exec_sync(&node, &record, args.clone(), Some(timeout), MAX_OUTPUT).await {
                Ok(result) => {
                    let mut output = result.stdout;
                    output.extend_from_slice(&result.stderr);
                    output.truncate(MAX_OUTPUT);
                    (Some(i32::from(result.exit_code)), String::from_utf8_lossy(&output).into_owned())
                }
                Err(error) => (None, crate::error::chain(&error)),
            };
        let now = verdict.count(exit_code == Some(0), first, age);
        if now != status {
            (status, since) = (now, Timestamp::now());
        }
        let health = Health { status, since, exit_code, output };
        if tell.send((container, health)).await.is_err() {
            return;
        }
        first = false;
        // From the end of one check, as docker, so that slow ones do not pile up.
        tokio::time::sleep(interval).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(retries: i64, start_period: i64) -> Verdict {
        let check = HealthCheck {
            command: vec!["CMD".into(), "x".into()],
            interval: 5,
            timeout: 2,
            retries,
            start_period: Some(start_period),
        };
        Verdict::new(&check)
    }

    #[test]
    fn retries_in_a_row_make_it_unhealthy() {
        use HealthStatus::{Healthy, Unhealthy, Unknown};
        let mut verdict = verdict(2, 0);
        let age = Duration::from_secs(9);
        let mut count = |success, first| verdict.count(success, first, age);
        assert_eq!(count(false, true), Unknown);
        assert_eq!(count(false, false), Unknown);
        assert_eq!(count(false, false), Unhealthy);
        assert_eq!(count(true, false), Healthy);
        assert_eq!(count(false, false), Healthy);
        assert_eq!(count(true, false), Healthy);
        assert_eq!(count(false, false), Healthy);
        assert_eq!(count(false, false), Unhealthy);
    }

    #[test]
    fn failures_in_the_start_period_do_not_count_until_it_was_healthy() {
        let mut verdict = verdict(1, 60);
        let early = Duration::from_secs(59);
        assert_eq!(verdict.count(false, false, early), HealthStatus::Unknown);
        assert_eq!(verdict.count(true, false, early), HealthStatus::Healthy);
        assert_eq!(verdict.count(false, false, early), HealthStatus::Unhealthy);
    }
}
