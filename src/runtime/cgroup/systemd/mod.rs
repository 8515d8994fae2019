//! Cgroups made by systemd: a transient scope for each container, asked for over D-Bus.
//!
//! ```text
//! plan ─> Unit (written to the state) ─> start: scope with a placeholder process ─> limits by files
//!                                          └─ init enters, the placeholder ends ─ .. ─ stop
//! ```
//! systemd refuses a scope without a process, and lets it go with its last one. Ours are born into their cgroup
//! when it is there already, so a placeholder keeps the scope until the first of them is. It ends with the
//! runtime: of a runtime that is killed here, no unit stays.
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use super::{Version, devices};
use crate::error::{ErrorKind, Kind};
use crate::sys::SysError;

mod annotations;
mod bus;
mod name;
mod placeholder;
mod properties;
mod wire;

pub(super) use placeholder::Placeholder;
pub(super) use properties::rounded;

use bus::{Bus, addresses};
use wire::{Call, Value};

/// Name and value of a unit's property.
type Property = (Cow<'static, str>, Value);

/// Which systemd is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Manager {
    /// The host's init.
    System,
    /// The one of an ordinary user's session.
    User,
}

/// A container's scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// `prefix-name.scope`.
    pub name: String,
    /// `system.slice`, `user.slice`, or the caller's.
    pub slice: String,
    /// Who has it.
    pub manager: Manager,
}

/// What went wrong between systemd and us.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens. The source is about the first of the sockets.
    #[error(
        "systemd does not answer at {sockets}; the cgroupfs driver (without --systemd-cgroup) needs none"
    )]
    Unreachable { sockets: String, source: Box<Error> },
    /// An ordinary user without a session.
    #[error(
        "no socket of the user's systemd is known: neither XDG_RUNTIME_DIR nor DBUS_SESSION_BUS_ADDRESS is set; \
         log in by a session of systemd-logind, or use the cgroupfs driver"
    )]
    NoAddress,
    /// An answer, or the end of a job, did not come.
    #[error("systemd has not answered at {socket} within 30 s")]
    TimedOut { socket: String },
    /// What came is no D-Bus.
    #[error("what answers at {socket} is not systemd: {reason}")]
    Garbled { socket: String, reason: &'static str },
    /// systemd's own words.
    #[error("systemd refuses {call}: {message} ({name})")]
    Refused { call: String, name: String, message: String },
    /// A job did not end well.
    #[error("systemd could not start unit {unit}: the job ended with {result:?}")]
    Job { unit: String, result: String },
    /// `cgroupsPath` is made for the other driver; callers match these words.
    #[error(
        "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {path:?} instead"
    )]
    BadForm { path: String },
    /// `cgroupsPath` names no unit.
    #[error("cgroupsPath {path:?}: {reason}")]
    BadPath { path: String, reason: &'static str },
    /// A property that is not understood.
    #[error("annotation {key:?}: {reason}")]
    Annotation { key: String, reason: &'static str },
    /// An ordinary user's systemd has no v1 hierarchies.
    #[error("the systemd driver of an ordinary user needs cgroup v2; this host has v1")]
    RootlessV1,
    /// A system call failed.
    #[error(transparent)]
    System(#[from] SysError),
}

type Result<T> = std::result::Result<T, Error>;

impl Kind for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unreachable { .. } | Self::NoAddress | Self::RootlessV1 => ErrorKind::Unsupported,
            Self::TimedOut { .. } => ErrorKind::TimedOut,
            Self::Garbled { .. } | Self::Job { .. } => ErrorKind::System,
            Self::Refused { name, .. } if name == EXISTS => ErrorKind::AlreadyExists,
            Self::Refused { .. } => ErrorKind::System,
            Self::BadForm { .. } | Self::BadPath { .. } | Self::Annotation { .. } => ErrorKind::InvalidInput,
            Self::System(source) => source.kind(),
        }
    }
}

const EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// A method of systemd's manager.
const fn manager(member: &str) -> Call<'_> {
    Call {
        destination: "org.freedesktop.systemd1",
        path: "/org/freedesktop/systemd1",
        interface: MANAGER,
        member,
    }
}

fn connect(manager: Manager) -> Result<Bus> {
    Bus::connect(&addresses(manager, |name| std::env::var(name).ok()))
}

/// A property of the manager that is a string.
fn text_of_manager(bus: &mut Bus, property: &'static str) -> Result<String> {
    let get = Call { interface: "org.freedesktop.DBus.Properties", ..manager("Get") };
    let answer = bus.call(get, &[Value::text(MANAGER), Value::text(property)])?;
    Ok(answer.text().unwrap_or_default())
}

