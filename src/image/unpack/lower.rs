//! What the layers below have at a path, as overlayfs would show it.
use crate::image::snapshot::overlay::opaque_attribute;
use crate::sys::{self, SysError};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, SFlag, fstatat};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::path::LayerPath;

/// What was found.
#[derive(Debug)]
pub(in crate::image) struct Found<'a> {
    /// The root of the layer that has it.
    pub(super) layer: &'a File,
    pub(in crate::image) stat: FileStat,
}

impl Found<'_> {
    pub(super) fn kind(&self) -> SFlag {
        kind(&self.stat)
    }
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// Looks `path` up in `lowers`, the roots of layers with the top one first, following no symbolic link.
pub(in crate::image) fn find<'a>(
    lowers: &'a [File],
    path: &LayerPath,
) -> Result<Option<Found<'a>>, SysError> {
    for layer in lowers {
        match look(layer.as_fd(), path)? {
            Look::Here(stat) => return Ok(Some(Found { layer, stat })),
            Look::Hidden => return Ok(None),
            Look::Below => {}
        }
    }
    Ok(None)
}

enum Look {
    Here(FileStat),
    /// This layer hides it in those below.
    Hidden,
    /// This layer says nothing of it.
    Below,
}

fn look(layer: BorrowedFd<'_>, path: &LayerPath) -> Result<Look, SysError> {
    let mut opaque = false;
    for ancestor in path.ancestors() {
        let Some(stat) = stat_at(layer, &ancestor)? else {
            return Ok(if opaque { Look::Hidden } else { Look::Below });
        };
        if kind(&stat) != SFlag::S_IFDIR {
            // A whiteout or another file.
            return Ok(Look::Hidden);
        }
        opaque |= is_opaque(layer, &ancestor)?;
    }
    match stat_at(layer, path)? {
        Some(stat) if kind(&stat) == SFlag::S_IFCHR && stat.st_rdev == 0 => Ok(Look::Hidden),
        Some(stat) => Ok(Look::Here(stat)),
        None if opaque => Ok(Look::Hidden),
        None => Ok(Look::Below),
    }
}

fn is_opaque(layer: BorrowedFd<'_>, path: &LayerPath) -> Result<bool, SysError> {
    let dir = open(layer, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
    Ok(sys::xattr::get(&dir, opaque_attribute())?.is_some_and(|value| value == b"y"))
}

/// Opens what one layer has at `path`.
pub(super) fn open(layer: BorrowedFd<'_>, path: &LayerPath, flags: OFlag) -> Result<OwnedFd, SysError> {
    sys::root::open_same_mount(layer, path.as_path(), flags | OFlag::O_NOFOLLOW)
}

/// What one layer has at `path`, not following a symbolic link.
pub(super) fn stat_at(layer: BorrowedFd<'_>, path: &LayerPath) -> Result<Option<FileStat>, SysError> {
    match open(layer, path, OFlag::O_PATH) {
        Ok(fd) => {
            let stat = fstatat(&fd, "", AtFlags::AT_EMPTY_PATH)
                .map_err(SysError::on("fstatat", path.as_path().to_string_lossy()))?;
            Ok(Some(stat))
        }
        // RESOLVE_NO_SYMLINKS refuses a link in the last component too, unless O_PATH and O_NOFOLLOW are
        // given; one before it is a file that is no directory.
        Err(error) if matches!(error.errno, Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
        Err(error) => Err(error),
    }
}
