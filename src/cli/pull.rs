//! `corten pull REF`
use super::registry::RegistryArgs;
use anyhow::Context;
use clap::{Args, ValueEnum};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::limits::LimitArgs;
use crate::image::digest::Digest;
use crate::image::manifest::Descriptor;
use crate::image::platform::Platform;
use crate::image::pull::{self, Foreign, Need, Options, Progress, Pulled, Quiet};
use crate::image::reference::{Reference, ReferenceError};
use crate::image::store::Store;

/// Fetch an image from a registry and unpack it.
///
/// Prints the image's ID. On a terminal it shows the progress of each layer meanwhile.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// Which image, such as busybox, quay.io/team/app:1.2 or localhost:5000/app@sha256:…
    #[arg(value_name = "REF", value_parser = named)]
    pub reference: String,
    #[command(flatten)]
    pub registry: RegistryArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Which platform's image to take instead of this host's
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    /// Fetch layers that may not be distributed from where the manifest says they are
    #[arg(long)]
    pub foreign_layers: bool,
    /// How many layers are fetched and unpacked at once
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub parallel: u16,
    /// The same for all pulls of this machine together [default: twice the processors, 4 to 16]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub machine_parallel: Option<u16>,
    /// Show no progress
    #[arg(long, short)]
    pub quiet: bool,
    /// What to print in the end
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Id)]
    pub format: Format,
}

/// What `corten pull` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The image's ID
    Id,
    /// One JSON object
    Json,
}

/// `--format json`
#[derive(Serialize)]
struct Report<'a> {
    reference: &'a Reference,
    /// Of the manifest or index that the reference names.
    digest: Digest,
    id: Digest,
    /// Layers of the image.
    layers: usize,
    /// Layers that were unpacked by this call.
    unpacked: usize,
    /// Bytes of layers that came over the network.
    bytes: u64,
}

/// Runs `corten pull` on the store under `root`.
pub fn run(args: &PullArgs, root: &Path) -> anyhow::Result<()> {
    let store = Store::open(root)?;
    let (reference, pulled) = fetch(&store, args)?;
    let mut out = std::io::stdout().lock();
    match args.format {
        Format::Id => writeln!(out, "{}", pulled.image.id.hex()),
        Format::Json => {
            let report = Report {
                reference: &reference,
                digest: pulled.digest,
                id: pulled.image.id,
                layers: pulled.image.chain.len(),
                unpacked: pulled.unpacked,
                bytes: pulled.downloaded,
            };
            let text = serde_json::to_string(&report).context("cannot print the result")?;
            writeln!(out, "{text}")
        }
    }
    .context("cannot print the result")
}

/// A name that may be resolved by registries.conf: its grammar is that of any other.
fn named(text: &str) -> Result<String, ReferenceError> {
    text.parse::<Reference>().map(|_| text.to_owned())
}

/// Pulls an image, the first that there is of what a short name may mean; shows the progress if standard error is
/// a terminal and the user does not want it quiet.
fn fetch(store: &Store, args: &PullArgs) -> anyhow::Result<(Reference, Pulled)> {
    let access = args.registry.access()?;
    let candidates = access.registries.candidates(&args.reference)?;
    let mut failures = Vec::new();
    for reference in candidates {
        let bars = Bars::default();
        let quiet = args.quiet || !std::io::stderr().is_terminal();
        let progress: &dyn Progress = if quiet { &Quiet } else { &bars };
        let options = Options {
            platform: args.platform.clone(),
            access: access.clone(),
            limits: args.limits.limits(),
            foreign: if args.foreign_layers { Foreign::Fetch } else { Foreign::Refuse },
            parallel: args.parallel.into(),
            machine: args.machine_parallel.map_or_else(pull::machine_default, usize::from),
            progress,
        };
        match pull::pull(store, &reference, options) {
            Ok(pulled) => return Ok((reference, pulled)),
            Err(error) => failures.push(error),
        }
    }
    let last = failures.pop().context("registries.conf makes no name of it")?;
    for failure in &failures {
        eprintln!("Tried before: {}", crate::error::chain(failure));
    }
    Err(last.into())
}

/// One progress bar for each layer.
#[derive(Default)]
struct Bars {
    all: MultiProgress,
    layers: Mutex<Vec<ProgressBar>>,
}

impl Bars {
    fn layer(&self, layer: usize) -> Option<ProgressBar> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner).get(layer).cloned()
    }
}

/// Of a layer that is being fetched or unpacked.
const RUNNING: &str =
    "{prefix} {msg:11} [{bar:30}] {decimal_bytes:>9}/{decimal_total_bytes:9} {decimal_bytes_per_sec}";

/// Of a layer that needs nothing more.
const FINISHED: &str = "{prefix} {msg:11} {decimal_total_bytes}";

fn style(template: &str) -> ProgressStyle {
    // The templates are constants, which a test reads.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

fn finish(bar: &ProgressBar, message: &'static str) {
    bar.set_style(style(FINISHED));
    bar.finish_with_message(message);
}

impl Progress for Bars {
    fn begin(&self, layers: &[(Descriptor, Need)]) {
        let running = style(RUNNING);
        let bars = layers
            .iter()
            .map(|(descriptor, need)| {
                let bar = self.all.add(ProgressBar::new(descriptor.size).with_style(running.clone()));
                bar.set_prefix(descriptor.digest.hex()[..12].to_owned());
                match need {
                    Need::Nothing => finish(&bar, "present"),
                    Need::Unpacking => bar.set_message("unpacking"),
                    Need::Blob | Need::Both => bar.set_message("waiting"),
                }
                bar
            })
            .collect();
        let before =
            std::mem::replace(&mut *self.layers.lock().unwrap_or_else(PoisonError::into_inner), bars);
        for bar in before {
            self.all.remove(&bar);
        }
    }

    fn waiting(&self, layer: usize, bytes: u64) {
        if let Some(bar) = self.layer(layer) {
            bar.set_message("waiting");
            bar.set_position(bytes);
        }
    }

    fn resumed(&self, layer: usize, bytes: u64) {
        if let Some(bar) = self.layer(layer) {
            bar.set_message("resumed");
            bar.set_position(bytes);
            // They did not come over the network now.
            bar.reset_eta();
        }
    }

    fn downloaded(&self, layer: usize, bytes: u64) {
        if let Some(bar) = self.layer(layer) {
            if !matches!(bar.message().as_str(), "downloading" | "resumed") {
                bar.set_message("downloading");
                bar.set_position(0);
            }
            bar.inc(bytes);
        }
    }

    fn verified(&self, layer: usize) {
        if let Some(bar) = self.layer(layer) {
            bar.set_position(bar.length().unwrap_or(0));
            bar.set_message("unpacking");
        }
    }

    fn done(&self, layer: usize) {
        if let Some(bar) = self.layer(layer) {
            finish(&bar, "done");
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
