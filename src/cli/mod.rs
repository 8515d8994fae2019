//! The command lines. `corten VERB …` is the container tool; [`oci`] is the face of runc.
//!
//! Every verb is a module with its arguments and `run`, which returns the exit code. An error is printed
//! once, here, with its chain.
use crate::engine::{Engine, EngineError};
use crate::image::snapshot::Choice;
use crate::image::store::Store;
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

pub mod agent;
mod archive;
pub mod commit;
mod connection;
pub mod container;
pub mod create;
pub mod delete;
pub mod df;
pub mod diff;
pub mod exec;
pub mod fsck;
pub mod history;
pub mod image;
mod image_filter;
pub mod images;
pub mod info;
pub mod inspect;
pub mod kill;
mod limits;
pub mod load;
pub mod login;
pub mod logs;
pub mod monitor;
pub mod oci;
mod output;
pub mod prune;
pub mod ps;
pub mod pull;
pub mod push;
pub mod registry;
pub mod rmi;
pub mod run;
pub mod save;
pub mod search;
mod secret;
pub mod start;
pub mod stop;
pub mod tag;
pub mod version;
pub mod wait;

/// docker's exit code for a failure of the tool itself.
const TOOL_FAILED: u8 = 125;

/// Run containers from images, without a daemon
#[derive(Debug, Parser)]
#[command(name = "corten", version, disable_help_subcommand = true, max_term_width = 100)]
struct Top<V: Subcommand> {
    /// Where images, containers and volumes are kept [default: $CORTEN_ROOT or /var/lib/corten]
    #[arg(long, global = true, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Where running containers are kept track of [default: $CORTEN_STATE or /run/corten]
    #[arg(long, global = true, value_name = "DIR")]
    state: Option<PathBuf>,
    /// How containers get their root from an image's layers: auto, overlay or copy
    /// [default: $CORTEN_STORAGE_DRIVER or auto]
    #[arg(long, global = true, value_name = "DRIVER")]
    storage_driver: Option<Choice>,
    #[command(subcommand)]
    verb: V,
}

/// What starts a process in a container. The monitor of a container is a copy of this process: what the flags of all other
/// verbs take to build, a quarter of a MiB, it would keep for as long as it lives.
#[derive(Debug, Subcommand)]
enum Starting {
    Run(run::RunArgs),
    Create(create::CreateArgs),
    Start(start::StartArgs),
    Exec(exec::ExecArgs),
}

#[derive(Debug, Subcommand)]
enum Verb {
    #[command(flatten)]
    Starting(Box<Starting>),
    Pull(pull::PullArgs),
    Login(login::LoginArgs),
    Logout(login::LogoutArgs),
    Load(load::LoadArgs),
    Images(images::ImagesArgs),
    Rmi(rmi::RmiArgs),
    Prune(prune::PruneArgs),
    Df(df::DfArgs),
    Fsck(fsck::FsckArgs),
    Push(push::PushArgs),
    Tag(tag::TagArgs),
    Untag(tag::UntagArgs),
    Save(save::SaveArgs),
    Import(commit::ImportArgs),
    Export(commit::ExportArgs),
    Commit(commit::CommitArgs),
    Diff(diff::DiffArgs),
    History(history::HistoryArgs),
    Search(search::SearchArgs),
    Image(image::ImageArgs),
    Logs(logs::LogsArgs),
    Ps(ps::PsArgs),
    Inspect(inspect::InspectArgs),
    Stop(stop::StopArgs),
    Kill(kill::KillArgs),
    Wait(wait::WaitArgs),
    #[command(visible_alias = "rm")]
    Delete(delete::DeleteArgs),
    Version(version::VersionArgs),
    Info(info::InfoArgs),
    Agent(agent::AgentArgs),
}

/// What every verb works on.
#[derive(Debug)]
pub struct Context {
    /// The containers.
    pub engine: Engine,
}

impl Context {
    fn new(root: Option<PathBuf>, state: Option<PathBuf>, storage: Option<Choice>) -> anyhow::Result<Self> {
        let choose = |given: Option<PathBuf>, variable: &str, default: &str| {
            let path = given
                .or_else(|| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from))
                .unwrap_or_else(|| PathBuf::from(default));
            std::path::absolute(path)
        };
        let storage = match (storage, std::env::var("CORTEN_STORAGE_DRIVER")) {
            (Some(storage), _) => storage,
            (None, Ok(text)) if !text.is_empty() => text.parse()?,
            (None, _) => Choice::Auto,
        };
        let root = choose(root, "CORTEN_ROOT", "/var/lib/corten")?;
        let state = choose(state, "CORTEN_STATE", "/run/corten")?;
        Ok(Self { engine: Engine { storage, ..Engine::new(root, state) } })
    }

    /// The image store of the same root.
    pub fn store(&self) -> Result<Store, EngineError> {
        Ok(Store::open(&self.engine.root)?)
    }
}

