//! From a record to a running container: everything that the command does before the monitor takes over.
use super::Engine;
use super::error::EngineError;
use super::monitor::{Job, spawn};
use super::names::Id;
use super::network::{self, Connected};
use super::options::{Network, Options, Seccomp};
use super::record::{Durability, Lock, Record, read_json, write_json, write_public};
use super::specgen::user::{self, Identity};
use super::specgen::{self, HostFacts, Inputs, capabilities};
use super::task::join;
use super::{facts, host_mounts, seccomp};
use crate::image::snapshot::{self, Stack};
use crate::image::store::{Image, Store};
use crate::sys::root::Root;
use crate::sys::{SysError, process};
use nix::errno::Errno;
use nix::sys::stat::Mode;
use oci_spec::runtime::{LinuxSeccomp, Spec};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// In the directory of a task's container: as whom it was started last.
const USER: &str = "user.json";

/// How a container is to be started.
#[derive(Debug)]
pub struct Start<'a> {
    /// Where everything is.
    pub engine: &'a Engine,
    /// The images.
    pub store: &'a Store,
    /// The container's image.
    pub image: &'a Image,
    /// The caller stays attached.
    pub foreground: bool,
    /// A container that cannot be started stays, with its error recorded.
    pub keep_failed: bool,
    /// Lines and columns of the caller's terminal, if the container is to have one like it.
    pub terminal: Option<(u16, u16)>,
}

/// What the runtime needs to create a container.
#[derive(Debug)]
pub struct Prepared {
    /// What is created.
    pub spec: Spec,
    /// Its root file system.
    pub root_mount: OwnedFd,
    /// Volumes that the image's content fills.
    pub copy_up: Vec<PathBuf>,
}

/// Starts a container whose lock the caller has; the socket is its monitor's, whose first frame tells how
/// it went.
pub fn launch(start: &Start<'_>, record: Record, lock: Lock) -> Result<OwnedFd, EngineError> {
    let Start { engine, store, image, foreground, keep_failed, terminal } = *start;
    let prepared = prepare(engine, store, image, &record, terminal)?;
    spawn(Job {
        engine: engine.clone(),
        store: store.clone(),
        id: record.id()?,
        record,
        lock,
        prepared,
        foreground,
        keep_failed,
    })
}

/// Makes everything that a container needs before it is created. What it makes is in the container's own
/// directory, or ends with the descriptors; the caller has its lock.
pub fn prepare(
    engine: &Engine,
    store: &Store,
    image: &Image,
    record: &Record,
    terminal: Option<(u16, u16)>,
) -> Result<Prepared, EngineError> {
    let id = record.id()?;
    let directory = engine.directory(&id);
    // What the last run left must not be taken for the end of this one.
    match std::fs::remove_file(directory.join("exit.json")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(SysError::io("unlink", "exit.json")(error).into());
        }
        _ => {}
    }
    let root_mount = engine.mount_snapshot(store, image, &directory)?;
    let root = Root::new(process::duplicate(&root_mount)?);
    let identity = identify(&root, &record.command.user, record)?;
    if record.task.is_some() {
        write_json(&directory.join(USER), &identity, Durability::Volatile)?;
    }
    make_working_directory(&root, &record.command.cwd)?;
    let mounted = engine.mount_volumes(&record.options)?;
    let task = join::context(engine, record)?;
    let connected = match &task {
        Some(_) => None,
        None => engine.connect(&id, &record.options)?,
    };
    let files = match &task {
        Some(task) => task.files.clone(),
        None => {
            let hostname = specgen::hostname(&id, &record.options);
            write_files(&directory, &hostname, &record.options, connected.as_ref())?
        }
    };
    host_mounts::check(&record.options.task.mounts)?;
    let host = facts::gather(&record.options)?;
    let seccomp = seccomp_filter(&record.options, &host)?;
    let mut spec = specgen::generate(&Inputs {
        id: &id,
        options: &record.options,
        command: &record.command,
        identity: &identity,
        files: &files,
        binds: &mounted.binds,
        seccomp,
        host: &host,
        netns: connected.as_ref().map(|connected| connected.netns.as_path()),
        joined: task.as_ref().map(|task| &task.joined),
    })?;
    if let (Some((rows, columns)), Some(process)) = (terminal, spec.process_mut()) {
        process.set_console_size(Some(console_size(rows, columns)?));
    }
    Ok(Prepared { spec, root_mount, copy_up: mounted.copy_up })
}

impl Engine {
    /// Whether the user of a container that was just made is known in its image; ids need not be.
    ///
    /// # Errors
    /// [`EngineError::User`].
    pub fn check_user(&self, store: &Store, image: &Image, record: &Record) -> Result<(), EngineError> {
        let user = &record.command.user;
        if user.bytes().all(|byte| byte.is_ascii_digit() || byte == b':') {
            return Ok(());
        }
        let root = Root::new(self.mount_snapshot(store, image, &self.directory(&record.id()?))?);
        identify(&root, user, record).map(drop)
    }

