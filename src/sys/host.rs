//! Names of the host in a UTS namespace.
use nix::errno::Errno;

use super::SysError;

/// setdomainname(2).
pub fn set_domain_name(name: &str) -> Result<(), SysError> {
    // SAFETY: pointer and length are of one slice, which outlives the call.
    let result = unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) };
    Errno::result(result).map(drop).map_err(SysError::on("setdomainname", name))
}
