//! The end of a task: first of what was made for it, later of its records.
use super::orchestrate::Orchestration;
use super::spec;
use crate::agent::ecs::record::{Phase, Task};
use crate::engine::timestamp::Timestamp;
use crate::error::chain;
use std::sync::Arc;
use std::time::Duration;

impl Orchestration {
    /// All containers have ended: the network and the task's volumes go.
    pub(super) async fn finish(&mut self) {
        let Some(task) = self.task() else { return };
        let last = task.containers.iter().filter_map(|container| container.finished).max();
        self.update(|task| task.times.execution_stopped = last.or_else(|| Some(Timestamp::now())));
        let engine = self.engine.clone();
        let ended = Arc::clone(&task);
        let cleaned = self.node.blocking(move |node| {
            if let Some(id) = engine {
                node.engine.stop_task(&id, Some(Duration::ZERO))?;
            }
            for name in own_volumes(&ended) {
                node.engine.remove_volume(&name)?;
            }
            Ok::<_, crate::engine::EngineError>(())
        });
        if let Err(error) = cleaned.await {
            // Removing the records tries again.
            tracing::error!(task = self.id, "cannot clean up after it: {}", chain(&error));
        }
        self.update(|task| {
            task.phase = Phase::Stopped;
            task.times.stopped = Some(Timestamp::now());
            task.network.addresses.clear();
        });
        let why = task.stop.as_ref().map_or("", |stop| stop.reason.as_str());
        tracing::info!(task = self.id, reason = why, "stopped");
    }

    /// Forgets the task when it was described long enough.
    pub(super) async fn sweep(&mut self) {
        let Some(task) = self.task() else { return };
        let kept = Duration::from_secs(self.node.config.ecs.stopped_task_seconds);
        let since = task.times.stopped.unwrap_or(task.times.created);
        tokio::time::sleep(kept.saturating_sub(Timestamp::now().since(since))).await;
        let (state, name) = (Arc::clone(&self.state), spec::task_name(&self.id));
        let removed = self.node.blocking(move |node| {
            match node.engine.find_task(&name) {
                Ok(record) => node.engine.remove_task(&node.store, &record.id()?)?,
                Err(error) if crate::error::Kind::kind(&error) == crate::error::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
            for name in own_volumes(&task) {
                node.engine.remove_volume(&name)?;
            }
            state.remove_task(&task.id)
        });
        if let Err(error) = removed.await {
            // The next start of the agent tries again.
            tracing::error!(task = self.id, "cannot remove it: {}", chain(&error));
        }
    }
}

/// The volumes that are there as long as the task.
fn own_volumes(task: &Task) -> Vec<String> {
    let own = task.definition.volumes.iter().filter(|volume| volume.host_path().is_none());
    own.map(|volume| spec::volume_name(&task.id, &volume.name)).collect()
}
