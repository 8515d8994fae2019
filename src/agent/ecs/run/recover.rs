//! Finding a task again after the agent was killed, and looking at what became of its containers.
use super::failure::Failure;
use super::orchestrate::Orchestration;
use super::prepare::network;
use super::spec;
use crate::agent::Node;
use crate::agent::ecs::record::{ContainerPhase, Network, Task};
use crate::engine::EngineError;
use crate::engine::names::Id;
use crate::engine::record::{Ended, Record, Status};
use crate::engine::task::{TaskRecord, TaskStatus};
use crate::engine::timestamp::Timestamp;
use crate::error::chain;

/// What there is of a container.
enum Seen {
    Waiting,
    Running(Timestamp),
    Ended(Ended),
    /// It ended, and nobody saw how.
    Lost,
}

impl Orchestration {
    /// Goes on with the engine's task, if there is one; `false` if the task has yet to be made.
    pub(super) async fn recover(&mut self, task: &Task) -> Result<bool, Failure> {
        let name = spec::task_name(&self.id);
        let found = self.node.blocking(move |node| find(node, &name)).await.map_err(Failure::Task)?;
        match found {
            Some((record, network)) => {
                let id = record.id().map_err(Failure::Task)?;
                self.adopt(id, network).await;
                self.look().await;
                if task.stop.is_none() {
                    let Some(task) = self.task() else { return Err(Failure::Stopped) };
                    if task.containers.iter().any(|container| container.phase == ContainerPhase::Pending) {
                        self.fetch(&task).await?;
                    }
                }
                Ok(true)
            }
            None if task.engine_task.is_some() => {
                let reason = "the engine has no record of the task any more".to_owned();
                Err(Failure::Resource { reason })
            }
            None => Ok(false),
        }
    }

    /// Compares the engine's records with ours.
    pub(super) async fn look(&mut self) {
        let (Some(id), Some(task)) = (self.engine.clone(), self.task()) else { return };
        let seen = match self.node.blocking(move |node| see(node, &id)).await {
            Ok(seen) => seen,
            Err(error) => {
                tracing::warn!(task = self.id, "cannot look at its containers: {}", chain(&error));
                return;
            }
        };
        let (stopped, containers) = seen;
        for (at, known) in task.containers.iter().enumerate() {
            if known.phase == ContainerPhase::Stopped {
                continue;
            }
            let found = containers.iter().find(|(record, _)| is(record, &self.id, &known.name));
            if let Some((record, _)) = found
                && known.runtime_id.is_none()
            {
                let (id, created) = (record.id.clone(), record.created);
                self.update(|task| {
                    task.containers[at].runtime_id = Some(id);
                    task.containers[at].created = Some(created);
                });
            }
            match found.map(|(_, seen)| seen) {
                Some(Seen::Running(time)) => self.started(at, *time).await,
                Some(Seen::Ended(ended)) => self.ended(at, ended, false),
                Some(Seen::Lost) => self.lost(at),
                Some(Seen::Waiting) | None if stopped => self.lost(at),
                Some(Seen::Waiting) | None => {}
            }
        }
    }

    fn lost(&self, at: usize) {
        self.update(|task| {
            let container = &mut task.containers[at];
            container.phase = ContainerPhase::Stopped;
            container.finished = Some(Timestamp::now());
            container.reason = Some("nobody saw how it ended: its monitor is gone".to_owned());
        });
    }
}

/// The engine's task of that name. One that was being made when the agent was killed has nothing in it yet: it is
/// made again.
fn find(node: &Node, name: &str) -> Result<Option<(TaskRecord, Network)>, EngineError> {
    let record = match node.engine.find_task(name) {
        Ok(record) => record,
        Err(error) if crate::error::Kind::kind(&error) == crate::error::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let id = record.id()?;
    if matches!(node.engine.task_status(&id)?, TaskStatus::Making) {
        node.engine.remove_task(&node.store, &id)?;
        return Ok(None);
    }
    let network = network(node, &id)?;
    Ok(Some((record, network)))
}

fn see(node: &Node, id: &Id) -> Result<(bool, Vec<(Record, Seen)>), EngineError> {
    let stopped = matches!(node.engine.task_status(id)?, TaskStatus::Stopped { .. });
    let mut all = Vec::new();
    for record in node.engine.task_containers(id)? {
        let seen = match node.engine.status(&record.id()?)? {
            Status::Running(run) | Status::Unmonitored(run) => Seen::Running(run.started),
            Status::Exited(ended) | Status::Created(Some(ended)) => Seen::Ended(ended),
            Status::Lost(_) => Seen::Lost,
            Status::Created(None) | Status::Starting => Seen::Waiting,
        };
        all.push((record, seen));
    }
    Ok((stopped, all))
}

fn is(record: &Record, task: &str, container: &str) -> bool {
    let data = &record.data["ecs"];
    data["task"].as_str() == Some(task) && data["container"].as_str() == Some(container)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::ecs::run::orchestrate::reason;

    #[test]
    fn tells_why_a_container_ended() {
        let now = Timestamp::now();
        let mut ended = Ended {
            code: 137,
            oom_killed: true,
            started: Some(now),
            finished: now,
            error: None,
            restarts: 0,
        };
        assert!(reason(&ended).is_some_and(|text| text.starts_with("OutOfMemoryError: ")));
        ended.oom_killed = false;
        assert_eq!(reason(&ended), None);
        ended.error = Some("no such program".into());
        assert_eq!(reason(&ended).as_deref(), Some("CannotStartContainerError: no such program"));
    }
}
