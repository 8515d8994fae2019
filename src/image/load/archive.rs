//! Random access to the members of a tar archive, or to the files of a layout directory.
use super::{LoadError, Result};
use crate::image::unpack::LayerPath;
use crate::image::unpack::tar::{Event, Kind, Parser};
use crate::sys::SysError;
use crate::sys::root::Root;
use nix::fcntl::OFlag;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// The most members of an archive: an image has at most 500 layers, old archives have three for each.
const MEMBERS_MAX: usize = 200_000;
/// The most links from a name to the file itself.
const LINKS_MAX: usize = 16;
/// What is read at once while the members are found.
const CHUNK: usize = 64 << 10;

/// Where an image comes from.
#[derive(Debug)]
pub(super) enum Archive {
    Tar { file: Arc<File>, members: HashMap<Vec<u8>, Member> },
    Directory(Root),
}

/// A member of a tar archive.
#[derive(Debug, Clone)]
pub(super) enum Member {
    File {
        offset: u64,
        size: u64,
    },
    /// The path that it leads to; `docker save` of old versions links equal layers.
    Link(Vec<u8>),
    Other,
}

/// The bytes of one file, which knows its length.
#[derive(Debug)]
pub(super) struct Section {
    file: Arc<File>,
    position: u64,
    left: u64,
}

impl Section {
    pub(super) fn size(&self) -> u64 {
        self.left
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let count = self.file.read_at(&mut buffer[..length], self.position)?;
        if count == 0 && length > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.position += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

impl Archive {
    /// Finds the members of a plain tar archive; their data is skipped.
    pub(super) fn tar(file: File) -> Result<Archive> {
        let mut parser = Parser::new();
        let mut members: HashMap<Vec<u8>, Member> = HashMap::new();
        let mut position = 0;
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = match file.read_at(&mut chunk, position) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(SysError::io("read", "image archive")(error).into()),
            };
            if count == 0 {
                break;
            }
            let mut input = &chunk[..count];
            position += count as u64;
            while let Some(event) = parser.next(&mut input)? {
                let Event::Entry(entry) = event else { continue };
                if members.len() == MEMBERS_MAX {
                    return Err(LoadError::TooManyMembers { limit: MEMBERS_MAX });
                }
                let name = member_name(&entry.path)?;
                let member = match entry.kind {
                    Kind::File => Member::File { offset: position - input.len() as u64, size: entry.size },
                    Kind::HardLink { target } => Member::Link(target),
                    Kind::Symlink { target } => Member::Link(beside(&name, &target)),
                    _ => Member::Other,
                };
                // Data that is in the chunk already is taken by the parser in no time.
                if entry.size > input.len() as u64 {
                    position += parser.skip(input.len() as u64);
                    input = &[];
                }
                if let Some(earlier) = members.insert(name.clone(), member)
                    && !matches!(earlier, Member::Other)
                {
                    // Which of two is meant is where readers differ.
                    return Err(LoadError::Twice { name: String::from_utf8_lossy(&name).into_owned() });
                }
            }
        }
        parser.finish()?;
        Ok(Archive::Tar { file: Arc::new(file), members })
    }

    /// A layout directory. Its files are never resolved outside of it.
    pub(super) fn directory(path: &Path) -> Result<Archive> {
        Ok(Archive::Directory(Root::open_host(path)?))
    }

    /// The file of that name, `None` if there is none.
    pub(super) fn find(&self, name: &[u8]) -> Result<Option<Section>> {
        match self {
            Archive::Tar { file, members } => find_member(file, members, name),
            Archive::Directory(root) => find_file(root, name),
        }
    }

    /// The same, and its absence is an error.
    pub(super) fn open(&self, name: &[u8]) -> Result<Section> {
        let missing = || LoadError::Missing { name: String::from_utf8_lossy(name).into_owned() };
        self.find(name)?.ok_or_else(missing)
    }

    /// Reads a small file whole.
    pub(super) fn read(&self, name: &[u8], limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(section) = self.find(name)? else { return Ok(None) };
        let size = section.size();
        if size > limit {
            let name = String::from_utf8_lossy(name).into_owned();
            return Err(LoadError::TooLarge { name, size, limit });
        }
        let mut bytes = Vec::new();
        section.take(limit).read_to_end(&mut bytes).map_err(SysError::io("read", "image archive"))?;
        Ok(Some(bytes))
    }
}

fn member_name(path: &[u8]) -> Result<Vec<u8>> {
    let failed = |source| LoadError::Name { name: String::from_utf8_lossy(path).into_owned(), source };
    Ok(LayerPath::new(path).map_err(failed)?.into_bytes())
}

/// The target of a symbolic link in the directory of `name`, still with its `..`.
fn beside(name: &[u8], target: &[u8]) -> Vec<u8> {
    match name.iter().rposition(|&byte| byte == b'/') {
        Some(slash) if !target.starts_with(b"/") => [&name[..=slash], target].concat(),
        _ => target.to_vec(),
    }
}

