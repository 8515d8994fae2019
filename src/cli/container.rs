//! The flags that `run` and `create` share.
use super::Context;
use super::connection::ConnectionArgs;
use super::limits::LimitArgs;
use super::registry;
use crate::engine::EngineError;
use crate::engine::create::Request;
use crate::engine::launch::read_bounded;
use crate::engine::options::{Limits, Options, Seccomp, VolumeSource, parse};
use crate::engine::specgen::process::Overrides;
use crate::image::store::{Image, Store};
use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::process::Command;

/// An --env-file is read up to this size.
const MAX_ENV_FILE: u64 = 4 * 1024 * 1024;

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PullPolicy {
    /// If it is not there
    Missing,
    /// Before each use
    Always,
    /// It must be there
    Never,
}

/// The flags of `run` and `create`.
#[derive(Debug, Args)]
pub struct ContainerArgs {
    /// Give the container a name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Remove the container when it ends
    #[arg(long)]
    rm: bool,
    /// Set an environment variable; without a value it is taken from here
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Mount a directory or file of the host, or a volume. Options: ro, rw, [no]exec, [no]suid, [no]dev,
    /// nocopy, bind, rbind, private, rprivate, shared, rshared, slave, rslave
    #[arg(short, long, value_name = "[SOURCE:]PATH[:OPTIONS]")]
    volume: Vec<String>,
    /// Mount a tmpfs
    #[arg(long, value_name = "PATH[:OPTIONS]")]
    tmpfs: Vec<String>,
    /// Working directory
    #[arg(short, long, value_name = "PATH")]
    workdir: Option<String>,
    /// User, and group, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Program to run instead of the image's entry point
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Host name [default: the beginning of the id]
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Make the root file system read-only
    #[arg(long)]
    read_only: bool,
    /// Add a capability, or ALL
    #[arg(long, value_name = "CAP")]
    cap_add: Vec<String>,
    /// Take a capability away, or ALL
    #[arg(long, value_name = "CAP")]
    cap_drop: Vec<String>,
    /// All capabilities and devices; no seccomp filter, no masked paths
    #[arg(long)]
    privileged: bool,
    /// no-new-privileges, seccomp=unconfined|FILE, apparmor=PROFILE, label=disable
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Limit memory, as 512m
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<String>,
    /// Limit memory and swap together; -1 is unlimited [default: twice the memory]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Limit CPU time, as 1.5 CPUs
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<String>,
    /// Weight of its CPU time against others; 1024 is usual
    #[arg(short, long, value_name = "SHARES")]
    cpu_shares: Option<String>,
    /// The CPUs that it may use, as 0-3,5
    #[arg(long, value_name = "CPUS")]
    cpuset_cpus: Option<String>,
    /// Limit the number of processes and threads; -1 is unlimited
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<String>,
    /// Limit a resource of its processes, as nofile=1024:4096
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<String>,
    #[command(flatten)]
    connection: ConnectionArgs,
    /// When to pull the image
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = PullPolicy::Missing)]
    pull: PullPolicy,
    #[command(flatten)]
    unpacking: LimitArgs,
    /// What `stop` sends [default: the image's, or SIGTERM]
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// How long `stop` waits before it kills [default: 10]
    #[arg(long, value_name = "SECONDS")]
    stop_timeout: Option<u32>,
    /// Label the container
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// Write the container's id to a file that must not exist
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    /// The image, and what to run in it instead of the image's command
    #[arg(
        value_name = "IMAGE [COMMAND",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    words: Vec<String>,
}

impl ContainerArgs {
    /// Whether the container removes itself.
    pub fn removes_itself(&self) -> bool {
        self.rm
    }

    /// Whether it gets a terminal.
    pub fn tty(&self) -> bool {
        self.tty
    }

    /// Whether standard input stays open.
    pub fn interactive(&self) -> bool {
        self.interactive
    }

    /// The image's name.
    pub fn image(&self) -> &str {
        // clap requires one word at least.
        self.words.first().map_or("", String::as_str)
    }

    /// Checks every flag.
    pub fn request(&self) -> anyhow::Result<Request> {
        // Whatever follows the image belongs to the command, flags too, and so clap takes an unknown flag
        // before it for the image.
        if self.image().starts_with('-') {
            bail!("unknown flag {}; see --help", self.image());
        }
        Ok(Request {
            name: self.name.clone(),
            image: self.image().to_owned(),
            overrides: Overrides {
                entrypoint: self
                    .entrypoint
                    .as_ref()
                    .map(|program| if program.is_empty() { Vec::new() } else { vec![program.clone()] }),
                args: self.words.iter().skip(1).cloned().collect(),
                env: self.environment()?,
                cwd: self.workdir.clone(),
                user: self.user.clone(),
            },
            options: self.options()?,
            stop_signal: match &self.stop_signal {
                Some(text) => Some(parse::signal("--stop-signal", text)?),
                None => None,
            },
        })
    }

