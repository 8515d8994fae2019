//! Compiled programs that are kept between calls.
//!
//! A file is named by the SHA-256 of all that a program follows from (the profile, the host's kernel and
//! architecture, libseccomp), and ends with the SHA-256 of that name and the program: a file that was cut short,
//! damaged or given another's name is no program. That keeps accidents out; attackers are kept out by who can
//! write: every directory on the way and the file itself must belong to root or to the caller, and nobody else
//! may write to them. None of them may be a link. Whatever is not so is no error: the program is compiled, as
//! without a cache, and what cannot be trusted is not written to either.
use crate::sys::seccomp::{Instruction, MAX_INSTRUCTIONS};
use libseccomp::ScmpVersion;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};
use oci_spec::runtime::LinuxSeccomp;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// Changes whenever the same profile compiles to another program.
const FORM: &str = concat!("corten seccomp 6 ", env!("CARGO_PKG_VERSION"), " ");
/// Bytes of a digest.
const DIGEST: usize = 32;
/// Profiles are few: the default one for each set of capabilities in use. With more than these all are forgotten.
const MOST: usize = 64;

/// Where one profile's program is kept.
#[derive(Debug)]
pub(super) struct Slot {
    directory: PathBuf,
    name: String,
}

/// Hashes what is written to it: the text of a profile is long, and needed for nothing else.
struct Hashing<'a>(&'a mut Sha256);

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Slot {
    /// The place for a profile; `None` if it cannot be named.
    pub(super) fn of(directory: &Path, profile: &LinuxSeccomp) -> Option<Slot> {
        let library = ScmpVersion::current().ok()?;
        let host = nix::sys::utsname::uname().ok()?;
        let mut hash = Sha256::new();
        hash.update(FORM);
        hash.update(format!("{}.{}.{} ", library.major, library.minor, library.micro));
        hash.update(format!("{} {:?} ", std::env::consts::ARCH, host.release()));
        let mut text = BufWriter::with_capacity(1024, Hashing(&mut hash));
        serde_json::to_writer(&mut text, profile).ok()?;
        text.flush().ok()?;
        drop(text);
        let mut name = String::with_capacity(2 * DIGEST);
        for byte in hash.finalize() {
            write!(&mut name, "{byte:02x}").ok()?;
        }
        Some(Slot { directory: directory.into(), name })
    }

    /// The program, if it is there, whole, and nobody else's.
    pub(super) fn read(&self) -> Option<Vec<Instruction>> {
        let directory = open_trusted(&self.directory, false)?;
        // A FIFO must not hold us up.
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let file = openat(&directory, self.name.as_str(), flags, Mode::empty()).ok()?;
        if !is_trusted(&file, SFlag::S_IFREG)? {
            return None;
        }
        let limit = u64::try_from(MAX_INSTRUCTIONS * 8 + DIGEST + 1).ok()?;
        // Most are not larger, and each time that the room grows is a call more.
        let mut bytes = Vec::with_capacity(4096);
        File::from(file).take(limit).read_to_end(&mut bytes).ok()?;
        let (program, digest) = bytes.split_at_checked(bytes.len().checked_sub(DIGEST)?)?;
        if self.digest(program) != digest {
            return None;
        }
        let program = Instruction::decode(program)?;
        (!program.is_empty() && program.len() <= MAX_INSTRUCTIONS).then_some(program)
    }

    /// Keeps a program. It need not survive anything, so that nothing is synced.
    pub(super) fn write(&self, program: &[Instruction]) {
        // Without it the next call compiles again.
        let _ = self.try_write(program);
    }

    fn digest(&self, program: &[u8]) -> Vec<u8> {
        Sha256::new().chain_update(&self.name).chain_update(program).finalize().to_vec()
    }

    fn try_write(&self, program: &[Instruction]) -> std::io::Result<()> {
        let Some(directory) = open_trusted(&self.directory, true) else { return Ok(()) };
        make_room(&directory)?;
        let beside = format!("{}.{}.new", self.name, std::process::id());
        let mut bytes = Instruction::encode(program);
        bytes.extend_from_slice(&self.digest(&bytes));
        // What a killed process of the same number left behind.
        let _ = unlinkat(&directory, beside.as_str(), UnlinkatFlags::NoRemoveDir);
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&directory, beside.as_str(), flags, Mode::from_bits_truncate(0o600))?;
        File::from(file).write_all(&bytes)?;
        Ok(renameat(&directory, beside.as_str(), &directory, self.name.as_str())?)
    }
}

/// Forgets everything when there is too much: profiles of yesterday, and halves of killed writers.
fn make_room(directory: &OwnedFd) -> std::io::Result<()> {
    let mut dir =
        Dir::openat(directory, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let names: Vec<_> = dir.iter().flatten().map(|entry| entry.file_name().to_owned()).collect();
    if names.len() < MOST + 2 {
        return Ok(());
    }
    for name in names {
        // `.` and `..` are refused, and what is gone is gone.
        let _ = unlinkat(directory, name.as_c_str(), UnlinkatFlags::NoRemoveDir);
    }
    Ok(())
}

/// Opens a directory, step by step from the root and over no link, if nobody but root and the caller can
/// change any of its entries; with `make`, what is missing of it is made.
fn open_trusted(path: &Path, make: bool) -> Option<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut at = openat(AT_FDCWD, "/", flags, Mode::empty()).ok()?;
    for component in path.components() {
        let name = match component {
            Component::RootDir => continue,
            Component::Normal(name) => name,
            _ => return None,
        };
        if !is_trusted(&at, SFlag::S_IFDIR)? {
            return None;
        }
        at = match openat(&at, name, flags, Mode::empty()) {
            Err(Errno::ENOENT) if make => {
                match mkdirat(&at, name, Mode::from_bits_truncate(0o700)) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(_) => return None,
                }
                openat(&at, name, flags, Mode::empty()).ok()?
            }
            opened => opened.ok()?,
        };
    }
    // The last one holds names that an attacker can foresee: there a sticky bit is not enough.
    let closed = fstat(&at).ok()?.st_mode & 0o022 == 0;
    (closed && is_trusted(&at, SFlag::S_IFDIR)?).then_some(at)
}

