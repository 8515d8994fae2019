//! Images and archives from containers: `commit`, `export` and `diff`.
//!
//! All three read the container's upper directory and the layers below it, not its mount, so that a container need
//! neither run nor stand still for them. `commit` freezes a running one all the same, as docker does: a layer is one
//! moment of the file system.
use super::Engine;
use super::error::EngineError;
use super::names::Id;
use super::record::{Lock, Record};
use super::specgen::process;
use super::timestamp::Timestamp;
use crate::image::build::{Base, BuildError, Description, Draft, Instruction, NewLayer};
use crate::image::diff::{self, Change, ChangeKind, Marks, Stacked, Written};
use crate::image::reference::Reference;
use crate::image::snapshot::{Driver, Stack, Upper};
use crate::image::store::{Image, Store};
use crate::image::unpack::Limits;
use crate::image::unpack::decode::Growth;
use crate::runtime::pause;
use crate::runtime::state::{State, Status};
use crate::sys::process::{Clone3, Forked, clone3, exit_now, wait};
use crate::sys::{SysError, background};
use nix::fcntl::OFlag;
use nix::unistd::Pid;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Where a container's mounts lie that every container has. The runtime makes an empty file or directory there if
/// the image has none; such a one is no change of the container's.
const MADE: [&[u8]; 6] = [b"dev", b"etc/hostname", b"etc/hosts", b"etc/resolv.conf", b"proc", b"sys"];

/// Whether a running container stands still meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    Yes,
    /// Files that change meanwhile may be in the layer as they never were.
    No,
}

/// What `commit` makes.
#[derive(Debug)]
pub struct Commit<'a> {
    pub record: &'a Record,
    pub name: Option<&'a Reference>,
    pub changes: &'a [Instruction],
    pub author: Option<String>,
    pub message: String,
    /// What the image says of its time.
    pub created: Timestamp,
    pub pause: Pause,
}

impl Engine {
    /// Makes an image of a container: its image's layers, and what it has changed as one more.
    pub fn commit(&self, store: &Store, what: &Commit<'_>) -> Result<Image, EngineError> {
        let (record, id) = (what.record, what.record.id()?);
        let held = self.hold(&id, what.pause)?;
        let Layers { image, upper, below, driver } = self.layers_of(store, record)?;
        if driver.upper() == Upper::Whole {
            return Err(EngineError::NotBuilt {
                flag: "commit",
                value: record.name.clone(),
                reason: "its image was copied (storage driver copy), so that what it changed is not told apart; \
                         use export and import",
            });
        }
        let import = store.import()?;
        let limits = Limits { growth: of_own(store)?, ..Limits::default() };
        let stacked = Stacked::new(vec![upper], Marks::here());
        let layer = NewLayer::pack(&import, limits.growth.bytes, |packer| {
            diff::write_layer(&stacked, &below, &MADE, packer).map(|(_, packer)| packer)
        })?;
        // The rest is made of what was read.
        drop(held);
        let mut draft = Draft::new(store, Base::Image(&image))?;
        settings(draft.settings()?, &image, record);
        draft.change(what.changes)?;
        let description = Description {
            created: what.created.to_string(),
            author: what.author.clone(),
            created_by: record.command.args.join(" "),
            comment: what.message.clone(),
        };
        Ok(draft.finish(&import, layer, &description, what.name, &limits)?)
    }

    /// Writes the whole tree of a container as a tar archive, without what is mounted in it.
    pub fn export(&self, store: &Store, record: &Record, out: impl Write) -> Result<Written, EngineError> {
        let Layers { upper, below, driver, .. } = self.layers_of(store, record)?;
        let below = below.into_iter().map(OwnedFd::from);
        let stacked = match driver.upper() {
            Upper::Layer => Stacked::new(std::iter::once(upper).chain(below).collect(), Marks::here()),
            Upper::Whole => Stacked::new(vec![upper], Marks::None),
        };
        let (written, mut out) = diff::write_tree(&stacked, out).map_err(BuildError::from)?;
        out.flush().map_err(|error| BuildError::from(diff::DiffError::Write(error)))?;
        Ok(written)
    }

    /// What a container has changed of its image.
    pub fn changes(&self, store: &Store, record: &Record) -> Result<Vec<Change>, EngineError> {
        let Layers { upper, below, driver, .. } = self.layers_of(store, record)?;
        let changes = match driver.upper() {
            Upper::Layer => diff::of_upper(&Stacked::new(vec![upper], Marks::here()), &below, &MADE),
            Upper::Whole => {
                let below = Stacked::new(below.into_iter().map(OwnedFd::from).collect(), Marks::here());
                diff::compare(&below, &Stacked::new(vec![upper], Marks::None)).map(|mut changes| {
                    changes.retain(|change| {
                        change.kind != ChangeKind::Added || !MADE.contains(&change.path.as_slice())
                    });
                    changes
                })
            }
        };
        Ok(changes.map_err(BuildError::from)?)
    }

    /// The container's image, its upper directory, and the layers that can be seen, the top one first.
    fn layers_of(&self, store: &Store, record: &Record) -> Result<Layers, EngineError> {
        let image = store.resolve(&record.image_id)?;
        let open = |path: &Path| {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            nix::fcntl::open(path, flags, nix::sys::stat::Mode::empty())
                .map_err(SysError::on("open", path.display().to_string()))
        };
        let directory = self.directory(&record.id()?);
        let lowers = store.lower_dirs(&image);
        let (upper, work) = (directory.join("upper"), directory.join("work"));
        let driver = Driver::of(&Stack { lowers: &lowers, upper: &upper, work: &work });
        let below = lowers.iter().map(|dir| open(dir).map(File::from)).collect::<Result<_, _>>()?;
        Ok(Layers { image, upper: open(&upper)?, below, driver })
    }

