//! `corten oci VERB …` and `corten-oci VERB …`, the face of runc.
//!
//! Flags, outputs, exit codes and the texts that callers match are runc's. Only the flags of the one verb
//! that is called are built: the start of this process is on the way of every container.
mod argv;
mod checkpoint;
mod create;
mod delete;
mod events;
mod exec;
mod features;
mod foreground;
mod kill;
mod list;
mod log;
mod pause;
mod ps;
mod resume;
mod run;
mod shown;
mod spec;
mod start;
mod state;
mod update;
mod version;
mod words;

use crate::cli::output;
use crate::runtime::cgroup::Driver;
use crate::runtime::rootless::{Rootless, in_user_namespace};
use argv::Flags;
use clap::{CommandFactory, Parser};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use words::{Count, Parsed, check_count, given, id, only_id, parse, words_of};

/// The name under which callers know this face.
const NAME: &str = "corten-oci";

/// The version of the runtime specification that configurations are written in.
const OCI_VERSION: &str = "1.3.0";

/// Exit code of an unknown verb (urfave/cli).
const NO_SUCH_VERB: u8 = 3;

/// Open Container Initiative runtime.
#[derive(Debug, PartialEq, Eq, Parser)]
#[command(name = NAME, disable_version_flag = true, disable_help_subcommand = true)]
#[command(override_usage = "corten-oci [global options] command [command options] [arguments...]")]
#[command(after_help = VERBS)]
struct Globals {
    /// Enable debug logging
    #[arg(long)]
    debug: bool,
    /// Set the log file to write logs to (default is '/dev/stderr')
    #[arg(long, value_name = "FILE", value_parser = words::path())]
    log: Option<PathBuf>,
    /// Set the log format ('text' (default), or 'json')
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: String,
    /// Root directory for storage of container state (this should be located in tmpfs)
    #[arg(long, value_name = "DIR", value_parser = words::path())]
    root: Option<PathBuf>,
    /// Path to the criu binary; accepted for older callers, there is no checkpointing
    #[arg(long, value_name = "PATH", value_parser = words::path())]
    criu: Option<PathBuf>,
    /// Enable systemd cgroup support, expects cgroupsPath to be of form "slice:prefix:name"
    #[arg(long)]
    systemd_cgroup: bool,
    /// Who makes cgroups ('cgroupfs', 'systemd', or 'disabled': nobody); crun's flag
    #[arg(long, value_name = "MANAGER")]
    cgroup_manager: Option<String>,
    /// Ignore cgroup permission errors ('true', 'false', or 'auto')
    #[arg(long, value_name = "BOOL", default_value = "auto")]
    rootless: String,
    /// Print the version
    #[arg(long, short = 'v')]
    version: bool,
    /// The verb and its words
    #[arg(hide = true)]
    rest: Vec<OsString>,
}

const VERBS: &str = "\
Commands:
  checkpoint  checkpoint a running container (not supported in this version)
  create      create a container
  delete      delete any resources held by the container
  events      print the resource statistics of a container
  exec        execute new process inside the container
  features    show the enabled features
  kill        send the specified signal (default: SIGTERM) to the container's init process
  list        list containers started with the given root
  pause       suspend all processes inside the container
  ps          display the processes running inside a container
  restore     restore a container from a previous checkpoint (not supported in this version)
  resume      resume all processes that have been previously paused
  run         create and run a container
  spec        create a new specification file
  start       execute the user defined process in a created container
  state       output the state of a container
  update      update container resource constraints
  help        show the commands, or the flags of one command";

impl Globals {
    /// The global options before the verb. Those that engines pass are read here: building a parser takes as long as
    /// reading config.json.
    fn parse_words(words: &[OsString]) -> Result<Parsed<Globals>, Failure> {
        match Globals::usual(words) {
            Some(globals) => Ok(Parsed::Words(globals)),
            None => parse::<Globals>(words, Flags::Lead),
        }
    }

