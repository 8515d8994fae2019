//! The folder: which files count, what is in them, and when that changes.
use super::error::ManifestError;
use super::parse::{Form, Parsed, parse};
use crate::sys::reactor::{self, AsyncFd};
use crate::sys::{SysError, process};
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::Interest;

/// Bytes of a file.
const FILE_MAX: u64 = 1 << 20;
/// Files of a folder; a machine runs fewer pods.
const FILES: usize = 1024;

/// Tells one content of a file from the next without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What is in a file.
#[derive(Debug, Clone)]
pub struct Content {
    /// Of the file when it was read.
    pub stamp: Option<Stamp>,
    /// The pod, or why there is none.
    pub parsed: Result<Arc<Parsed>, Arc<ManifestError>>,
}

/// Files by name.
pub type Files = BTreeMap<String, Content>;

/// Which form a file of this name has; none if it is an editor's, or something else.
fn form(name: &str) -> Option<Form> {
    let (stem, extension) = name.rsplit_once('.')?;
    // `.web.yaml.swp`, `.#web.yaml`, `#web.yaml#` and `web.yaml~` are editors'.
    if stem.is_empty() || name.starts_with(['.', '#']) {
        return None;
    }
    match extension {
        "yaml" | "yml" => Some(Form::Yaml),
        "json" => Some(Form::Json),
        _ => None,
    }
}

/// Reads the files that are new or have changed since `known`.
///
/// # Errors
/// The folder cannot be read.
pub fn scan(folder: &Path, known: &Files) -> Result<Files, SysError> {
    let failed = || SysError::io("readdir", folder.display().to_string());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed())? {
        // A name that is no text is no pod's.
        let Ok(name) = entry.map_err(failed())?.file_name().into_string() else { continue };
        names.extend(form(&name).map(|form| (name, form)));
    }
    names.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut files = Files::new();
    for (index, (name, form)) in names.into_iter().enumerate() {
        let content = if index < FILES {
            content(&folder.join(&name), form, known.get(&name))
        } else {
            let error = ManifestError::TooMany { limit: FILES };
            Some(Content { stamp: None, parsed: Err(Arc::new(error)) })
        };
        files.extend(content.map(|content| (name, content)));
    }
    Ok(files)
}

/// `None` if the file has gone meanwhile.
fn content(path: &Path, form: Form, known: Option<&Content>) -> Option<Content> {
    // A FIFO is not waited for, and a symbolic link not followed.
    let flags = (nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK).bits();
    let refused = |error| Some(Content { stamp: None, parsed: Err(Arc::new(error)) });
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) if error.raw_os_error() == Some(Errno::ELOOP as i32) => {
            return refused(ManifestError::NotRegular);
        }
        Err(error) => return refused(ManifestError::Read(error)),
    };
    let metadata = match file.metadata() {
        Ok(metadata) if metadata.is_file() => metadata,
        Ok(_) => return refused(ManifestError::NotRegular),
        Err(error) => return refused(ManifestError::Read(error)),
    };
    let stamp = Stamp {
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    };
    match known {
        Some(known) if known.stamp == Some(stamp) => Some(known.clone()),
        _ => {
            let parsed = read(file).and_then(|text| parse(&text, form)).map(Arc::new).map_err(Arc::new);
            Some(Content { stamp: Some(stamp), parsed })
        }
    }
}

fn read(file: File) -> Result<String, ManifestError> {
    let mut text = String::new();
    file.take(FILE_MAX + 1).read_to_string(&mut text).map_err(ManifestError::Read)?;
    if text.len() as u64 > FILE_MAX {
        return Err(ManifestError::TooLarge { limit: FILE_MAX });
    }
    Ok(text)
}

/// Waits for changes of a folder.
#[derive(Debug)]
pub struct Watcher {
    folder: PathBuf,
    inotify: Inotify,
    readable: AsyncFd<OwnedFd>,
}