/// Resolves `..` by the text alone; `None` if it leads out of the archive. Every component is a member's
/// name: a link to a directory is not followed.
fn lexical(path: &[u8]) -> Option<Vec<u8>> {
    let mut components: Vec<&[u8]> = Vec::new();
    for component in path.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                components.pop()?;
            }
            name => components.push(name),
        }
    }
    Some(components.join(&b'/'))
}

fn find_member(file: &Arc<File>, members: &HashMap<Vec<u8>, Member>, name: &[u8]) -> Result<Option<Section>> {
    let shown = || String::from_utf8_lossy(name).into_owned();
    let mut current = lexical(name).ok_or_else(|| LoadError::Escapes { name: shown() })?;
    for _ in 0..LINKS_MAX {
        match members.get(&current) {
            Some(Member::File { offset, size }) => {
                return Ok(Some(Section { file: Arc::clone(file), position: *offset, left: *size }));
            }
            Some(Member::Link(target)) => {
                current = lexical(target).ok_or_else(|| LoadError::Escapes { name: shown() })?;
            }
            Some(Member::Other) => return Err(LoadError::NoFile { name: shown() }),
            None => return Ok(None),
        }
    }
    Err(LoadError::Loop { name: shown() })
}

fn find_file(root: &Root, name: &[u8]) -> Result<Option<Section>> {
    let path = Path::new(std::ffi::OsStr::from_bytes(name));
    let fd = match root.open_no_links(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY) {
        Ok(fd) => fd,
        Err(error) if error.errno == nix::errno::Errno::ENOENT => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let file = File::from(fd);
    let meta = file.metadata().map_err(SysError::io("fstat", path.to_string_lossy()))?;
    if !meta.is_file() {
        return Err(LoadError::NoFile { name: path.to_string_lossy().into_owned() });
    }
    Ok(Some(Section { file: Arc::new(file), position: 0, left: meta.len() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::unpack::testing::Tar;
    use std::io::Write;

    fn archive(tar: Tar) -> Result<Archive> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&tar.end()).unwrap();
        Archive::tar(file)
    }

    fn text(archive: &Archive, name: &str) -> String {
        String::from_utf8(archive.read(name.as_bytes(), 1 << 20).unwrap().unwrap()).unwrap()
    }

    #[test]
    fn members_are_found_and_skipped() {
        let large = "x".repeat(300_000);
        let archive = archive(
            Tar::new()
                .file("a", b"1")
                .file("large", large.as_bytes())
                .file("./d/b", b"2")
                .file("edge", [b'e'; 512])
                .file("empty", b"")
                .file("last", b"3"),
        )
        .unwrap();
        assert_eq!(text(&archive, "a"), "1");
        assert_eq!(text(&archive, "large"), large);
        assert_eq!(text(&archive, "d/b"), "2");
        assert_eq!(text(&archive, "edge").len(), 512);
        assert_eq!(text(&archive, "empty"), "");
        assert_eq!(text(&archive, "last"), "3");
        assert!(archive.find(b"absent").unwrap().is_none());
        assert!(matches!(archive.read(b"large", 1000), Err(LoadError::TooLarge { size: 300_000, .. })));
    }

    #[test]
    fn links_stay_in_the_archive() {
        let archive = archive(
            Tar::new()
                .file("one/layer.tar", b"layer")
                .symlink("two/layer.tar", "../one/layer.tar")
                .symlink("three/layer.tar", "../two/layer.tar")
                .hard_link("hard", "one/layer.tar")
                .symlink("out", "../../etc/passwd")
                .symlink("absolute", "/etc/passwd")
                .symlink("loop", "loop")
                .dir("dir"),
        )
        .unwrap();
        for name in ["two/layer.tar", "three/layer.tar", "hard", "/one/./layer.tar"] {
            assert_eq!(text(&archive, name), "layer", "{name}");
        }
        assert!(matches!(archive.find(b"out"), Err(LoadError::Escapes { .. })));
        assert!(matches!(archive.find(b"../x"), Err(LoadError::Escapes { .. })));
        assert!(archive.find(b"absolute").unwrap().is_none());
        assert!(matches!(archive.find(b"loop"), Err(LoadError::Loop { .. })));
        assert!(matches!(archive.find(b"dir"), Err(LoadError::NoFile { .. })));
    }

    #[test]
    fn hostile_archives_are_refused() {
        assert!(matches!(archive(Tar::new().file("../x", b"")), Err(LoadError::Name { .. })));
        assert!(matches!(
            archive(Tar::new().file("a", b"1").file("./a", b"2")),
            Err(LoadError::Twice { .. })
        ));
        let mut cut = tempfile::tempfile().unwrap();
        let stream = Tar::new().file("a", [0; 5000]).end();
        cut.write_all(&stream[..3000]).unwrap();
        assert!(Archive::tar(cut).is_err());
    }
}