    /// `None` for anything but long options as `--help` shows them, followed by a verb.
    fn usual(words: &[OsString]) -> Option<Globals> {
        let mut globals = Globals {
            debug: false,
            log: None,
            log_format: "text".into(),
            root: None,
            criu: None,
            systemd_cgroup: false,
            cgroup_manager: None,
            rootless: "auto".into(),
            version: false,
            rest: Vec::new(),
        };
        let mut rest = words.iter();
        loop {
            let before = rest.as_slice();
            let word = rest.next()?;
            if !word.as_encoded_bytes().starts_with(b"-") {
                globals.rest = before.to_vec();
                return Some(globals);
            }
            let (name, value) = match word.to_str()?.strip_prefix("--")?.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (&word.to_str()?[2..], None),
            };
            match (name, value) {
                ("debug", None) => globals.debug = true,
                ("systemd-cgroup", None) => globals.systemd_cgroup = true,
                ("log" | "log-format" | "root" | "cgroup-manager" | "rootless", _) => {
                    let value = value.or_else(|| rest.next()?.to_str())?.to_owned();
                    match name {
                        "log" => globals.log = Some(value.into()),
                        "log-format" => globals.log_format = value,
                        "root" => globals.root = Some(value.into()),
                        "cgroup-manager" => globals.cgroup_manager = Some(value),
                        _ => globals.rootless = value,
                    }
                }
                _ => return None,
            }
        }
    }
}

/// What every verb knows.
#[derive(Debug)]
struct Context {
    /// Directory of the records of containers, absolute.
    root: PathBuf,
    driver: Driver,
    rootless: Rootless,
}

/// Why a call failed, and how to end it.
#[derive(Debug)]
enum Failure {
    /// The words are wrong: the usage goes to standard output, as with runc.
    Usage { message: String, usage: String, code: u8 },
    /// The operation failed.
    Failed { message: String, code: u8 },
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Failed { message: format!("{:#}", error.into()), code: 1 }
    }
}

impl Failure {
    /// `what failed: cause`, with an exit code.
    fn of(what: &str, error: impl Into<anyhow::Error>, code: u8) -> Failure {
        Failure::Failed { message: format!("{what} failed: {:#}", error.into()), code }
    }
}

type Outcome = Result<ExitCode, Failure>;

/// Runs one verb and returns the exit code that runc would.
pub fn main(argv: &[OsString]) -> ExitCode {
    let words = argv.get(1..).unwrap_or_default();
    let globals = match Globals::parse_words(words) {
        Ok(Parsed::Words(globals)) => globals,
        Ok(Parsed::Help(text)) => return printed(output::stdout(text)),
        Err(failure) => return failed_early(failure),
    };
    if globals.version {
        return printed(output::stdout(version::text()));
    }
    let log = match prepare_log(&globals) {
        Ok(log) => log,
        Err(failure) => return failed_early(failure),
    };
    let done = dispatch(globals);
    match done {
        Ok(code) => {
            log.succeeded();
            code
        }
        Err(Failure::Failed { message, code }) => {
            log.failed(&message);
            ExitCode::from(code)
        }
        Err(Failure::Usage { message, usage, code }) => {
            // The error below is what counts; the usage is a courtesy.
            let _ = output::stdout(usage);
            log.failed(&message);
            ExitCode::from(code)
        }
    }
}

fn printed(result: std::io::Result<()>) -> ExitCode {
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A failure before there is a log.
fn failed_early(failure: Failure) -> ExitCode {
    let (message, code) = match failure {
        Failure::Failed { message, code } => (message, code),
        Failure::Usage { message, usage, code } => {
            // As above.
            let _ = output::stdout(usage);
            (message, code)
        }
    };
    match log::init(None, log::Format::Text, false) {
        Ok(log) => log.failed(&message),
        // Without a path nothing is opened; but an error must be told in any case.
        Err(_) => eprintln!("{message}"),
    }
    ExitCode::from(code)
}

fn prepare_log(globals: &Globals) -> Result<log::Handle, Failure> {
    let format = match globals.log_format.as_str() {
        "text" => log::Format::Text,
        "json" => log::Format::Json,
        other => return Err(anyhow::anyhow!("invalid log-format: {other}").into()),
    };
    Ok(log::init(given(globals.log.clone()).as_deref(), format, globals.debug)?)
}

/// Verbs whose output is read together with standard error: a warning of ours would spoil it.
const QUERIES: [&str; 5] = ["events", "features", "list", "ps", "state"];

fn dispatch(globals: Globals) -> Outcome {
    let rootless = rootless(&globals.rootless)?;
    let driver = driver(globals.cgroup_manager.as_deref(), globals.systemd_cgroup)?;
    let Some((verb, words)) = globals.rest.split_first() else {
        return Ok(printed(output::stdout(Globals::command().render_help().to_string())));
    };
    if given(globals.criu).is_some() && !QUERIES.iter().any(|known| verb == known) {
        tracing::warn!("--criu is ignored: there is no checkpointing in this version");
    }
    let context = Context { root: state_root(globals.root)?, driver, rootless };
    match (verb.to_str().unwrap_or_default(), words.first()) {
        ("help" | "h", None) => Ok(printed(output::stdout(Globals::command().render_help().to_string()))),
        ("help" | "h", Some(topic)) => call(&context, topic, &["--help".into()]),
        _ => call(&context, verb, words),
    }
}

fn call(context: &Context, verb: &OsStr, words: &[OsString]) -> Outcome {
    if ["create", "run", "exec"].iter().any(|known| verb == *known) {
        // Before anything of a container can see this process (CVE-2019-5736).
        crate::sys::exe::seal()?;
    }
    match verb.to_str().unwrap_or_default() {
        "checkpoint" => checkpoint::checkpoint(words),
        "create" => create::main(context, words),
        "delete" => delete::main(context, words),
        "events" => events::main(context, words),
        "exec" => exec::main(context, words),
        "features" => features::main(words),
        "kill" => kill::main(context, words),
        "list" => list::main(context, words),
        "pause" => pause::main(context, words),
        "ps" => ps::main(context, words),
        "restore" => checkpoint::restore(words),
        "resume" => resume::main(context, words),
        "run" => run::main(context, words),
        "spec" => spec::main(words),
        "start" => start::main(context, words),
        "state" => state::main(context, words),
        "update" => update::main(context, words),
        _ => Err(Failure::Failed {
            message: format!("No help topic for '{}'", verb.to_string_lossy()),
            code: NO_SUCH_VERB,
        }),
    }
}

/// The values of runc's parseBoolOrAuto (Go's strconv.ParseBool).
fn rootless(text: &str) -> Result<Rootless, Failure> {
    match text {
        "" | "auto" => Ok(Rootless::Auto),
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Rootless::Yes),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Rootless::No),
        other => Err(anyhow::anyhow!("invalid value for --rootless: {other:?}").into()),
    }
}