/// Whether it is of this type, belongs to root or the caller, and nobody else may write to it. Nobody can take
/// an entry that is ours out of a directory with the sticky bit.
fn is_trusted(file: impl AsFd, kind: SFlag) -> Option<bool> {
    let status = fstat(file).ok()?;
    let sticky = kind == SFlag::S_IFDIR && status.st_mode & 0o1000 != 0;
    let of_kind = status.st_mode & SFlag::S_IFMT.bits() == kind.bits();
    let owner = status.st_uid == 0 || status.st_uid == geteuid().as_raw();
    Some(of_kind && owner && (sticky || status.st_mode & 0o022 == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(name: &str) -> LinuxSeccomp {
        let text = format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["{name}"],"action":"SCMP_ACT_ALLOW"}}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_kept_program_is_the_compiled_one() {
        let directory = tempfile::tempdir().unwrap();
        let kept = directory.path().join("seccomp");
        let compiled = super::super::compile(&profile("read"), None).unwrap();
        for _ in 0..2 {
            assert_eq!(super::super::compile(&profile("read"), Some(&kept)).unwrap(), compiled);
        }
        assert_eq!(std::fs::read_dir(&kept).unwrap().count(), 1);
        assert_ne!(super::super::compile(&profile("write"), Some(&kept)).unwrap(), compiled);
        assert_eq!(std::fs::read_dir(&kept).unwrap().count(), 2);
    }

    #[test]
    fn a_damaged_file_is_no_program() {
        let directory = tempfile::tempdir().unwrap();
        let slot = Slot::of(directory.path(), &profile("read")).unwrap();
        assert_eq!(slot.read(), None);
        let program = [Instruction { code: 6, jt: 0, jf: 0, k: 0x7fff_0000 }];
        slot.write(&program);
        assert_eq!(slot.read().unwrap(), program);
        let path = slot.directory.join(&slot.name);
        let whole = std::fs::read(&path).unwrap();
        for damaged in [&whole[..whole.len() - 1], &whole[1..], &[][..]] {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(slot.read(), None);
        }
        let mut other = whole;
        other[4] ^= 1;
        std::fs::write(&path, other).unwrap();
        assert_eq!(slot.read(), None);
    }

    const ALLOW: [Instruction; 1] = [Instruction { code: 6, jt: 0, jf: 0, k: 0x7fff_0000 }];

    #[test]
    fn another_profiles_program_is_not_taken_for_this_ones() {
        let directory = tempfile::tempdir().unwrap();
        let (one, other) = (profile("read"), profile("write"));
        let (one, other) =
            (Slot::of(directory.path(), &one).unwrap(), Slot::of(directory.path(), &other).unwrap());
        one.write(&ALLOW);
        std::fs::rename(directory.path().join(&one.name), directory.path().join(&other.name)).unwrap();
        assert_eq!(other.read(), None);
    }

    #[test]
    fn what_others_can_write_is_neither_read_nor_written() {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path, mode| {
            File::open(path).unwrap().set_permissions(PermissionsExt::from_mode(mode)).unwrap();
        };
        let above = tempfile::tempdir().unwrap();
        let directory = above.path().join("seccomp");
        let slot = Slot::of(&directory, &profile("read")).unwrap();
        slot.write(&ALLOW);
        assert!(slot.read().is_some());
        let file = directory.join(&slot.name);
        for (path, loose, tight) in
            [(file.as_path(), 0o660, 0o600), (&directory, 0o770, 0o700), (above.path(), 0o777, 0o700)]
        {
            mode(path, loose);
            assert_eq!(slot.read(), None, "{}", path.display());
            mode(path, tight);
            assert!(slot.read().is_some(), "{}", path.display());
        }
        mode(&directory, 0o1777);
        assert_eq!(slot.read(), None, "names there can be foreseen");
        std::fs::remove_file(&file).unwrap();
        slot.write(&ALLOW);
        assert!(!file.exists(), "written where others can write");
    }

    #[test]
    fn links_lead_nowhere_and_a_fifo_holds_nobody_up() {
        let above = tempfile::tempdir().unwrap();
        let directory = above.path().join("seccomp");
        let slot = Slot::of(&directory, &profile("read")).unwrap();
        slot.write(&ALLOW);
        let (file, away) = (directory.join(&slot.name), above.path().join("away"));
        std::fs::rename(&file, &away).unwrap();
        std::os::unix::fs::symlink(&away, &file).unwrap();
        assert_eq!(slot.read(), None);
        slot.write(&ALLOW);
        assert!(file.symlink_metadata().unwrap().is_file(), "the link is replaced");
        std::fs::remove_file(&file).unwrap();
        nix::unistd::mkfifo(&file, Mode::from_bits_truncate(0o600)).unwrap();
        assert_eq!(slot.read(), None);
        let aside = above.path().join("aside");
        std::fs::rename(&directory, &aside).unwrap();
        std::os::unix::fs::symlink(&aside, &directory).unwrap();
        slot.write(&ALLOW);
        assert_eq!(slot.read(), None);
    }

    #[test]
    fn too_many_are_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        for number in 0..=MOST {
            std::fs::write(directory.path().join(number.to_string()), "").unwrap();
        }
        let slot = Slot::of(directory.path(), &profile("read")).unwrap();
        slot.write(&ALLOW);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
