//! `events`.
use super::argv::Flags;
use super::{Context, Outcome, only_id, words_of};
use crate::cli::output;
use crate::runtime::cgroup::stats::Stats;
use crate::runtime::events::{Event, follow, stats};
use clap::Parser;
use serde::Serialize;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

/// Displays container events such as OOM notifications, cpu, memory, and IO usage statistics
#[derive(Debug, Parser)]
#[command(name = "events", override_usage = "corten-oci events [command options] <container-id>")]
struct Words {
    /// Set the stats collection interval
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = interval)]
    interval: Duration,
    /// Display the container's stats then exit
    #[arg(long)]
    stats: bool,
    #[arg(hide = true)]
    args: Vec<OsString>,
}

/// One line of output (runc's types/events.go).
#[derive(Debug, Serialize)]
struct Line<'a> {
    r#type: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data>,
}

#[derive(Debug, Serialize)]
struct Data {
    #[serde(flatten)]
    stats: Stats,
    intel_rdt: Empty,
    /// runc counts those that it made, which were none since the network became the engine's.
    network_interfaces: (),
}

#[derive(Debug, Serialize)]
struct Empty {}

pub(super) fn main(context: &Context, words: &[OsString]) -> Outcome {
    let words = words_of!(Words, words, Flags::Anywhere);
    let id = only_id::<Words>(&words.args)?;
    let interval = words.interval;
    if interval.is_zero() {
        return Err(anyhow::anyhow!("duration interval must be greater than 0").into());
    }
    if words.stats {
        print(&id, Event::Stats(Box::new(stats(&context.root, &id)?)))?;
    } else {
        follow(&context.root, &id, interval, |event| print(&id, event))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(id: &str, event: Event) -> std::io::Result<()> {
    let line = match event {
        Event::Stats(stats) => {
            let data = Data { stats: *stats, intel_rdt: Empty {}, network_interfaces: () };
            Line { r#type: "stats", id, data: Some(data) }
        }
        Event::Oom => Line { r#type: "oom", id, data: None },
    };
    output::stdout(serde_json::to_string(&line)? + "\n")
}

fn interval(text: &str) -> Result<Duration, &'static str> {
    duration(text).ok_or("no duration as 5s or 1m30s")
}

/// A duration of Go: `300ms`, `1.5h`, `2h45m`.
fn duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 7] =
        [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut total, mut rest) = (0.0, text);
    while !rest.is_empty() {
        let digits = rest.find(|one: char| !one.is_ascii_digit() && one != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|one: char| one.is_ascii_digit() || one == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
        total += number.parse::<f64>().ok()? * seconds;
        rest = tail;
    }
    if text.is_empty() { None } else { Duration::try_from_secs_f64(total).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        assert_eq!(duration("5s"), Some(Duration::from_secs(5)));
        assert_eq!(duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("1.5h"), Some(Duration::from_secs(5400)));
        assert_eq!(duration("300ms"), Some(Duration::from_millis(300)));
        assert_eq!(duration("0"), Some(Duration::ZERO));
        for wrong in ["", "5", "s", "-5s", "5x", "1..5s", "99999999999999999999h"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn lines_are_those_of_runc() {
        let oom = Line { r#type: "oom", id: "a", data: None };
        assert_eq!(serde_json::to_string(&oom).unwrap(), r#"{"type":"oom","id":"a"}"#);
        let data = Data { stats: Stats::default(), intel_rdt: Empty {}, network_interfaces: () };
        let stats = serde_json::to_value(Line { r#type: "stats", id: "a", data: Some(data) }).unwrap();
        assert_eq!(stats["data"]["intel_rdt"], serde_json::json!({}));
        assert!(stats["data"]["network_interfaces"].is_null() && stats["data"]["cpu"].is_object());
    }
}
