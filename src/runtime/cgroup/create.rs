//! Setting the limits of cgroups.
use std::borrow::Cow;
use std::collections::HashMap;

use nix::errno::Errno;
use oci_spec::runtime::LinuxResources;

use super::dir::{self, Dir};
use super::host::{Controller, Mode, Version};
use super::make::Begun;
use super::values::{self, Set, Sets, Tolerance};
use super::{Cgroup, Error, Paths, Result, devices, systemd};
use crate::runtime::rootless::Rootless;
use crate::sys::SysError;

/// See [`Cgroup::create`].
pub(super) fn create(
    paths: &Paths,
    resources: Option<&LinuxResources>,
    annotations: Option<&HashMap<String, String>>,
    rootless: Rootless,
) -> Result<Cgroup> {
    let make = |resources, placeholder| {
        let mut begun = Begun::new(paths, resources, rootless, placeholder);
        let cgroup = begun.complete()?;
        begun.keep();
        Ok(cgroup)
    };
    let Some(unit) = &paths.unit else { return make(resources, None) };
    let resources = resources.map(by_systemd);
    let resources = resources.as_deref();
    let host = host_version(paths.mode);
    let placeholder = systemd::start(systemd::Request { unit, host, resources, annotations })?;
    let pid = placeholder.pid().as_raw();
    match make(resources, Some(pid)) {
        Ok(cgroup) => Ok(Cgroup { placeholder: Some(placeholder), ..cgroup }),
        Err(error) => {
            drop(placeholder);
            systemd::discard(unit);
            Err(error)
        }
    }
}

fn host_version(mode: Mode) -> Version {
    if mode == Mode::Unified { Version::V2 } else { Version::V1 }
}

/// Limits with the quota that systemd makes of theirs, so that file and property do not differ (as runc).
fn by_systemd(resources: &LinuxResources) -> Cow<'_, LinuxResources> {
    let Some(cpu) = resources.cpu() else { return Cow::Borrowed(resources) };
    let Some(quota) = cpu.quota().filter(|quota| *quota > 0) else { return Cow::Borrowed(resources) };
    let mut resources = resources.clone();
    let mut cpu = cpu.clone();
    cpu.set_quota(Some(systemd::rounded(quota, cpu.period().unwrap_or(0))));
    resources.set_cpu(Some(cpu));
    Cow::Owned(resources)
}
/// See [`Cgroup::restrict_devices`].
pub(super) fn restrict_devices(
    cgroup: &Cgroup,
    resources: Option<&LinuxResources>,
    rootless: Rootless,
) -> Result<()> {
    // systemd's own program goes: it may be about another set of devices (see its `Policy::allowed`).
    match devices::restrict(cgroup, resources, cgroup.reused || cgroup.paths.unit.is_some()) {
        // Neither device nodes nor programs are for the rootless; their user namespace keeps devices shut.
        Err(error) if !matches!(error, Error::Invalid { .. }) && rootless.forgives() => {
            tracing::debug!(%error, "leave devices unrestricted");
            Ok(())
        }
        other => other,
    }
}

/// See [`Cgroup::update`].
pub(super) fn update(cgroup: &Cgroup, resources: &LinuxResources) -> Result<()> {
    let Some(unit) = &cgroup.paths.unit else { return limit(cgroup, resources) };
    if let (Mode::Unified, Some(dir)) = (cgroup.mode, cgroup.v2()) {
        // Before systemd is told, because that sets the limit.
        current(dir, resources)?;
    }
    let resources = by_systemd(resources);
    let whole = with_both_of_quota(cgroup, &resources)?;
    let host = host_version(cgroup.mode);
    if host == Version::V2 {
        systemd::set(unit, host, &whole)?;
    } else {
        // On v1 systemd takes all devices away and gives some back, whatever is set (as runc).
        let freeze = !cgroup.frozen()? && cgroup.dir_of(Controller::Freezer).is_some();
        if freeze {
            cgroup.freeze()?;
        }
        let outcome = systemd::set(unit, host, &whole);
        if freeze {
            cgroup.thaw()?;
        }
        outcome?;
    }
    limit(cgroup, &whole)
}

/// systemd derives its quota from quota and period: the one that is not given is taken from the cgroup.
fn with_both_of_quota<'r>(cgroup: &Cgroup, resources: &'r LinuxResources) -> Result<Cow<'r, LinuxResources>> {
    let Some(cpu) = resources.cpu() else { return Ok(Cow::Borrowed(resources)) };
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    if quota.is_some() == period.is_some() {
        return Ok(Cow::Borrowed(resources));
    }
    let Some(dir) = cgroup.dir_of(Controller::Cpu) else { return Ok(Cow::Borrowed(resources)) };
    let text = match cgroup.mode {
        Mode::Unified => existing(dir, "cpu.max")?.unwrap_or_default(),
        Mode::V1 | Mode::Hybrid => {
            let file = |name| existing(dir, name).map(Option::unwrap_or_default);
            format!("{} {}", file("cpu.cfs_quota_us")?.trim_end(), file("cpu.cfs_period_us")?)
        }
    };
    let mut words = text.split_ascii_whitespace();
    // `max` is no number.
    let old_quota = words.next().and_then(|word| word.parse().ok()).unwrap_or(-1);
    let old_period = words.next().and_then(|word| word.parse().ok());
    let mut cpu = cpu.clone();
    cpu.set_quota(Some(quota.unwrap_or(old_quota)));
    cpu.set_period(period.or(old_period));
    let mut resources = resources.clone();
    resources.set_cpu(Some(cpu));
    Ok(Cow::Owned(by_systemd(&resources).into_owned()))
}

