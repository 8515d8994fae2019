//! The session keyring: without an own one, a container sees the keys of whoever started it.
use super::SecurityError;
use crate::sys;
use nix::errno::Errno;
use std::ffi::CString;

/// KEY_USR_SEARCH (keyctl_setperm(3)): the user of the container may search its keyring; runc adds the
/// same bit.
const USER_MAY_SEARCH: u32 = 0x0008_0000;

/// Gives the calling process an own session keyring, `_ses.<id>`.
///
/// A kernel without keyrings (ENOSYS), or one whose seccomp or quota forbids them to us (EPERM, EDQUOT), is
/// no reason not to start: runc goes on with a warning in the first case, and inside another container the
/// second is usual.
pub fn join(id: &str) -> Result<(), SecurityError> {
    let name = format!("_ses.{id}");
    let refused = |source| SecurityError::Keyring { name: name.clone(), source };
    let Ok(c_name) = CString::new(name.as_str()) else {
        return Err(SecurityError::Invalid { field: "id".into(), reason: "contains a NUL byte" });
    };
    let key = match sys::keyring::join_session(&c_name) {
        Ok(key) => key,
        Err(error) if matches!(error.errno, Errno::ENOSYS | Errno::EPERM | Errno::EDQUOT) => {
            tracing::warn!(%error, "no session keyring for the container");
            return Ok(());
        }
        Err(error) => return Err(refused(error)),
    };
    match sys::keyring::add_permissions(key, USER_MAY_SEARCH) {
        // Without that bit the keyring is only less visible to its own user.
        Err(error) if matches!(error.errno, Errno::EACCES | Errno::EPERM) => {
            tracing::debug!(%error, "the session keyring keeps its permissions");
            Ok(())
        }
        done => done.map_err(refused),
    }
}
