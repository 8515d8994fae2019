//! The files of a task that its containers see: hostname, hosts, resolv.conf, and the directory of shared memory.
use super::{Attachment, TaskNetwork, TaskSpec};
use crate::engine::error::EngineError;
use crate::engine::launch::read_host_file;
use crate::engine::names::Id;
use crate::engine::record::{directory_with_mode, write_public};
use crate::network::{Dns, files};
use crate::sys::SysError;
use crate::sys::mount::{Attr, FsContext, move_mount};
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;

/// docker's and containerd's size of /dev/shm.
const SHM_SIZE: u64 = 64 << 20;

/// The host name inside: what was asked for; on the host's network the host's; else the beginning of the id.
pub fn hostname(id: &Id, spec: &TaskSpec) -> Result<String, EngineError> {
    if let Some(name) = &spec.hostname {
        return Ok(name.clone());
    }
    if spec.network != TaskNetwork::Host {
        return Ok(id.short().to_owned());
    }
    let name = nix::unistd::gethostname().map_err(SysError::on("gethostname", ""))?;
    Ok(name.to_string_lossy().into_owned())
}

/// Writes the three files.
pub(super) fn write(
    spec: &TaskSpec,
    hostname: &str,
    attachment: Option<&Attachment>,
    directory: &Path,
) -> Result<(), EngineError> {
    write_public(&directory.join("hostname"), format!("{hostname}\n").as_bytes())?;
    let addresses: Vec<IpAddr> = attachment
        .map(|attachment| attachment.addresses.iter().map(|address| address.ip).collect())
        .unwrap_or_default();
    let hosts = match spec.network {
        TaskNetwork::Host => {
            let mut text = read_host_file("/etc/hosts")?;
            if !text.is_empty() && !text.ends_with(b"\n") {
                text.push(b'\n');
            }
            text.extend_from_slice(extra_hosts(spec)?.as_bytes());
            text
        }
        _ => files::hosts(hostname, &addresses, &spec.hosts)?.into_bytes(),
    };
    write_public(&directory.join("hosts"), &hosts)?;
    let resolv = if spec.network == TaskNetwork::Host && spec.dns == Dns::default() {
        read_host_file("/etc/resolv.conf")?
    } else {
        let told = attachment.map(|attachment| attachment.dns.clone()).unwrap_or_default();
        let asked = spec.dns != Dns::default();
        // Who says anything about the resolver says all: searches of the host are not mixed in.
        let host = if asked { Dns::default() } else { files::host_dns(spec.network != TaskNetwork::Host) };
        files::resolv_conf(&files::choose(&spec.dns, &told, host))?.into_bytes()
    };
    write_public(&directory.join("resolv.conf"), &resolv)
}

/// The lines that were asked for, checked: those of an own hosts file without what comes before them.
fn extra_hosts(spec: &TaskSpec) -> Result<String, EngineError> {
    let with = files::hosts("localhost", &[], &spec.hosts)?;
    let without = files::hosts("localhost", &[], &[])?;
    Ok(with.strip_prefix(&without).unwrap_or_default().to_owned())
}

/// Mounts the shared memory of a task with an IPC namespace of its own.
pub(super) fn mount_shm(spec: &TaskSpec, directory: &Path) -> Result<(), EngineError> {
    if spec.host_ipc {
        return Ok(());
    }
    let path = directory.join("shm");
    directory_with_mode(&path, 0o1777)?;
    let target = File::open(&path).map_err(SysError::io("open", path.display().to_string()))?;
    let context = FsContext::open("tmpfs")?;
    context.set_string("source", "shm")?;
    context.set_string("mode", "1777")?;
    context.set_string("size", &spec.shm_size.unwrap_or(SHM_SIZE).to_string())?;
    let mount = context.mount(Attr::NOSUID | Attr::NODEV | Attr::NOEXEC)?;
    Ok(move_mount(mount.as_fd(), target.as_fd(), &path.display().to_string())?)
}
