//! What runs in a container: the image's configuration and the command line together.
use crate::engine::error::EngineError;
use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The container's main process before its user is looked up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Environment of the image and of the command line.
    pub env: Vec<String>,
    /// Working directory, absolute.
    pub cwd: String,
    /// `USER[:GROUP]`; empty is root.
    pub user: String,
}

/// What the command line says about the process.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--entrypoint`; an empty list takes the image's away.
    pub entrypoint: Option<Vec<String>>,
    /// Words after the image.
    pub args: Vec<String>,
    /// `-e` and `--env-file`, each `KEY=VALUE`.
    pub env: Vec<String>,
    /// `-w`.
    pub cwd: Option<String>,
    /// `-u`.
    pub user: Option<String>,
}

/// Joins them. `image` is the image's name for errors.
pub fn command(
    image: &str,
    config: &ImageConfiguration,
    overrides: &Overrides,
) -> Result<Command, EngineError> {
    let config = config.config().as_ref();
    let list = |of: Option<&Vec<String>>| of.cloned().unwrap_or_default();
    let mut args = match &overrides.entrypoint {
        None => list(config.and_then(|config| config.entrypoint().as_ref())),
        Some(words) => words.clone(),
    };
    // docker: the image's CMD belongs to its ENTRYPOINT, so that another entry point is without it.
    if overrides.args.is_empty() && overrides.entrypoint.is_none() {
        args.extend(list(config.and_then(|config| config.cmd().as_ref())));
    } else {
        args.extend(overrides.args.iter().cloned());
    }
    if args.first().is_none_or(String::is_empty) {
        return Err(EngineError::NoCommand { image: image.to_owned() });
    }
    let mut env = list(config.and_then(|config| config.env().as_ref()));
    env.retain(|entry| entry.contains('=') && !entry.starts_with('=') && !entry.contains('\0'));
    for entry in &overrides.env {
        set(&mut env, entry);
    }
    let text = |given: Option<&String>| given.filter(|text| !text.is_empty()).cloned();
    let cwd = overrides
        .cwd
        .clone()
        .or_else(|| text(config.and_then(|config| config.working_dir().as_ref())))
        .unwrap_or_else(|| "/".to_owned());
    if !cwd.starts_with('/') || cwd.contains('\0') {
        return Err(EngineError::Flag { flag: "--workdir", value: cwd, reason: "the path is not absolute" });
    }
    let user = overrides
        .user
        .clone()
        .or_else(|| text(config.and_then(|config| config.user().as_ref())))
        .unwrap_or_default();
    Ok(Command { args, env, cwd, user })
}

/// Sets `KEY=VALUE` in place of an earlier value of the key.
pub fn set(env: &mut Vec<String>, entry: &str) {
    let key = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let wanted = key(entry);
    match env.iter_mut().find(|known| key(known) == wanted) {
        Some(known) => entry.clone_into(known),
        None => env.push(entry.to_owned()),
    }
}

/// Adds what every container's environment has and neither image nor command line gave.
pub fn complete_env(env: &[String], tty: bool, hostname: &str, home: &str) -> Vec<String> {
    let mut all = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if tty {
        all.push("TERM=xterm".to_owned());
    }
    for entry in env {
        set(&mut all, entry);
    }
    if !all.iter().any(|entry| entry.starts_with("HOME=")) {
        all.push(format!("HOME={home}"));
    }
    all
}
