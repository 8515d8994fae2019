//! What comes before a container runs: its image, its task in the engine, its own files.
use super::failure::Failure;
use super::orchestrate::Orchestration;
use super::{secrets, spec};
use crate::agent::Node;
use crate::agent::ecs::definition::ContainerDefinition;
use crate::agent::ecs::record::{ContainerPhase, Network, Task};
use crate::agent::ecs::state::State;
use crate::engine::EngineError;
use crate::engine::names::Id;
use crate::engine::record::Record;
use crate::engine::task::TaskStatus;
use crate::engine::timestamp::Timestamp;
use crate::image::reference::Reference;
use crate::image::store::Image;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::str::FromStr;
use std::sync::Arc;
use tokio::task::JoinSet;

impl Orchestration {
    /// Reads secrets, gets images, and makes the engine's task.
    pub(super) async fn prepare(&mut self) -> Result<(), Failure> {
        let Some(task) = self.task() else { return Err(Failure::Stopped) };
        self.fetch(&task).await?;
        if self.is_stopping() {
            return Err(Failure::Stopped);
        }
        let request = spec::task(&task, &self.state.names, &self.node.config.network);
        let made = self.node.blocking(move |node| {
            let record = node.engine.run_task(request)?;
            let id = record.id()?;
            Ok::<_, EngineError>((network(node, &id)?, id))
        });
        let (network, id) = made.await.map_err(Failure::Task)?;
        // Meanwhile the first containers are made.
        let making = self.make_first(&task, &id);
        let ((), failed) = tokio::join!(self.adopt(id, network), making);
        for (at, failure) in failed {
            self.fail(Some(at), &failure);
        }
        Ok(())
    }

    /// Makes the containers that wait for nothing; tells which could not be made.
    fn make_first(
        &self,
        task: &Arc<Task>,
        engine: &Id,
    ) -> impl Future<Output = Vec<(usize, Failure)>> + use<> {
        let (node, state, task, engine) =
            (Arc::clone(&self.node), Arc::clone(&self.state), Arc::clone(task), engine.clone());
        let images = self.images.clone();
        async move {
            let work = move |node: &Node| {
                let known = task.definition.container_definitions.iter().enumerate();
                let first = known.filter(|(_, known)| known.depends_on.is_empty());
                let make = |(at, known): (usize, &ContainerDefinition)| {
                    let image = images.get(&known.image).map(AsRef::as_ref);
                    create(node, &state, &task, &engine, at, image).err().map(|failure| (at, failure))
                };
                Ok::<_, Infallible>(first.filter_map(make).collect())
            };
            node.blocking(work).await.unwrap_or_else(|never| match never {})
        }
    }

    /// From now on the engine's task is this one's.
    pub(super) async fn adopt(&mut self, id: Id, network: Network) {
        self.update(|task| {
            let attachment_id = task.network.attachment_id.take();
            task.network = Network { attachment_id, ..network };
            task.engine_task = Some(id.to_string());
        });
        // Before anything is started in it, so that no end is missed.
        self.node.watch(id.as_str()).await;
        self.engine = Some(id);
    }

    fn is_stopping(&self) -> bool {
        self.task().is_none_or(|task| task.stop.is_some())
    }

    /// Gets the images that are not there, all at once; no longer than the task is wanted.
    pub(super) async fn fetch(&mut self, task: &Arc<Task>) -> Result<(), Failure> {
        let names: BTreeSet<String> =
            task.definition.container_definitions.iter().map(|known| known.image.clone()).collect();
        let wanted = Arc::clone(task);
        let present = self.node.blocking(move |node| {
            secrets::check(node.config.ecs.secrets.as_deref(), &wanted.definition)?;
            Ok::<_, Failure>(
                names.into_iter().map(|name| (node.store.resolve(&name).ok(), name)).collect::<Vec<_>>(),
            )
        });
        let present = present.await?;
        let began = Timestamp::now();
        let missing: Vec<String> =
            present.iter().filter(|(image, _)| image.is_none()).map(|(_, name)| name.clone()).collect();
        self.images.extend(present.into_iter().filter_map(|(image, name)| Some((name, Arc::new(image?)))));
        if !missing.is_empty() {
            self.update(|task| {
                task.times.pull_started = Some(began);
                for (known, container) in
                    task.definition.container_definitions.iter().zip(&mut task.containers)
                {
                    if missing.contains(&known.image) && container.phase == ContainerPhase::Pending {
                        container.reason = Some(format!("waits for the image {}", known.image));
                    }
                }
            });
            self.pull(missing).await?;
        }
        self.update(|task| {
            task.times.pull_started = task.times.pull_started.or(Some(began));
            task.times.pull_stopped = Some(Timestamp::now());
            for container in &mut task.containers {
                // What was told of one that has ended stays.
                if container.phase == ContainerPhase::Pending {
                    container.reason = None;
                }
            }
        });
        Ok(())
    }

