//! Removing tasks with all that is in them.
use crate::engine::Engine;
use crate::engine::error::EngineError;
use crate::engine::names::Id;
use crate::image::store::Store;
use std::time::Duration;

/// Stops a task at once, and removes its containers, its records and its name. That it is gone is no error.
pub(super) fn remove(engine: &Engine, store: &Store, id: &Id) -> Result<(), EngineError> {
    match remove_present(engine, store, id) {
        // Another process was faster.
        Err(EngineError::NoSuchTask { .. }) => Ok(()),
        result => result,
    }
}

fn remove_present(engine: &Engine, store: &Store, id: &Id) -> Result<(), EngineError> {
    let Some(record) = engine.task_record(id)? else { return Ok(()) };
    engine.stop_task(id, Some(Duration::ZERO))?;
    let _lock = engine.wait_task_lock(id)?;
    let _nothing_is_made = engine.close_task(id)?;
    let mut first = Ok(());
    for member in engine.members(id)? {
        first = first.and(engine.delete(store, &member, true, true));
    }
    first?;
    engine.discard_task(id, &record.spec.name)
}