/// Sets all limits of `resources` but devices.
pub(super) fn limit(cgroup: &Cgroup, resources: &LinuxResources) -> Result<()> {
    if cgroup.mode != Mode::Unified {
        return apply(cgroup, values::v1::sets(resources)?);
    }
    let current = match cgroup.v2() {
        Some(dir) => current(dir, resources)?,
        None => values::v2::Current::default(),
    };
    apply(cgroup, values::v2::sets(resources, &current)?)?;
    for (file, line) in values::v2::unified(resources)? {
        let set = Set {
            controller: Controller::Misc,
            targets: vec![(file.to_owned().into(), line.to_owned())],
            tolerance: Tolerance::None,
        };
        let dir = cgroup.v2().ok_or_else(|| match cgroup.refused.clone() {
            Some(source) => Error::Refused { file: file.to_owned(), value: line.to_owned(), source },
            None => Error::None { what: "v2" },
        })?;
        write_first(dir, &set).map_err(|error| {
            let controller = file.split('.').next().unwrap_or_default();
            unavailable(dir, controller, file, line, error)
        })?;
    }
    Ok(())
}

/// The values in force that the new ones refer to; read only where they do.
fn current(dir: &Dir, resources: &LinuxResources) -> Result<values::v2::Current> {
    let mut current = values::v2::Current::default();
    let memory = resources.memory().as_ref();
    let sum_alone =
        memory.is_some_and(|memory| memory.limit().unwrap_or(0) == 0 && memory.swap().unwrap_or(0) > 0);
    if sum_alone && let Some(text) = existing(dir, "memory.max")? {
        let text = text.trim_end();
        current.memory = if text == "max" { Some(-1) } else { text.parse().ok() };
    }
    let cpu = resources.cpu().as_ref();
    let period_alone = cpu.is_some_and(|cpu| cpu.quota().unwrap_or(0) == 0 && cpu.period().unwrap_or(0) != 0);
    if period_alone && let Some(text) = existing(dir, "cpu.max")? {
        current.quota = text.split_ascii_whitespace().next().map(str::to_owned);
    }
    if let Some(memory) = memory.filter(|memory| memory.check_before_update() == Some(true)) {
        let usage = existing(dir, "memory.current")?.and_then(|text| text.trim_end().parse::<u64>().ok());
        for limit in [memory.limit(), memory.swap()].into_iter().flatten() {
            match (u64::try_from(limit), usage) {
                (Ok(bytes @ 1..), Some(usage)) if bytes <= usage => {
                    return Err(Error::BelowUsage { limit, usage });
                }
                _ => {}
            }
        }
    }
    Ok(current)
}

/// The text of a file, or `None` where its controller is not enabled.
fn existing(dir: &Dir, file: &str) -> Result<Option<String>> {
    match dir.read(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if dir::gone(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn apply(cgroup: &Cgroup, sets: Sets) -> Result<()> {
    let mut again = Vec::new();
    for set in sets.0 {
        let Some(dir) = cgroup.dir_of(set.controller) else {
            let Some((file, value)) = set.targets.into_iter().next() else { continue };
            if let Some(source) = cgroup.refused.clone() {
                return Err(Error::Refused { file: file.into_owned(), value, source });
            }
            if cgroup.dirs.is_empty() {
                return Err(Error::Nowhere { file: file.into_owned(), value });
            }
            return Err(Error::NoController {
                controller: controller_name(cgroup.mode, set.controller),
                file: file.into_owned(),
                value,
                version: if cgroup.mode == Mode::Unified { Version::V2 } else { Version::V1 },
            });
        };
        match write_first(dir, &set) {
            Ok(()) => {}
            Err(error) if error.errno == Errno::EINVAL && set.tolerance == Tolerance::Again => {
                again.push(set);
            }
            Err(error) if error.errno == Errno::ENOENT && set.tolerance == Tolerance::Missing => {}
            Err(error) => return Err(explain(cgroup.mode, dir, &set, error)),
        }
    }
    for set in again {
        if let Some(dir) = cgroup.dir_of(set.controller) {
            write_first(dir, &set).map_err(|error| explain(cgroup.mode, dir, &set, error))?;
        }
    }
    Ok(())
}

/// Writes to the first target whose file exists.
fn write_first(dir: &Dir, set: &Set) -> Result<(), SysError> {
    let mut outcome = Ok(());
    for (file, value) in &set.targets {
        outcome = dir.write(file, value);
        match &outcome {
            Err(error) if error.errno == Errno::ENOENT => {}
            _ => break,
        }
    }
    outcome
}

fn explain(mode: Mode, dir: &Dir, set: &Set, error: SysError) -> Error {
    match set.targets.first() {
        Some((file, value)) if mode == Mode::Unified => {
            unavailable(dir, set.controller.v2_name(), file, value, error)
        }
        _ => Error::Limit(error),
    }
}

/// On v2, tells a missing controller from a missing file.
fn unavailable(dir: &Dir, controller: &str, file: &str, value: &str, error: SysError) -> Error {
    let missing = error.errno == Errno::ENOENT
        && controller != "cgroup"
        && dir
            .read("cgroup.controllers")
            .is_ok_and(|list| !list.split_ascii_whitespace().any(|name| name == controller));
    if missing {
        Error::NoController {
            controller: controller.to_owned(),
            file: dir.name(file),
            value: value.to_owned(),
            version: Version::V2,
        }
    } else {
        Error::Limit(error)
    }
}

fn controller_name(mode: Mode, controller: Controller) -> String {
    let name = if mode == Mode::Unified { controller.v2_name() } else { controller.v1_name() };
    name.to_owned()
}
