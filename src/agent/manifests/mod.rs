//! Static pods: a folder of Pod YAMLs that are kept running.
//!
//! ```text
//! folder --inotify--> scan --> one keeper for each pod --> pull, volumes, task, init containers, containers
//!                                 ^-- events of the task, changes of the file, back-off after failures
//! ```
//! A file that becomes invalid leaves the pod of its last valid content as it is. A file that is removed, also
//! while no agent runs, takes its pod with it.
use super::serve::{Open, Stop};
use super::status::ManifestReport;
use super::{AgentError, Node};
use crate::engine::task::{Dns, Door};
use crate::error::chain;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub mod error;
pub mod expand;
pub mod folder;
pub mod keeper;
pub mod parse;
pub mod plan;
pub mod pod;
pub mod quantity;
#[cfg(test)]
mod tests;
pub mod volumes;

pub use error::ManifestError;
use folder::{Files, Watcher};
use keeper::{Keeper, Wanted};
use parse::Parsed;
use plan::{Machine, Origin};

/// Changes within this time are looked at together.
const TOGETHER: Duration = Duration::from_millis(50);
/// Between looks for a folder that has gone.
const ABSENT: Duration = Duration::from_secs(1);
/// Where the host's name servers are.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Bytes of it that count.
const RESOLV_CONF_MAX: usize = 64 * 1024;

/// Opens this door.
///
/// # Errors
/// The folder cannot be watched or read.
pub async fn open(node: &Arc<Node>, stop: Stop) -> Result<Open, AgentError> {
    let folder = node.config.manifests.folder.clone().unwrap_or_default();
    // Watched before it is read: no change falls between the two.
    let watcher = Watcher::new(&folder)?;
    let machine = Arc::new(machine(node));
    let mut pods = Pods {
        node: Arc::clone(node),
        folder: folder.clone(),
        machine,
        files: Files::new(),
        kept: HashMap::new(),
        refused: HashSet::new(),
        keepers: JoinSet::new(),
    };
    pods.scan().await?;
    pods.adopt().await?;
    let address = folder.display().to_string();
    Ok(Open { name: "manifests", address, serving: Box::pin(pods.follow(watcher, stop)) })
}

fn machine(node: &Node) -> Machine {
    let config = &node.config.manifests;
    let host_name = || nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let resolv_conf = std::fs::read(RESOLV_CONF).unwrap_or_default();
    let text = String::from_utf8_lossy(&resolv_conf[..resolv_conf.len().min(RESOLV_CONF_MAX)]).into_owned();
    Machine {
        name: config.node_name.clone().or_else(host_name).unwrap_or_else(|| "localhost".to_owned()),
        ip: config.host_ip.as_deref().and_then(|ip| ip.parse().ok()).unwrap_or_else(outgoing),
        dns: if text.is_empty() { Dns::default() } else { plan::read_resolv_conf(&text) },
    }
}

/// The address that speaks to the outside: a datagram socket that is connected sends nothing.
fn outgoing() -> IpAddr {
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| socket.connect(("192.0.2.1", 9)).map(|()| socket))
        .and_then(|socket| socket.local_addr())
        .map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
}

/// A pod that has a keeper.
struct Kept {
    /// Its file.
    file: Arc<str>,
    tell: watch::Sender<Wanted>,
    idle: Arc<AtomicBool>,
    gone: bool,
}

/// All pods of the folder.
struct Pods {
    node: Arc<Node>,
    folder: PathBuf,
    machine: Arc<Machine>,
    /// As they were read last.
    files: Files,
    /// By the names of their tasks.
    kept: HashMap<String, Kept>,
    /// Files that are told to be refused.
    refused: HashSet<String>,
    keepers: JoinSet<()>,
}

impl Pods {
    async fn follow(mut self, watcher: Watcher, mut stop: Stop) -> Result<(), AgentError> {
        let mut watcher = Some(watcher);
        loop {
            let changed = async {
                match &mut watcher {
                    Some(watcher) => watcher.changed().await,
                    None => {
                        tokio::time::sleep(ABSENT).await;
                        Ok(true)
                    }
                }
            };
            let there = tokio::select! {
                changed = changed => changed.unwrap_or_else(|error| {
                    tracing::warn!("folder of static pods: {}", chain(&error));
                    false
                }),
                () = stop.asked() => return Ok(()),
                // A keeper ends when nothing of its pod is left; one that panicked has said so.
                Some(_) = self.keepers.join_next() => continue,
            };
            if !there {
                tracing::warn!("the folder of static pods {} has gone; its pods stay", self.folder.display());
                watcher = None;
                continue;
            }
            if watcher.is_none() {
                match Watcher::new(&self.folder) {
                    Ok(new) => watcher = Some(new),
                    Err(_) => continue,
                }
            }
            tokio::time::sleep(TOGETHER).await;
            if let Err(error) = self.scan().await {
                tracing::warn!("folder of static pods: {}", chain(&error));
            }
        }
    }

