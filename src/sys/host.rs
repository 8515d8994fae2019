//! What this process sees of the host: its name, and whether it is whole.
use nix::errno::Errno;

use super::SysError;

/// setdomainname(2).
pub fn set_domain_name(name: &str) -> Result<(), SysError> {
    // SAFETY: pointer and length are of one slice, which outlives the call.
    let result = unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) };
    Errno::result(result).map(drop).map_err(SysError::on("setdomainname", name))
}

/// Whether this process is in a user namespace other than the initial one, which maps all ids onto themselves.
pub fn in_user_namespace() -> bool {
    std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_ascii_whitespace().ne(["0", "0", "4294967295"]))
}
