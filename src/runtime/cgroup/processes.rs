//! The processes of a container's cgroups, and the end of both.
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::dir::{self, Dir};
use super::host::{Controller, Version};
use super::{Cgroup, Error, Paths, Result, systemd};
use crate::sys::{SysError, pidfd};

/// A process that dies slower than this hangs in the kernel (a dead NFS server), not in its own clean-up.
const DEATH: Duration = Duration::from_secs(10);
/// Where nothing says that the kernel is done with a dead process: the pause between two looks.
const PAUSE_MS: u8 = 1;
/// pidfds waited on at a time: below the usual limit of 1024 descriptors.
const BATCH: usize = 256;

/// Removes the cgroups of `paths` if all are empty, without opening any; false where one is not, and
/// [`Cgroup::kill_all`] and [`Cgroup::remove`] are to follow.
pub fn remove_empty(paths: &Paths) -> bool {
    paths.hierarchies.iter().all(|hierarchy| dir::unmake(&hierarchy.dir()).is_ok())
}

impl Cgroup {
    /// All processes of the container, those of cgroups below its own included, as pids of our pid namespace.
    ///
    /// # Errors
    /// Those of reading; cgroups that are gone have no processes.
    pub fn pids(&self) -> Result<Vec<i32>> {
        match self.census() {
            Some(dir) => Ok(dir.all_pids()?.into_iter().filter(|pid| *pid > 0).collect()),
            None => Ok(Vec::new()),
        }
    }

    /// The hierarchy by which processes are counted. A process with the right to can leave single v1 cgroups;
    /// the devices cgroup is the one that matters for security (and runc's choice).
    fn census(&self) -> Option<&Dir> {
        self.dir_of(Controller::Devices).or_else(|| self.dirs.first())
    }

    /// Kills every process of the container and returns when all are dead (not: reaped). Frozen ones too, which
    /// leaves the cgroup thawed.
    ///
    /// # Errors
    /// [`Error::TimedOut`] where some are still alive after ten seconds.
    pub fn kill_all(&self) -> Result<()> {
        let deadline = Instant::now() + DEATH;
        if let Some(v2) = self.v2() {
            // All at once, forks included (Linux 5.14); what cannot be written to is killed one by one below.
            match v2.write("cgroup.kill", "1") {
                Ok(()) => {}
                Err(error) if dir::gone(&error) || error.errno == Errno::EOPNOTSUPP => {}
                Err(error) => return Err(error.into()),
            }
        }
        let Some(census) = self.census() else { return Ok(()) };
        loop {
            let pids = self.pids()?;
            if pids.is_empty() {
                return Ok(());
            }
            let dying = signal(&pids)?;
            if census.version() == Version::V1 || self.v2().is_none() {
                // A SIGKILL reaches a process of a v1 freezer only when it is thawed.
                self.thaw_for_death()?;
            }
            if !wait_for_death(&dying, deadline)? {
                return Err(self.alive(census.path(), "its processes do not die of SIGKILL"));
            }
            if dying.is_empty() {
                pause(deadline)?;
            }
            if Instant::now() >= deadline {
                return Err(self.alive(census.path(), "its processes come back faster than they are killed"));
            }
        }
    }

    fn thaw_for_death(&self) -> Result<()> {
        let Some(freezer) = self.dir_of(Controller::Freezer) else { return Ok(()) };
        match freezer.write("freezer.state", "THAWED") {
            Err(error) if !dir::gone(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn alive(&self, path: &Path, what: &'static str) -> Error {
        let pids = self.pids().unwrap_or_default();
        Error::TimedOut { path: path.to_owned(), what, pids: dir::list(&pids) }
    }

    /// Removes the container's cgroups and all below them; the cgroups above stay, as with runc. Waits for
    /// processes that are dying, kills none. Fine where nothing is left to remove. A unit of systemd is stopped
    /// before.
    ///
    /// # Errors
    /// [`Error::TimedOut`] where processes live in a cgroup; the other hierarchies' cgroups are removed still.
    pub fn remove(&self) -> Result<()> {
        let mut first = match &self.paths.unit {
            Some(unit) => systemd::stop(unit).map_err(Error::from),
            None => Ok(()),
        };
        let deadline = Instant::now() + DEATH;
        for hierarchy in &self.paths.hierarchies {
            let path = hierarchy.dir();
            let outcome = match dir::unmake(&path) {
                Err(error) if error.errno == Errno::EBUSY => match Dir::open(hierarchy) {
                    Ok(dir) => remove_tree(&dir, deadline),
                    Err(error) if dir::gone(&error) => Ok(()),
                    Err(error) => Err(error.into()),
                },
                // A read-only mount says so also for a cgroup that is not there.
                Err(error) if error.errno == Errno::EROFS && !path.is_dir() => Ok(()),
                other => other.map_err(Error::from),
            };
            first = first.and(outcome);
        }
        first
    }
}

/// Removes a cgroup with all below it, waiting until `deadline` for the dying.
fn remove_tree(top: &Dir, deadline: Instant) -> Result<()> {
    loop {
        let mut busy = None;
        top.walk(0, &mut |dir| match dir::unmake(dir.path()) {
            Err(error) if error.errno == Errno::EBUSY => {
                busy = Some(dir.pids().unwrap_or_default());
                Ok(())
            }
            other => other,
        })?;
        let Some(pids) = busy else { return Ok(()) };
        if Instant::now() >= deadline {
            return Err(Error::TimedOut {
                path: top.path().to_owned(),
                what: "it is not empty",
                pids: dir::list(&pids),
            });
        }
        let mut dying = Vec::new();
        for pid in pids.into_iter().take(BATCH) {
            dying.extend(open(pid)?);
        }
        if dying.is_empty() {
            pause(deadline)?;
        } else {
            wait_for_death(&dying, deadline)?;
        }
    }
}

/// A pidfd, unless the process is gone.
fn open(pid: i32) -> Result<Option<OwnedFd>, SysError> {
    match pidfd::open(pid) {
        Ok(fd) => Ok(Some(fd)),
        // ESRCH: reaped. EINVAL: a thread of a threaded cgroup whose leader is elsewhere.
        Err(error) if matches!(error.errno, Errno::ESRCH | Errno::EINVAL) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sends SIGKILL to all, and returns pidfds of the first to wait for.
fn signal(pids: &[i32]) -> Result<Vec<OwnedFd>, SysError> {
    let mut dying = Vec::new();
    for pid in pids {
        let Some(fd) = open(*pid)? else { continue };
        match pidfd::send_signal(&fd, nix::sys::signal::Signal::SIGKILL as i32) {
            Ok(()) => {}
            Err(error) if error.errno == Errno::ESRCH => continue,
            Err(error) => return Err(error),
        }
        if dying.len() < BATCH {
            dying.push(fd);
        }
    }
    Ok(dying)
}

/// Waits until all of `pidfds` are dead (zombies included); `false` at the deadline.
fn wait_for_death(pidfds: &[OwnedFd], deadline: Instant) -> Result<bool, SysError> {
    for fd in pidfds {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) => return Ok(false),
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(SysError::on("poll", "pidfd")(errno)),
            }
        }
    }
    Ok(true)
}

/// Between the death of a process and the moment when its v1 cgroup counts as empty the kernel sends no event.
pub(super) fn pause(deadline: Instant) -> Result<(), SysError> {
    if Instant::now() < deadline {
        match poll(&mut [], PollTimeout::from(PAUSE_MS)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(SysError::on("poll", "")(errno)),
        }
    }
    Ok(())
}