/// Who makes cgroups, from crun's flag and runc's.
fn driver(manager: Option<&str>, systemd: bool) -> Result<Driver, Failure> {
    match manager {
        None if systemd => Ok(Driver::Systemd),
        None | Some("cgroupfs") => Ok(Driver::Cgroupfs),
        Some("systemd") => Ok(Driver::Systemd),
        Some("disabled") => Ok(Driver::Disabled),
        Some(other) => Err(anyhow::anyhow!("unknown cgroup manager specified: {other}").into()),
    }
}

/// Where containers are recorded, unless the caller says where.
const DEFAULT_ROOT: &str = "/run/corten/oci";

/// `--root`, or runc's rule with our names: `/run` for root, `$XDG_RUNTIME_DIR` for others and for the root of
/// a user namespace that an ordinary user made.
fn state_root(root: Option<PathBuf>) -> Result<PathBuf, Failure> {
    if let Some(root) = given(root) {
        let root = std::path::absolute(root)?;
        if root == Path::new("/") {
            return Err(anyhow::anyhow!("--root must not be /").into());
        }
        return Ok(root);
    }
    let personal = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    match personal {
        Some(personal) if is_ordinary_user() => Ok(Path::new(&personal).join("corten/oci")),
        _ => Ok(DEFAULT_ROOT.into()),
    }
}

/// Where compiled seccomp filters are kept: the same place for every `--root`, because they belong to the host.
/// The root of a user namespace finds that the host's directory is not its own, and does without.
fn seccomp_cache() -> Option<PathBuf> {
    if nix::unistd::geteuid().is_root() {
        return Some("/run/corten/seccomp".into());
    }
    let personal = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty())?;
    Some(Path::new(&personal).join("corten/seccomp"))
}

fn is_ordinary_user() -> bool {
    if !nix::unistd::geteuid().is_root() {
        return true;
    }
    in_user_namespace() && std::env::var_os("USER").is_none_or(|user| user != "root")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_words_mean_what_the_parser_makes_of_them() {
        for line in [
            "run --bundle /b id",
            "--root /r --log /l --log-format json create --bundle /b id",
            "--root=/r --log= --systemd-cgroup --debug delete --force id",
            "--rootless=true --cgroup-manager systemd --root /a --root /b state -- id",
            "--root --debug list",
        ] {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let Ok(Parsed::Words(parsed)) = parse::<Globals>(&words, Flags::Lead) else {
                panic!("{line} was refused");
            };
            assert_eq!(Globals::usual(&words), Some(parsed), "{line}");
        }
        for line in [
            "--version",
            "-v",
            "-root /r run x",
            "--debug=true run x",
            "--nope run x",
            "--root",
            "--",
            "- run",
        ] {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert_eq!(Globals::usual(&words), None, "{line}");
        }
    }
}
