//! Hooks: programs that the configuration runs at points of a container's life.
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{AccessFlags, access};
use oci_spec::runtime::Hook;

use crate::error::{ErrorKind, Kind};
use crate::sys::{SysError, pidfd};

/// At most this much of what a failing hook wrote is shown.
const MAX_OUTPUT: usize = 4096;

/// When a hook runs, as config.json spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Host namespaces, after the container's were made.
    Prestart,
    /// The same.
    CreateRuntime,
    /// Container namespaces, before pivot_root.
    CreateContainer,
    /// Container namespaces, before the program is executed.
    StartContainer,
    /// Host namespaces, after the program was executed.
    Poststart,
    /// Host namespaces, after the container was deleted.
    Poststop,
}

impl Phase {
    /// Whether it runs in namespaces of the container.
    fn is_inside(self) -> bool {
        matches!(self, Phase::CreateContainer | Phase::StartContainer)
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Phase::Prestart => "prestart",
            Phase::CreateRuntime => "createRuntime",
            Phase::CreateContainer => "createContainer",
            Phase::StartContainer => "startContainer",
            Phase::Poststart => "poststart",
            Phase::Poststop => "poststop",
        })
    }
}

/// Why a hook failed.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// It could not be started or watched.
    #[error("{phase} hook {path}")]
    Run {
        /// When.
        phase: Phase,
        /// Which.
        path: String,
        /// The call that failed.
        #[source]
        source: SysError,
    },
    /// It ended with an error.
    #[error("{phase} hook {path}: {status}{output}")]
    Status {
        /// When.
        phase: Phase,
        /// Which.
        path: String,
        /// `exit status 1`, `signal: 9`.
        status: String,
        /// What it wrote to its standard error, after `: `, or nothing.
        output: String,
    },
    /// Its timeout passed; it was killed.
    #[error("{phase} hook {path}: no end within {seconds} s")]
    Timeout {
        /// When.
        phase: Phase,
        /// Which.
        path: String,
        /// Its timeout.
        seconds: i64,
    },
}

impl Kind for HookError {
    fn kind(&self) -> ErrorKind {
        match self {
            HookError::Run { source, .. } => source.kind(),
            HookError::Status { .. } => ErrorKind::System,
            HookError::Timeout { .. } => ErrorKind::TimedOut,
        }
    }
}

/// Runs hooks one after another with `state` on their standard input; the first failure ends it. `bundle` is the
/// working directory of those that run on the host's side.
pub fn run_all(phase: Phase, hooks: Option<&[Hook]>, bundle: &Path, state: &[u8]) -> Result<(), HookError> {
    hooks.unwrap_or_default().iter().try_for_each(|hook| run(phase, hook, bundle, state))
}

/// The hook gets exactly the environment of the configuration: nothing of an image reaches it (CVE-2024-0132 and its
/// like). One of the host that names none has its caller's, as with runc and crun; one of the container's namespaces
/// has none then.
///
/// Its working directory is the bundle, as with runc and crun, wherever the caller is, and for createContainer too,
/// which runc runs in the container's own root: a library or file that the image has there would be the hook's. Where
/// a user namespace cannot enter the bundle, or it is gone, it is `/`. What runs in the container is left where its
/// program will be.
fn run(phase: Phase, hook: &Hook, bundle: &Path, state: &[u8]) -> Result<(), HookError> {
    let path = hook.path().display().to_string();
    let failed = |call: &'static str| {
        let path = path.clone();
        move |error| HookError::Run { phase, path: path.clone(), source: SysError::io(call, path)(error) }
    };
    let mut command = Command::new(hook.path());
    let input = state_file(state).map_err(failed("memfd_create"))?;
    if hook.env().is_some() || phase.is_inside() {
        command.env_clear();
    }
    command.stdin(input).stdout(Stdio::null()).stderr(Stdio::piped());
    if let Some((name, rest)) = hook.args().as_deref().and_then(<[String]>::split_first) {
        command.arg0(name).args(rest);
    }
    if phase != Phase::StartContainer {
        command.current_dir(if access(bundle, AccessFlags::X_OK).is_ok() { bundle } else { Path::new("/") });
    }
    for (key, value) in hook.env().iter().flatten().filter_map(|entry| entry.split_once('=')) {
        command.env(key, value);
    }
    let mut child = command.spawn().map_err(failed("execve"))?;
    let (ended, output) = watch(&mut child, hook.timeout()).map_err(|source| HookError::Run {
        phase,
        path: path.clone(),
        source,
    })?;
    if !ended {
        // It may have ended just now, then there is nothing to kill.
        let _ = child.kill();
    }
    let status = child.wait().map_err(failed("waitpid"))?;
    if !ended {
        return Err(HookError::Timeout { phase, path, seconds: hook.timeout().unwrap_or(0) });
    }
    if status.success() {
        return Ok(());
    }
    let status = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, signal) => format!("signal: {}", signal.unwrap_or(0)),
    };
    let text = String::from_utf8_lossy(&output).trim().to_owned();
    let output = if text.is_empty() { text } else { format!(": {text}") };
    Err(HookError::Status { phase, path, status, output })
}

