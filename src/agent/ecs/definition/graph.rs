//! Dependencies between containers; pure.
use super::check::{Invalid, wrong};
use super::{Condition, ContainerDefinition, Dependency};

/// Checks that every dependency can come about.
pub fn check(containers: &[ContainerDefinition]) -> Result<(), Invalid> {
    for (at, container) in containers.iter().enumerate() {
        for (index, dependency) in container.depends_on.iter().enumerate() {
            let path = format!("containerDefinitions[{at}].dependsOn[{index}]");
            one(&path, container, dependency, containers)?;
        }
    }
    match start_order(containers) {
        Some(_) => Ok(()),
        None => wrong("containerDefinitions", "the dependencies of the containers form a cycle"),
    }
}

fn one(
    path: &str,
    container: &ContainerDefinition,
    dependency: &Dependency,
    containers: &[ContainerDefinition],
) -> Result<(), Invalid> {
    let wanted = &dependency.container_name;
    if *wanted == container.name {
        return wrong(path, format!("container {wanted:?} depends on itself"));
    }
    let Some(other) = containers.iter().find(|other| other.name == *wanted) else {
        return wrong(format!("{path}.containerName"), format!("there is no container {wanted:?}"));
    };
    match dependency.condition {
        Condition::Healthy if other.health_check.as_ref().and_then(|check| check.args()).is_none() => {
            wrong(format!("{path}.condition"), format!("container {wanted:?} has no healthCheck"))
        }
        Condition::Complete | Condition::Success if other.essential => {
            let reason = format!("container {wanted:?} is essential, so that its end ends the task");
            wrong(format!("{path}.condition"), reason)
        }
        _ => Ok(()),
    }
}

/// The containers' places in an order in which each comes after what it depends on; `None` if there is a cycle.
pub fn start_order(containers: &[ContainerDefinition]) -> Option<Vec<usize>> {
    let place = |name: &str| containers.iter().position(|container| container.name == name);
    let mut order: Vec<usize> = Vec::new();
    while order.len() < containers.len() {
        let is_ready = |container: &ContainerDefinition| {
            container
                .depends_on
                .iter()
                .all(|dependency| place(&dependency.container_name).is_some_and(|at| order.contains(&at)))
        };
        let next = (0..containers.len()).find(|at| !order.contains(at) && is_ready(&containers[*at]))?;
        order.push(next);
    }
    Some(order)
}

/// Whether a container names another in its dependencies.
pub fn depends(container: &ContainerDefinition, on: &str) -> bool {
    container.depends_on.iter().any(|dependency| dependency.container_name == on)
}
