//! Making containers in tasks.
use super::TaskStatus;
use super::verbs::ContainerRequest;
use crate::engine::Engine;
use crate::engine::create::{Membership, Request, create_as};
use crate::engine::error::EngineError;
use crate::engine::names::Id;
use crate::engine::options::Network;
use crate::engine::record::Record;
use crate::image::store::{Image, Store};

/// Makes a container's record in a task that is ready.
pub(super) fn create_in(
    engine: &Engine,
    store: &Store,
    task: &Id,
    image: &Image,
    given: ContainerRequest,
) -> Result<Record, EngineError> {
    let needs_ready = |status| {
        Err(EngineError::TaskState {
            id: task.to_string(),
            status,
            needed: "containers are made in a task that is ready",
        })
    };
    match engine.task_status(task)? {
        TaskStatus::Ready(_) => {}
        TaskStatus::Making => return needs_ready("being made"),
        TaskStatus::Stopped { .. } => return needs_ready("stopped"),
    }
    let mut options = given.options;
    options.network = Network::Task;
    options.hostname = None;
    options.auto_remove = false;
    let request = Request {
        name: Some(given.name),
        image: given.image,
        overrides: given.overrides,
        options,
        stop_signal: given.stop_signal,
    };
    let membership = Membership { task, data: given.data };
    create_as(engine, store, image, request, Some(membership)).map(|(record, _lock)| record)
}
