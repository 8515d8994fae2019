//! Compiled programs that are kept between calls.
//!
//! A file is named by the SHA-256 of all that a program follows from, and ends with the SHA-256 of the program
//! itself: a file that a killed writer or a full disk cut short is no program. Whatever goes wrong here is no
//! error: the program is compiled, as without a cache.
use crate::sys::seccomp::{Instruction, MAX_INSTRUCTIONS};
use libseccomp::ScmpVersion;
use oci_spec::runtime::LinuxSeccomp;
use sha2::{Digest, Sha256};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Changes whenever the same profile compiles to another program.
const FORM: &str = concat!("corten seccomp 1 ", env!("CARGO_PKG_VERSION"), " ");
/// Bytes of a digest.
const DIGEST: usize = 32;
/// Profiles are few: the default one for each set of capabilities in use. More are not kept.
const MOST: usize = 64;

/// Where one profile's program is kept.
#[derive(Debug)]
pub(super) struct Slot {
    path: PathBuf,
}

impl Slot {
    /// The place for a profile; `None` if it cannot be named.
    pub(super) fn of(directory: &Path, profile: &LinuxSeccomp) -> Option<Slot> {
        let library = ScmpVersion::current().ok()?;
        let mut hash = Sha256::new();
        hash.update(FORM);
        hash.update(format!("{}.{}.{} ", library.major, library.minor, library.micro));
        hash.update(std::env::consts::ARCH);
        hash.update(serde_json::to_vec(profile).ok()?);
        let name: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Some(Slot { path: directory.join(name) })
    }

    /// The program, if it is there and whole.
    pub(super) fn read(&self) -> Option<Vec<Instruction>> {
        let limit = u64::try_from(MAX_INSTRUCTIONS * 8 + DIGEST + 1).ok()?;
        let mut bytes = Vec::new();
        File::open(&self.path).ok()?.take(limit).read_to_end(&mut bytes).ok()?;
        let (program, digest) = bytes.split_at_checked(bytes.len().checked_sub(DIGEST)?)?;
        if Sha256::digest(program).as_slice() != digest {
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

    fn try_write(&self, program: &[Instruction]) -> std::io::Result<()> {
        let Some(directory) = self.path.parent() else { return Ok(()) };
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        if std::fs::read_dir(directory)?.count() >= MOST {
            return Ok(());
        }
        let beside = self.path.with_extension(format!("{}.new", std::process::id()));
        let mut bytes = Instruction::encode(program);
        let digest = Sha256::digest(&bytes);
        bytes.extend_from_slice(&digest);
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(&bytes)?;
        std::fs::rename(&beside, &self.path)
    }
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
        let whole = std::fs::read(&slot.path).unwrap();
        for damaged in [&whole[..whole.len() - 1], &whole[1..], &[][..]] {
            std::fs::write(&slot.path, damaged).unwrap();
            assert_eq!(slot.read(), None);
        }
        let mut other = whole;
        other[4] ^= 1;
        std::fs::write(&slot.path, other).unwrap();
        assert_eq!(slot.read(), None);
    }
}