impl Watcher {
    /// Changes from now on are told.
    ///
    /// # Errors
    /// The folder cannot be watched.
    pub fn new(folder: &Path) -> Result<Self, SysError> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
            .map_err(SysError::on("inotify_init1", ""))?;
        // Not IN_MODIFY: a file that is being written is read when its writer closes it.
        let events = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        inotify
            .add_watch(folder, events)
            .map_err(SysError::on("inotify_add_watch", folder.display().to_string()))?;
        let readable = reactor::watch(process::duplicate(&inotify)?, Interest::READABLE)?;
        Ok(Self { folder: folder.to_owned(), inotify, readable })
    }

    /// Returns after a change that may concern a pod; `false` if it is the folder itself that has gone.
    ///
    /// # Errors
    /// The changes cannot be read.
    pub async fn changed(&mut self) -> Result<bool, SysError> {
        loop {
            let mut ready = self.readable.readable().await.map_err(SysError::io("epoll_wait", "inotify"))?;
            let events = match self.inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN) => {
                    ready.clear_ready();
                    continue;
                }
                Err(errno) => return Err(SysError::on("read", "inotify")(errno)),
            };
            let gone =
                AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_IGNORED;
            if events.iter().any(|event| event.mask.intersects(gone)) {
                return Ok(false);
            }
            // One whose events were lost (IN_Q_OVERFLOW) has no name.
            let concerns =
                events.iter().any(|event| match event.name.as_ref().and_then(|name| name.to_str()) {
                    Some(name) if event.mask.contains(AddWatchFlags::IN_CREATE) => self.is_whole(name),
                    Some(name) => form(name).is_some(),
                    None => true,
                });
            if concerns {
                return Ok(true);
            }
        }
    }

    /// Whether a file that appeared is there as a whole: what is made by open(2) is still to be written, but a
    /// second name of a file, or a symbolic link, has no writer who closes it.
    fn is_whole(&self, name: &str) -> bool {
        form(name).is_some()
            && std::fs::symlink_metadata(self.folder.join(name))
                .is_ok_and(|metadata| !metadata.is_file() || metadata.nlink() > 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str =
        "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: b, image: c}]}}";

    #[test]
    fn which_files_count() {
        for name in ["a.yaml", "a.yml", "a.json", "a.b.yaml", "a-1.yaml"] {
            assert!(form(name).is_some(), "{name}");
        }
        for name in [
            "a",
            ".yaml",
            ".a.yaml",
            ".#a.yaml",
            "#a.yaml#",
            "#a.yaml",
            "a.yaml~",
            "a.yaml.swp",
            "a.yaml.tmp",
            "4913",
        ] {
            assert!(form(name).is_none(), "{name}");
        }
    }

    #[test]
    fn only_regular_files_of_a_bounded_size_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("good.yaml"), POD).unwrap();
        std::fs::write(at("large.yaml"), vec![b'#'; 2 << 20]).unwrap();
        std::fs::write(at("bytes.yaml"), [0xff, 0xfe, 0x00, 0xd8]).unwrap();
        std::fs::write(at("other.txt"), "x").unwrap();
        std::fs::create_dir(at("directory.yaml")).unwrap();
        std::os::unix::fs::symlink(at("good.yaml"), at("link.yaml")).unwrap();
        nix::unistd::mkfifo(&at("fifo.yaml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let files = scan(folder.path(), &Files::new()).unwrap();
        let of = |name: &str| files[name].parsed.as_ref().map(|_| ()).map_err(ToString::to_string);
        assert_eq!(of("good.yaml"), Ok(()));
        assert_eq!(of("large.yaml"), Err("it is larger than 1048576 bytes".to_owned()));
        assert_eq!(of("bytes.yaml"), Err("cannot read it".to_owned()));
        for name in ["directory.yaml", "link.yaml", "fifo.yaml"] {
            assert_eq!(of(name), Err("it is no regular file".to_owned()), "{name}");
        }
        assert_eq!(files.len(), 6);
        // What did not change is not read again.
        let again = scan(folder.path(), &files).unwrap();
        let (Ok(first), Ok(second)) = (&files["good.yaml"].parsed, &again["good.yaml"].parsed) else {
            panic!()
        };
        assert!(Arc::ptr_eq(first, second));
    }

    #[tokio::test]
    async fn a_file_is_told_of_when_it_is_whole() {
        use std::io::Write;
        let folder = tempfile::tempdir().unwrap();
        let mut watcher = Watcher::new(folder.path()).unwrap();
        let soon = std::time::Duration::from_millis(100);
        let mut file = File::create(folder.path().join("a.yaml")).unwrap();
        file.write_all(POD.as_bytes()).unwrap();
        std::fs::write(folder.path().join(".a.yaml.swp"), "x").unwrap();
        assert!(tokio::time::timeout(soon, watcher.changed()).await.is_err());
        drop(file);
        assert!(watcher.changed().await.unwrap());
        std::fs::rename(folder.path().join("a.yaml"), folder.path().join("b.yaml")).unwrap();
        assert!(watcher.changed().await.unwrap());
        std::fs::remove_file(folder.path().join("b.yaml")).unwrap();
        assert!(watcher.changed().await.unwrap());
        std::fs::remove_file(folder.path().join(".a.yaml.swp")).unwrap();
        std::fs::remove_dir(folder.path()).unwrap();
        assert!(!watcher.changed().await.unwrap());
    }
}
