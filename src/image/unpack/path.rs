//! Names of entries: from hostile bytes to paths that cannot leave the layer.
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// PATH_MAX of Linux without its NUL byte.
const PATH_MAX: usize = 4095;
/// NAME_MAX of Linux file systems.
const NAME_MAX: usize = 255;

/// Why a name is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("its name is empty")]
    Empty,
    #[error("its name leads out of the layer")]
    Escapes,
    #[error("its name is longer than {PATH_MAX} bytes")]
    TooLong,
    #[error("its name has a component longer than {NAME_MAX} bytes")]
    ComponentTooLong,
    #[error("its name holds a NUL byte")]
    Nul,
    #[error("its name is reserved for whiteouts")]
    Reserved,
}

/// A path below a layer's root: components joined by single slashes, none of them `.` or `..`, none empty;
/// the root itself is the empty path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerPath(Vec<u8>);

impl LayerPath {
    /// Takes a name as a layer spells it. A leading slash means the layer's root.
    pub fn new(name: &[u8]) -> Result<LayerPath, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.contains(&0) {
            return Err(NameError::Nul);
        }
        let mut path = Vec::with_capacity(name.len());
        for component in name.split(|&byte| byte == b'/') {
            match component {
                b"" | b"." => continue,
                b".." => return Err(NameError::Escapes),
                _ if component.len() > NAME_MAX => return Err(NameError::ComponentTooLong),
                _ => {}
            }
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(component);
        }
        if path.len() > PATH_MAX {
            return Err(NameError::TooLong);
        }
        Ok(LayerPath(path))
    }

    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path's bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The parent's path and the last component; the root has neither.
    pub(super) fn split(&self) -> Option<(&[u8], &Path)> {
        if self.is_root() {
            return None;
        }
        let (parent, name) = match self.0.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&self.0[..slash], &self.0[slash + 1..]),
            None => (&b""[..], &self.0[..]),
        };
        Some((parent, Path::new(OsStr::from_bytes(name))))
    }

    /// A path that [`LayerPath::split`] or [`LayerPath::ancestors`] has made.
    pub(super) fn part(bytes: &[u8]) -> LayerPath {
        LayerPath(bytes.to_vec())
    }

    /// All proper ancestors but the root, the topmost first.
    pub(super) fn ancestors(&self) -> impl Iterator<Item = LayerPath> {
        let slashes = self.0.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        slashes.map(|(at, _)| LayerPath(self.0[..at].to_vec()))
    }

    fn sibling(&self, name: &[u8]) -> LayerPath {
        match self.split() {
            Some((b"", _)) | None => LayerPath(name.to_vec()),
            Some((parent, _)) => LayerPath([parent, b"/", name].concat()),
        }
    }
}

/// What a name means in a layer (image-spec `layer.md`, "Whiteouts").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// The entry itself.
    Entry(LayerPath),
    /// `.wh.NAME`: what layers below have at this path is removed.
    Whiteout(LayerPath),
    /// `.wh..wh..opq`: all that layers below have in this directory is removed.
    Opaque(LayerPath),
}

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Tells entries from whiteouts.
pub fn meaning(name: &[u8]) -> Result<Meaning, NameError> {
    let path = LayerPath::new(name)?;
    let Some((parent, last)) = path.split() else { return Ok(Meaning::Entry(path)) };
    if parent.split(|&byte| byte == b'/').any(|component| component.starts_with(WHITEOUT)) {
        return Err(NameError::Reserved);
    }
    let last = last.as_os_str().as_bytes();
    if last == OPAQUE {
        return Ok(Meaning::Opaque(LayerPath::part(parent)));
    }
    match last.strip_prefix(WHITEOUT) {
        None => Ok(Meaning::Entry(path)),
        // "." and "..": a whiteout of the directory itself, or of its parent. Names that begin with two
        // prefixes are AUFS's own.
        Some(b"" | b"." | b"..") => Err(NameError::Reserved),
        Some(hidden) if hidden.starts_with(WHITEOUT) => Err(NameError::Reserved),
        Some(hidden) => Ok(Meaning::Whiteout(path.sibling(hidden))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        let path = |name: &[u8]| LayerPath::new(name).map(|path| path.0);
        assert_eq!(path(b"./a//b/./c/"), Ok(b"a/b/c".to_vec()));
        assert_eq!(path(b"/etc/passwd"), Ok(b"etc/passwd".to_vec()));
        for root in [&b"."[..], b"/", b"./", b"//", b"/./."] {
            assert_eq!(path(root), Ok(Vec::new()));
        }
        for escape in [&b".."[..], b"../x", b"/../x", b"a/../../x", b"a/../x", b"a/.."] {
            assert_eq!(path(escape), Err(NameError::Escapes));
        }
        assert_eq!(path(b""), Err(NameError::Empty));
        assert_eq!(path(b"a\0b"), Err(NameError::Nul));
        assert_eq!(path(&[b'a'; 256]), Err(NameError::ComponentTooLong));
        assert_eq!(path(&b"a/".repeat(2048 + 10)), Err(NameError::TooLong));
        assert!(path(&b"a/".repeat(2048)).is_ok());
        for odd in [&b"\xff\xfe"[..], b"a\nb", b"a\\b", b"-rf", b"...", b" "] {
            assert_eq!(path(odd), Ok(odd.to_vec()));
        }
    }

    #[test]
    fn whiteouts_by_name() {
        let entry = |path: &[u8]| Ok(Meaning::Entry(LayerPath(path.to_vec())));
        let whiteout = |path: &[u8]| Ok(Meaning::Whiteout(LayerPath(path.to_vec())));
        let opaque = |path: &[u8]| Ok(Meaning::Opaque(LayerPath(path.to_vec())));
        assert_eq!(meaning(b"a/.whx"), entry(b"a/.whx"));
        assert_eq!(meaning(b".wh.x"), whiteout(b"x"));
        assert_eq!(meaning(b"a/b/.wh..x"), whiteout(b"a/b/.x"));
        assert_eq!(meaning(b"a/.wh...."), whiteout(b"a/..."));
        assert_eq!(meaning(b"a/.wh..wh..opq"), opaque(b"a"));
        assert_eq!(meaning(b".wh..wh..opq"), opaque(b""));
        let reserved: [&[u8]; 9] = [
            b".wh.",
            b"a/.wh.",
            b".wh..",
            b".wh...",
            b".wh..wh.plnk",
            b".wh..wh..plnk",
            b".wh..wh.",
            b".wh.a/b",
            b"a/.wh..wh..opq/b",
        ];
        for name in reserved {
            assert_eq!(meaning(name), Err(NameError::Reserved), "{}", String::from_utf8_lossy(name));
        }
    }

    #[test]
    fn parts_of_paths() {
        let path = LayerPath::new(b"a/b/c").unwrap();
        assert_eq!(path.split(), Some((&b"a/b"[..], Path::new("c"))));
        assert_eq!(LayerPath::new(b"a").unwrap().split(), Some((&b""[..], Path::new("a"))));
        assert_eq!(LayerPath::new(b"/").unwrap().split(), None);
        let ancestors: Vec<Vec<u8>> = path.ancestors().map(|path| path.0).collect();
        assert_eq!(ancestors, [b"a".to_vec(), b"a/b".to_vec()]);
    }
}
