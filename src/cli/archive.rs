//! Where an archive is written: a file that appears when it is whole, or standard output.
use anyhow::{Context, bail};
use std::fs::File;
use std::io::{BufWriter, IsTerminal, Stdout, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

const BUFFER: usize = 256 << 10;

/// An archive in the making.
#[derive(Debug)]
pub struct Archive {
    out: BufWriter<Out>,
}

#[derive(Debug)]
enum Out {
    Standard(Stdout),
    /// What is there already and is no regular file: a pipe or a device.
    Special(File),
    Beside(Beside),
}

/// A file beside its place.
#[derive(Debug)]
struct Beside {
    file: File,
    path: PathBuf,
    place: PathBuf,
    done: bool,
}

impl Archive {
    /// Begins one. Nobody reads an archive on a terminal, so it is refused.
    pub fn create(place: Option<&Path>) -> anyhow::Result<Archive> {
        let out = match place {
            None if std::io::stdout().is_terminal() => {
                bail!("standard output is a terminal: name a file with --output, or redirect it")
            }
            None => Out::Standard(std::io::stdout()),
            Some(place) => {
                let cannot = || format!("cannot write {}", place.display());
                match std::fs::metadata(place) {
                    Ok(meta) if meta.is_dir() => bail!("{} is a directory", place.display()),
                    Ok(meta) if !meta.is_file() => {
                        Out::Special(File::options().write(true).open(place).with_context(cannot)?)
                    }
                    _ => Out::Beside(Beside::create(place).with_context(cannot)?),
                }
            }
        };
        Ok(Archive { out: BufWriter::with_capacity(BUFFER, out) })
    }

    /// Gives the file its name; before that there is none.
    pub fn finish(self) -> anyhow::Result<()> {
        let out =
            self.out.into_inner().map_err(|error| error.into_error()).context("cannot write the archive")?;
        let Out::Beside(mut beside) = out else { return Ok(()) };
        let cannot = || format!("cannot write {}", beside.place.display());
        beside.file.sync_all().with_context(cannot)?;
        std::fs::rename(&beside.path, &beside.place).with_context(cannot)?;
        beside.done = true;
        Ok(())
    }
}

impl Write for Archive {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Out::Standard(out) => out.write(bytes),
            Out::Special(file) => file.write(bytes),
            Out::Beside(beside) => beside.file.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Out::Standard(out) => out.flush(),
            _ => Ok(()),
        }
    }
}

impl Beside {
    fn create(place: &Path) -> std::io::Result<Beside> {
        let path = beside(place)?;
        let file = File::options().write(true).create_new(true).open(&path)?;
        Ok(Beside { file, path, place: place.to_owned(), done: false })
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if !self.done {
            // It is not whole, and its name says so.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A hidden name in the same directory.
fn beside(place: &Path) -> std::io::Result<PathBuf> {
    let name = place.file_name().ok_or(std::io::ErrorKind::InvalidInput)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}.tmp", std::process::id()));
    Ok(place.with_file_name(hidden))
}

/// Has `fill` write a directory, which gets its name when it is whole. What is there already must be empty.
pub fn directory(place: &Path, fill: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", place.display());
    if let Ok(mut entries) = std::fs::read_dir(place)
        && entries.next().is_some()
    {
        bail!("{} is not empty", place.display());
    }
    // A path may end with a slash.
    let place: PathBuf = place.components().collect();
    let path = beside(&place).with_context(cannot)?;
    std::fs::create_dir(&path).with_context(cannot)?;
    let made = fill(&path).and_then(|()| std::fs::rename(&path, &place).with_context(cannot));
    if made.is_err()
        && let (Some(parent), Some(name)) = (path.parent(), path.file_name())
        && let Ok(parent) = File::open(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
    {
        // The first error is the one to tell.
        let _ = crate::sys::tree::remove(parent.as_fd(), Path::new(name));
    }
    made
}
