//! When a container of a task is started again.
use crate::engine::options::RestartPolicy;
use std::time::Duration;

/// The first pause of a kubelet's series, and by what it grows.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// Its longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A run that lasts so long begins a new series.
const LONG_RUN: Duration = Duration::from_secs(600);

/// Where a container is in its series of restarts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Series {
    /// How often it was started again in all.
    pub(super) restarts: u32,
    /// How many pauses there were since the last long run.
    pauses: u32,
}

impl Series {
    /// How long to wait before it is started again; `None` if it is not. `ran` is `None` for a start that failed.
    pub(super) fn next(
        &mut self,
        policy: &RestartPolicy,
        code: u8,
        ran: Option<Duration>,
    ) -> Option<Duration> {
        let pause = match policy {
            RestartPolicy::Never => return None,
            RestartPolicy::OnFailure if code == 0 => return None,
            RestartPolicy::OnFailure | RestartPolicy::Always => self.back_off(ran),
            RestartPolicy::AfterRunning { ignored, period } => {
                let long_enough = ran.is_some_and(|ran| ran >= Duration::from_secs((*period).into()));
                if !long_enough || ignored.contains(&code) {
                    return None;
                }
                Duration::ZERO
            }
        };
        self.restarts = self.restarts.saturating_add(1);
        Some(pause)
    }

    fn back_off(&mut self, ran: Option<Duration>) -> Duration {
        if ran.is_some_and(|ran| ran >= LONG_RUN) {
            self.pauses = 0;
        }
        // 2^5 times 10 s is above the longest already.
        let pause = FIRST_PAUSE * 2_u32.pow(self.pauses.min(5));
        self.pauses = self.pauses.saturating_add(1);
        pause.min(LONGEST_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(policy: &RestartPolicy, code: u8, runs: &[u64]) -> Vec<Option<u64>> {
        let mut series = Series::default();
        runs.iter()
            .map(|ran| {
                series.next(policy, code, Some(Duration::from_secs(*ran))).map(|pause| pause.as_secs())
            })
            .collect()
    }

    #[test]
    fn a_kubelets_pauses_grow_until_a_long_run() {
        let series =
            [Some(10), Some(20), Some(40), Some(80), Some(160), Some(300), Some(300), Some(10), Some(20)];
        let runs = [1, 1, 1, 1, 1, 1, 599, 600, 1];
        assert_eq!(pauses(&RestartPolicy::Always, 0, &runs), series);
        assert_eq!(pauses(&RestartPolicy::OnFailure, 1, &runs), series);
        assert_eq!(pauses(&RestartPolicy::OnFailure, 0, &[1]), [None]);
        assert_eq!(pauses(&RestartPolicy::Never, 1, &[1]), [None]);
    }

    #[test]
    fn ecs_wants_a_run_of_some_length_and_ignores_codes() {
        let policy = RestartPolicy::AfterRunning { ignored: vec![0, 3], period: 60 };
        assert_eq!(pauses(&policy, 1, &[59, 60, 600]), [None, Some(0), Some(0)]);
        assert_eq!(pauses(&policy, 3, &[600]), [None]);
        assert_eq!(Series::default().next(&policy, 1, None), None);
    }

    #[test]
    fn a_start_that_fails_is_tried_again() {
        assert_eq!(Series::default().next(&RestartPolicy::Always, 127, None), Some(FIRST_PAUSE));
    }
}