    /// Reads the folder and tells the keepers.
    async fn scan(&mut self) -> Result<(), AgentError> {
        let (folder, known) = (self.folder.clone(), std::mem::take(&mut self.files));
        let kept = known.clone();
        let scanned = self.node.blocking(move |_| folder::scan(&folder, &known)).await;
        self.files = match scanned {
            Ok(files) => files,
            Err(error) => {
                self.files = kept;
                return Err(error.into());
            }
        };
        let (wanted, refused) = sort(&self.files, &self.kept);
        for (file, error) in &refused {
            self.refuse(file, error);
        }
        for file in self.refused.extract_if(|file| !refused.contains_key(file)).collect::<Vec<_>>() {
            self.node.status.forget_manifest(&file);
        }
        // Those of files that are gone, or hold another pod now; not those of files that became invalid.
        let gone: Vec<String> = self
            .kept
            .iter()
            .filter(|(name, kept)| !wanted.contains_key(*name) && !refused.contains_key(&*kept.file))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.want(&name, Wanted::Gone, None);
        }
        for (name, (file, parsed)) in wanted {
            let file: Arc<str> = file.into();
            self.want(&name, Wanted::Pod(parsed, Arc::clone(&file)), Some(file));
        }
        // Dropping the sender ends the keeper.
        self.kept.retain(|_, kept| !(kept.gone && kept.idle.load(Ordering::Acquire)));
        Ok(())
    }

    fn refuse(&mut self, file: &str, error: &Arc<ManifestError>) {
        let error = chain(&**error);
        if self.refused.insert(file.to_owned()) {
            tracing::warn!(file, "refused: {error}");
        }
        let (file, state) = (file.to_owned(), "refused".to_owned());
        let report = ManifestReport { file: file.clone(), pod: None, task: None, state, error: Some(error) };
        self.node.status.manifest(&file, report);
    }

    /// Tells a pod's keeper what is wanted; makes one if there is none.
    fn want(&mut self, name: &str, wanted: Wanted, file: Option<Arc<str>>) {
        let gone = matches!(wanted, Wanted::Gone);
        if let Some(kept) = self.kept.get_mut(name) {
            let same = match (&*kept.tell.borrow(), &wanted) {
                (Wanted::Pod(one, of), Wanted::Pod(other, new)) => one.hash == other.hash && of == new,
                (Wanted::Gone, Wanted::Gone) => true,
                _ => false,
            };
            kept.gone = gone;
            if let Some(file) = file {
                kept.file = file;
            }
            if !same {
                kept.idle.store(false, Ordering::Release);
                kept.tell.send_replace(wanted);
            }
            return;
        }
        let file = file.unwrap_or_else(|| "".into());
        let (tell, receive) = watch::channel(wanted);
        let idle = Arc::new(AtomicBool::new(false));
        let keeper = Keeper {
            node: Arc::clone(&self.node),
            machine: Arc::clone(&self.machine),
            name: name.to_owned(),
            wanted: receive,
            idle: Arc::clone(&idle),
            file: Arc::clone(&file),
            task: None,
        };
        self.keepers.spawn(keeper.run());
        self.kept.insert(name.to_owned(), Kept { file, tell, idle, gone });
    }

    /// Takes over the pods of an agent before us: those whose files are gone go, those whose files have become
    /// invalid stay.
    async fn adopt(&mut self) -> Result<(), AgentError> {
        for task in self.node.blocking(|node| node.engine.tasks()).await? {
            let name = &task.spec.name;
            if task.spec.door != Door::Manifest || self.kept.contains_key(name) {
                continue;
            }
            let origin: Option<Origin> = serde_json::from_value(task.spec.data.clone()).ok();
            let invalid = |file: &String| self.files.get(file).is_some_and(|content| content.parsed.is_err());
            if origin.as_ref().is_some_and(|origin| invalid(&origin.file)) {
                tracing::warn!("pod {name} stays as it is: its file has become invalid");
                continue;
            }
            self.want(name, Wanted::Gone, origin.map(|origin| origin.file.into()));
        }
        Ok(())
    }
}

type Pod = (String, Arc<Parsed>);

/// Which pods are wanted, by the names of their tasks, and which files are refused. Of two files with the same pod
/// the one that has it already keeps it, else the first by name.
fn sort(
    files: &Files,
    kept: &HashMap<String, Kept>,
) -> (BTreeMap<String, Pod>, BTreeMap<String, Arc<ManifestError>>) {
    let mut wanted: BTreeMap<String, Pod> = BTreeMap::new();
    let mut refused = BTreeMap::new();
    let holds = |name: &str, file: &str| kept.get(name).is_some_and(|kept| !kept.gone && &*kept.file == file);
    let mut valid: Vec<(&String, String, &Arc<Parsed>)> = Vec::new();
    for (file, content) in files {
        match &content.parsed {
            Ok(parsed) => valid.push((file, parsed.pod.task_name(), parsed)),
            Err(error) => drop(refused.insert(file.clone(), Arc::clone(error))),
        }
    }
    valid.sort_by_key(|(file, name, _)| !holds(name, file));
    for (file, name, parsed) in valid {
        match wanted.get(&name) {
            Some((other, _)) => {
                let error = ManifestError::Taken { pod: parsed.pod.shown(), file: other.clone() };
                refused.insert(file.clone(), Arc::new(error));
            }
            None => drop(wanted.insert(name, (file.clone(), Arc::clone(parsed)))),
        }
    }
    (wanted, refused)
}
