//! What is to be done next with a task's containers; pure.
//!
//! ```text
//! container:  Pending --dependencies are met--> (start) --> Running --ended--> Stopped
//!                |                                             |
//!                `--task stops--> Stopped                      `--task stops, what depends on it has stopped--> (stop)
//! ```
use crate::agent::ecs::definition::{Condition, ContainerDefinition, Dependency, depends};
use crate::agent::ecs::record::{ContainerPhase, HealthStatus, StopCode};
use crate::engine::timestamp::Timestamp;
use std::time::Duration;

/// What is under way with a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Doing {
    /// Nothing.
    #[default]
    Nothing,
    /// It is being started.
    Starting,
    /// It was asked to stop.
    Stopping,
}

/// A container as it is now.
#[derive(Debug, Clone, Copy)]
pub struct Look<'d> {
    /// What it is.
    pub definition: &'d ContainerDefinition,
    /// What it is doing.
    pub phase: ContainerPhase,
    /// What is under way with it.
    pub doing: Doing,
    /// How it ended.
    pub exit_code: Option<i32>,
    /// What its health check says.
    pub health: Option<HealthStatus>,
    /// When it was started first; absent if it never was.
    pub started: Option<Timestamp>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start a container.
    Start(usize),
    /// Tell why a container is not started yet.
    Wait(usize, String),
    /// Ask a container to stop.
    Stop(usize),
    /// A container will never be started.
    Never(usize),
    /// The task must stop.
    Fail(StopCode, String),
    /// All have been started.
    Running,
    /// All have ended.
    Over,
}

/// What is to be done, and when to look again if nothing happens until then.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order.
    pub actions: Vec<Action>,
    /// When a timeout passes.
    pub again: Option<Timestamp>,
}

/// How it stands with a dependency.
enum Standing {
    Met,
    /// Why not yet, and when it is too late.
    Waits(String, Option<Timestamp>),
    /// Why never.
    Never(String),
}

/// What is to be done with the containers of a task that stops, or does not.
pub fn plan(looks: &[Look<'_>], stopping: bool, now: Timestamp) -> Plan {
    if stopping { shut_down(looks) } else { go_on(looks, now) }
}

fn go_on(looks: &[Look<'_>], now: Timestamp) -> Plan {
    let ended = looks.iter().find(|look| look.definition.essential && look.phase == ContainerPhase::Stopped);
    if let Some(look) = ended {
        let (code, reason) = match look.started {
            Some(_) => (StopCode::EssentialContainerExited, "Essential container in task exited".to_owned()),
            None => (StopCode::TaskFailedToStart, "Task failed to start".to_owned()),
        };
        return Plan { actions: vec![Action::Fail(code, reason)], again: None };
    }
    let mut plan = Plan::default();
    for (at, look) in looks.iter().enumerate() {
        if look.phase != ContainerPhase::Pending || look.doing != Doing::Nothing {
            continue;
        }
        let mut waits = None;
        for dependency in &look.definition.depends_on {
            match standing(dependency, looks, now) {
                Standing::Met => {}
                Standing::Waits(why, until) => {
                    waits = waits.or(Some(why));
                    plan.again = plan.again.into_iter().chain(until).min();
                }
                Standing::Never(why) => {
                    let reason = format!("Container {:?} cannot be started: {why}", look.definition.name);
                    return Plan {
                        actions: vec![Action::Fail(StopCode::TaskFailedToStart, reason)],
                        again: None,
                    };
                }
            }
        }
        plan.actions.push(match waits {
            None => Action::Start(at),
            Some(why) => Action::Wait(at, why),
        });
    }
    if looks.iter().all(|look| look.phase != ContainerPhase::Pending) {
        plan.actions.push(Action::Running);
    }
    plan
}

fn standing(dependency: &Dependency, looks: &[Look<'_>], now: Timestamp) -> Standing {
    let name = &dependency.container_name;
    // The definition was checked: the container is there.
    let Some(other) = looks.iter().find(|look| look.definition.name == *name) else {
        return Standing::Never(format!("container {name:?} is not there"));
    };
    let stopped = other.phase == ContainerPhase::Stopped;
    let timeout = other.definition.start_timeout.and_then(|seconds| u64::try_from(seconds).ok());
    let word = match dependency.condition {
        Condition::Start => {
            return match other.phase {
                ContainerPhase::Pending => {
                    Standing::Waits(format!("waits for the start of container {name:?}"), None)
                }
                ContainerPhase::Stopped if other.started.is_none() => {
                    Standing::Never(format!("container {name:?} could not be started"))
                }
                _ => Standing::Met,
            };
        }
        Condition::Complete if stopped => return Standing::Met,
        Condition::Success if stopped && other.exit_code == Some(0) => return Standing::Met,
        Condition::Success if stopped => {
            let code =
                other.exit_code.map_or_else(|| "no exit code".to_owned(), |code| format!("exit code {code}"));
            return Standing::Never(format!(
                "it needs the success of container {name:?}, which ended with {code}"
            ));
        }
        Condition::Healthy if stopped => {
            return Standing::Never(format!("it needs container {name:?} to be healthy, which has ended"));
        }
        Condition::Healthy if other.health == Some(HealthStatus::Healthy) => return Standing::Met,
        // Within a startTimeout it may still recover.
        Condition::Healthy if other.health == Some(HealthStatus::Unhealthy) && timeout.is_none() => {
            return Standing::Never(format!("it needs container {name:?} to be healthy, which is unhealthy"));
        }
        Condition::Complete => "to end",
        Condition::Success => "to end with exit code 0",
        Condition::Healthy => "to be healthy",
    };
    let why = format!("waits for container {name:?} {word}");
    match (other.started, timeout) {
        (Some(started), Some(seconds)) => {
            let limit = Duration::from_secs(seconds);
            if now.since(started) >= limit {
                return Standing::Never(format!("{why}, but the startTimeout of {seconds} s has passed"));
            }
            Standing::Waits(why, Some(after(started, limit)))
        }
        _ => Standing::Waits(why, None),
    }
}

fn after(time: Timestamp, span: Duration) -> Timestamp {
    Timestamp::from_unix(time.since(Timestamp::from_unix(Duration::ZERO)).saturating_add(span))
}

/// What depends on a container is stopped before it.
fn shut_down(looks: &[Look<'_>]) -> Plan {
    let mut plan = Plan::default();
    for (at, look) in looks.iter().enumerate() {
        match (look.phase, look.doing) {
            (ContainerPhase::Pending, Doing::Nothing) => plan.actions.push(Action::Never(at)),
            (ContainerPhase::Running, Doing::Nothing) => {
                let mut needing =
                    looks.iter().filter(|other| depends(other.definition, &look.definition.name));
                if needing.all(|other| match other.phase {
                    ContainerPhase::Stopped => true,
                    // It becomes Stopped by the same plan.
                    ContainerPhase::Pending => other.doing == Doing::Nothing,
                    ContainerPhase::Running => false,
                }) {
                    plan.actions.push(Action::Stop(at));
                }
            }
            _ => {}
        }
    }
    if looks.iter().all(|look| look.phase == ContainerPhase::Stopped) {
        plan.actions.push(Action::Over);
    }
    plan
}

#[cfg(test)]
mod tests;
