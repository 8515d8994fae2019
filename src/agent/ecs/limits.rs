//! CPU and memory of a task and its containers.
use super::definition::{ContainerDefinition, amounts};
use super::record::Task;
use crate::engine::options::Limits;

/// docker's least share of CPU.
const MIN_SHARES: u64 = 2;
/// Period of the CPU quota in microseconds.
const PERIOD: u64 = 100_000;

/// An amount of CPU and memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amounts {
    /// CPU units.
    pub cpu: u64,
    /// MiB.
    pub memory: u64,
}

/// What ECS counts for a task: what it says itself, or else the sum of its containers, of which a reservation
/// counts where there is one.
pub fn task_amounts(task: &Task) -> Amounts {
    let containers = || task.definition.container_definitions.iter();
    Amounts {
        cpu: task_cpu(task).unwrap_or_else(|| containers().map(|container| positive(container.cpu)).sum()),
        memory: task_memory(task).unwrap_or_else(|| {
            let counted = |container: &ContainerDefinition| {
                positive(container.memory_reservation.or(container.memory).unwrap_or(0))
            };
            containers().map(counted).sum()
        }),
    }
}

fn positive(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// CPU units that the task says.
pub fn task_cpu(task: &Task) -> Option<u64> {
    task.definition.cpu.as_deref().and_then(amounts::cpu)
}

/// MiB that the task says.
pub fn task_memory(task: &Task) -> Option<u64> {
    task.definition.memory.as_deref().and_then(amounts::memory)
}

/// Limits of the task's cgroup, as amazon-ecs-agent sets them: a quota where the task says its CPU, or else the sum
/// of its containers' shares.
pub fn of_task(task: &Task) -> Limits {
    let mut limits = Limits::default();
    match task_cpu(task) {
        Some(units) => {
            let quota = units.saturating_mul(PERIOD) / amounts::UNITS;
            limits.cpu_period = Some(PERIOD);
            // The kernel takes no quota below a millisecond.
            limits.cpu_quota = Some(i64::try_from(quota.max(1000)).unwrap_or(i64::MAX));
        }
        None => limits.cpu_shares = Some(task_amounts(task).cpu.clamp(MIN_SHARES, 262_144)),
    }
    limits.memory = task_memory(task).map(bytes);
    limits
}

/// Limits of a container's cgroup.
pub fn of_container(container: &ContainerDefinition) -> Limits {
    let mut limits =
        Limits { cpu_shares: Some(positive(container.cpu).clamp(MIN_SHARES, 262_144)), ..Limits::default() };
    let reservation = container.memory_reservation.map(positive).map(bytes);
    limits.memory = container.memory.map(positive).map(bytes);
    limits.memory_reservation = reservation;
    if let Some(linux) = &container.linux_parameters
        && let (Some(swap), Some(memory)) = (linux.max_swap, limits.memory)
    {
        limits.memory_swap = Some(memory.saturating_add(bytes(positive(swap))));
        limits.swappiness = linux.swappiness.map(positive);
    }
    limits
}

fn bytes(mib: u64) -> i64 {
    i64::try_from(mib).unwrap_or(i64::MAX).saturating_mul(amounts::MIB)
}
