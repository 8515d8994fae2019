//! `corten pull REF`
use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::limits::LimitArgs;
use crate::image::digest::Digest;
use crate::image::manifest::Descriptor;
use crate::image::platform::Platform;
use crate::image::pull::{self, Need, Options, Progress, Pulled, Quiet};
use crate::image::reference::Reference;
use crate::image::registry::Credentials;
use crate::image::registry::credentials::{self, Environment, Found};
use crate::image::store::Store;

/// Fetch an image from a registry and unpack it.
///
/// Prints the image's ID. On a terminal it shows the progress of each layer meanwhile.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// Which image, such as busybox, quay.io/team/app:1.2 or localhost:5000/app@sha256:…
    #[arg(value_name = "REF")]
    pub reference: Reference,
    #[command(flatten)]
    pub registry: RegistryArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Show no progress
    #[arg(long, short)]
    pub quiet: bool,
    /// What to print in the end
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Id)]
    pub format: Format,
}

/// What every command that may pull takes.
#[derive(Debug, Clone, Default, Args)]
pub struct RegistryArgs {
    /// Which platform's image to take instead of this host's
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    /// Credentials for the registry, instead of stored ones
    #[arg(long, value_name = "USER:PASSWORD")]
    pub creds: Option<String>,
    /// Read credentials from this file alone [default: $REGISTRY_AUTH_FILE, else podman's auth.json and Docker's
    /// config.json]
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
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
    let pulled = fetch(&store, &args.reference, &args.registry, &args.limits, args.quiet)?;
    let mut out = std::io::stdout().lock();
    match args.format {
        Format::Id => writeln!(out, "{}", pulled.image.id.hex()),
        Format::Json => {
            let report = Report {
                reference: &args.reference,
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

/// Pulls an image; shows the progress if standard error is a terminal and the user does not want it quiet.
pub fn fetch(
    store: &Store,
    reference: &Reference,
    args: &RegistryArgs,
    limits: &LimitArgs,
    quiet: bool,
) -> anyhow::Result<Pulled> {
    let found = match &args.creds {
        Some(text) => match text.split_once(':') {
            Some((user, password)) if !user.is_empty() => {
                Found::Credentials(Credentials::new(user, password))
            }
            _ => bail!("invalid --creds: want USER:PASSWORD"),
        },
        None => {
            let mut environment = Environment::of_process();
            environment.auth_file = args.authfile.clone().or(environment.auth_file);
            credentials::find(reference, &environment)?
        }
    };
    let bars = Bars::default();
    let progress: &dyn Progress = if quiet || !std::io::stderr().is_terminal() { &Quiet } else { &bars };
    let options = Options {
        platform: args.platform.clone(),
        credentials: found,
        limits: limits.limits(),
        progress,
        ..Options::default()
    };
    Ok(pull::pull(store, reference, options)?)
}

/// One progress bar for each layer.
#[derive(Default)]
struct Bars {
    all: MultiProgress,
    layers: OnceLock<Vec<ProgressBar>>,
}

impl Bars {
    fn layer(&self, layer: usize) -> Option<&ProgressBar> {
        self.layers.get()?.get(layer)
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
        // A pull begins once.
        let _ = self.layers.set(bars);
    }

    fn downloaded(&self, layer: usize, bytes: u64) {
        if let Some(bar) = self.layer(layer) {
            if bar.position() == 0 {
                bar.set_message("downloading");
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
            finish(bar, "done");
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
