//! What kind of file a program is, for the error when the kernel does not execute it; pure.

/// So much of a file is looked at: the kernel's own look at a `#!` line ends at 256 bytes, and linkers put the
/// name of the dynamic loader right behind the headers.
pub const LOOK: usize = 4096;

/// A file that was to be executed.
#[derive(Debug, PartialEq, Eq)]
pub enum Image<'a> {
    /// It has no byte.
    Empty,
    /// It begins with `#!`.
    Script {
        /// The path behind it.
        interpreter: &'a [u8],
    },
    /// An ELF file.
    Elf {
        /// For which machine: `e_machine` of elf(5).
        machine: u16,
        /// Its addresses have 64 bits.
        wide: bool,
        /// Its dynamic loader, if it has one and it is in the part that was looked at.
        loader: Option<&'a [u8]>,
    },
    /// Anything else.
    Unknown,
}

impl Image<'_> {
    /// Reads the beginning of a file.
    pub fn of(head: &[u8]) -> Image<'_> {
        if head.is_empty() {
            return Image::Empty;
        }
        if let Some(line) = head.strip_prefix(b"#!") {
            let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default();
            let mut words = line.split(|&byte| byte == b' ' || byte == b'\t');
            return Image::Script { interpreter: words.find(|word| !word.is_empty()).unwrap_or_default() };
        }
        Elf::of(head).map_or(Image::Unknown, |elf| Image::Elf {
            machine: elf.number(18, 2) as u16,
            wide: elf.wide,
            loader: elf.loader(),
        })
    }

    /// Why execve(2) found nothing (ENOENT) although the file is there.
    pub fn why_missing(&self) -> Option<String> {
        let (kind, path) = match self {
            Image::Script { interpreter } => ("interpreter (the #! line)", interpreter),
            Image::Elf { loader: Some(loader), .. } => ("dynamic loader", loader),
            _ => return None,
        };
        Some(format!(": its {kind} {:?} is not in the container", String::from_utf8_lossy(path)))
    }

    /// Why execve(2) could not read the format (ENOEXEC).
    pub fn why_unreadable(&self) -> String {
        let here = std::env::consts::ARCH;
        match self {
            Image::Empty => ": it is an empty file".into(),
            Image::Elf { machine, wide, .. } if machine_name(*machine, *wide) != here => {
                format!(": it is a program for {}, and this machine is {here}", machine_name(*machine, *wide))
            }
            Image::Elf { .. } => ": its ELF headers are damaged".into(),
            _ => ": neither a program for this machine nor a script with a #! line".into(),
        }
    }
}

/// As Rust and container images' platforms name them; a number where there is no name.
fn machine_name(machine: u16, wide: bool) -> String {
    match (machine, wide) {
        (3, _) => "x86".into(),
        (8, _) => "mips".into(),
        (20, _) => "powerpc".into(),
        (21, _) => "powerpc64".into(),
        (22, _) => "s390x".into(),
        (40, _) => "arm".into(),
        (62, true) => "x86_64".into(),
        (62, false) => "x32".into(),
        (183, _) => "aarch64".into(),
        (243, true) => "riscv64".into(),
        (243, false) => "riscv32".into(),
        (258, _) => "loongarch64".into(),
        (other, _) => format!("the ELF machine {other}"),
    }
}

/// The headers of elf(5), of either width and byte order.
struct Elf<'a> {
    bytes: &'a [u8],
    wide: bool,
    big: bool,
}

impl<'a> Elf<'a> {
    fn of(bytes: &'a [u8]) -> Option<Elf<'a>> {
        let whole = bytes.starts_with(b"\x7fELF") && bytes.len() >= 52;
        whole.then(|| Elf { bytes, wide: bytes[4] == 2, big: bytes[5] == 2 })
    }

    /// A number of so many bytes at a place; 0 beyond the end.
    fn number(&self, at: usize, length: usize) -> u64 {
        let bytes = at.checked_add(length).and_then(|end| self.bytes.get(at..end)).unwrap_or_default();
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        if self.big { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) }
    }

    fn place(&self, at: usize, narrow: usize, wide: (usize, usize)) -> usize {
        let number = if self.wide { self.number(at + wide.0, 8) } else { self.number(at + narrow, 4) };
        usize::try_from(number).unwrap_or(usize::MAX).min(wide.1)
    }

    /// The contents of the segment PT_INTERP.
    fn loader(&self) -> Option<&'a [u8]> {
        const PT_INTERP: u64 = 3;
        let headers = self.place(0, 28, (32, LOOK));
        let (size_at, count_at) = if self.wide { (54, 56) } else { (42, 44) };
        let (size, count) = (self.number(size_at, 2) as usize, self.number(count_at, 2) as usize);
        let header = (0..count.min(LOOK)).map(|index| headers + index * size);
        let header = header.take_while(|at| *at < LOOK).find(|at| self.number(*at, 4) == PT_INTERP)?;
        let offset = self.place(header, 4, (8, LOOK));
        let length = self.place(header, 16, (32, LOOK));
        self.bytes.get(offset..offset + length)?.split(|&byte| byte == 0).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_name_their_interpreter() {
        for (head, interpreter) in [
            ("#!/bin/sh\necho", "/bin/sh"),
            ("#! /usr/bin/env python", "/usr/bin/env"),
            ("#!/bin/sh\r\n", "/bin/sh\r"),
            ("#!", ""),
        ] {
            assert_eq!(Image::of(head.as_bytes()), Image::Script { interpreter: interpreter.as_bytes() });
        }
        let text = Image::of(b"#!/bin/sh\r\n").why_missing().unwrap();
        assert_eq!(text, r#": its interpreter (the #! line) "/bin/sh\r" is not in the container"#);
    }

    #[test]
    fn this_very_program_is_for_this_machine() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let image = Image::of(&own[..LOOK]);
        let Image::Elf { machine, wide, .. } = image else { panic!("{image:?}") };
        assert_eq!(machine_name(machine, wide), std::env::consts::ARCH);
    }

    #[test]
    fn a_loader_is_found_and_another_machine_named() {
        let mut elf = vec![0; 256];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[18] = 183;
        (elf[32], elf[54], elf[56]) = (64, 56, 1);
        (elf[64], elf[64 + 8], elf[64 + 32]) = (3, 160, 12);
        elf[160..171].copy_from_slice(b"/lib/ld.so\0");
        let image = Image::of(&elf);
        assert!(matches!(image, Image::Elf { machine: 183, loader: Some(b"/lib/ld.so"), .. }), "{image:?}");
        if cfg!(target_arch = "x86_64") {
            assert_eq!(image.why_unreadable(), ": it is a program for aarch64, and this machine is x86_64");
        }
        for cut in 0..elf.len() {
            let _ = Image::of(&elf[..cut]);
        }
        for wild in [&mut elf.clone()[..], &mut vec![0xff; 300][..]] {
            wild[..4].copy_from_slice(b"\x7fELF");
            wild[32..64].fill(0xff);
            let _ = Image::of(wild);
        }
    }

    #[test]
    fn other_files_are_told_apart() {
        assert_eq!(Image::of(b""), Image::Empty);
        assert_eq!(Image::of(b"echo hello\n"), Image::Unknown);
        assert_eq!(Image::of(b"\x7fELF"), Image::Unknown);
        assert!(Image::Unknown.why_unreadable().contains("nor a script"));
    }
}
