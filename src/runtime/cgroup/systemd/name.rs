//! The names of units: pure.
use std::path::PathBuf;

use super::{Error, Manager, Result, Unit};

/// `cgroupsPath` is empty: what runc makes of it, so that who looks for its units finds ours.
const PREFIX: &str = "runc";
/// UNIT_NAME_MAX of systemd, its NUL included.
const MAX_NAME: usize = 256;
const SLICE: &str = ".slice";

/// The unit of container `id` for a `cgroupsPath` of the form `slice:prefix:name`.
///
/// # Errors
/// [`Error::BadPath`], in runc's words where the form is another.
pub(super) fn unit(cgroups_path: &str, id: &str, manager: Manager) -> Result<Unit> {
    let bad = |reason| Error::BadPath { path: cgroups_path.to_owned(), reason };
    let parts: Vec<&str> = cgroups_path.split(':').collect();
    let (slice, prefix, name) = match parts[..] {
        [""] => ("", PREFIX, id),
        [slice, prefix, name] => (slice, prefix, name),
        _ => return Err(Error::BadForm { path: cgroups_path.to_owned() }),
    };
    let default = match manager {
        Manager::System => "system.slice",
        Manager::User => "user.slice",
    };
    let slice = if slice.is_empty() { default } else { slice };
    if name.ends_with(SLICE) {
        return Err(bad("a slice holds no processes; the last part is the name of a scope"));
    }
    let unit = Unit { name: format!("{prefix}-{name}.scope"), slice: slice.to_owned(), manager };
    if !legal(&unit.name) || !legal(&unit.slice) {
        return Err(bad("names of units are of letters, digits and :-_.\\@, and have at most 255"));
    }
    slice_path(&unit.slice)?;
    Ok(unit)
}

/// VALID_CHARS of systemd's src/basic/unit-name.c.
fn legal(name: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    name.len() < MAX_NAME && name.bytes().all(fine)
}

/// The cgroup of a slice below its manager's: `a-b.slice` is `a.slice/a-b.slice`, `-.slice` is the manager's own.
///
/// # Errors
/// [`Error::BadPath`] for what is no slice's name.
pub(super) fn slice_path(slice: &str) -> Result<PathBuf> {
    let bad = || Error::BadPath { path: slice.to_owned(), reason: "it is no name of a slice" };
    let stem = slice.strip_suffix(SLICE).filter(|stem| !stem.is_empty()).ok_or_else(bad)?;
    let mut path = PathBuf::new();
    if stem == "-" {
        return Ok(path);
    }
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    let mut start = 0;
    for end in ends {
        if start == end {
            return Err(bad());
        }
        path.push(format!("{}{SLICE}", &stem[..end]));
        start = end + 1;
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_parts_name_a_scope_in_a_slice() {
        let of = |path: &str, manager| unit(path, "id", manager).map(|unit| (unit.slice, unit.name)).unwrap();
        let pair = |slice: &str, name: &str| (slice.to_owned(), name.to_owned());
        assert_eq!(
            of("system.slice:docker:1234", Manager::System),
            pair("system.slice", "docker-1234.scope")
        );
        assert_eq!(of("", Manager::System), pair("system.slice", "runc-id.scope"));
        assert_eq!(of("", Manager::User), pair("user.slice", "runc-id.scope"));
        assert_eq!(of(":libpod:x", Manager::User), pair("user.slice", "libpod-x.scope"));
        assert_eq!(of("a-b.slice::x", Manager::System), pair("a-b.slice", "-x.scope"));
    }

    #[test]
    fn what_is_no_unit_is_refused() {
        let text = |path: &str| crate::error::chain(&unit(path, "id", Manager::System).unwrap_err());
        assert!(text("/docker/1234").contains("expected cgroupsPath to be of format \"slice:prefix:name\""));
        for path in ["a:b", "a.slice:b:c:d", "x:p:n", "a--b.slice:p:n", "-a.slice:p:n", ".slice:p:n"] {
            assert!(unit(path, "id", Manager::System).is_err(), "{path}");
        }
        for path in ["a/b.slice:p:n", "a.slice:p:../n", "a.slice:p:n\n", "a.slice:p:n m", "a.slice:p:n.slice"]
        {
            assert!(unit(path, "id", Manager::System).is_err(), "{path}");
        }
        assert!(unit(&format!("a.slice:p:{}", "n".repeat(250)), "id", Manager::System).is_err());
        assert!(unit("", "a+b", Manager::System).is_err());
    }

    #[test]
    fn slices_nest_by_their_dashes() {
        let path = |slice| slice_path(slice).unwrap().to_str().unwrap().to_owned();
        assert_eq!(path("test-a-b.slice"), "test.slice/test-a.slice/test-a-b.slice");
        assert_eq!(path("system.slice"), "system.slice");
        assert_eq!(path("-.slice"), "");
    }
}
