//! Rules of single containers, of amounts and of volumes.
use super::check::{Invalid, name, wrong};
use super::{ContainerDefinition, Definition, HealthCheck, LinuxParameters, Volume, amounts as parse};
use crate::engine::options::parse as flags;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// docker's least memory of a container in MiB.
const MIN_MEMORY: i64 = 6;
/// Most entries of any list of a container.
const MAX_ENTRIES: usize = 1000;
/// Most bytes of all texts of a container's environment and command, as the kernel's ARG_MAX.
const MAX_TEXT: usize = 1024 * 1024;
/// The limits that ECS knows.
const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Checks what can be told from one container alone.
pub fn container(path: &str, known: &ContainerDefinition) -> Result<(), Invalid> {
    let at = |member: &str| format!("{path}.{member}");
    if let Err(error) = crate::image::reference::Reference::from_str(&known.image) {
        return wrong(at("image"), error.to_string());
    }
    range(&at("cpu"), Some(known.cpu), 0..=262_144)?;
    range(&at("memory"), known.memory, MIN_MEMORY..=16 * 1024 * 1024)?;
    range(&at("memoryReservation"), known.memory_reservation, MIN_MEMORY..=16 * 1024 * 1024)?;
    if let (Some(hard), Some(soft)) = (known.memory, known.memory_reservation)
        && hard < soft
    {
        return wrong(at("memoryReservation"), format!("{soft} is more than memory, which is {hard}"));
    }
    // ECS: at most 120 s on Fargate, no bound on EC2; an hour and a day are bounds of this machine.
    range(&at("startTimeout"), known.start_timeout, 1..=86_400)?;
    range(&at("stopTimeout"), known.stop_timeout, 1..=3600)?;
    texts(path, known)?;
    if let Some(policy) = &known.restart_policy {
        if policy.ignored_exit_codes.len() > 50 {
            return wrong(at("restartPolicy.ignoredExitCodes"), "has more than 50 entries");
        }
        for (index, code) in policy.ignored_exit_codes.iter().enumerate() {
            range(&at(&format!("restartPolicy.ignoredExitCodes[{index}]")), Some(*code), 0..=255)?;
        }
        range(&at("restartPolicy.restartAttemptPeriod"), policy.restart_attempt_period, 60..=1800)?;
    }
    if let Some(check) = &known.health_check {
        health(&at("healthCheck"), check)?;
    }
    if let Some(log) = &known.log_configuration
        && log.log_driver != "json-file"
    {
        return wrong(
            at("logConfiguration.logDriver"),
            format!("{:?} is not supported: use json-file", log.log_driver),
        );
    }
    for (index, option) in known.docker_security_options.iter().enumerate() {
        if !matches!(
            option.as_str(),
            "no-new-privileges" | "no-new-privileges:true" | "no-new-privileges=true"
        ) {
            let reason = format!("{option:?} is not supported: only no-new-privileges is");
            return wrong(at(&format!("dockerSecurityOptions[{index}]")), reason);
        }
    }
    ulimits(path, known)?;
    if let Some(linux) = &known.linux_parameters {
        linux_parameters(&at("linuxParameters"), known, linux)?;
    }
    Ok(())
}

fn range(path: &str, value: Option<i64>, allowed: RangeInclusive<i64>) -> Result<(), Invalid> {
    match value {
        Some(value) if !allowed.contains(&value) => {
            wrong(path, format!("{value} is not between {} and {}", allowed.start(), allowed.end()))
        }
        _ => Ok(()),
    }
}

/// Names of variables, bounds of lists, NULs.
fn texts(path: &str, known: &ContainerDefinition) -> Result<(), Invalid> {
    let mut names = BTreeSet::new();
    let environment = known.environment.iter().map(|pair| ("environment", &pair.name));
    let secrets = known.secrets.iter().map(|secret| ("secrets", &secret.name));
    for (list, variable) in environment.chain(secrets) {
        if variable.is_empty() || variable.contains(['=', '\0']) {
            return wrong(format!("{path}.{list}"), format!("{variable:?} is no name of a variable"));
        }
        if list == "secrets" && !names.insert(variable) {
            return wrong(format!("{path}.secrets"), format!("{variable:?} is there more than once"));
        }
    }
    for (index, secret) in known.secrets.iter().enumerate() {
        if !is_plain_file(&secret.value_from) {
            let reason = "must be the name of a file in the configured directory of secrets";
            return wrong(format!("{path}.secrets[{index}].valueFrom"), reason);
        }
    }
    let values = known.environment.iter().map(|pair| &pair.value);
    let single = [&known.user, &known.working_directory, &known.hostname];
    let all = known
        .command
        .iter()
        .chain(&known.entry_point)
        .chain(known.environment.iter().map(|pair| &pair.name))
        .chain(values)
        .chain(single.into_iter().flatten())
        .chain(known.docker_labels.keys())
        .chain(known.docker_labels.values());
    let mut total = 0usize;
    for text in all {
        total = total.saturating_add(text.len());
        if text.contains('\0') {
            return wrong(path, "a text has a NUL character");
        }
    }
    if total > MAX_TEXT {
        return wrong(path, "environment, command and labels together are longer than 1 MiB");
    }
    let lists = [
        known.environment.len(),
        known.mount_points.len(),
        known.docker_labels.len(),
        known.port_mappings.len(),
    ];
    if lists.into_iter().any(|length| length > MAX_ENTRIES) {
        return wrong(path, format!("a list has more than {MAX_ENTRIES} entries"));
    }
    if let Some(directory) = known.working_directory.as_ref().filter(|directory| !directory.starts_with('/'))
    {
        return wrong(format!("{path}.workingDirectory"), format!("{directory:?} is not absolute"));
    }
    Ok(())
}

