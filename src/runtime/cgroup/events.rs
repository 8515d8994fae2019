//! Whether the kernel ran out of a container's memory.
use super::dir;
use super::freezer::value_of;
use super::host::{Controller, Mode};
use super::{Cgroup, Result};

impl Cgroup {
    /// How many processes of the container the kernel has killed because its memory limit was reached, those of
    /// cgroups below included (v1 counts the container's own cgroup alone). 0 where nobody counts.
    ///
    /// # Errors
    /// Those of reading.
    pub fn oom_kills(&self) -> Result<u64> {
        let Some(dir) = self.dir_of(Controller::Memory) else { return Ok(0) };
        let file = if self.mode == Mode::Unified { "memory.events" } else { "memory.oom_control" };
        match dir.read(file) {
            Ok(text) => Ok(value_of(&text, "oom_kill").unwrap_or(0)),
            Err(error) if dir::gone(&error) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}
