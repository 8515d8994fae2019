//! `corten fsck`
use super::Context;
use super::output::stdout;
use crate::engine::Engine;
use crate::engine::names::Id;
use crate::image::store::{Finding, Fsck, Holders, Report};
use clap::{Args, ValueEnum};
use serde_json::json;

/// Something was wrong and is put right, as in fsck(8).
const REPAIRED: u8 = 1;
/// Something is wrong, as in fsck(8).
const LEFT: u8 = 4;

/// Verify the image store
///
/// Reads every blob, and compares every unpacked layer with what its blob unpacks to; that takes the time of a
/// load and the room of the largest layer. Ends with 0 if nothing is wrong, with 1 if all that was wrong is
/// repaired, with 4 if something is left, and with 125 if it could not look.
#[derive(Debug, Args)]
pub struct FsckArgs {
    /// Unpack damaged layers again from their blobs, and drop what is damaged and can only be pulled again
    ///
    /// Nothing may be pulled or loaded meanwhile, and no container made. Layers of running containers stay.
    #[arg(long)]
    pub repair: bool,
    /// Look at names, sizes and records only, and read no content
    #[arg(long)]
    pub quick: bool,
    /// What to print
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    pub format: Format,
}

/// What `fsck` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A line for each problem, and one with what was looked at
    Text,
    /// A JSON object
    Json,
}

struct Containers<'a>(&'a Engine);

impl Holders for Containers<'_> {
    fn keep_stopped(&self, holder: &str) -> Option<Box<dyn std::any::Any>> {
        let Some(id) = Id::parse(holder) else { return Some(Box::new(())) };
        // One that is gone cannot be started.
        if !self.0.directory(&id).exists() {
            return Some(Box::new(()));
        }
        // Before the lock: our own would be taken for a monitor's. One without a monitor runs without a lock.
        match self.0.status(&id) {
            Ok(status) if !status.is_live() => {}
            _ => return None,
        }
        let lock = self.0.try_lock(&id).ok().flatten()?;
        Some(Box::new(lock))
    }

    fn image_of(&self, holder: &str) -> Option<String> {
        Some(self.0.record(&Id::parse(holder)?).ok()??.image_id)
    }
}

/// Runs `corten fsck`.
pub fn run(args: &FsckArgs, context: &Context) -> anyhow::Result<u8> {
    let store = context.store()?;
    if args.repair {
        context.engine.sweep(&store)?;
    }
    let holders = Containers(&context.engine);
    let report = store.fsck(&Fsck { repair: args.repair, contents: !args.quick, holders: &holders })?;
    let code = match &report.findings {
        findings if findings.is_empty() => 0,
        findings if findings.iter().all(|finding| finding.outcome.is_settled()) => REPAIRED,
        _ => LEFT,
    };
    stdout(match args.format {
        Format::Text => text(&report),
        Format::Json => format!("{}\n", object(&report, code)),
    })?;
    Ok(code)
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for Finding { subject, problem, outcome } in &report.findings {
        text.push_str(&format!("{subject}: {problem}: {outcome}\n"));
    }
    let Report { findings, images, blobs, layers, leases } = report;
    let left = findings.iter().filter(|finding| !finding.outcome.is_settled()).count();
    text.push_str(&format!(
        "{images} images, {blobs} blobs, {layers} layers, {leases} leases: {} problems, {left} left\n",
        findings.len()
    ));
    text
}

fn object(report: &Report, code: u8) -> serde_json::Value {
    let findings: Vec<_> = report
        .findings
        .iter()
        .map(|Finding { subject, problem, outcome }| {
            json!({"subject": subject, "problem": problem.to_string(), "result": outcome})
        })
        .collect();
    json!({
        "clean": code == 0, "findings": findings, "images": report.images, "blobs": report.blobs,
        "layers": report.layers, "leases": report.leases,
    })
}