    async fn pull(&mut self, names: Vec<String>) -> Result<(), Failure> {
        let mut pulls = JoinSet::new();
        for name in names {
            let reference = Reference::from_str(&name).map_err(|_| Failure::Image { image: name.clone() })?;
            let node = Arc::clone(&self.node);
            pulls.spawn(async move { (node.pull(&reference, None).await, name) });
        }
        let wake = Arc::clone(&self.wake);
        loop {
            tokio::select! {
                pulled = pulls.join_next() => match pulled {
                    None => return Ok(()),
                    Some(Ok((Ok(image), name))) => { self.images.insert(name, image); }
                    Some(Ok((Err(error), name))) => {
                        let failure = Failure::Pull(error);
                        self.blame(&name, &failure);
                        return Err(failure);
                    }
                    Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Some(Err(_)) => {}
                },
                () = wake.notified() => if self.is_stopping() {
                    return Err(Failure::Stopped);
                },
            }
        }
    }

    /// Tells the containers of an image why they do not run.
    fn blame(&self, image: &str, failure: &Failure) {
        let text = failure.to_string();
        self.update(|task| {
            for (known, container) in task.definition.container_definitions.iter().zip(&mut task.containers) {
                if container.phase == ContainerPhase::Pending {
                    container.reason = (known.image == image).then(|| text.clone());
                }
            }
        });
    }
}

/// The addresses and ports of a task that is ready.
pub(super) fn network(node: &Node, id: &Id) -> Result<Network, EngineError> {
    Ok(match node.engine.task_status(id)? {
        TaskStatus::Ready(run) => run.attachment.map_or_else(Network::default, |attachment| Network {
            attachment_id: None,
            addresses: attachment.addresses,
            mac: attachment.mac,
            ports: attachment.ports,
        }),
        TaskStatus::Making | TaskStatus::Stopped { .. } => Network::default(),
    })
}

/// Makes a container, if it was not made yet, and starts it. Blocks.
pub(super) fn start(
    node: &Node,
    state: &State,
    id: &str,
    engine: &Id,
    at: usize,
    image: Option<&Image>,
) -> Result<(), Failure> {
    let task = state.task(id).ok_or(Failure::Stopped)?;
    let record = match &task.containers[at].runtime_id {
        Some(runtime) => node.engine.find(runtime).map_err(Failure::Create)?,
        None => create(node, state, &task, engine, at, image)?,
    };
    node.engine.start_in_task(&record).map_err(Failure::Start)
}

fn create(
    node: &Node,
    state: &State,
    task: &Task,
    engine: &Id,
    at: usize,
    image: Option<&Image>,
) -> Result<Record, Failure> {
    let definition = &task.definition.container_definitions[at];
    let resolved;
    let image = match image {
        Some(image) => image,
        None => {
            resolved =
                node.store.resolve(&definition.image).map_err(|error| Failure::Create(error.into()))?;
            &resolved
        }
    };
    let secrets = secrets::read(node.config.ecs.secrets.as_deref(), &definition.secrets)?;
    for volume in &task.definition.volumes {
        if let Some(path) = volume.host_path() {
            make_host_path(path)?;
        }
    }
    let request = spec::container(task, definition, &task.containers[at], &state.names, secrets);
    let record = node.engine.create_in_task(&node.store, engine, image, request).map_err(Failure::Create)?;
    state.update(&task.id, |task| {
        let container = &mut task.containers[at];
        container.runtime_id = Some(record.id.clone());
        container.created = Some(record.created);
        container.image_digest = Some(image.manifest.digest.to_string());
        container.image_id = Some(image.id.to_string());
    });
    Ok(record)
}

/// As docker for ECS: a path of the host that is not there is made.
fn make_host_path(path: &str) -> Result<(), Failure> {
    match std::fs::create_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Failure::Resource { reason: format!("volume {path:?} cannot be made: {error}") })
        }
        _ => Ok(()),
    }
}
