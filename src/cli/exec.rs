//! `corten exec`
use super::Context;
use super::container::environment;
use crate::engine::exec::Request;
use clap::Args;

/// Run another command in a running container
///
/// Exit codes are those of `corten run`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Do not wait for it, and drop its output
    #[arg(short, long)]
    detach: bool,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set an environment variable; without a value it is taken from here
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// Working directory
    #[arg(short, long, value_name = "PATH")]
    workdir: Option<String>,
    /// User, and group, by name or number [default: the container's]
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// All capabilities
    #[arg(long)]
    privileged: bool,
    /// The container, and what to run
    #[arg(
        value_name = "CONTAINER COMMAND",
        required = true,
        num_args = 2..,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    words: Vec<String>,
}

/// Runs `corten exec`.
pub fn run(args: &ExecArgs, context: &Context) -> anyhow::Result<u8> {
    let (name, command) = args.words.split_first().unwrap_or((const { &String::new() }, &[]));
    if name.starts_with('-') {
        anyhow::bail!("unknown flag {name}; see --help");
    }
    let record = context.engine.find(name)?;
    let request = Request {
        args: command.to_vec(),
        env: environment(&args.env)?,
        cwd: args.workdir.clone(),
        user: args.user.clone(),
        tty: args.tty,
        interactive: args.interactive,
        detach: args.detach,
        privileged: args.privileged,
    };
    Ok(context.engine.exec(&record, &request)?)
}