/// `corten VERB …`, the container tool.
pub fn main(argv: &[OsString]) -> ExitCode {
    let parsed = if begins_starting(argv) {
        Top::<Starting>::try_parse_from(argv).map(|Top { root, state, storage_driver, verb }| Top {
            root,
            state,
            storage_driver,
            verb: Verb::Starting(Box::new(verb)),
        })
    } else {
        Top::<Verb>::try_parse_from(argv)
    };
    let top = match parsed {
        Ok(top) => top,
        Err(error) => {
            // A closed standard output leaves nobody to tell.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { TOOL_FAILED } else { 0 });
        }
    };
    match &top.verb {
        Verb::Agent(args) => args.start_log(),
        _ => tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .with_max_level(tracing::Level::WARN)
            .without_time()
            .with_target(false)
            .init(),
    }
    let result = Context::new(top.root, top.state, top.storage_driver)
        .and_then(|context| dispatch(&top.verb, &context));
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => ExitCode::from(report(&error)),
    }
}

/// Whether the verb is one of [`Starting`]; no for whatever is not plain.
fn begins_starting(argv: &[OsString]) -> bool {
    let mut words = argv.iter().skip(1).map(|word| word.to_str().unwrap_or_default());
    while let Some(word) = words.next() {
        match word {
            "--root" | "--state" | "--storage-driver" => drop(words.next()),
            _ if word.starts_with("--") && word.contains('=') => {}
            _ => return Starting::has_subcommand(word),
        }
    }
    false
}

fn dispatch(verb: &Verb, context: &Context) -> anyhow::Result<u8> {
    if matches!(verb, Verb::Starting(_) | Verb::Agent(_)) {
        // Before anything of a container can see this process (CVE-2019-5736).
        crate::sys::exe::seal()?;
    }
    match verb {
        Verb::Starting(verb) => match verb.as_ref() {
            Starting::Run(args) => run::run(args, context),
            Starting::Create(args) => create::run(args, context),
            Starting::Start(args) => start::run(args, context),
            Starting::Exec(args) => exec::run(args, context),
        },
        Verb::Pull(args) => pull::run(args, &context.engine.root).map(|()| 0),
        Verb::Login(args) => login::login(args).map(|()| 0),
        Verb::Logout(args) => login::logout(args).map(|()| 0),
        Verb::Load(args) => load::run(args, &context.engine.root).map(|()| 0),
        Verb::Images(args) => images::run(args, &context.engine.root).map(|()| 0),
        Verb::Rmi(args) => rmi::run(args, context),
        Verb::Prune(args) => prune::run(args, context),
        Verb::Df(args) => df::run(args, context),
        Verb::Fsck(args) => fsck::run(args, context),
        Verb::Push(args) => push::run(args, context).map(|()| 0),
        Verb::Tag(args) => tag::run(args, context).map(|()| 0),
        Verb::Untag(args) => tag::untag(args, context).map(|()| 0),
        Verb::Save(args) => save::run(args, context).map(|()| 0),
        Verb::Import(args) => commit::import(args, context).map(|()| 0),
        Verb::Export(args) => commit::export(args, context).map(|()| 0),
        Verb::Commit(args) => commit::commit(args, context).map(|()| 0),
        Verb::Diff(args) => diff::run(args, context).map(|()| 0),
        Verb::History(args) => history::run(args, context).map(|()| 0),
        Verb::Search(args) => search::run(args, context).map(|()| 0),
        Verb::Image(args) => image::run(args, context),
        Verb::Logs(args) => logs::run(args, context),
        Verb::Ps(args) => ps::run(args, context),
        Verb::Inspect(args) => inspect::run(args, context),
        Verb::Stop(args) => stop::run(args, context),
        Verb::Kill(args) => kill::run(args, context),
        Verb::Wait(args) => wait::run(args, context),
        Verb::Delete(args) => delete::run(args, context),
        Verb::Version(args) => version::run(args),
        Verb::Info(args) => info::run(args, context),
        Verb::Agent(args) => agent::run(args, context),
    }
}

/// Prints an error with its chain and returns the exit code that goes with it.
fn report(error: &anyhow::Error) -> u8 {
    // Standard output was closed by its reader, as by `head`: the shell's code for SIGPIPE, and no noise.
    if is_broken_pipe(error) {
        return 128 + 13;
    }
    eprintln!("Error: {error:#}");
    match error.downcast_ref::<EngineError>() {
        Some(EngineError::Start { failure }) => failure.exit_code,
        _ => TOOL_FAILED,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let pipe = |error: &std::io::Error| error.kind() == std::io::ErrorKind::BrokenPipe;
    match error.downcast_ref::<EngineError>() {
        Some(EngineError::Sys(error)) => error.call == "write" && error.errno == nix::errno::Errno::EPIPE,
        _ => error.chain().any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(pipe)),
    }
}

/// Does something for each of several containers; one that fails is reported, and the others go on.
fn for_each(names: &[String], mut work: impl FnMut(&str) -> anyhow::Result<()>) -> anyhow::Result<u8> {
    let mut code = 0;
    for name in names {
        if let Err(error) = work(name) {
            code = report(&error);
        }
    }
    Ok(code)
}