    /// Keeps the container from changing its files: one that does not run cannot be started meanwhile, one that runs
    /// is frozen if it is asked for.
    fn hold(&self, id: &Id, asked: Pause) -> Result<Held, EngineError> {
        if let Some(lock) = self.try_lock(id)? {
            return Ok(Held { _lock: Some(lock), _frozen: None });
        }
        let frozen = match asked {
            Pause::Yes => Frozen::new(&self.runtime_root(), id)?,
            Pause::No => None,
        };
        Ok(Held { _lock: None, _frozen: frozen })
    }
}

/// What a container's tree is made of.
struct Layers {
    image: Image,
    upper: OwnedFd,
    below: Vec<File>,
    driver: Driver,
}

struct Held {
    _lock: Option<Lock>,
    _frozen: Option<Frozen>,
}

/// How far a layer of our own may grow: as far as there is room. That zeros are packed well is no attack here.
fn of_own(store: &Store) -> Result<Growth, EngineError> {
    let root = store.root();
    let stat =
        nix::sys::statvfs::statvfs(root).map_err(SysError::on("statvfs", root.display().to_string()))?;
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    let most = Growth::default().bytes.min(free);
    Ok(Growth { bytes: most, ratio: u64::MAX, free: u64::MAX })
}

/// What the container was started with, where that is not its image's.
fn settings(settings: &mut Map<String, Value>, image: &Image, record: &Record) {
    let config = image.config.config().as_ref();
    let list = |of: Option<&Vec<String>>| of.cloned().unwrap_or_default();
    let entrypoint = list(config.and_then(|config| config.entrypoint().as_ref()));
    let cmd = list(config.and_then(|config| config.cmd().as_ref()));
    let command = &record.command;
    if command.args != [entrypoint.clone(), cmd].concat() {
        match command.args.strip_prefix(entrypoint.as_slice()) {
            Some(words) => drop(settings.insert("Cmd".into(), json!(words))),
            None => {
                settings.remove("Entrypoint");
                settings.insert("Cmd".into(), json!(command.args));
            }
        }
    }
    let mut env = list(config.and_then(|config| config.env().as_ref()));
    command.env.iter().for_each(|entry| process::set(&mut env, entry));
    let mut keep = |key: &str, value: Value, empty: bool| {
        if !empty || settings.contains_key(key) {
            settings.insert(key.into(), value);
        }
    };
    keep("Env", json!(env), env.is_empty());
    keep("User", json!(command.user), command.user.is_empty());
    keep("WorkingDir", json!(command.cwd), command.cwd == "/");
    keep("Labels", json!(record.options.labels), record.options.labels.is_empty());
}

/// A container that stands still until this is dropped, or until this process ends, however it ends: a child waits
/// for that, since nobody else would ever wake the container.
#[derive(Debug)]
struct Frozen {
    runtime_root: PathBuf,
    id: Id,
    child: Pid,
    /// The child reads its end.
    alive: Option<OwnedFd>,
}

impl Frozen {
    /// `None` if it does not run, or stands still already: then it is not ours to wake.
    fn new(runtime_root: &Path, id: &Id) -> Result<Option<Frozen>, EngineError> {
        let Ok(state) = State::load(runtime_root, id.as_str()) else { return Ok(None) };
        if !matches!(state.status(runtime_root), Ok(Status::Running)) {
            return Ok(None);
        }
        let (watched, alive) =
            nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(SysError::on("pipe2", "O_CLOEXEC"))?;
        let (child, _) = match clone3(Clone3::default())? {
            Forked::Child => watch(watched, runtime_root, id),
            Forked::Parent { pid, pidfd } => (pid, pidfd),
        };
        drop(watched);
        let frozen =
            Frozen { runtime_root: runtime_root.to_owned(), id: id.clone(), child, alive: Some(alive) };
        match pause::pause(runtime_root, id.as_str()) {
            // It ended meanwhile.
            Err(pause::PauseError::NotRunning) => Ok(None),
            result => Ok(result.map(|()| Some(frozen))?),
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        match pause::resume(&self.runtime_root, self.id.as_str()) {
            Ok(()) | Err(pause::PauseError::NotPaused) => {}
            Err(error) => {
                tracing::warn!("cannot wake container {}: {}", self.id, crate::error::chain(&error));
            }
        }
        drop(self.alive.take());
        // It has nothing left to do and ends at once.
        let _ = wait(self.child);
    }
}

/// In the child: wakes the container when the parent is gone.
fn watch(parent: OwnedFd, runtime_root: &Path, id: &Id) -> ! {
    // A signal of the terminal is for the parent.
    let _ = nix::unistd::setsid();
    if background::close_others(0, &[parent.as_fd()]).is_err() {
        exit_now(1)
    }
    // Nothing is ever written: this is the end of the parent.
    let _ = File::from(parent).read(&mut [0; 1]);
    match pause::resume(runtime_root, id.as_str()) {
        Ok(()) | Err(pause::PauseError::NotPaused) => exit_now(0),
        Err(_) => exit_now(1),
    }
}
