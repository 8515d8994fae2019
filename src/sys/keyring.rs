//! Session keyrings: keyctl(2).
use super::SysError;
use nix::errno::Errno;
use std::ffi::CStr;

const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
const KEYCTL_SETPERM: libc::c_int = 5;
const KEYCTL_DESCRIBE: libc::c_int = 6;

/// Serial number of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(i32);

/// Makes (or joins) a session keyring of that name and makes it the caller's.
pub fn join_session(name: &CStr) -> Result<Key, SysError> {
    // SAFETY: the kernel reads the NUL-terminated name.
    let rc = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    let rc = Errno::result(rc)
        .map_err(SysError::on("keyctl", format!("KEYCTL_JOIN_SESSION_KEYRING {}", name.to_string_lossy())))?;
    // A serial number is 32 bits wide (keyctl(2)); the long return value holds nothing more.
    Ok(Key(rc as i32))
}

/// Adds `mask` to the permissions of a key (`KEY_USR_SEARCH` and so on, keyctl_setperm(3)).
pub fn add_permissions(key: Key, mask: u32) -> Result<(), SysError> {
    let mut text = [0_u8; 256];
    // SAFETY: the kernel writes at most `text.len()` bytes to the buffer.
    let rc =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_DESCRIBE, key.0, text.as_mut_ptr(), text.len()) };
    let len = Errno::result(rc).map_err(SysError::on("keyctl", format!("KEYCTL_DESCRIBE {}", key.0)))?;
    let len = usize::try_from(len).unwrap_or(0).min(text.len());
    let permissions = described_permissions(&text[..len])
        .ok_or_else(|| SysError::on("keyctl", format!("KEYCTL_DESCRIBE {}", key.0))(Errno::EPROTO))?;
    // SAFETY: only integers are passed.
    let rc = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, key.0, permissions | mask) };
    Errno::result(rc).map(drop).map_err(SysError::on("keyctl", format!("KEYCTL_SETPERM {}", key.0)))
}

/// `type;uid;gid;perm;description`, perm in hexadecimal.
fn described_permissions(text: &[u8]) -> Option<u32> {
    let field = text.split(|byte| *byte == b';').nth(3)?;
    u32::from_str_radix(std::str::from_utf8(field).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_the_fourth_field() {
        assert_eq!(described_permissions(b"keyring;0;0;3f130000;_ses.x\0"), Some(0x3f13_0000));
        assert_eq!(described_permissions(b"keyring;0;0"), None);
    }
}
