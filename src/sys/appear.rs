//! Files that appear whole.
use super::SysError;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Puts a file with `bytes` at `path`, where it is seen whole or not at all. It has no name before, so that a kill
/// leaves nothing (O_TMPFILE, Linux 3.11); a file system that cannot do that gets one under another name first.
pub fn appear(path: &Path, bytes: &[u8]) -> Result<(), SysError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    let mut file = match open(directory, flags, Mode::from_bits_truncate(0o666)) {
        Ok(fd) => File::from(fd),
        // EISDIR: a kernel that takes the flag for O_DIRECTORY (open(2)).
        Err(Errno::EOPNOTSUPP | Errno::EISDIR) => return rename_into(path, bytes),
        Err(errno) => return Err(SysError::on("open", directory.display().to_string())(errno)),
    };
    file.write_all(bytes).map_err(SysError::io("write", path.display().to_string()))?;
    // The link of procfs is followed: naming the descriptor itself takes a capability (linkat(2)).
    let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = || linkat(AT_FDCWD, nameless.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW);
    let linked = match link() {
        Err(Errno::EEXIST) => {
            match unlinkat(AT_FDCWD, path, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(SysError::on("unlinkat", path.display().to_string())(errno)),
            }
            link()
        }
        other => other,
    };
    linked.map_err(SysError::on("linkat", path.display().to_string()))
}

fn rename_into(path: &Path, bytes: &[u8]) -> Result<(), SysError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.tmp"));
    File::create(&beside)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| std::fs::rename(&beside, path))
        .map_err(SysError::io("rename", beside.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_once_and_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        for text in ["12345", "7"] {
            appear(&path, text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        rename_into(&path, b"8").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "8");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        assert_eq!(appear(&directory.path().join("no/pid"), b"").unwrap_err().errno, Errno::ENOENT);
    }
}