/// `v252.38-1~deb12u1` and `257` are numbers; 0 for what is none.
fn version_number(text: &str) -> u32 {
    let digits = text.trim_start_matches('v');
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().unwrap_or(0)
}

/// An ordinary user, or the root of a namespace that one has made, is served by the user's own systemd.
fn which() -> Manager {
    let root = nix::unistd::geteuid().is_root();
    let session = || std::env::var_os("XDG_RUNTIME_DIR").is_some_and(|dir| !dir.is_empty());
    match root && !(devices::in_user_namespace() && session()) {
        true => Manager::System,
        false => Manager::User,
    }
}

/// The unit of a container, and its cgroup below the mount points. Asks nothing of systemd but where it is.
///
/// # Errors
/// For a `cgroups_path` that is not `slice:prefix:name`, and where systemd does not answer.
pub(super) fn plan(cgroups_path: &str, id: &str, host: Version) -> Result<(Unit, PathBuf)> {
    let manager = which();
    let unit = name::unit(cgroups_path, id, manager)?;
    if (manager, host) == (Manager::User, Version::V1) {
        return Err(Error::RootlessV1);
    }
    let mut bus = connect(manager)?;
    let mut path = PathBuf::new();
    if manager == Manager::User {
        // `/user.slice/user-1000.slice/user@1000.service`
        path.push(text_of_manager(&mut bus, "ControlGroup")?.trim_start_matches('/'));
    }
    path.push(name::slice_path(&unit.slice)?);
    path.push(&unit.name);
    Ok((unit, path))
}

/// What a new unit is made from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub unit: &'a Unit,
    /// v2, or v1 with or without v2 beside it.
    pub host: Version,
    pub resources: Option<&'a LinuxResources>,
    pub annotations: Option<&'a HashMap<String, String>>,
}

/// Makes the unit, with all that systemd has properties for. It lives as long as a process is in it: at first the
/// placeholder that is returned.
///
/// # Errors
/// [`Error::Refused`], also for a unit of this name that is somebody's; nothing is left of it then.
pub(super) fn start(request: Request<'_>) -> super::Result<Placeholder> {
    let unit = request.unit;
    let given = request.annotations.map(annotations::properties).transpose()?.unwrap_or_default();
    let mut bus = connect(unit.manager)?;
    let mut all = basics(request);
    if let Some(resources) = request.resources {
        let version = version_for(&mut bus, resources)?;
        all.extend(properties::of(resources, request.host, version)?);
        all.extend(properties::oom_policy(resources, version));
    }
    if unit.manager == Manager::System {
        all.extend(device_properties(request.resources, request.host)?);
    }
    all.extend(given);
    let placeholder = Placeholder::spawn()?;
    all.push(("PIDs".into(), Value::numbers(&[placeholder.pid().as_raw().unsigned_abs()])));
    let arguments = [
        Value::text(unit.name.clone()),
        Value::text("replace"),
        list(all),
        Value::Array("(sa(sv))".into(), Vec::new()),
    ];
    let call = manager("StartTransientUnit");
    let result = match bus.job(call, &arguments) {
        Err(Error::Refused { name, .. }) if name == EXISTS => {
            // A failed unit of an earlier life is there until somebody says that he has seen it.
            reset_failed(&mut bus, unit)?;
            bus.job(call, &arguments)
        }
        other => other,
    };
    match result {
        Ok(result) if result == "done" => Ok(placeholder),
        Ok(result) => {
            drop(placeholder);
            discard(unit);
            Err(Error::Job { unit: unit.name.clone(), result }.into())
        }
        // It is not ours.
        Err(error @ Error::Refused { .. }) => Err(error.into()),
        Err(error) => {
            drop(placeholder);
            discard(unit);
            Err(error.into())
        }
    }
}

/// What every container's scope has, as with runc.
fn basics(request: Request<'_>) -> Vec<Property> {
    let unit = request.unit;
    let yes = || Value::Bool(true);
    let io = if request.host == Version::V2 { "IOAccounting" } else { "BlockIOAccounting" };
    vec![
        ("Description".into(), Value::text(format!("corten container {}", unit.name))),
        ("Slice".into(), Value::text(unit.slice.clone())),
        ("Delegate".into(), yes()),
        ("MemoryAccounting".into(), yes()),
        ("CPUAccounting".into(), yes()),
        (io.into(), yes()),
        ("TasksAccounting".into(), yes()),
        ("DefaultDependencies".into(), Value::Bool(false)),
        // Not runc's: a scope that fails (its process was killed for want of memory) goes all the same, so that
        // nothing is left of a container whose runtime was killed.
        ("CollectMode".into(), Value::text("inactive-or-failed")),
    ]
}

