//! `corten logs`
use super::Context;
use crate::engine::attach::Output;
use crate::engine::client::write_out;
use crate::engine::follow::Lines;
use crate::engine::logs::Selection;
use crate::engine::timestamp::Timestamp;
use anyhow::bail;
use clap::Args;
use std::time::Duration;

/// Show what a container wrote
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Show when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Only so many lines from the end, or `all`
    #[arg(short = 'n', long, value_name = "LINES", default_value = "all")]
    tail: String,
    /// Only lines from a time on (RFC 3339 or seconds since 1970), or from so long ago, as 90s, 10m or 1h30m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// By name, id or the beginning of the id
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// Runs `corten logs`.
pub fn run(args: &LogsArgs, context: &Context) -> anyhow::Result<u8> {
    let tail = match args.tail.as_str() {
        "all" => None,
        text => match text.parse() {
            Ok(lines) => Some(lines),
            Err(_) => bail!("invalid value {text:?} for --tail: it is a number of lines, or all"),
        },
    };
    let since = match &args.since {
        Some(text) => match parse_since(text, Timestamp::now()) {
            Some(time) => Some(time),
            None => bail!("invalid value {text:?} for --since: it is a time, or how long ago, as 10m"),
        },
        None => None,
    };
    let record = context.engine.find(&args.container)?;
    let mut lines = Lines::new(args.timestamps);
    // Lines are collected and written in larger pieces: a call for each costs more than reading them.
    let mut waiting: (Output, Vec<u8>) = (Output::Stdout, Vec::new());
    context.engine.logs(&record, Selection { tail, since }, args.follow, |entry| {
        let Some(entry) = entry else {
            write_out(waiting.0, &std::mem::take(&mut waiting.1))?;
            return Ok(true);
        };
        if entry.stream != waiting.0 || waiting.1.len() > 32 * 1024 {
            write_out(waiting.0, &std::mem::take(&mut waiting.1))?;
            waiting.0 = entry.stream;
        }
        waiting.1.extend_from_slice(&lines.text(entry));
        Ok(true)
    })?;
    Ok(0)
}

/// A time, or a duration before now.
pub(super) fn parse_since(text: &str, now: Timestamp) -> Option<Timestamp> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Timestamp::from_unix(Duration::from_secs(seconds)));
    }
    Timestamp::parse(text).or_else(|| Some(now.before(duration(text)?)))
}

/// `1h30m`, `90s`, `2d`.
fn duration(text: &str) -> Option<Duration> {
    let (mut total, mut rest) = (0u64, text);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].chars().next()?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(seconds)?)?;
        rest = &rest[digits + unit.len_utf8()..];
    }
    (!text.is_empty()).then(|| Duration::from_secs(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since() {
        let now = Timestamp::from_unix(Duration::from_secs(10_000));
        let at = |text| parse_since(text, now);
        assert_eq!(at("100"), Some(Timestamp::from_unix(Duration::from_secs(100))));
        assert_eq!(at("1970-01-01T00:00:07Z"), Some(Timestamp::from_unix(Duration::from_secs(7))));
        assert_eq!(at("1h30m"), Some(Timestamp::from_unix(Duration::from_secs(4600))));
        assert_eq!(at("9d"), Some(Timestamp::from_unix(Duration::ZERO)));
        for wrong in ["", "m", "10", "1x", "1h30", "-5m", "99999999999999999999d"] {
            assert!(wrong == "10" || at(wrong).is_none(), "{wrong}");
        }
    }
}
