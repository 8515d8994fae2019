//! `exec`.
use super::argv::Flags;
use super::create::{Attachment, forget_adopted, stdio};
use super::foreground::Foreground;
use super::{Context, Count, Failure, Outcome, check_count, given, id, words_of};
use crate::runtime::exec::{ExecRequest, exec};
use crate::runtime::spec;
use crate::runtime::state::State;
use anyhow::{Context as _, ensure};
use clap::Parser;
use oci_spec::runtime::Process;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// Callers tell a failure of exec from the program's own exit code by this (runc).
const FAILED: u8 = 255;

/// Executes new process inside the container
#[derive(Debug, Parser)]
#[command(name = "exec")]
#[command(
    override_usage = "corten-oci exec [command options] <container-id> <command> [command options] || -p process.json <container-id>"
)]
struct Words {
    /// Path to an AF_UNIX socket which will receive a file descriptor referencing the master end of the
    /// console's pseudoterminal
    #[arg(long, value_name = "SOCKET", value_parser = super::words::path())]
    console_socket: Option<PathBuf>,
    /// Path to an AF_UNIX socket which will receive a file descriptor referencing the exec process
    #[arg(long, value_name = "SOCKET", value_parser = super::words::path())]
    pidfd_socket: Option<PathBuf>,
    /// Current working directory in the container
    #[arg(long, value_name = "DIR", value_parser = super::words::path())]
    cwd: Option<PathBuf>,
    /// Set environment variables
    #[arg(long, short, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Allocate a pseudo-TTY
    #[arg(long, short)]
    tty: bool,
    /// UID (format: <uid>[:<gid>])
    #[arg(long, short, value_name = "UID[:GID]")]
    user: Option<String>,
    /// Additional gids
    #[arg(long, short = 'g', value_name = "GID", value_delimiter = ',')]
    additional_gids: Vec<String>,
    /// Path to the process.json
    #[arg(long, short, value_name = "FILE", value_parser = super::words::path())]
    process: Option<PathBuf>,
    /// Detach from the container's process
    #[arg(long, short)]
    detach: bool,
    /// Specify the file to write the process id to
    #[arg(long, value_name = "FILE", value_parser = super::words::path())]
    pid_file: Option<PathBuf>,
    /// Set the asm process label for the process commonly used with selinux
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// Set the apparmor profile for the process
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// Set the no new privileges value for the process
    #[arg(long)]
    no_new_privs: bool,
    /// Add a capability to the bounding set for the process
    #[arg(long, short, value_name = "CAP")]
    cap: Vec<String>,
    /// Pass N additional file descriptors to the container (stdio + $LISTEN_FDS + N in total)
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// Run the process in an (existing) sub-cgroup(s). Format is [<controller>:]<cgroup>.
    #[arg(long, value_name = "CGROUP")]
    cgroup: Vec<String>,
    /// Allow exec in a paused container
    #[arg(long)]
    ignore_paused: bool,
    #[arg(hide = true)]
    args: Vec<OsString>,
}

pub(super) fn main(context: &Context, words: &[OsString]) -> Outcome {
    let words = words_of!(Words, words, Flags::Lead);
    check_count::<Words>(&words.args, Count::AtLeast(1))?;
    run(context, words).map_err(|error| Failure::of("exec", error, FAILED))
}

fn run(context: &Context, words: Words) -> anyhow::Result<ExitCode> {
    let id = id(&words.args[0]);
    let process = process(context, &id, &words)?;
    let attachment = if words.detach { Attachment::Detached } else { Attachment::Foreground };
    let stdio = stdio(process.terminal().unwrap_or(false), attachment, words.console_socket)?;
    let request = ExecRequest {
        seccomp_cache: super::seccomp_cache(),
        id,
        state_root: context.root.clone(),
        process,
        stdio,
        pid_file: given(words.pid_file),
        pidfd_socket: given(words.pidfd_socket),
        preserve_fds: words.preserve_fds,
        ignore_paused: words.ignore_paused,
        rootless: context.rootless,
        cgroups: words.cgroup.iter().map(|text| sub_cgroup(text)).collect::<Result<_, _>>()?,
    };
    if words.detach {
        exec(request)?;
        return Ok(ExitCode::SUCCESS);
    }
    // Before the process exists: a signal that arrives from here on is for it.
    let foreground = Foreground::prepare(false)?;
    let process = exec(request)?;
    Ok(ExitCode::from(foreground.attend(process, None)?))
}

/// `--process`, or the container's own process with what the words change.
fn process(context: &Context, id: &str, words: &Words) -> anyhow::Result<Process> {
    if let Some(path) = given(words.process.clone()) {
        return Ok(spec::load_process(&path)?);
    }
    let spec = State::load_spec(&context.root, id)?;
    let mut process = spec.process().clone().context("the container has no process")?;
    let args: Vec<String> = words.args[1..].iter().map(text).collect::<Result<_, _>>()?;
    ensure!(!args.is_empty(), "process args cannot be empty");
    process.set_args(Some(args));
    if let Some(env) = process.env_mut() {
        forget_adopted(env);
    }
    change(&mut process, words)?;
    Ok(process)
}

