//! `corten images`
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::image_filter::Filter;
use crate::image::digest::Digest;
use crate::image::reference::Reference;
use crate::image::store::{Image, Store};

/// List images.
#[derive(Debug, Args)]
pub struct ImagesArgs {
    /// Only the image of this name or ID
    #[arg(value_name = "IMAGE")]
    pub image: Option<String>,
    /// Print IDs alone
    #[arg(long, short)]
    pub quiet: bool,
    /// Do not shorten IDs
    #[arg(long)]
    pub no_trunc: bool,
    /// Show the digests of the manifests
    #[arg(long)]
    pub digests: bool,
    /// Only images of which this holds: reference=PATTERN, dangling=BOOL, label=KEY[=VALUE], before=IMAGE or
    /// since=IMAGE
    #[arg(long, short, value_name = "FILTER")]
    pub filter: Vec<Filter>,
    /// What to print
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    pub format: Format,
}

/// How `corten images` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for a reader
    Table,
    /// A JSON array with an object for each image
    Json,
}

/// `--format json`
#[derive(Serialize)]
struct Report<'a> {
    id: Digest,
    names: &'a [Reference],
    /// Of the manifest.
    digest: Digest,
    /// As the image's configuration says (RFC 3339).
    created: Option<&'a str>,
    /// Bytes of the files of the unpacked layers.
    size: u64,
    layers: usize,
}

/// Runs `corten images` on the store under `root`.
pub fn run(args: &ImagesArgs, root: &Path) -> anyhow::Result<()> {
    let store = Store::open(root)?;
    let mut images = match &args.image {
        Some(name) => vec![store.resolve(name)?],
        None => store.images()?,
    };
    for filter in &args.filter {
        filter.apply(&store, &mut images)?;
    }
    let columns = Columns { whole: args.no_trunc, digests: args.digests };
    if args.quiet {
        let mut out = std::io::stdout().lock();
        images.sort_by_cached_key(|image| std::cmp::Reverse(created(image)));
        let mut seen = BTreeSet::new();
        for image in images.iter().filter(|image| seen.insert(image.id)) {
            writeln!(out, "{}", id(&image.id, args.no_trunc))?;
        }
        return Ok(());
    }
    print(images, args.format, columns)
}

/// What a table shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Columns {
    /// IDs are not shortened.
    pub(super) whole: bool,
    pub(super) digests: bool,
}

/// Prints images, the newest first.
pub(super) fn print(mut images: Vec<Image>, format: Format, columns: Columns) -> anyhow::Result<()> {
    images.sort_by_cached_key(|image| std::cmp::Reverse(created(image)));
    let mut out = std::io::stdout().lock();
    match format {
        Format::Json => {
            let reports: Vec<Report<'_>> = images
                .iter()
                .map(|image| Report {
                    id: image.id,
                    names: &image.names,
                    digest: image.manifest.digest,
                    created: image.config.created().as_deref(),
                    size: image.size,
                    layers: image.chain.len(),
                })
                .collect();
            serde_json::to_writer(&mut out, &reports)?;
            writeln!(out)?;
        }
        Format::Table => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
            table(&mut out, &rows(&images, now, columns))?;
        }
    }
    Ok(())
}

/// The headings and a row for each name.
fn rows(images: &[Image], now: u64, columns: Columns) -> Vec<Vec<String>> {
    let digest_column = |text: String| columns.digests.then_some(text);
    let cells = |repository: String, tag: String, digest: String, rest: [String; 3]| {
        [repository, tag].into_iter().chain(digest_column(digest)).chain(rest).collect::<Vec<_>>()
    };
    let mut rows = vec![cells(
        "REPOSITORY".to_owned(),
        "TAG".to_owned(),
        "DIGEST".to_owned(),
        ["IMAGE ID", "CREATED", "SIZE"].map(str::to_owned),
    )];
    for image in images {
        let age = created(image).map_or_else(|| "N/A".to_owned(), |created| age(now, created));
        let mut row = |repository: String, tag: String| {
            let rest = [id(&image.id, columns.whole), age.clone(), size(image.size)];
            rows.push(cells(repository, tag, image.manifest.digest.to_string(), rest));
        };
        if image.names.is_empty() {
            row("<none>".to_owned(), "<none>".to_owned());
        }
        for name in &image.names {
            let (repository, tag) = split(name);
            row(repository, tag.unwrap_or("<none>").to_owned());
        }
    }
    rows
}