/// systemd has no list of what is denied, and no word for one minor number of all majors. On v2 such policies are left
/// to our own program, which it does not touch. On v1 there is one list of rules, and systemd writes its own whenever it
/// looks at the unit anew (`systemctl daemon-reload`): then too little shall be allowed and not everything.
fn device_properties(resources: Option<&LinuxResources>, host: Version) -> super::Result<[Property; 2]> {
    let policy = devices::Policy::of_resources(resources)?;
    let (policy, allowed) = match policy.allowed() {
        Some((allowed, complete)) if complete || host == Version::V1 => ("strict", allowed),
        _ => ("auto", Vec::new()),
    };
    Ok([("DevicePolicy".into(), Value::text(policy)), ("DeviceAllow".into(), Value::pairs(allowed))])
}

fn version_for(bus: &mut Bus, resources: &LinuxResources) -> Result<u32> {
    if properties::asks_for_version(resources) {
        return Ok(version_number(&text_of_manager(bus, "Version")?));
    }
    Ok(0)
}

/// `a(sv)`
fn list(properties: Vec<Property>) -> Value {
    let one = |(name, value)| Value::Tuple(vec![Value::Text(name), Value::Variant(Box::new(value))]);
    Value::Array("(sv)".into(), properties.into_iter().map(one).collect())
}

/// Changes limits of a running unit, until it ends.
///
/// # Errors
/// For values that make no sense; [`Error::Refused`] for a unit that is gone.
pub(super) fn set(unit: &Unit, host: Version, resources: &LinuxResources) -> super::Result<()> {
    let mut bus = connect(unit.manager)?;
    let version = version_for(&mut bus, resources)?;
    let all = properties::of(resources, host, version)?;
    if all.is_empty() {
        return Ok(());
    }
    let arguments = [Value::text(unit.name.clone()), Value::Bool(true), list(all)];
    bus.call(manager("SetUnitProperties"), &arguments)?;
    Ok(())
}

/// Moves a process into the unit: an ordinary user may not do so himself from outside of his systemd's cgroups.
///
/// # Errors
/// [`Error::Refused`].
pub(super) fn attach(unit: &Unit, pid: i32) -> Result<()> {
    let mut bus = connect(unit.manager)?;
    let arguments = [Value::text(unit.name.clone()), Value::text("/"), Value::numbers(&[pid.unsigned_abs()])];
    bus.call(manager("AttachProcessesToUnit"), &arguments).map(drop)
}

/// Ends the unit with all processes in it, and waits until it is gone. Fine where there is none.
///
/// # Errors
/// Those of the connection; a host without systemd has no units, which is fine.
pub(super) fn stop(unit: &Unit) -> Result<()> {
    let mut bus = match connect(unit.manager) {
        Err(Error::Unreachable { source, .. }) if source.nobody_listens() => {
            tracing::debug!("unit {} is gone with its systemd", unit.name);
            return Ok(());
        }
        other => other?,
    };
    let arguments = [Value::text(unit.name.clone()), Value::text("replace")];
    match bus.job(manager("StopUnit"), &arguments) {
        Err(Error::Refused { name, .. }) if name == NO_UNIT => Ok(()),
        // Whatever the job's result, runc goes on too; a unit that has failed is forgotten now.
        Ok(_) => reset_failed(&mut bus, unit),
        Err(error) => Err(error),
    }
}

fn reset_failed(bus: &mut Bus, unit: &Unit) -> Result<()> {
    match bus.call(manager("ResetFailedUnit"), &[Value::text(unit.name.clone())]) {
        Err(Error::Refused { name, .. }) if name == NO_UNIT => Ok(()),
        other => other.map(drop),
    }
}

/// [`stop`] for a unit whose making failed: the error that led here is the one to tell.
pub(super) fn discard(unit: &Unit) {
    if let Err(error) = stop(unit) {
        tracing::warn!("{}", crate::error::chain(&error));
    }
}

impl Error {
    /// There is no manager behind the socket, rather than one that is in trouble.
    fn nobody_listens(&self) -> bool {
        use nix::errno::Errno;
        matches!(self, Self::System(error) if matches!(error.errno, Errno::ENOENT | Errno::ECONNREFUSED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_a_number_in_front() {
        for (text, number) in [("252.38-1~deb12u1", 252), ("v245", 245), ("257~rc1", 257), ("", 0), ("x", 0)]
        {
            assert_eq!(version_number(text), number, "{text:?}");
        }
    }
}
