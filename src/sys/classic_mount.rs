//! The mount(2) call, for what the newer mount API cannot say on older kernels.
use super::SysError;
use nix::mount::MsFlags;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Mounts `fstype` with `options` (less than a page) on the open directory `target`. Needs /proc, through
/// which it names the target.
pub fn mount_on(target: BorrowedFd<'_>, fstype: &str, options: &str) -> Result<(), SysError> {
    let path = format!("/proc/self/fd/{}", target.as_raw_fd());
    // The path is a magic link to an open descriptor.
    #[allow(clippy::disallowed_methods)]
    nix::mount::mount(Some(fstype), path.as_str(), Some(fstype), MsFlags::empty(), Some(options))
        .map_err(SysError::on("mount", format!("{fstype} {options}")))
}