/// One component that names a file in a directory.
fn is_plain_file(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && !text.starts_with('.')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-+@".contains(&byte))
}

fn health(path: &str, check: &HealthCheck) -> Result<(), Invalid> {
    let words = check.command.len();
    let reason = match check.command.first().map(String::as_str) {
        None => Some("is empty"),
        Some("NONE") if words == 1 => None,
        Some("NONE") => Some("NONE stands alone"),
        Some("CMD" | "CMD-SHELL") if words < 2 => Some("names no program"),
        Some("CMD" | "CMD-SHELL") => None,
        Some(_) => Some("must begin with CMD, CMD-SHELL or NONE"),
    };
    if let Some(reason) = reason {
        return wrong(format!("{path}.command"), reason);
    }
    if check.command.iter().any(|word| word.contains('\0')) {
        return wrong(format!("{path}.command"), "has a NUL character");
    }
    range(&format!("{path}.interval"), Some(check.interval), 5..=300)?;
    range(&format!("{path}.timeout"), Some(check.timeout), 2..=60)?;
    range(&format!("{path}.retries"), Some(check.retries), 1..=10)?;
    range(&format!("{path}.startPeriod"), check.start_period, 0..=300)
}

fn ulimits(path: &str, known: &ContainerDefinition) -> Result<(), Invalid> {
    let mut names = BTreeSet::new();
    for (index, limit) in known.ulimits.iter().enumerate() {
        let at = format!("{path}.ulimits[{index}]");
        if !ULIMITS.contains(&limit.name.as_str()) {
            return wrong(
                format!("{at}.name"),
                format!("{:?} is not one of {}", limit.name, ULIMITS.join(", ")),
            );
        }
        if !names.insert(&limit.name) {
            return wrong(format!("{at}.name"), format!("{:?} is there more than once", limit.name));
        }
        range(&format!("{at}.softLimit"), Some(limit.soft_limit), -1..=i64::MAX)?;
        range(&format!("{at}.hardLimit"), Some(limit.hard_limit), -1..=i64::MAX)?;
        let number = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
        if number(limit.soft_limit) > number(limit.hard_limit) {
            return wrong(at, "softLimit is more than hardLimit");
        }
    }
    Ok(())
}

fn linux_parameters(path: &str, known: &ContainerDefinition, linux: &LinuxParameters) -> Result<(), Invalid> {
    if let Some(given) = &linux.capabilities {
        for (list, words) in [("add", &given.add), ("drop", &given.drop)] {
            for (index, word) in words.iter().enumerate() {
                let at = format!("{path}.capabilities.{list}[{index}]");
                if word != "ALL" && caps::Capability::from_str(&format!("CAP_{word}")).is_err() {
                    return wrong(at, format!("{word:?} is no capability"));
                }
            }
        }
    }
    for (index, device) in linux.devices.iter().enumerate() {
        let at = |member: &str| format!("{path}.devices[{index}].{member}");
        host_path(&at("hostPath"), &device.host_path)?;
        if let Some(inside) = &device.container_path {
            destination(&at("containerPath"), inside)?;
        }
        for word in &device.permissions {
            if !matches!(word.as_str(), "read" | "write" | "mknod") {
                return wrong(at("permissions"), format!("{word:?} is not read, write or mknod"));
            }
        }
    }
    for (index, tmpfs) in linux.tmpfs.iter().enumerate() {
        let at = |member: &str| format!("{path}.tmpfs[{index}].{member}");
        destination(&at("containerPath"), &tmpfs.container_path)?;
        range(&at("size"), Some(tmpfs.size), 1..=1024 * 1024)?;
        let option = tmpfs
            .mount_options
            .iter()
            .find(|option| option.contains([',', ':']) || option.starts_with("size="));
        if let Some(option) = option {
            return wrong(at("mountOptions"), format!("{option:?} is no option of a tmpfs"));
        }
        let text = format!("{}:{}", tmpfs.container_path, tmpfs.mount_options.join(","));
        if tmpfs.container_path.contains(':') || flags::tmpfs(&text).is_err() {
            return wrong(at("mountOptions"), format!("{:?} has an unknown option", tmpfs.mount_options));
        }
    }
    range(&format!("{path}.sharedMemorySize"), linux.shared_memory_size, 1..=1024 * 1024)?;
    range(&format!("{path}.maxSwap"), linux.max_swap, 0..=16 * 1024 * 1024)?;
    range(&format!("{path}.swappiness"), linux.swappiness, 0..=100)?;
    if linux.max_swap.is_some() && known.memory.is_none() {
        return wrong(format!("{path}.maxSwap"), "needs the container's memory");
    }
    if linux.swappiness.is_some() && linux.max_swap.is_none() {
        return wrong(format!("{path}.swappiness"), "needs maxSwap");
    }
    Ok(())
}

