//! The command lines.
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

pub mod images;
pub mod load;
pub mod oci;
mod output;
pub mod pull;
pub mod rmi;

/// The exit code of an error of the tool itself, as in podman and docker.
const FAILED: u8 = 125;

/// A lightweight container runtime.
#[derive(Debug, Parser)]
#[command(name = "corten", version)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// What every verb takes.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Where images and containers are kept [default: $CORTEN_ROOT, else /var/lib/corten]
    #[arg(long, global = true, value_name = "DIR")]
    root: Option<PathBuf>,
}

impl Global {
    /// Where images and containers are kept.
    pub fn root(&self) -> PathBuf {
        let environment =
            || std::env::var_os("CORTEN_ROOT").filter(|root| !root.is_empty()).map(PathBuf::from);
        self.root.clone().or_else(environment).unwrap_or_else(|| PathBuf::from("/var/lib/corten"))
    }
}

#[derive(Debug, Subcommand)]
enum Verb {
    Images(images::ImagesArgs),
    Load(load::LoadArgs),
    Pull(pull::PullArgs),
    Rmi(rmi::RmiArgs),
}

/// `corten VERB …`, the container tool.
pub fn main(argv: &[OsString]) -> ExitCode {
    let cli = match Cli::try_parse_from(argv) {
        Ok(cli) => cli,
        Err(error) => {
            // A closed standard stream leaves nobody to tell.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { FAILED } else { 0 });
        }
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::WARN)
        .without_time()
        .with_target(false)
        .init();
    let root = cli.global.root();
    let result = match &cli.verb {
        Verb::Images(args) => images::run(args, &root),
        Verb::Load(args) => load::run(args, &root),
        Verb::Pull(args) => pull::run(args, &root),
        Verb::Rmi(args) => rmi::run(args, &root),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}
