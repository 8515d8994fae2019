//! `create`, and what it has in common with `run`.
use super::argv::Flags;
use super::{Context, DEFAULT_ROOT, Failure, Outcome, given, only_id, words_of};
use crate::runtime::create::{CreateRequest, StartMode, Stdio, create};
use crate::runtime::sd_notify;
use crate::runtime::spec;
use anyhow::Context as _;
use clap::{Args, Parser};
use oci_spec::runtime::{Process, Spec};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Creates a container
#[derive(Debug, Parser)]
#[command(name = "create", override_usage = "corten-oci create [command options] <container-id>")]
struct Words {
    #[command(flatten)]
    options: Options,
    #[arg(hide = true)]
    args: Vec<OsString>,
}

/// The flags of `create` that `run` has, too.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Path to the root of the bundle directory, defaults to the current directory
    #[arg(long, short, value_name = "DIR", value_parser = super::words::path())]
    bundle: Option<PathBuf>,
    /// Name of the configuration in the bundle, or its absolute path (crun's flag)
    #[arg(long, short = 'f', value_name = "FILE", default_value = "config.json")]
    config: PathBuf,
    /// Path to an AF_UNIX socket which will receive a file descriptor referencing the master end of the
    /// console's pseudoterminal
    #[arg(long, value_name = "SOCKET", value_parser = super::words::path())]
    pub(super) console_socket: Option<PathBuf>,
    /// Path to an AF_UNIX socket which will receive a file descriptor referencing the init process
    #[arg(long, value_name = "SOCKET", value_parser = super::words::path())]
    pidfd_socket: Option<PathBuf>,
    /// Specify the file to write the process id to
    #[arg(long, value_name = "FILE", value_parser = super::words::path())]
    pid_file: Option<PathBuf>,
    /// Do not use pivot root to jail process inside rootfs
    #[arg(long)]
    no_pivot: bool,
    /// Do not create a new session keyring for the container
    #[arg(long)]
    no_new_keyring: bool,
    /// Pass N additional file descriptors to the container (stdio + $LISTEN_FDS + N in total)
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
}

/// Who holds the other end of the container's terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attachment {
    /// This process, until the container's process ends.
    Foreground,
    /// Nobody of ours: this process ends before the container's.
    Detached,
}

pub(super) fn main(context: &Context, words: &[OsString]) -> Outcome {
    let words = words_of!(Words, words, Flags::Anywhere);
    let id = only_id::<Words>(&words.args)?;
    let done = request(context, id, words.options, Attachment::Detached)
        .and_then(|request| Ok(create(request)?.detach()?));
    done.map_err(|error| Failure::of("corten-oci create", error, 1))?;
    Ok(ExitCode::SUCCESS)
}

/// What the words ask for.
pub(super) fn request(
    context: &Context,
    id: String,
    options: Options,
    attachment: Attachment,
) -> anyhow::Result<CreateRequest> {
    let bundle = absolute(given(options.bundle).as_deref().unwrap_or(Path::new(".")))?;
    let mut spec = spec::load(&bundle, &options.config)?;
    let preserve_fds = options.preserve_fds + adopt_listen_fds(&mut spec);
    let wants_terminal = spec.process().as_ref().and_then(Process::terminal).unwrap_or(false);
    let stdio = stdio(wants_terminal, attachment, options.console_socket)?;
    prepare_root(&context.root)?;
    if notify_socket().is_some() {
        sd_notify::offer(&mut spec, &context.root, &id);
    }
    Ok(CreateRequest {
        start: StartMode::OnCall,
        seccomp_cache: super::seccomp_cache(),
        id,
        bundle,
        state_root: context.root.clone(),
        spec,
        cgroup_driver: context.driver,
        rootless: context.rootless,
        stdio,
        pid_file: given(options.pid_file),
        pidfd_socket: given(options.pidfd_socket),
        preserve_fds,
        no_pivot: options.no_pivot,
        no_new_keyring: options.no_new_keyring,
        root_mount: None,
        copy_up: Vec::new(),
    })
}

fn absolute(bundle: &Path) -> anyhow::Result<PathBuf> {
    let absolute = std::path::absolute(bundle).with_context(|| format!("bundle {}", bundle.display()))?;
    // The next step would only say that config.json is missing.
    std::fs::metadata(&absolute).with_context(|| format!("bundle {}", absolute.display()))?;
    Ok(absolute)
}

