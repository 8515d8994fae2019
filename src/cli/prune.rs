//! `corten prune`
use super::Context;
use super::images::size;
use super::logs::parse_since;
use super::output::stdout;
use crate::engine::timestamp::Timestamp;
use crate::image::store::{Object, Prune, Pruned};
use anyhow::bail;
use clap::{Args, ValueEnum};
use serde_json::json;

/// Remove images that no container uses, and what is left of others
///
/// Without --all only images without a name go. Blobs and layers that no image leads to, and what a broken pull
/// or load left, always go.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// All images that no container uses, not only those without a name
    #[arg(long, short)]
    pub all: bool,
    /// Tell what would go and why, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Only images made before a time (RFC 3339 or seconds since 1970), or so long ago, as until=24h
    #[arg(long, value_name = "until=TIME")]
    pub filter: Vec<String>,
    /// Also tell what stays and why
    #[arg(long, short)]
    pub verbose: bool,
    /// What to print
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    pub format: Format,
}

/// What `prune` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A line for each thing
    Text,
    /// A JSON object
    Json,
}

/// Runs `corten prune`.
pub fn run(args: &PruneArgs, context: &Context) -> anyhow::Result<u8> {
    let until = until(&args.filter, Timestamp::now())?;
    let store = context.store()?;
    if !args.dry_run {
        // Leases of containers that are gone keep nothing.
        context.engine.sweep_leases(&store)?;
    }
    // An image that does not say when it was made is as old as can be.
    let created = |text: Option<&str>| text.and_then(Timestamp::parse);
    let keeps =
        |text: Option<&str>| until.is_some_and(|until| created(text).is_some_and(|created| created >= until));
    let pruned = store.prune(&Prune { all: args.all, dry_run: args.dry_run, keeps: &keeps })?;
    let text = match args.format {
        Format::Text => text(args, &pruned),
        Format::Json => {
            let stays = args.verbose.then_some(&pruned.verdicts.stays);
            let mut report = json!({
                "dryRun": args.dry_run,
                "removed": pruned.verdicts.goes,
                "bytes": pruned.verdicts.freed(),
                "postponed": pruned.postponed,
            });
            if let Some(stays) = stays {
                report["kept"] = serde_json::to_value(stays)?;
            }
            format!("{report}\n")
        }
    };
    stdout(text)?;
    Ok(0)
}

fn text(args: &PruneArgs, pruned: &Pruned) -> String {
    let (went, total) = match args.dry_run {
        true => ("would remove", "Would free"),
        false => ("removed", "Freed"),
    };
    let mut text = String::new();
    let mut line = |word: &str, verdict: &crate::image::store::Verdict| {
        // An image is nothing but a name for its blobs and layers.
        let bytes = match verdict.object {
            Object::Image(_) => String::new(),
            _ => format!(" ({})", size(verdict.bytes)),
        };
        text.push_str(&format!("{word} {}{bytes}: {}\n", verdict.object, verdict.reason));
    };
    pruned.verdicts.goes.iter().for_each(|verdict| line(went, verdict));
    if args.verbose {
        pruned.verdicts.stays.iter().for_each(|verdict| line("kept", verdict));
    }
    if pruned.postponed {
        text.push_str("A pull or load runs: what nothing uses goes when that has ended.\n");
    }
    text.push_str(&format!("{total} {}\n", size(pruned.verdicts.freed())));
    text
}

/// The earliest time that keeps an image.
fn until(filters: &[String], now: Timestamp) -> anyhow::Result<Option<Timestamp>> {
    let mut until: Option<Timestamp> = None;
    for filter in filters {
        let Some(text) = filter.strip_prefix("until=") else {
            bail!("invalid value {filter:?} for --filter: only until=TIME is known");
        };
        let Some(time) = parse_since(text, now) else {
            bail!(
                "invalid value {filter:?} for --filter: it is until= and a time, or how long ago, as until=24h"
            );
        };
        // Of several all must let an image go.
        until = Some(until.map_or(time, |earlier| earlier.min(time)));
    }
    Ok(until)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn filters() {
        let now = Timestamp::from_unix(Duration::from_secs(10_000));
        let at = |filters: &[&str]| {
            until(&filters.iter().map(ToString::to_string).collect::<Vec<_>>(), now)
                .map_err(|e| e.to_string())
        };
        let seconds = |seconds| Ok(Some(Timestamp::from_unix(Duration::from_secs(seconds))));
        assert_eq!(at(&[]), Ok(None));
        assert_eq!(at(&["until=1h"]), seconds(6400));
        assert_eq!(at(&["until=1h", "until=7000"]), seconds(6400));
        for wrong in ["label=x", "until", "until=", "until=soon"] {
            assert!(at(&[wrong]).unwrap_err().contains(wrong), "{wrong}");
        }
    }
}