/// The state as a file: a pipe would hold us up when a hook does not read and the annotations are long.
fn state_file(state: &[u8]) -> std::io::Result<File> {
    let mut file = File::from(memfd_create(c"state", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(state)?;
    file.rewind()?;
    Ok(file)
}

/// Reads the hook's standard error until the hook has ended or `timeout` seconds passed. A background child
/// that keeps the pipe open does not hold us.
pub(super) fn watch(child: &mut Child, timeout: Option<i64>) -> Result<(bool, Vec<u8>), SysError> {
    let deadline = timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds.max(0).unsigned_abs()));
    let pidfd = pidfd::open(child.id() as i32)?;
    let mut stderr = child.stderr.take();
    let mut output = Vec::new();
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let wait = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left.as_millis().min(i32::MAX as u128) as i32).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = vec![PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        if let Some(pipe) = &stderr {
            fds.push(PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
        }
        let ready = match poll(&mut fds, wait) {
            Err(nix::errno::Errno::EINTR) => continue,
            other => other.map_err(SysError::on("poll", "hook"))?,
        };
        let ended = fds[0].any().unwrap_or(false);
        let readable = fds.get(1).and_then(PollFd::any).unwrap_or(false);
        if readable && !take_output(&mut stderr, &mut output) {
            stderr = None;
        }
        if ended && !readable || ready == 0 {
            return Ok((ended, output));
        }
    }
}

/// False at the end of the pipe.
fn take_output(pipe: &mut Option<std::process::ChildStderr>, output: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 1024];
    match pipe.as_mut().map(|pipe| pipe.read(&mut buffer)) {
        Some(Ok(length)) if length > 0 => {
            let room = MAX_OUTPUT - output.len();
            output.extend_from_slice(&buffer[..length.min(room)]);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(phase: Phase, hook: &Hook, state: &[u8]) -> Result<(), HookError> {
        super::run(phase, hook, Path::new("/nosuch"), state)
    }

    fn hook(json: &str) -> Hook {
        serde_json::from_str(json).unwrap()
    }

    fn shell(script: &str, timeout: &str) -> Hook {
        let script = serde_json::to_string(script).unwrap();
        hook(&format!(r#"{{"path":"/bin/sh","args":["sh","-c",{script}]{timeout}}}"#))
    }

    #[test]
    fn a_hook_reads_the_state_and_only_its_own_environment() {
        let script = r#"test "$(cat)" = state && test -z "$HOME$CARGO" && test "$A" = "b=c""#;
        let mut with_env = shell(script, "");
        with_env.set_env(Some(vec!["A=b=c".into()]));
        run(Phase::Prestart, &with_env, b"state").unwrap();
    }

    #[test]
    fn a_hook_runs_in_the_bundle_or_in_the_root() {
        let here = shell(r#"test "$(pwd -P)" = "$(cat)""#, "");
        let bundle = tempfile::tempdir().unwrap();
        let path = bundle.path().canonicalize().unwrap();
        super::run(Phase::Poststop, &here, &path, path.as_os_str().as_encoded_bytes()).unwrap();
        run(Phase::Poststop, &here, b"/").unwrap();
    }

    #[test]
    fn without_an_environment_a_hook_of_the_host_has_ours_and_one_inside_none() {
        // cargo sets it.
        let ours = shell(r#"test -n "$CARGO_MANIFEST_DIR""#, "");
        for phase in [Phase::Prestart, Phase::CreateRuntime, Phase::Poststart, Phase::Poststop] {
            run(phase, &ours, b"").unwrap();
        }
        for phase in [Phase::CreateContainer, Phase::StartContainer] {
            run(phase, &ours, b"").unwrap_err();
        }
        let mut with_none = ours;
        with_none.set_env(Some(Vec::new()));
        run(Phase::Prestart, &with_none, b"").unwrap_err();
    }

    #[test]
    fn a_failing_hook_tells_its_output() {
        let error = run(Phase::Poststop, &shell("echo why >&2; exit 3", ""), b"").unwrap_err();
        assert_eq!(error.to_string(), "poststop hook /bin/sh: exit status 3: why");
    }

    #[test]
    fn a_hook_is_killed_at_its_timeout() {
        let error = run(Phase::Prestart, &shell("exec sleep 100", r#","timeout":1"#), b"").unwrap_err();
        assert!(matches!(error, HookError::Timeout { seconds: 1, .. }), "{error}");
    }

    #[test]
    fn a_background_child_does_not_hold_the_hook() {
        let begin = Instant::now();
        run(Phase::Prestart, &shell("sleep 3 & exit 0", ""), b"").unwrap();
        assert!(begin.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn a_missing_hook_is_named() {
        let error = run(Phase::Prestart, &hook(r#"{"path":"/no/such"}"#), b"").unwrap_err();
        assert!(crate::error::chain(&error).contains("/no/such: no such file or directory"), "{error}");
    }
}
