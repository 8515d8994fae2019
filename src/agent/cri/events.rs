//! What clients of `GetContainerEvents` are told.
use super::api::{ContainerEventResponse, ContainerEventType, ContainerStatus, PodSandboxStatus};
use super::error::Result;
use super::kept::nanos;
use super::{Cri, container_status, sandbox};
use crate::agent::{Node, NodeEvent};
use crate::engine::task::TaskEvent;
use crate::engine::timestamp::Timestamp;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

/// How far a client may be behind. Then its stream ends, and it lists what there is.
const QUEUE: usize = 1024;

/// What one client is told.
pub type Watching = Pin<Box<dyn Stream<Item = std::result::Result<ContainerEventResponse, Status>> + Send>>;

/// Tells all clients that watch.
#[derive(Debug)]
pub struct Events(broadcast::Sender<Told>);

/// An event, or that there are no more.
#[derive(Debug, Clone)]
enum Told {
    Event(Arc<ContainerEventResponse>),
    End,
}

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::channel(QUEUE).0)
    }
}

impl Events {
    /// Everything from now on.
    pub fn watch(&self) -> Watching {
        Box::pin(BroadcastStream::new(self.0.subscribe()).map_while(|told| match told {
            Ok(Told::Event(event)) => Some(Ok(ContainerEventResponse::clone(&event))),
            Ok(Told::End) => None,
            Err(_) => {
                Some(Err(Status::aborted("events came faster than they were taken; list and watch again")))
            }
        }))
    }

    /// Ends all streams, so that the server can end.
    pub fn end(&self) {
        // That nobody watches is no error.
        let _ = self.0.send(Told::End);
    }

    /// Whether anybody would hear.
    pub fn is_watched(&self) -> bool {
        self.0.receiver_count() > 0
    }

    /// Tells it.
    pub fn send(&self, event: ContainerEventResponse) {
        // That nobody watches is no error.
        let _ = self.0.send(Told::Event(Arc::new(event)));
    }
}

/// Something is gone; `last` is what its pod was.
pub fn deleted(id: &str, last: Option<PodSandboxStatus>) -> ContainerEventResponse {
    ContainerEventResponse {
        container_id: id.to_owned(),
        container_event_type: ContainerEventType::ContainerDeletedEvent as i32,
        created_at: nanos(Timestamp::now()),
        pod_sandbox_status: last,
        containers_statuses: Vec::new(),
    }
}

impl Cri {
    /// Tells what happened to a container of a pod, or to the pod where the ids are the same.
    pub async fn announce(self: &Arc<Self>, pod: &str, container: &str, kind: ContainerEventType) {
        if !self.events.is_watched() {
            return;
        }
        let given = pod.to_owned();
        let seen = self.node.blocking(move |node| pod_status(node, &given)).await;
        // A pod that was removed meanwhile has its own event, and one of another door has none.
        let Ok((pod, containers_statuses)) = seen else { return };
        self.events.send(ContainerEventResponse {
            container_id: container.to_owned(),
            container_event_type: kind as i32,
            created_at: nanos(Timestamp::now()),
            pod_sandbox_status: Some(pod),
            containers_statuses,
        });
    }

    /// Tells what happens in tasks, as long as the agent runs.
    pub fn follow(self: &Arc<Self>) {
        let (cri, mut events) = (Arc::clone(self), self.node.events.subscribe());
        tokio::spawn(async move {
            loop {
                match events.recv().await {
                    Ok(NodeEvent { task, event }) => cri.happened(&task, &event).await,
                    Err(RecvError::Lagged(lost)) => {
                        tracing::warn!(lost, "cri: events came faster than they could be told");
                    }
                    Err(RecvError::Closed) => return,
                }
            }
        });
    }

    async fn happened(self: &Arc<Self>, task: &str, event: &TaskEvent) {
        let (id, kind) = match event {
            TaskEvent::Started { container, .. } => (container, ContainerEventType::ContainerStartedEvent),
            TaskEvent::Exited { container, .. } => (container, ContainerEventType::ContainerStoppedEvent),
            TaskEvent::Stopped => (&task.to_owned(), ContainerEventType::ContainerStoppedEvent),
        };
        self.announce(task, id, kind).await;
    }
}

fn pod_status(node: &Node, id: &str) -> Result<(PodSandboxStatus, Vec<ContainerStatus>)> {
    let found = sandbox::find(node, id)?;
    Ok((sandbox::status(node, &found)?, container_status::of_sandbox(node, &found)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn streams_end_with_the_agent() {
        let events = Events::default();
        let mut watching = events.watch();
        events.end();
        assert!(watching.next().await.is_none());
    }

    #[tokio::test]
    async fn a_client_that_falls_behind_is_told_so() {
        let events = Events::default();
        assert!(!events.is_watched());
        let mut watching = events.watch();
        assert!(events.is_watched());
        events.send(deleted("first", None));
        assert_eq!(watching.next().await.unwrap().unwrap().container_id, "first");
        for _ in 0..2 * QUEUE {
            events.send(deleted("more", None));
        }
        assert_eq!(watching.next().await.unwrap().unwrap_err().code(), tonic::Code::Aborted);
    }
}