/// The repository as docker shows it, and the tag.
pub(super) fn split(name: &Reference) -> (String, Option<&str>) {
    let familiar = name.familiar();
    let named = familiar.split('@').next().unwrap_or_default();
    let tag = name.tag();
    let suffix = tag.map(|tag| format!(":{tag}")).unwrap_or_default();
    (named.strip_suffix(suffix.as_str()).unwrap_or(named).to_owned(), tag)
}

fn table(out: &mut impl Write, rows: &[Vec<String>]) -> std::io::Result<()> {
    let mut widths = vec![0; rows.first().map_or(0, Vec::len)];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        let mut text = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            text.push_str(&format!("{cell:width$}   "));
        }
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(())
}

fn id(id: &Digest, whole: bool) -> String {
    if whole { id.to_string() } else { id.hex()[..12].to_owned() }
}

/// Three digits and a decimal unit, as Docker prints.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes}B");
    }
    let mut value = bytes as f64;
    let mut unit = "B";
    for larger in UNITS {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = larger;
    }
    let digits = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.digits$}{unit}")
}

pub(super) fn age(now: u64, created: i64) -> String {
    let seconds = i64::try_from(now).unwrap_or(i64::MAX).saturating_sub(created);
    let steps = [
        (365 * 24 * 3600, "year"),
        (30 * 24 * 3600, "month"),
        (7 * 24 * 3600, "week"),
        (24 * 3600, "day"),
        (3600, "hour"),
        (60, "minute"),
        (1, "second"),
    ];
    for (length, name) in steps {
        let count = seconds / length;
        // "14 days" says more than "2 weeks", and so on, below two of the larger unit.
        if count >= 2 || (count == 1 && length < 3600) {
            let plural = if count == 1 { "" } else { "s" };
            return format!("{count} {name}{plural} ago");
        }
    }
    "now".to_owned()
}

/// Seconds since 1970 at which the image was made, if it says so.
pub(super) fn created(image: &Image) -> Option<i64> {
    rfc3339(image.config.created().as_deref()?)
}

/// RFC 3339, section 5.6; the fraction is cut off.
pub(super) fn rfc3339(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| {
        let digits = text.get(range)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<i64>().ok())?
    };
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let zone = text.get(19..)?.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let offset = match zone.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), hours @ .., b':', _, _] if hours.len() == 2 => {
            let hours: i64 = zone.get(1..3)?.parse().ok()?;
            let minutes: i64 = zone.get(4..6)?.parse().ok()?;
            let offset = hours * 3600 + minutes * 60;
            if *sign == b'-' { -offset } else { offset }
        }
        _ => return None,
    };
    // Days since 1970 of a civil date, counted in years that begin in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (y.div_euclid(400), y.rem_euclid(400));
    let days =
        era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second - offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(rfc3339("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(rfc3339("2000-02-29T12:34:56.789012345Z"), Some(951_827_696));
        assert_eq!(rfc3339("2024-12-31T23:59:59+01:30"), Some(1_735_684_199));
        assert_eq!(rfc3339("1969-12-31T23:59:59-00:00"), Some(-1));
        for bad in
            ["", "2024", "2024-13-01T00:00:00Z", "2024-01-01T00:00:00", "2024-01-01T00:00:00+0130", "ä"]
        {
            assert_eq!(rfc3339(bad), None, "{bad}");
        }
    }

    #[test]
    fn ages() {
        let hour = 3600;
        assert_eq!(age(100, 100), "now");
        assert_eq!(age(100, 99), "1 second ago");
        assert_eq!(age(100, 10), "1 minute ago");
        assert_eq!(age(hour + 10, 0), "60 minutes ago");
        assert_eq!(age(47 * hour, 0), "47 hours ago");
        assert_eq!(age(13 * 24 * hour, 0), "13 days ago");
        assert_eq!(age(800 * 24 * hour, 0), "2 years ago");
        assert_eq!(age(0, 100), "now");
    }

    #[test]
    fn sizes() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.00kB"),
            (4_261_550, "4.26MB"),
            (77_900_000, "77.9MB"),
            (999_900_000, "1.00GB"),
            (1_800_000_000, "1.80GB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn columns_line_up() {
        let row = |cells: [&str; 5]| cells.map(str::to_owned).to_vec();
        let rows = [
            row(["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]),
            row(["localhost:5000/a", "latest", "0123456789ab", "now", "1B"]),
            row(["b", "1", "c", "d", "e"]),
        ];
        let mut out = Vec::new();
        table(&mut out, &rows).unwrap();
        let text = String::from_utf8(out).unwrap();
        let starts: Vec<_> =
            text.lines().zip(["TAG", "latest", "1 "]).map(|(line, tag)| line.find(tag)).collect();
        assert!(starts.iter().all(|start| *start == starts[0]), "{text}");
    }
}