/// The rules of runc's checkTerminal.
pub(super) fn stdio(
    wants_terminal: bool,
    attachment: Attachment,
    console_socket: Option<PathBuf>,
) -> anyhow::Result<Stdio> {
    let detached = attachment == Attachment::Detached;
    match (wants_terminal, given(console_socket)) {
        (true, Some(path)) if detached => Ok(Stdio::ConsoleSocket(path)),
        (true, None) if detached => {
            anyhow::bail!(
                "cannot allocate tty if corten-oci will detach without setting console socket: use --console-socket"
            )
        }
        (_, Some(_)) => {
            anyhow::bail!("cannot use console socket if corten-oci will not detach or allocate tty")
        }
        (true, None) => Ok(Stdio::Terminal),
        (false, None) => Ok(Stdio::Inherit),
    }
}

/// The service manager's socket (sd_notify(3)).
pub(super) fn notify_socket() -> Option<String> {
    std::env::var("NOTIFY_SOCKET").ok().filter(|address| !address.is_empty())
}

/// Both ends of the notify socket of a created container, if we are asked for it and it has one. With a service manager
/// that cannot be reached the container runs all the same, as with runc and crun.
pub(super) fn notify_proxy(context: &Context, id: &str) -> anyhow::Result<Option<sd_notify::Proxy>> {
    let Some(address) = notify_socket() else { return Ok(None) };
    match sd_notify::Proxy::new(&context.root, id, &address) {
        Err(error @ sd_notify::NotifySocketError::Host { .. }) => {
            tracing::warn!("{}", crate::error::chain(&error));
            Ok(None)
        }
        other => Ok(other?),
    }
}

/// What `create` has added to a recorded environment is for the container's first process alone, and goes.
pub(super) fn forget_adopted(env: &mut Vec<String>) {
    let notify = sd_notify::variable();
    env.retain(|entry| *entry != notify);
    let pair = |pair: &[String]| pair[0].starts_with("LISTEN_FDS=") && pair[1] == "LISTEN_PID=1";
    if let Some(at) = env.windows(2).rposition(pair) {
        env.drain(at..at + 2);
    }
}

/// Number of sockets that systemd hands down to this very process (sd_listen_fds(3)); the container's
/// process, which is number 1 there, is told of them.
fn adopt_listen_fds(spec: &mut Spec) -> u32 {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) {
        return 0;
    }
    let count = number("LISTEN_FDS").unwrap_or(0);
    if let Some(process) = spec.process_mut().as_mut().filter(|_| count > 0) {
        let mut env = process.env().clone().unwrap_or_default();
        env.extend([format!("LISTEN_FDS={count}"), "LISTEN_PID=1".into()]);
        process.set_env(Some(env));
    }
    count
}

/// Makes the state root of an ordinary user, with the sticky bit: without it the user's session manager
/// removes directories that it thinks are forgotten (XDG Base Directory Specification).
fn prepare_root(root: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let given = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    if given.is_none() && root == Path::new(DEFAULT_ROOT) && !nix::unistd::geteuid().is_root() {
        anyhow::bail!(
            "neither XDG_RUNTIME_DIR nor --root says where an ordinary user's containers are recorded: \
             set XDG_RUNTIME_DIR, which a login does (/run/user/{}), or give --root",
            nix::unistd::geteuid()
        );
    }
    let personal = given.is_some_and(|dir| root.starts_with(&dir));
    if !personal || root.exists() {
        return Ok(());
    }
    let make = || {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root)?;
        let dir = std::fs::File::open(root)?;
        nix::sys::stat::fchmod(&dir, nix::sys::stat::Mode::from_bits_truncate(0o1700))?;
        std::io::Result::Ok(())
    };
    make().with_context(|| format!("state directory {}", root.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_create_added_to_the_environment_can_be_told() {
        let forget = |env: &[&str]| {
            let mut env: Vec<_> = env.iter().map(ToString::to_string).collect();
            forget_adopted(&mut env);
            env
        };
        let added = ["A=b", "LISTEN_FDS=2", "LISTEN_PID=1", "NOTIFY_SOCKET=/run/notify/notify.sock"];
        assert_eq!(forget(&added), ["A=b"]);
        for own in [&["LISTEN_FDS=2", "A=b"][..], &["NOTIFY_SOCKET=/own", "LISTEN_PID=1"], &[]] {
            assert_eq!(forget(own), own);
        }
    }

    #[test]
    fn a_terminal_needs_someone_to_hold_it() {
        use Attachment::{Detached, Foreground};
        let socket = || Some(PathBuf::from("/s"));
        assert!(matches!(stdio(true, Detached, socket()), Ok(Stdio::ConsoleSocket(_))));
        assert!(matches!(stdio(true, Foreground, None), Ok(Stdio::Terminal)));
        assert!(matches!(stdio(false, Foreground, None), Ok(Stdio::Inherit)));
        assert!(matches!(stdio(false, Detached, None), Ok(Stdio::Inherit)));
        for (terminal, attachment, console) in
            [(true, Detached, None), (true, Foreground, socket()), (false, Detached, socket())]
        {
            assert!(stdio(terminal, attachment, console).is_err());
        }
    }
}