/// CPU and memory of the task against those of its containers.
pub fn amounts(definition: &Definition) -> Result<(), Invalid> {
    let containers = &definition.container_definitions;
    let positive = |number: i64| u64::try_from(number).unwrap_or(0);
    if let Some(text) = &definition.cpu {
        let Some(units) = parse::cpu(text).filter(|units| (128..=196_608).contains(units)) else {
            return wrong(
                "cpu",
                format!("{text:?} is not between 128 CPU units (.125 vCPU) and 196608 (192 vCPU)"),
            );
        };
        let sum: u64 = containers.iter().map(|known| positive(known.cpu)).sum();
        if sum > units {
            return wrong("cpu", format!("{units} is less than the containers' together, which is {sum}"));
        }
    }
    let total = match &definition.memory {
        None => None,
        Some(text) => match parse::memory(text) {
            Some(mib) if mib >= 6 => Some(mib),
            _ => return wrong("memory", format!("{text:?} is no amount of memory of at least 6 MiB")),
        },
    };
    let mut sum = 0u64;
    for (at, known) in containers.iter().enumerate() {
        let path = format!("containerDefinitions[{at}]");
        let own = known.memory_reservation.or(known.memory).map(positive);
        match (own, total) {
            (None, None) => {
                let reason = format!(
                    "container {:?} needs memory or memoryReservation, or the task memory",
                    known.name
                );
                return wrong(path, reason);
            }
            (Some(own), _) => sum = sum.saturating_add(own),
            (None, Some(_)) => {}
        }
        if let (Some(hard), Some(total)) = (known.memory.map(positive), total)
            && hard > total
        {
            return wrong(
                format!("{path}.memory"),
                format!("{hard} is more than the task's, which is {total}"),
            );
        }
    }
    match total {
        Some(total) if sum > total => {
            wrong("memory", format!("{total} is less than the containers' together, which is {sum}"))
        }
        _ => Ok(()),
    }
}

/// Volumes, and where containers see them.
pub fn volumes(definition: &Definition) -> Result<(), Invalid> {
    let mut names = BTreeSet::new();
    for (at, volume) in definition.volumes.iter().enumerate() {
        let path = format!("volumes[{at}]");
        name(&format!("{path}.name"), &volume.name)?;
        if !names.insert(volume.name.as_str()) {
            return wrong(format!("{path}.name"), format!("two volumes are named {:?}", volume.name));
        }
        self::volume(&path, volume)?;
    }
    for (at, known) in definition.container_definitions.iter().enumerate() {
        let mut inside = BTreeSet::new();
        for (index, mount) in known.mount_points.iter().enumerate() {
            let path = format!("containerDefinitions[{at}].mountPoints[{index}]");
            if !names.contains(mount.source_volume.as_str()) {
                let reason = format!("there is no volume {:?}", mount.source_volume);
                return wrong(format!("{path}.sourceVolume"), reason);
            }
            let clean = destination(&format!("{path}.containerPath"), &mount.container_path)?;
            if !inside.insert(clean) {
                let reason = format!("two volumes are mounted at {:?}", mount.container_path);
                return wrong(format!("{path}.containerPath"), reason);
            }
        }
    }
    Ok(())
}

fn volume(path: &str, volume: &Volume) -> Result<(), Invalid> {
    if let Some(host) = volume.host_path() {
        host_path(&format!("{path}.host.sourcePath"), host)?;
    }
    let Some(docker) = &volume.docker_volume_configuration else { return Ok(()) };
    if volume.host.is_some() {
        return wrong(path, "has host and dockerVolumeConfiguration");
    }
    if let Some(scope) = docker.scope.as_deref().filter(|scope| *scope != "task") {
        let reason = format!("{scope:?} is not supported: use task, or a path of the host");
        return wrong(format!("{path}.dockerVolumeConfiguration.scope"), reason);
    }
    match docker.driver.as_deref() {
        Some(driver) if driver != "local" => wrong(
            format!("{path}.dockerVolumeConfiguration.driver"),
            format!("{driver:?} is not supported: use local"),
        ),
        _ => Ok(()),
    }
}

fn host_path(path: &str, text: &str) -> Result<(), Invalid> {
    let has_parent = text.split('/').any(|part| part == "..");
    if !text.starts_with('/') || has_parent || text.contains('\0') || text.len() >= 4096 {
        return wrong(path, format!("{text:?} is no absolute path without \"..\""));
    }
    Ok(())
}

/// A path in a container in its shortest form.
fn destination(path: &str, text: &str) -> Result<String, Invalid> {
    flags::destination("path", text)
        .or_else(|_| wrong(path, format!("{text:?} is no absolute path without \"..\" below the root")))
}
