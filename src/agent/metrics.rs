//! What the agent counts, in Prometheus' text format.
use std::time::Duration;

/// Counters and histograms.
#[derive(Debug, Default)]
pub struct Metrics {}

impl Metrics {
    /// Counts a request that was answered: `door` is `cri`, `ecs` or `streaming`, `operation` the name of an RPC or
    /// action that the door knows (never what a client made up), `code` how it ended, in the protocol's words.
    pub fn observe(
        &self,
        _door: &'static str,
        _operation: &'static str,
        _code: &'static str,
        _took: Duration,
    ) {
    }
}
