//! `corten push`
use super::Context;
use super::registry::RegistryArgs;
use crate::image::digest::Digest;
use crate::image::manifest::Descriptor;
use crate::image::push::{self, Options, Progress, Quiet};
use crate::image::reference::Reference;
use crate::image::registry::Uploaded;
use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::OnceLock;

/// Send an image to a registry
///
/// It goes byte for byte, so that its digests stay what they are. Prints the manifest's digest.
#[derive(Debug, Args)]
pub struct PushArgs {
    /// By name or ID
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Where to, if that is not what IMAGE says
    #[arg(value_name = "NAME")]
    destination: Option<String>,
    #[command(flatten)]
    registry: RegistryArgs,
    /// How many layers are sent at once
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=16))]
    parallel: u16,
    /// Write the manifest's digest into this file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
    /// What to print in the end
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Digest)]
    format: Format,
}

/// What `corten push` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The manifest's digest
    Digest,
    /// One JSON object
    Json,
}

#[derive(Serialize)]
struct Report<'a> {
    reference: &'a Reference,
    digest: Digest,
    /// Layers and configurations that were sent, taken from another repository of the registry, and there already.
    sent: usize,
    mounted: usize,
    present: usize,
    bytes: u64,
}

/// Runs `corten push`.
pub fn run(args: &PushArgs, context: &Context) -> anyhow::Result<()> {
    let store = context.store()?;
    let image = store.resolve(&args.image)?;
    let to = destination(args)?;
    let access = args.registry.access()?;
    let bars = Bars::default();
    let quiet = args.quiet || !std::io::stderr().is_terminal();
    let progress: &dyn Progress = if quiet { &Quiet } else { &bars };
    let options = Options { access: &access, parallel: args.parallel.into(), progress };
    let pushed = push::push(&store, &image, &to, &options)?;
    if let Some(path) = &args.digestfile {
        std::fs::write(path, pushed.digest.to_string())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let text = match args.format {
        Format::Digest => pushed.digest.to_string(),
        Format::Json => serde_json::to_string(&Report {
            reference: &to,
            digest: pushed.digest,
            sent: pushed.sent,
            mounted: pushed.mounted,
            present: pushed.present,
            bytes: pushed.bytes,
        })?,
    };
    Ok(super::output::stdout(text + "\n")?)
}

fn destination(args: &PushArgs) -> anyhow::Result<Reference> {
    let text = args.destination.as_ref().unwrap_or(&args.image);
    // podman's and skopeo's word for a registry.
    let name = text.strip_prefix("docker://").unwrap_or(text);
    if ["oci:", "oci-archive:", "dir:", "docker-archive:", "containers-storage:"]
        .iter()
        .any(|kind| name.starts_with(kind))
    {
        bail!("corten pushes to registries: see corten save for {name}");
    }
    name.parse().with_context(|| format!("{name:?} is no name to push to: give one after the image"))
}

/// One progress bar for each blob.
#[derive(Default)]
struct Bars {
    all: MultiProgress,
    blobs: OnceLock<Vec<ProgressBar>>,
}

/// Of a blob that is being sent.
const RUNNING: &str =
    "{prefix} {msg:9} [{bar:30}] {decimal_bytes:>9}/{decimal_total_bytes:9} {decimal_bytes_per_sec}";
/// Of a blob that the registry has.
const FINISHED: &str = "{prefix} {msg:9} {decimal_total_bytes}";

fn style(template: &str) -> ProgressStyle {
    // The templates are constants, which a test reads.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

impl Progress for Bars {
    fn begin(&self, blobs: &[Descriptor]) {
        let bars = blobs.iter().map(|blob| {
            let bar = self.all.add(ProgressBar::new(blob.size).with_style(style(RUNNING)));
            bar.set_prefix(blob.digest.hex()[..12].to_owned());
            bar.set_message("waiting");
            bar
        });
        // A push begins once.
        let _ = self.blobs.set(bars.collect());
    }

    fn sent(&self, blob: usize, bytes: u64) {
        if let Some(bar) = self.blobs.get().and_then(|bars| bars.get(blob)) {
            if bar.position() == 0 {
                bar.set_message("sending");
            }
            bar.inc(bytes);
        }
    }

    fn done(&self, blob: usize, how: Uploaded) {
        if let Some(bar) = self.blobs.get().and_then(|bars| bars.get(blob)) {
            bar.set_style(style(FINISHED));
            bar.finish_with_message(match how {
                Uploaded::Present => "present",
                Uploaded::Mounted => "mounted",
                Uploaded::Sent => "done",
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_valid() {
        for template in [RUNNING, FINISHED] {
            ProgressStyle::with_template(template).unwrap();
        }
    }
}
