//! Why a container could not be created.
use crate::error::{ErrorKind, Kind};
use crate::runtime::cgroup;
use crate::runtime::hooks::HookError;
use crate::runtime::launch::LaunchError;
use crate::runtime::namespaces::NamespaceError;
use crate::runtime::netdevices::NetDeviceError;
use crate::runtime::notify::NotifyError;
use crate::runtime::plan::PlanError;
use crate::runtime::rdt::RdtError;
use crate::runtime::security::SecurityError;
use crate::runtime::state::StateError;
use crate::runtime::validate::ValidateError;
use crate::sys::SysError;

/// Why a container could not be created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The configuration contradicts itself, or asks for what is not built.
    #[error(transparent)]
    Invalid(#[from] ValidateError),
    /// The configuration cannot be carried out.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The record.
    #[error(transparent)]
    State(#[from] StateError),
    /// The cgroups.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// The process, or anything on the container's side.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The resctrl group.
    #[error(transparent)]
    Rdt(#[from] RdtError),
    /// The user namespace.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// A network device of the host.
    #[error(transparent)]
    NetDevice(#[from] NetDeviceError),
    /// A hook of the runtime's side.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// The seccomp agent did not get its descriptor.
    #[error(transparent)]
    Notify(#[from] NotifyError),
    /// Limits of the process.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// The caller's pid file.
    #[error("writing pid file {path}")]
    PidFile {
        /// Where.
        path: String,
        /// The call.
        #[source]
        source: SysError,
    },
    /// A socket of the caller.
    #[error("sending the {what} to socket {path}")]
    Socket {
        /// `console` or `pidfd`.
        what: &'static str,
        /// Where.
        path: String,
        /// The call.
        #[source]
        source: SysError,
    },
    /// A descriptor of `--preserve-fds` is not there.
    #[error("descriptor {number} is to be preserved, but the caller did not hand it down")]
    NoDescriptor {
        /// Which.
        number: i32,
    },
    /// A call of the runtime's.
    #[error("creating the container")]
    System(#[from] SysError),
}

impl Kind for CreateError {
    fn kind(&self) -> ErrorKind {
        match self {
            CreateError::Invalid(source) => source.kind(),
            CreateError::Plan(source) => source.kind(),
            CreateError::State(source) => source.kind(),
            CreateError::Cgroup(source) => source.kind(),
            CreateError::Launch(source) => source.kind(),
            CreateError::Rdt(source) => source.kind(),
            CreateError::Namespace(source) => source.kind(),
            CreateError::NetDevice(source) => source.kind(),
            CreateError::Hook(source) => source.kind(),
            CreateError::Notify(source) => source.kind(),
            CreateError::Security(source) => source.kind(),
            CreateError::NoDescriptor { .. } => ErrorKind::InvalidInput,
            CreateError::PidFile { source, .. }
            | CreateError::Socket { source, .. }
            | CreateError::System(source) => source.kind(),
        }
    }
}
