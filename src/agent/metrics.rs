//! What the agent counts, in Prometheus' text format.
//!
//! Every label has few values: doors, operations and codes are words of ours, never of a client.
use super::http::{self, Bounds};
use super::serve::{Open, Stop};
use super::status::Census;
use super::{AgentError, Node};
use crate::engine::task::TaskEvent;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::core::Collector;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};
use std::sync::Arc;
use std::time::Duration;

/// From a look at a record to the pull of an image, in seconds.
const BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0];

/// Counters and histograms.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: HistogramVec,
    phases: HistogramVec,
    tasks: IntGaugeVec,
    containers: IntGaugeVec,
    pulls: IntCounterVec,
    oom_kills: IntCounter,
    restarts: IntCounter,
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::new();
        Self {
            requests: histogram(
                &registry,
                "corten_agent_request_seconds",
                "Requests that were answered, and how long that took",
                &["door", "operation", "code"],
            ),
            phases: histogram(
                &registry,
                "corten_task_phase_seconds",
                "How long the phases of launching a task took",
                &["phase"],
            ),
            tasks: gauges(
                &registry,
                "corten_tasks",
                "Tasks by who launched them and state",
                &["door", "state"],
            ),
            containers: gauges(&registry, "corten_containers", "Containers by state", &["state"]),
            pulls: register(
                &registry,
                IntCounterVec::new(
                    Opts::new("corten_image_pulls_total", "Images pulled from registries by result"),
                    &["result"],
                ),
            ),
            oom_kills: register(
                &registry,
                IntCounter::new("corten_oom_kills_total", "Containers that ended for want of memory"),
            ),
            restarts: register(
                &registry,
                IntCounter::new("corten_restarts_total", "Containers that their restart policy starts again"),
            ),
            registry,
        }
    }
}

/// Names and labels are constants, which a test registers.
fn register<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let collector = made.expect("a constant name");
    registry.register(Box::new(collector.clone())).expect("every name once");
    collector
}

fn histogram(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    register(registry, HistogramVec::new(HistogramOpts::new(name, help).buckets(BUCKETS.to_vec()), labels))
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    register(registry, IntGaugeVec::new(Opts::new(name, help), labels))
}

impl Metrics {
    /// Counts a request that was answered: `door` is `cri`, `ecs` or `streaming`, `operation` the name of an RPC or
    /// action that the door knows (never what a client made up), `code` how it ended, in the protocol's words.
    pub fn observe(&self, door: &'static str, operation: &'static str, code: &'static str, took: Duration) {
        self.requests.with_label_values(&[door, operation, code]).observe(took.as_secs_f64());
    }

    /// Notes how long a phase of launching a task took: `pull`, `task`, `create`, `start`.
    pub fn phase(&self, phase: &'static str, took: Duration) {
        self.phases.with_label_values(&[phase]).observe(took.as_secs_f64());
    }

    /// Counts a pull that has ended.
    pub fn pulled(&self, result: &'static str, took: Duration) {
        self.pulls.with_label_values(&[result]).inc();
        self.phase("pull", took);
    }

    /// Counts what an event tells.
    pub fn happened(&self, event: &TaskEvent) {
        if let TaskEvent::Exited { ended, restarts, .. } = event {
            if ended.oom_killed {
                self.oom_kills.inc();
            }
            if *restarts {
                self.restarts.inc();
            }
        }
    }

    /// All of it, with these tasks and containers.
    fn text(&self, census: &Census) -> prometheus::Result<Vec<u8>> {
        self.tasks.reset();
        self.containers.reset();
        for ((door, state), count) in &census.tasks {
            self.tasks.with_label_values(&[*door, *state]).set(whole(*count));
        }
        for (state, count) in &census.containers {
            self.containers.with_label_values(&[*state]).set(whole(*count));
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        text.extend_from_slice(Process::now().text().as_bytes());
        Ok(text)
    }
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// What this process uses, under the names that Prometheus' own libraries use.
#[derive(Debug, Default, PartialEq)]
pub struct Process {
    /// Open descriptors.
    pub descriptors: usize,
    /// Bytes in memory.
    pub resident: u64,
    /// Seconds of CPU time.
    pub cpu: f64,
    /// Threads.
    pub threads: u64,
}

impl Process {
    /// Of this process; what cannot be read is 0.
    pub fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF);
        let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        Self {
            // The one with which the directory is read does not count.
            descriptors: std::fs::read_dir("/proc/self/fd").map_or(0, |all| all.count().saturating_sub(1)),
            resident: number("VmRSS:").unwrap_or(0) * 1024,
            cpu: usage.map_or(0.0, |usage| seconds(usage.user_time()) + seconds(usage.system_time())),
            threads: number("Threads:").unwrap_or(0),
        }
    }

    fn text(&self) -> String {
        let Self { descriptors, resident, cpu, threads } = self;
        format!(
            "# TYPE process_open_fds gauge\nprocess_open_fds {descriptors}\n\
             # TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes {resident}\n\
             # TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total {cpu}\n\
             # TYPE process_threads gauge\nprocess_threads {threads}\n"
        )
    }
}

/// Opens the door through which Prometheus comes.
///
/// # Errors
/// The address cannot be had.
pub async fn open(node: &Arc<Node>, address: &str, stop: Stop) -> Result<Open, AgentError> {
    let listener = http::listen("metrics", address).await?;
    let address = listener.local_addr().map_or_else(|_| address.to_owned(), |bound| bound.to_string());
    let router = Router::new().route("/metrics", get(scrape)).with_state(Arc::clone(node));
    let bounds = Bounds { connections: 16, ..Bounds::default() };
    Ok(Open { name: "metrics", address, serving: http::serve(listener, router, bounds, stop) })
}

async fn scrape(State(node): State<Arc<Node>>) -> Response {
    let census = match node.blocking(Node::census).await {
        Ok(census) => census,
        Err(error) => {
            tracing::warn!("metrics: {}", crate::error::chain(&error));
            Census::default()
        }
    };
    match node.metrics.text(&census) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => {
            tracing::warn!("metrics: {}", crate::error::chain(&error));
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::record::Ended;
    use crate::engine::timestamp::Timestamp;

    #[test]
    fn what_is_counted_is_told() {
        let metrics = Metrics::default();
        metrics.observe("cri", "Version", "OK", Duration::from_millis(2));
        metrics.pulled("ok", Duration::from_secs(1));
        let now = Timestamp::now();
        let ended = Ended {
            code: 137,
            oom_killed: true,
            started: Some(now),
            finished: now,
            error: None,
            restarts: 0,
        };
        metrics.happened(&TaskEvent::Exited { container: "c".into(), ended, restarts: true });
        let mut census = Census::default();
        census.tasks.insert(("cri", "ready"), 3);
        let text = String::from_utf8(metrics.text(&census).unwrap()).unwrap();
        for line in [
            "corten_agent_request_seconds_count{code=\"OK\",door=\"cri\",operation=\"Version\"} 1",
            "corten_agent_request_seconds_bucket{code=\"OK\",door=\"cri\",operation=\"Version\",le=\"0.0025\"} 1",
            "corten_image_pulls_total{result=\"ok\"} 1",
            "corten_oom_kills_total 1",
            "corten_restarts_total 1",
            "corten_tasks{door=\"cri\",state=\"ready\"} 3",
            "corten_task_phase_seconds_sum{phase=\"pull\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        // A state that nothing is in any more is not told.
        let text = String::from_utf8(metrics.text(&Census::default()).unwrap()).unwrap();
        assert!(!text.contains("corten_tasks{"), "{text}");
        assert!(!text.contains("process_open_fds 0"), "{text}");
    }
}
