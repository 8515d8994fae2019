//! Making cgroups and setting limits.
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use oci_spec::runtime::LinuxResources;

use super::dir::{self, Dir};
use super::host::{Controller, Mode, Version};
use super::values::{self, Set, Sets, Tolerance};
use super::{Cgroup, Error, Paths, Result, devices, systemd};
use crate::runtime::rootless::Rootless;
use crate::sys::SysError;

/// Cgroups made so far; dropped before [`Made::keep`], it removes them again, the youngest first.
#[derive(Default)]
struct Made {
    dirs: Vec<PathBuf>,
}

impl Made {
    /// Makes `path` unless it is there; says whether it was made.
    fn dir(&mut self, path: &Path) -> Result<bool, SysError> {
        let made = dir::make(path)?;
        if made {
            self.dirs.push(path.to_owned());
        }
        Ok(made)
    }

    fn keep(mut self) {
        self.dirs.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in self.dirs.iter().rev() {
            // Best effort: the error that led here is the one to tell.
            let _ = dir::unmake(path);
        }
    }
}

/// See [`Cgroup::create`].
pub(super) fn create(
    paths: &Paths,
    resources: Option<&LinuxResources>,
    annotations: Option<&HashMap<String, String>>,
    rootless: Rootless,
) -> Result<Cgroup> {
    let Some(unit) = &paths.unit else { return make(paths, resources, rootless, None) };
    let resources = resources.map(by_systemd);
    let resources = resources.as_deref();
    let host = host_version(paths.mode);
    let placeholder = systemd::start(systemd::Request { unit, host, resources, annotations })?;
    let pid = placeholder.pid().as_raw();
    match make(paths, resources, rootless, Some(pid)) {
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

/// Makes the cgroups. `placeholder`: systemd has made some of them, or all, with this process in them.
fn make(
    paths: &Paths,
    resources: Option<&LinuxResources>,
    rootless: Rootless,
    placeholder: Option<i32>,
) -> Result<Cgroup> {
    let mut made = Made::default();
    let mut dirs = Vec::with_capacity(paths.hierarchies.len());
    let mut refused = None;
    for hierarchy in &paths.hierarchies {
        let full = hierarchy.dir();
        let outcome = match hierarchy.version {
            Version::V2 if paths.mode == Mode::Unified => {
                make_v2(&mut made, &hierarchy.mount_point, &hierarchy.cgroup, resources)
            }
            _ => make_below(&mut made, &hierarchy.mount_point, &full).map_err(Error::from),
        };
        match outcome {
            Ok(new) => {
                let dir = Dir::open(hierarchy)?;
                if !new {
                    dir.check_empty_but(placeholder)?;
                }
                // A unit of systemd is new, and so are its cgroups.
                dirs.push((dir, new || placeholder.is_some()));
            }
            Err(Error::System(error)) if !paths.explicit && is_refusal(&error) && rootless.forgives() => {
                tracing::debug!(%error, "do without a cgroup that a rootless runtime may not make");
                refused = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    let reused = dirs.iter().any(|(_, new)| !new);
    let dirs = dirs.into_iter().map(|(dir, _)| dir).collect();
    let cgroup = Cgroup { mode: paths.mode, dirs, paths: paths.clone(), reused, refused, placeholder: None };
    if let Some(cpuset) = cgroup.dirs.iter().find(|dir| dir.has(Controller::Cpuset)) {
        let cpu = resources.and_then(|resources| resources.cpu().as_ref());
        let given = |list: Option<&Option<String>>| {
            list.is_some_and(|list| list.as_ref().is_some_and(|list| !list.is_empty()))
        };
        inherit_cpuset(cpuset, reused, given(cpu.map(|cpu| cpu.cpus())), given(cpu.map(|cpu| cpu.mems())))?;
    }
    if let Some(resources) = resources {
        limit(&cgroup, resources)?;
    }
    made.keep();
    Ok(cgroup)
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

/// What the host says to those who may not make cgroups.
fn is_refusal(error: &SysError) -> bool {
    matches!(error.errno, Errno::EPERM | Errno::EACCES | Errno::EROFS)
}

/// Makes `path` with its parents below `mount_point`. One call where the parent is there.
fn make_below(made: &mut Made, mount_point: &Path, path: &Path) -> Result<bool, SysError> {
    match made.dir(path) {
        Err(error) if error.errno == Errno::ENOENT => match path.parent() {
            Some(parent) if parent != mount_point && parent.starts_with(mount_point) => {
                make_below(made, mount_point, parent)?;
                made.dir(path)
            }
            _ => Err(error),
        },
        other => other,
    }
}

/// A v1 cpuset takes no process before it has processors and memory nodes: fills those of `leaf` that will
/// not be given, and all empty ones above it, with what their parents have.
fn inherit_cpuset(leaf: &Dir, reused: bool, cpus_given: bool, mems_given: bool) -> Result<(), SysError> {
    for (file, given) in [("cpuset.cpus", cpus_given), ("cpuset.mems", mems_given)] {
        // From the leaf up to the first cpuset that has something; above the root there is no such file.
        let up = |levels: usize| format!("{}{file}", "../".repeat(levels));
        let mut levels = 1;
        let value = loop {
            match leaf.read(&up(levels)) {
                Ok(text) if text.trim_end().is_empty() && levels < dir::MAX_DEPTH => levels += 1,
                Ok(text) => break text.trim_end().to_owned(),
                Err(error) if dir::gone(&error) => break String::new(),
                Err(error) => return Err(error),
            }
        };
        if value.is_empty() {
            continue;
        }
        // From the top down, because a cpuset is a subset of its parent's.
        for level in (0..levels).rev().filter(|level| *level > 0 || !given) {
            let name = up(level);
            // One that was there before may be narrower on purpose.
            if level > 0 || !reused || leaf.read(&name)?.trim_end().is_empty() {
                leaf.write(&name, &value)?;
            }
        }
    }
    Ok(())
}

/// Makes a v2 cgroup, with every controller of the host enabled from the root down to its parent, as runc does:
/// the limits, statistics and OOM counts of a container need them, whichever are set now.
fn make_v2(
    made: &mut Made,
    mount_point: &Path,
    cgroup: &Path,
    resources: Option<&LinuxResources>,
) -> Result<bool> {
    let root = Dir::at(mount_point)?;
    let available = root.read("cgroup.controllers")?;
    let mut all = String::with_capacity(available.len() + 16);
    for name in available.split_ascii_whitespace() {
        all.push_str(if all.is_empty() { "+" } else { " +" });
        all.push_str(name);
    }
    let mut whole = enable(&root, &all);
    let mut path = mount_point.to_owned();
    let mut parts = cgroup.components().peekable();
    let mut new = false;
    while let Some(part) = parts.next() {
        path.push(part);
        new = made.dir(&path)?;
        if parts.peek().is_some() {
            whole = enable(&Dir::at(&path)?, &all);
        }
    }
    if new && !whole {
        settle_type(&Dir::at(&path)?, resources)?;
    }
    Ok(new)
}

/// Enables as many of `all` (`+cpu +memory`) as possible for the children of `dir`; says whether it was all.
/// A limit that needs a missing one tells the user.
fn enable(dir: &Dir, all: &str) -> bool {
    const FILE: &str = "cgroup.subtree_control";
    if all.is_empty() || dir.write(FILE, all).is_ok() {
        return true;
    }
    for one in all.split(' ') {
        // The kernel takes a list whole or not at all; one may be refused (processes in `dir`: EBUSY; not enabled
        // above: ENOENT; not ours: EACCES) where others are not.
        let _ = dir.write(FILE, one);
    }
    false
}

/// A cgroup below one with processes cannot be a domain: it takes processes only when threaded, and then
/// memory and io have no limits in it (cgroups(7), "Thread mode").
fn settle_type(dir: &Dir, resources: Option<&LinuxResources>) -> Result<()> {
    let kind = dir.read("cgroup.type")?;
    let invalid = kind.trim_end() == "domain invalid";
    if !invalid && kind.trim_end() == "domain" {
        return Ok(());
    }
    if resources.is_some_and(|resources| {
        resources.memory().is_some()
            || resources.block_io().is_some()
            || resources.hugepage_limits().is_some()
    }) {
        return Err(Error::Threaded { path: dir.path().to_owned() });
    }
    if invalid {
        dir.write("cgroup.type", "threaded")?;
    }
    Ok(())
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
