//! `corten history`
use super::Context;
use super::images::{age, rfc3339, size};
use super::output;
use crate::image::digest::Digest;
use crate::image::store::{Image, Store};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::time::{SystemTime, UNIX_EPOCH};

/// Show the steps that made an image, the last one first
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// By name or ID
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Do not shorten what is printed
    #[arg(long)]
    no_trunc: bool,
    /// Print IDs alone
    #[arg(long, short)]
    quiet: bool,
    /// What to print
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    format: Format,
}

/// How `corten history` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Columns for a reader
    Table,
    /// A JSON array with an object for each step
    Json,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Step {
    /// Of the image; only the last step is one.
    id: Option<Digest>,
    created: Option<String>,
    created_by: String,
    /// Bytes of the layer's files.
    size: u64,
    comment: String,
    /// The chain ID of its layer, if the step made one.
    layer: Option<Digest>,
}

/// Runs `corten history`.
pub fn run(args: &HistoryArgs, context: &Context) -> anyhow::Result<()> {
    let store = context.store()?;
    let image = store.resolve(&args.image)?;
    let steps = steps(&store, &image)?;
    let shown = |id: &Option<Digest>| match id {
        Some(id) if args.no_trunc => id.to_string(),
        Some(id) => id.hex()[..12].to_owned(),
        None => "<missing>".to_owned(),
    };
    if args.quiet {
        let ids: String = steps.iter().map(|step| shown(&step.id) + "\n").collect();
        return Ok(output::stdout(ids)?);
    }
    if args.format == Format::Json {
        return Ok(output::stdout(serde_json::to_string(&steps)? + "\n")?);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let headings = ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"].map(str::to_owned).to_vec();
    let rows = steps.iter().map(|step| {
        let created = step.created.as_deref().and_then(rfc3339);
        vec![
            shown(&step.id),
            created.map_or_else(|| "N/A".to_owned(), |created| age(now, created)),
            if args.no_trunc { step.created_by.clone() } else { short(&step.created_by) },
            size(step.size),
            if args.no_trunc { step.comment.clone() } else { short(&step.comment) },
        ]
    });
    let rows: Vec<Vec<String>> = std::iter::once(headings).chain(rows).collect();
    let table: String = output::table(&rows).lines().map(|line| line.trim_end().to_owned() + "\n").collect();
    Ok(output::stdout(table)?)
}

/// docker's 45 characters, on one line.
fn short(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line.char_indices().nth(45) {
        None => line,
        Some(_) => line.chars().take(44).chain(['…']).collect(),
    }
}

/// An image's history, the last step first; layers of which the history says nothing are steps too.
fn steps(store: &Store, image: &Image) -> anyhow::Result<Vec<Step>> {
    let mut layers = image.chain.iter();
    let mut steps = Vec::new();
    let step_of = |layer: Option<&Digest>| -> anyhow::Result<Step> {
        Ok(Step {
            id: None,
            created: None,
            created_by: String::new(),
            size: layer.map_or(Ok(0), |layer| store.layer_size(layer))?,
            comment: String::new(),
            layer: layer.copied(),
        })
    };
    for entry in image.config.history().iter().flatten() {
        let empty = entry.empty_layer().unwrap_or(false);
        let mut step = step_of(if empty { None } else { layers.next() })?;
        step.created = entry.created().clone();
        step.created_by = entry.created_by().clone().unwrap_or_default();
        step.comment = entry.comment().clone().unwrap_or_default();
        steps.push(step);
    }
    for layer in layers {
        steps.push(step_of(Some(layer))?);
    }
    steps.reverse();
    match steps.first_mut() {
        Some(last) => last.id = Some(image.id),
        None => steps.push(Step { id: Some(image.id), ..step_of(None)? }),
    }
    Ok(steps)
}