    /// The root of the container whose directory this is, attached nowhere.
    fn mount_snapshot(&self, store: &Store, image: &Image, directory: &Path) -> Result<OwnedFd, EngineError> {
        let (upper, work) = (directory.join("upper"), directory.join("work"));
        let stack = Stack { lowers: &store.lower_dirs(image), upper: &upper, work: &work };
        Ok(snapshot::mount(self.storage, &stack)?)
    }

    /// As whom a container of a task was started last; `None` if it never was.
    pub fn identity(&self, id: &Id) -> Result<Option<Identity>, EngineError> {
        read_json(&self.directory(id).join(USER))
    }
}

/// A terminal's size as the specification has it.
pub fn console_size(rows: u16, columns: u16) -> Result<oci_spec::runtime::Box, EngineError> {
    oci_spec::runtime::BoxBuilder::default()
        .height(rows)
        .width(columns)
        .build()
        .map_err(|source| EngineError::Spec { part: "process.consoleSize", source })
}

/// Looks the user up in the files of a container's root, as the container's record has it.
pub fn identify(root: &Root, user: &str, record: &Record) -> Result<Identity, EngineError> {
    let read = |path: &str| match root.read_file_bounded(Path::new(path), user::MAX_FILE) {
        Ok(content) => Ok(content),
        // An image need not have them: then only ids can be given.
        Err(SysError { errno: Errno::ENOENT | Errno::ENOTDIR, .. }) => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    let (passwd, group) = (read("etc/passwd")?, read("etc/group")?);
    match record.task {
        Some(_) => user::resolve_in_task(user, &passwd, &group, &record.options.task),
        None => user::resolve(user, &passwd, &group),
    }
}

/// docker makes the working directory if the image does not have it.
fn make_working_directory(root: &Root, path: &str) -> Result<(), EngineError> {
    if path != "/" {
        root.mkdir_all(Path::new(path), Mode::from_bits_truncate(0o755))?;
    }
    Ok(())
}

/// The seccomp filter that the options ask for.
fn seccomp_filter(options: &Options, host: &HostFacts) -> Result<Option<LinuxSeccomp>, EngineError> {
    if options.privileged {
        return Ok(None);
    }
    let bounding = capabilities::bounding(&options.cap_add, &options.cap_drop, false, &host.held)?;
    match &options.security.seccomp {
        Seccomp::Default => seccomp::default_profile(&bounding).map(Some),
        Seccomp::Unconfined => Ok(None),
        Seccomp::File(path) => {
            let text = read_bounded(path, seccomp::file::MAX_PROFILE)?;
            let release = nix::sys::utsname::uname().map_err(SysError::on("uname", ""))?;
            let kernel = release.release().to_str().and_then(seccomp::file::parse_kernel).unwrap_or((5, 12));
            let facts = seccomp::file::Facts { capabilities: &bounding, kernel };
            seccomp::file::parse(&path.display().to_string(), &text, &facts).map(Some)
        }
    }
}

/// Reads a file of the user's.
pub fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, EngineError> {
    let failed = |call: &'static str| SysError::io(call, path.display().to_string());
    let mut content = Vec::new();
    let file = File::open(path).map_err(failed("open"))?;
    file.take(limit + 1).read_to_end(&mut content).map_err(failed("read"))?;
    if u64::try_from(content.len()).unwrap_or(u64::MAX) > limit {
        return Err(EngineError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(content)
}

/// Largest resolv.conf and hosts of the host that are taken over.
const MAX_HOST_FILE: u64 = 1024 * 1024;

/// Writes the files that are bound over the image's: destination and source of each.
fn write_files(
    directory: &Path,
    hostname: &str,
    options: &Options,
    connected: Option<&Connected>,
) -> Result<Vec<(&'static str, PathBuf)>, EngineError> {
    let (hosts, resolv) = match options.network {
        Network::Host => (read_host_file("/etc/hosts")?, read_host_file("/etc/resolv.conf")?),
        _ => (Vec::new(), Vec::new()),
    };
    let hosts = network::hosts(hostname, options, connected, hosts)?;
    let resolv = network::resolv_conf(options, connected, resolv)?;
    let name = match options.network {
        Network::Host if options.hostname.is_none() => read_host_file("/etc/hostname")?,
        _ => format!("{hostname}\n").into_bytes(),
    };
    let write = |name: &str, content: &[u8]| -> Result<PathBuf, EngineError> {
        let path = directory.join(name);
        write_public(&path, content)?;
        Ok(path)
    };
    Ok(vec![
        ("/etc/hostname", write("hostname", &name)?),
        ("/etc/hosts", write("hosts", &hosts)?),
        ("/etc/resolv.conf", write("resolv.conf", &resolv)?),
    ])
}

/// A file of the host that a container gets a copy of; empty if there is none.
pub(super) fn read_host_file(path: &str) -> Result<Vec<u8>, EngineError> {
    match read_bounded(Path::new(path), MAX_HOST_FILE) {
        Err(EngineError::Sys(error)) if error.errno == Errno::ENOENT => Ok(Vec::new()),
        result => result,
    }
}
