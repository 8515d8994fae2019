//! `corten agent`
use super::{Context, output};
use crate::agent::status::{self, Report};
use crate::agent::{Config, log, serve};
use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Exit code of `corten agent status` when no agent answers.
const NO_AGENT: u8 = 1;

/// Where the configuration is if no other place is named.
const CONFIG: &str = "/etc/corten/agent.toml";

/// Run the node agent: tasks for a kubelet, from ECS task definitions, and from files.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct AgentArgs {
    #[command(subcommand)]
    pub verb: Option<AgentVerb>,
    /// Only check the configuration and print what is in force
    #[arg(long)]
    pub check: bool,
    /// The configuration [default: /etc/corten/agent.toml if it is there]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Form of the log, which goes to standard error
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Which messages are logged
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t = LogLevel::Info)]
    pub log_level: LogLevel,
}

/// What can be asked of an agent that runs.
#[derive(Debug, Subcommand)]
pub enum AgentVerb {
    Status(StatusArgs),
}

/// Show what the running agent does; exit code 1 if there is none.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// What to print
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = StatusFormat::Text)]
    pub format: StatusFormat,
}

/// `--format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StatusFormat {
    /// A table for people
    Text,
    /// One JSON object
    Json,
}

/// `--log-format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
}

/// `--log-level`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Only failures
    Error,
    /// And what is doubtful
    Warn,
    /// And what happens
    Info,
    /// And every request
    Debug,
}

impl LogLevel {
    fn filter(self) -> tracing::Level {
        match self {
            Self::Error => tracing::Level::ERROR,
            Self::Warn => tracing::Level::WARN,
            Self::Info => tracing::Level::INFO,
            Self::Debug => tracing::Level::DEBUG,
        }
    }
}

impl AgentArgs {
    /// Starts the log that was asked for.
    pub fn start_log(&self) {
        let form = match self.log_format {
            LogFormat::Text => log::Form::Text,
            LogFormat::Json => log::Form::Json,
        };
        log::start(form, self.log_level.filter());
    }

    fn config(&self) -> anyhow::Result<Config> {
        let path = match &self.config {
            Some(path) => path,
            None if Path::new(CONFIG).exists() => Path::new(CONFIG),
            None => return Ok(Config::default()),
        };
        Ok(Config::load(path)?)
    }
}

/// Runs `corten agent`.
pub fn run(args: &AgentArgs, context: &Context) -> anyhow::Result<u8> {
    if let Some(AgentVerb::Status(status)) = &args.verb {
        return show(status, context);
    }
    let config = args.config()?;
    if args.check {
        output::stdout(toml::to_string(&config)?)?;
        return Ok(0);
    }
    serve::run(context.engine.clone(), config)?;
    Ok(0)
}

fn show(args: &StatusArgs, context: &Context) -> anyhow::Result<u8> {
    let asked = status::ask(&context.engine).context("the agent does not answer")?;
    let Some(report) = asked else {
        eprintln!("Error: no agent runs on {}", context.engine.state.display());
        return Ok(NO_AGENT);
    };
    output::stdout(match args.format {
        StatusFormat::Json => {
            let mut text = output::json(&report, b"  ")?;
            text.push(b'\n');
            text
        }
        StatusFormat::Text => text(&report).into_bytes(),
    })?;
    Ok(0)
}

fn text(report: &Report) -> String {
    let cell = str::to_owned;
    let mut rows = vec![
        vec![cell("version"), report.version.clone()],
        vec![cell("pid"), report.pid.to_string()],
        vec![cell("uptime"), format!("{} s, since {}", report.uptime_seconds, report.started)],
        vec![
            cell("memory"),
            format!("{} KiB, {} descriptors", report.resident_bytes / 1024, report.descriptors),
        ],
        vec![cell("monitors"), format!("{}, {} watched", report.monitors, report.watched)],
    ];
    for door in &report.doors {
        rows.push(vec![cell("door"), format!("{} at {}", door.name, door.address)]);
    }
    for (door, states) in &report.tasks {
        rows.push(vec![cell("tasks"), format!("{door}: {}", counts(states))]);
    }
    if !report.containers.is_empty() {
        rows.push(vec![cell("containers"), counts(&report.containers)]);
    }
    for file in &report.manifests {
        let pod = file.pod.as_deref().unwrap_or("-");
        let error = file.error.as_deref().map(|error| format!(": {error}")).unwrap_or_default();
        rows.push(vec![cell("manifest"), format!("{} {pod} {}{error}", file.file, file.state)]);
    }
    for failure in &report.failures {
        rows.push(vec![cell("failure"), format!("{} {} {}", failure.time, failure.level, failure.message)]);
    }
    output::table(&rows)
}

fn counts(states: &BTreeMap<String, usize>) -> String {
    states.iter().map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>().join(", ")
}