    fn options(&self) -> anyhow::Result<Options> {
        let (network, connection) = self.connection.parse()?;
        let mut options = Options {
            tty: self.tty,
            interactive: self.interactive,
            auto_remove: self.rm,
            read_only: self.read_only,
            privileged: self.privileged,
            hostname: self.hostname.as_deref().map(parse::hostname).transpose()?,
            network,
            connection,
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
            security: parse::security(&self.security_opt)?,
            limits: self.limits()?,
            ulimits: all(&self.ulimit, parse::ulimit)?,
            volumes: all(&self.volume, parse::volume)?,
            tmpfs: all(&self.tmpfs, parse::tmpfs)?,
            stop_timeout: self.stop_timeout,
            labels: all(&self.label, parse::label)?.into_iter().collect(),
            ..Options::default()
        };
        if let Seccomp::File(path) = &mut options.security.seccomp {
            *path = std::path::absolute(&path)?;
        }
        for volume in &mut options.volumes {
            if let VolumeSource::Host(path) = &mut volume.source {
                *path = std::path::absolute(&path)?;
            }
        }
        Ok(options)
    }

    fn limits(&self) -> Result<Limits, EngineError> {
        let memory = self.memory.as_deref().map(parse::memory).transpose()?;
        Ok(Limits {
            memory,
            memory_swap: self
                .memory_swap
                .as_deref()
                .map(|text| parse::memory_swap(text, memory))
                .transpose()?,
            nano_cpus: self.cpus.as_deref().map(parse::cpus).transpose()?,
            cpu_shares: self.cpu_shares.as_deref().map(parse::cpu_shares).transpose()?,
            cpuset_cpus: self.cpuset_cpus.as_deref().map(parse::cpuset).transpose()?,
            pids: self.pids_limit.as_deref().map(parse::pids_limit).transpose()?,
            ..Limits::default()
        })
    }

    fn environment(&self) -> anyhow::Result<Vec<String>> {
        let mut env = Vec::new();
        for path in &self.env_file {
            let content = read_bounded(path, MAX_ENV_FILE).context("--env-file")?;
            let content = String::from_utf8(content)
                .with_context(|| format!("--env-file {} is not UTF-8", path.display()))?;
            env.extend(parse::env_file(&content, variable)?);
        }
        env.extend(environment(&self.env)?);
        Ok(env)
    }

    /// The image from the store, pulled if the policy says so.
    pub fn resolve(&self, context: &Context, store: &Store) -> anyhow::Result<Image> {
        if self.pull == PullPolicy::Always {
            pull(context, self.image(), &self.unpacking)?;
        }
        if let Some(image) = registry::find(store, self.image())? {
            return Ok(image);
        }
        let missing = || EngineError::ImageMissing { image: self.image().to_owned() };
        if self.pull != PullPolicy::Missing {
            return Err(missing().into());
        }
        pull(context, self.image(), &self.unpacking)?;
        Ok(registry::find(store, self.image())?.ok_or_else(missing)?)
    }

    /// Claims the file of `--cidfile` before anything is made.
    pub fn claim_cidfile(&self) -> anyhow::Result<Option<CidFile>> {
        self.cidfile.as_deref().map(CidFile::claim).transpose()
    }
}

/// A file that gets the container's id; removed again if there is no container in the end.
#[derive(Debug)]
pub struct CidFile {
    path: PathBuf,
    kept: bool,
}

impl CidFile {
    fn claim(path: &Path) -> anyhow::Result<Self> {
        std::fs::File::create_new(path).with_context(|| format!("--cidfile {}", path.display()))?;
        Ok(Self { path: path.to_owned(), kept: false })
    }

    /// Writes the id.
    pub fn keep(mut self, id: &str) -> anyhow::Result<()> {
        std::fs::write(&self.path, id).with_context(|| format!("--cidfile {}", self.path.display()))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for CidFile {
    fn drop(&mut self) {
        if !self.kept {
            // The failure that led here is the one to tell.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn all<T>(texts: &[String], parser: impl Fn(&str) -> Result<T, EngineError>) -> Result<Vec<T>, EngineError> {
    texts.iter().map(|text| parser(text)).collect()
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The values of several `-e`.
pub fn environment(texts: &[String]) -> Result<Vec<String>, EngineError> {
    Ok(all(texts, |text| parse::env(text, variable))?.into_iter().flatten().collect())
}

/// Pulls in a process of its own: a pull has threads, and a container is never set up in a process that has
/// any. What it prints goes to our standard error, as ours is the container's.
fn pull(context: &Context, image: &str, limits: &LimitArgs) -> anyhow::Result<()> {
    let status = Command::new("/proc/self/exe")
        .arg("--root")
        .arg(&context.engine.root)
        .arg("pull")
        .args(limits.words())
        .args(["--", image])
        .stdin(std::process::Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .context("starting the pull")?;
    if status.success() { Ok(()) } else { Err(EngineError::PullFailed { image: image.to_owned() }.into()) }
}
