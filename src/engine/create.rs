//! Making a container's record from an image.
use super::Engine;
use super::error::EngineError;
use super::names::{self, Id};
use super::network;
use super::options::{Options, parse};
use super::record::{Durability, Lock, Record, Version};
use super::specgen::process::{Overrides, command};
use super::timestamp::Timestamp;
use super::volumes;
use crate::image::store::{Image, Store};

/// What is to be made.
#[derive(Debug)]
pub struct Request {
    /// `--name`.
    pub name: Option<String>,
    /// The image as it was named.
    pub image: String,
    /// What the command line says about the process.
    pub overrides: Overrides,
    /// Everything else.
    pub options: Options,
    /// `--stop-signal`, if given.
    pub stop_signal: Option<super::options::Signal>,
}

/// The task that a container is made in.
#[derive(Debug)]
pub(super) struct Membership<'a> {
    /// The task.
    pub(super) task: &'a Id,
    /// Kept for the door.
    pub(super) data: serde_json::Value,
}

/// Makes a container that is not started. The lock is held by the caller.
pub fn create(
    engine: &Engine,
    store: &Store,
    image: &Image,
    request: Request,
) -> Result<(Record, Lock), EngineError> {
    create_as(engine, store, image, request, None)
}

/// The same for a container of a task.
pub(super) fn create_as(
    engine: &Engine,
    store: &Store,
    image: &Image,
    request: Request,
    membership: Option<Membership<'_>>,
) -> Result<(Record, Lock), EngineError> {
    let id = Id::generate()?;
    let name = match request.name {
        Some(name) => {
            names::validate(&name)?;
            name
        }
        None => names::generate(&id),
    };
    let command = command(&request.image, &image.config, &request.overrides)?;
    let mut options = request.options;
    options.stop_signal = match request.stop_signal {
        Some(signal) => signal,
        None => image_stop_signal(image)?.unwrap_or_default(),
    };
    let labels = image.config.config().as_ref().and_then(|config| config.labels().as_ref());
    for (key, value) in labels.into_iter().flatten() {
        // The command line's label wins.
        options.labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    volumes::complete(&mut options, &image.config)?;
    network::publish_exposed(&mut options.connection, &image.config);
    let record = Record {
        version: Version::V1,
        id: id.to_string(),
        name,
        created: Timestamp::now(),
        image: request.image,
        image_id: image.id.to_string(),
        command,
        options,
        task: membership.as_ref().map(|membership| membership.task.to_string()),
        data: membership.as_ref().map(|membership| membership.data.clone()).unwrap_or_default(),
    };
    // Before it is there, so that whoever removes the task finds it.
    let _joining =
        membership.as_ref().map(|membership| engine.join_task(membership.task, &id)).transpose()?;
    let making = engine.begin_making()?;
    // Before the container is there, so that it never is without its image.
    match record.durability() {
        Durability::Synced => store.lease(image, id.as_str())?,
        Durability::Volatile => store.lease_volatile(image, id.as_str())?,
    }
    match engine.make(&record, &making) {
        Ok(lock) => Ok((record, lock)),
        Err(error) => {
            // The first error is the one to tell; a lease without a container is swept.
            let _ = store.release(id.as_str());
            if let Some(task) = &record.task {
                let _ = engine.leave_task(task, &id);
            }
            Err(error)
        }
    }
}

fn image_stop_signal(image: &Image) -> Result<Option<super::options::Signal>, EngineError> {
    let text = image.config.config().as_ref().and_then(|config| config.stop_signal().as_deref());
    text.filter(|text| !text.is_empty()).map(|text| parse::signal("the image's StopSignal", text)).transpose()
}