fn text(word: &OsString) -> anyhow::Result<String> {
    word.clone().into_string().map_err(|word| anyhow::anyhow!("argument {word:?} is not UTF-8"))
}

fn change(process: &mut Process, words: &Words) -> anyhow::Result<()> {
    process.set_terminal(Some(words.tty));
    if let Some(cwd) = given(words.cwd.clone()) {
        process.set_cwd(cwd);
    }
    if !words.env.is_empty() {
        let mut env = process.env().clone().unwrap_or_default();
        env.extend(words.env.iter().cloned());
        process.set_env(Some(env));
    }
    if let Some(label) = words.process_label.as_ref().filter(|label| !label.is_empty()) {
        process.set_selinux_label(Some(label.clone()));
    }
    if let Some(profile) = words.apparmor.as_ref().filter(|profile| !profile.is_empty()) {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if words.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    add_capabilities(process, &words.cap)?;
    let user = process.user_mut();
    if let Some((uid, gid)) =
        words.user.as_deref().filter(|user| !user.is_empty()).map(parse_user).transpose()?
    {
        user.set_uid(uid);
        if let Some(gid) = gid {
            user.set_gid(gid);
        }
    }
    if !words.additional_gids.is_empty() {
        let mut gids = user.additional_gids().clone().unwrap_or_default();
        for gid in &words.additional_gids {
            gids.push(parse_id(gid, "additional gid")?);
        }
        user.set_additional_gids(Some(gids));
    }
    Ok(())
}

/// Never the inheritable set (CVE-2022-29162); so never the ambient one either, which needs it.
fn add_capabilities(process: &mut Process, names: &[String]) -> anyhow::Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    // Absent sets are empty ones; the type's own default is not.
    let mut sets = match process.capabilities() {
        Some(sets) => sets.clone(),
        None => serde_json::from_str("{}")?,
    };
    let mut bounding = sets.bounding().clone().unwrap_or_default();
    let mut effective = sets.effective().clone().unwrap_or_default();
    let mut permitted = sets.permitted().clone().unwrap_or_default();
    for name in names {
        // runtime-spec: what the kernel does not know is logged, and no reason to fail.
        let Some(capability) = spec::capability(name) else {
            tracing::warn!("ignoring unknown or unavailable capabilities: [{name}]");
            continue;
        };
        for set in [&mut bounding, &mut effective, &mut permitted] {
            set.insert(capability);
        }
    }
    sets.set_bounding(Some(bounding)).set_effective(Some(effective)).set_permitted(Some(permitted));
    process.set_capabilities(Some(sets));
    Ok(())
}

/// `uid` or `uid:gid`, both decimal numbers: anything else is an error and never a guess (CVE-2026-30892,
/// CVE-2016-3697).
fn parse_user(text: &str) -> anyhow::Result<(u32, Option<u32>)> {
    match text.split_once(':') {
        None => Ok((parse_id(text, "uid")?, None)),
        Some((uid, gid)) => Ok((parse_id(uid, "uid")?, Some(parse_id(gid, "gid")?))),
    }
}

fn parse_id(text: &str, what: &str) -> anyhow::Result<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let id = text.parse().ok().filter(|id| digits && *id != u32::MAX);
    id.with_context(|| format!("parsing {text:?} as {what}: not a number from 0 to 4294967294"))
}

/// `[controllers:]path`.
fn sub_cgroup(text: &str) -> anyhow::Result<(Option<String>, PathBuf)> {
    let (controllers, path) = match text.split_once(':') {
        Some((controllers, path)) => (Some(controllers.to_string()), path),
        None => (None, text),
    };
    ensure!(!path.is_empty(), "invalid --cgroup argument: {text:?}");
    Ok((controllers, path.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::Capability;

    #[test]
    fn users_are_numbers_and_nothing_else() {
        assert_eq!(parse_user("1").expect("fine"), (1, None));
        assert_eq!(parse_user("1:2").expect("fine"), (1, Some(2)));
        for bad in ["", "1:", ":1", "0x1", "-1", "+1", "4294967295", "4294967296", "1 ", "1:2:3", "root"] {
            assert!(parse_user(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_added_capability_is_not_inheritable() {
        let mut process: Process = serde_json::from_str(r#"{"user": {}, "cwd": "/"}"#).expect("valid");
        add_capabilities(&mut process, &["CAP_KILL".into()]).expect("known");
        let sets = process.capabilities().clone().expect("set");
        let has = |set: &Option<oci_spec::runtime::Capabilities>| {
            set.as_ref().is_some_and(|set| set.contains(&Capability::Kill) && set.len() == 1)
        };
        assert!(has(sets.bounding()) && has(sets.effective()) && has(sets.permitted()));
        assert!(sets.inheritable().is_none() && sets.ambient().is_none());
        add_capabilities(&mut process, &["CAP_NOPE".into()]).expect("ignored");
        assert_eq!(process.capabilities(), &Some(sets));
    }
}
