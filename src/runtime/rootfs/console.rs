//! /dev/console: the peer of a new pseudo-terminal of the container's own devpts.
use super::destination::MountTable;
use super::devices::file_in;
use super::plan::Console;
use super::{Result, RootfsError};
use crate::sys::mount::{self, Scope};
use crate::sys::pty::{self, Pty};
use std::os::fd::AsFd;
use std::path::Path;

/// Opens the terminal and binds its peer, by its descriptor and not by a path below /dev/pts that could be
/// exchanged meanwhile (CVE-2025-52565), on /dev/console.
pub(super) fn create(wanted: Console, table: &MountTable) -> Result<Pty> {
    let failed = |source| RootfsError::Console { source };
    let terminal = match table.at(Path::new("dev/pts")) {
        Some((devpts, _)) => Pty::open(devpts),
        None => Pty::open_in(&table.root),
    };
    let terminal = terminal.map_err(failed)?;
    if let Some(size) = wanted.size {
        pty::set_size(terminal.master.as_fd(), size).map_err(failed)?;
    }
    let opened;
    let dev = match table.at(Path::new("dev")) {
        Some((dev, _)) => dev,
        None => {
            opened = table.directory(Path::new("dev"))?;
            opened.fd.as_fd()
        }
    };
    let place = file_in(dev, Path::new("console")).map_err(failed)?;
    let mount = mount::clone_fd(terminal.peer.as_fd(), "console", Scope::Mount).map_err(failed)?;
    mount::move_mount(mount.as_fd(), place.as_fd(), "/dev/console").map_err(failed)?;
    Ok(terminal)
}
