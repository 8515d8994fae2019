//! `corten diff`
use super::Context;
use crate::engine::EngineError;
use crate::image::diff::{self, Change, ChangeKind, Marks, Stacked};
use crate::image::digest::Digest;
use crate::image::store::Store;
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

/// List the files that a container has changed, or that differ between two images
///
/// A is added, C is changed, D is deleted. One image is compared with what is below its top layer.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// A container or an image; a container wins
    #[arg(value_name = "CONTAINER|IMAGE")]
    one: String,
    /// Another image, which is compared with the first one
    #[arg(value_name = "IMAGE")]
    other: Option<String>,
    /// What to print
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
}

/// What `corten diff` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One line for each path
    Text,
    /// One object with three lists, as podman's
    Json,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changed: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    added: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deleted: Vec<String>,
}

/// Runs `corten diff`.
pub fn run(args: &DiffArgs, context: &Context) -> anyhow::Result<()> {
    let store = context.store()?;
    let changes = match &args.other {
        Some(other) => {
            let (one, other) = (store.resolve(&args.one)?.chain, store.resolve(other)?.chain);
            compare(&store, &one, &other)?
        }
        None => match context.engine.find(&args.one) {
            Ok(record) => context.engine.changes(&store, &record)?,
            Err(error @ EngineError::NoSuchContainer { .. }) => {
                let Ok(image) = store.resolve(&args.one) else { return Err(error.into()) };
                compare(&store, &image.chain[..image.chain.len().saturating_sub(1)], &image.chain)?
            }
            Err(error) => return Err(error.into()),
        },
    };
    print(&changes, args.format)
}

fn compare(store: &Store, old: &[Digest], new: &[Digest]) -> anyhow::Result<Vec<Change>> {
    // They stay while they are read.
    let _import = store.import()?;
    let open = |chain: &[Digest]| -> anyhow::Result<Stacked> {
        let dirs = store.stack(chain)?;
        let dirs = dirs.iter().map(|dir| File::open(dir).map(OwnedFd::from)).collect::<Result<_, _>>()?;
        Ok(Stacked::new(dirs, Marks::here()))
    };
    Ok(diff::compare(&open(old)?, &open(new)?)?)
}

fn print(changes: &[Change], format: Format) -> anyhow::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match format {
        Format::Text => {
            for Change { path, kind } in changes {
                let letter = match kind {
                    ChangeKind::Added => "A",
                    ChangeKind::Changed => "C",
                    ChangeKind::Deleted => "D",
                };
                write!(out, "{letter} /")?;
                out.write_all(path)?;
                writeln!(out)?;
            }
        }
        Format::Json => {
            let mut report = Report::default();
            for Change { path, kind } in changes {
                let list = match kind {
                    ChangeKind::Added => &mut report.added,
                    ChangeKind::Changed => &mut report.changed,
                    ChangeKind::Deleted => &mut report.deleted,
                };
                list.push(format!("/{}", String::from_utf8_lossy(path)));
            }
            serde_json::to_writer(&mut out, &report)?;
            writeln!(out)?;
        }
    }
    Ok(out.flush()?)
}
