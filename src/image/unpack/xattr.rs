//! Which extended attributes of an entry reach the disk.
use super::tar::Kind;
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;

/// An attribute that cannot be what it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its attribute {name:?} has an invalid name or value")]
pub struct AttributeError {
    name: String,
}

/// The attributes to set, of those that an entry carries.
///
/// Kept are file capabilities, POSIX access lists and users' own attributes. Everything else is left out:
/// `trusted.*` and `user.overlay.*` steer overlayfs, `security.selinux`, `security.ima` and `security.evm`
/// belong to the host's policy, and what is not known is not trusted. An attribute that its kind of file
/// cannot have (xattr(7)) is left out too, as tar does.
pub(super) fn select(
    kind: &Kind,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
) -> Result<Vec<(CString, Vec<u8>)>, AttributeError> {
    let mut selected = Vec::new();
    for (name, value) in xattrs {
        let invalid =
            || AttributeError { name: OsStr::from_bytes(&name).to_string_lossy().chars().take(64).collect() };
        let keep = match name.as_slice() {
            b"security.capability" if !is_capability(&value) => return Err(invalid()),
            b"security.capability" => *kind == Kind::File,
            b"system.posix_acl_access" | b"system.posix_acl_default" if !is_acl(&value) => {
                return Err(invalid());
            }
            b"system.posix_acl_access" => matches!(kind, Kind::File | Kind::Directory),
            b"system.posix_acl_default" => *kind == Kind::Directory,
            name if name.starts_with(b"user.overlay.") => false,
            name if name.starts_with(b"user.") => matches!(kind, Kind::File | Kind::Directory),
            _ => false,
        };
        if !keep {
            continue;
        }
        if name == b"user." {
            return Err(invalid());
        }
        let name = CString::new(name.as_slice()).map_err(|_| invalid())?;
        selected.push((name, value));
    }
    Ok(selected)
}

/// `struct vfs_cap_data` and `vfs_ns_cap_data` of linux/capability.h: revision and the effective flag, pairs
/// of permitted and inheritable words, and in revision 3 the ID of the namespace's root.
fn is_capability(value: &[u8]) -> bool {
    let Some(magic) = word(value, 0) else { return false };
    const EFFECTIVE: u32 = 1;
    let expected = match magic & !EFFECTIVE {
        0x0100_0000 => 12,
        0x0200_0000 => 20,
        0x0300_0000 => 24,
        _ => return false,
    };
    value.len() == expected
}

/// `struct posix_acl_xattr_header` of linux/posix_acl_xattr.h, version 2, and entries of eight bytes.
fn is_acl(value: &[u8]) -> bool {
    word(value, 0) == Some(2) && (value.len() - 4).is_multiple_of(8)
}

fn word(value: &[u8], at: usize) -> Option<u32> {
    value.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(kind: &Kind, xattrs: &[(&str, &[u8])]) -> Result<Vec<String>, AttributeError> {
        let xattrs = xattrs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect();
        Ok(select(kind, xattrs)?.into_iter().map(|(name, _)| name.into_string().unwrap()).collect())
    }

    #[test]
    fn only_the_allowed_are_kept() {
        let all: [(&str, &[u8]); 11] = [
            ("user.a", b"1"),
            ("user.overlay.opaque", b"y"),
            ("user.overlay.redirect", b"/etc"),
            ("trusted.overlay.opaque", b"y"),
            ("trusted.overlay.metacopy", b""),
            ("trusted.x", b""),
            ("security.selinux", b"system_u:object_r:shadow_t:s0"),
            ("security.ima", b"\x04"),
            ("security.evm", b"\x02"),
            ("system.nfs4_acl", b""),
            ("unknown", b""),
        ];
        assert_eq!(names(&Kind::File, &all).unwrap(), ["user.a"]);
        assert_eq!(names(&Kind::Directory, &all).unwrap(), ["user.a"]);
        let link = Kind::Symlink { target: b"x".to_vec() };
        assert!(names(&link, &all).unwrap().is_empty());
        assert!(names(&Kind::Fifo, &all).unwrap().is_empty());
    }

    #[test]
    fn capabilities_are_validated() {
        let value = |revision: u8, length: usize| {
            let mut value = vec![0; length];
            value[0] = 1;
            value[3] = revision;
            value
        };
        for (revision, length) in [(1, 12), (2, 20), (3, 24)] {
            let good = value(revision, length);
            assert_eq!(names(&Kind::File, &[("security.capability", &good)]).unwrap().len(), 1);
            assert!(names(&Kind::Directory, &[("security.capability", &good)]).unwrap().is_empty());
        }
        for (revision, length) in [(0, 20), (1, 20), (2, 12), (2, 24), (3, 20), (4, 24), (2, 4)] {
            assert!(names(&Kind::File, &[("security.capability", &value(revision, length))]).is_err());
        }
        assert!(names(&Kind::File, &[("security.capability", b"")]).is_err());
    }

    #[test]
    fn access_lists_are_validated() {
        let good = [2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255];
        assert_eq!(names(&Kind::File, &[("system.posix_acl_access", &good)]).unwrap().len(), 1);
        assert!(names(&Kind::File, &[("system.posix_acl_default", &good)]).unwrap().is_empty());
        assert_eq!(names(&Kind::Directory, &[("system.posix_acl_default", &good)]).unwrap().len(), 1);
        for bad in [&b""[..], b"\x02\0\0", b"\x01\0\0\0", b"\x02\0\0\0xxxx"] {
            assert!(names(&Kind::File, &[("system.posix_acl_access", bad)]).is_err());
        }
    }

    #[test]
    fn a_name_must_name_something() {
        assert!(names(&Kind::File, &[("user.", b"")]).is_err());
        assert!(names(&Kind::File, &[("user.a\0b", b"")]).is_err());
    }
}
