//! `corten agent`
use super::Context;
use crate::agent::{Config, serve};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};

/// Where the configuration is if no other place is named.
const CONFIG: &str = "/etc/corten/agent.toml";

/// Run the node agent: tasks for a kubelet, from ECS task definitions, and from files.
#[derive(Debug, Args)]
pub struct AgentArgs {
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
        tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .with_max_level(self.log_level.filter())
            .with_target(false)
            .with_ansi(false)
            .init();
    }

    fn config(&self) -> anyhow::Result<Config> {
        Ok(match &self.config {
            Some(path) => Config::load(path)?,
            None if Path::new(CONFIG).exists() => Config::load(Path::new(CONFIG))?,
            None => Config::default(),
        })
    }
}

/// Runs `corten agent`.
pub fn run(args: &AgentArgs, context: &Context) -> anyhow::Result<u8> {
    serve::run(context.engine.clone(), args.config()?)?;
    Ok(0)
}
