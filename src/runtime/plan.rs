//! From a configuration to what init will do: everything that can be refused before anything is made.
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Hooks, Process, Spec};

use super::create::{CreateRequest, StartMode};
use super::namespaces::{NamespaceError, Namespaces, flag};
use super::netdevices::{self, NetDeviceError};
use super::program::{Program, ProgramError};
use super::rootfs::{self, PlanFacts, RootfsError, RootfsPlan};
use super::security::{self, SecurityError};
use crate::error::{ErrorKind, Kind};

/// Why a configuration cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// There is nothing to run.
    #[error("process: config.json names no process")]
    NoProcess,
    /// `linux.namespaces`.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// `root`, `mounts`, `linux.devices` and their like.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// `process.args` and `process.env`.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// `linux.netDevices`.
    #[error(transparent)]
    NetDevice(#[from] NetDeviceError),
    /// Capabilities, seccomp and their like.
    #[error(transparent)]
    Security(#[from] SecurityError),
}

impl Kind for PlanError {
    fn kind(&self) -> ErrorKind {
        match self {
            PlanError::NoProcess => ErrorKind::InvalidInput,
            PlanError::Namespace(source) => source.kind(),
            PlanError::Rootfs(source) => source.kind(),
            PlanError::Program(source) => source.kind(),
            PlanError::NetDevice(source) => source.kind(),
            PlanError::Security(source) => source.kind(),
        }
    }
}

/// A process of a container: init, or one that exec adds.
#[derive(Debug)]
pub struct ProcessPlan {
    /// What it executes.
    pub program: Program,
    /// Its working directory, in the container.
    pub cwd: PathBuf,
    /// Who it is and what it may do.
    pub security: security::Plan,
    /// Lines and columns of its terminal.
    pub console_size: Option<(u16, u16)>,
}

/// The annotation of crun by which the caller's supplementary groups stay (podman's `--group-add keep-groups`).
pub const KEEP_GROUPS: &str = "run.oci.keep_original_groups";

fn keeps_groups(spec: &Spec) -> bool {
    let annotations = spec.annotations().as_ref();
    // crun takes any value for yes.
    annotations.is_some_and(|annotations| annotations.contains_key(KEEP_GROUPS))
}

impl ProcessPlan {
    /// Plans `process` of the configuration `spec`; compiled seccomp filters are kept in `filters`.
    pub fn build(spec: &Spec, process: &Process, filters: Option<&Path>) -> Result<ProcessPlan, PlanError> {
        let program = Program::plan(
            process.args().as_deref().unwrap_or_default(),
            process.env().as_deref().unwrap_or_default(),
        )?;
        let size = process.console_size().map(|size| {
            let cells = |number: u64| u16::try_from(number).unwrap_or(u16::MAX);
            (cells(size.height()), cells(size.width()))
        });
        let mut security = security::Plan::new(process, spec.linux().as_ref(), filters)?;
        security.user.keep_groups = keeps_groups(spec);
        if !security.labels.is_empty() {
            security.labels.check(security::label::Host::detect())?;
        }
        Ok(ProcessPlan { program, cwd: process.cwd().clone(), security, console_size: size })
    }
}

/// A container.
#[derive(Debug)]
pub struct Plan {
    /// Its namespaces.
    pub namespaces: Namespaces,
    /// Its root file system.
    pub rootfs: RootfsPlan,
    /// Its first process.
    pub process: ProcessPlan,
    /// For its UTS namespace.
    pub hostname: Option<String>,
    /// Likewise.
    pub domainname: Option<String>,
    /// Devices of the host that it gets.
    pub net_devices: netdevices::Plan,
    /// When init executes the program.
    pub start: StartMode,
    /// All hooks.
    pub hooks: Option<Hooks>,
}

impl Plan {
    /// Plans a container.
    pub fn build(request: &CreateRequest) -> Result<Plan, PlanError> {
        let spec = &request.spec;
        let process = spec.process().as_ref().ok_or(PlanError::NoProcess)?;
        let facts = PlanFacts { no_pivot: request.no_pivot };
        let mut rootfs = rootfs::plan(spec, &request.bundle, facts)?;
        for destination in &request.copy_up {
            rootfs.copy_up_volume(destination);
        }
        if rootfs.has_mount_label() && !security::label::Host::detect().selinux {
            // Only a policy of SELinux reads the labels of mounts, so that nothing is less safe without them; as with
            // crun, a bundle that was made elsewhere runs. That a process goes without its label is refused.
            let label = rootfs.drop_mount_label();
            tracing::warn!(
                ?label,
                "linux.mountLabel: this kernel has no SELinux, so that mounts carry no label"
            );
        }
        let namespaces = Namespaces::plan(spec)?;
        let net_devices = netdevices::Plan::new(spec, nix::unistd::geteuid().is_root())?;
        let hooks = spec.hooks().clone();
        // Whatever init asks the runtime for is answered by a Go, which no Start may precede.
        let asks = request.stdio.is_terminal()
            || hooks.is_some()
            || !net_devices.is_empty()
            || namespaces.new & flag::USER != 0;
        Ok(Plan {
            start: if asks { StartMode::OnCall } else { request.start },
            namespaces,
            rootfs,
            net_devices,
            process: ProcessPlan::build(spec, process, request.seccomp_cache.as_deref())?,
            hostname: spec.hostname().clone().filter(|name| !name.is_empty()),
            domainname: spec.domainname().clone().filter(|name| !name.is_empty()),
            hooks,
        })
    }
}
