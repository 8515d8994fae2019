//! All that is known of a container, under docker's keys where there is one.
use super::Engine;
use super::error::EngineError;
use super::network;
use super::options::{VolumeSource, parse};
use super::record::{Record, Status};
use super::specgen::hostname;
use serde_json::{Value, json};

/// docker's time for "never".
const NEVER: &str = "0001-01-01T00:00:00Z";

/// The container as a JSON object.
pub fn inspect(engine: &Engine, record: &Record) -> Result<Value, EngineError> {
    let id = record.id()?;
    let status = engine.status(&id)?;
    let options = &record.options;
    let directory = engine.directory(&id);
    Ok(json!({
        "Id": record.id,
        "Name": record.name,
        "Created": record.created,
        "Path": record.command.args.first(),
        "Args": record.command.args.get(1..),
        "State": state(&status),
        "Image": record.image_id,
        "ImageName": record.image,
        "LogPath": engine.log_path(record)?,
        "Task": record.task,
        "HostnamePath": directory.join("hostname"),
        "HostsPath": directory.join("hosts"),
        "ResolvConfPath": directory.join("resolv.conf"),
        "Mounts": mounts(engine, record),
        "NetworkSettings": network::settings(engine, record)?,
        "Config": {
            "Hostname": hostname(&id, options),
            "User": record.command.user,
            "Tty": options.tty,
            "OpenStdin": options.interactive,
            "Env": record.command.env,
            "Cmd": record.command.args,
            "WorkingDir": record.command.cwd,
            "Labels": options.labels,
            "StopSignal": parse::signal_name(options.stop_signal),
            "StopTimeout": options.stop_timeout,
        },
        "HostConfig": {
            "NetworkMode": network::mode(options.network),
            "PortBindings": network::bindings(&options.connection.ports),
            "PublishAllPorts": options.connection.publish_all,
            "Dns": options.connection.dns.servers,
            "DnsSearch": options.connection.dns.searches,
            "DnsOptions": options.connection.dns.options,
            "ExtraHosts": network::extra_hosts(&options.connection.hosts),
            "AutoRemove": options.auto_remove,
            "Privileged": options.privileged,
            "ReadonlyRootfs": options.read_only,
            "CapAdd": options.cap_add,
            "CapDrop": options.cap_drop,
            "SecurityOpt": options.security,
            "Memory": options.limits.memory.unwrap_or(0),
            "MemorySwap": options.limits.memory_swap.unwrap_or(0),
            "NanoCpus": options.limits.nano_cpus.unwrap_or(0),
            "CpuShares": options.limits.cpu_shares.unwrap_or(0),
            "CpusetCpus": options.limits.cpuset_cpus.clone().unwrap_or_default(),
            "PidsLimit": options.limits.pids,
            "Ulimits": options.ulimits.iter().map(|limit| json!({
                "Name": limit.name, "Soft": limit.soft, "Hard": limit.hard,
            })).collect::<Vec<_>>(),
        },
    }))
}

fn state(status: &Status) -> Value {
    let ended = match status {
        Status::Exited(ended) | Status::Created(Some(ended)) => Some(ended),
        _ => None,
    };
    let started = match status {
        Status::Lost(run) => Some(run.started),
        _ => status.run().map(|run| run.started).or(ended.and_then(|ended| ended.started)),
    };
    let error = match status {
        Status::Lost(_) => "its monitor was killed: how it ended is not known",
        _ => ended.and_then(|ended| ended.error.as_deref()).unwrap_or_default(),
    };
    json!({
        "Status": status.word(),
        "Running": status.run().is_some(),
        "Pid": status.run().map_or(0, |run| run.pid),
        "MonitorPid": match status { Status::Running(run) => run.monitor.pid, _ => 0 },
        "ExitCode": match status { Status::Lost(_) => 255, _ => ended.map_or(0, |ended| ended.code) },
        "OOMKilled": ended.is_some_and(|ended| ended.oom_killed),
        "Error": error,
        "StartedAt": started.map_or_else(|| NEVER.to_owned(), |time| time.to_string()),
        "FinishedAt": ended.map_or_else(|| NEVER.to_owned(), |ended| ended.finished.to_string()),
    })
}

fn mounts(engine: &Engine, record: &Record) -> Vec<Value> {
    let volumes = record.options.volumes.iter().map(|volume| {
        let (kind, name, source) = match &volume.source {
            VolumeSource::Host(path) => ("bind", None, path.clone()),
            VolumeSource::Named(name) | VolumeSource::Anonymous(Some(name)) => {
                ("volume", Some(name), engine.volume_data(name))
            }
            VolumeSource::Anonymous(None) => ("volume", None, std::path::PathBuf::new()),
        };
        json!({
            "Type": kind,
            "Name": name,
            "Source": source,
            "Destination": volume.destination,
            "Mode": volume.options.join(","),
            "RW": !volume.options.iter().any(|option| option == "ro"),
        })
    });
    let tmpfs = record.options.tmpfs.iter().map(|tmpfs| {
        json!({
            "Type": "tmpfs",
            "Destination": tmpfs.destination,
            "Mode": tmpfs.options.join(","),
            "RW": !tmpfs.options.iter().any(|option| option == "ro"),
        })
    });
    volumes.chain(tmpfs).collect()
}
