//! `checkpoint` and `restore`: their words are understood, so that callers who probe for them (podman does)
//! get the answers that they look for; and the answer is that there is no checkpointing.
use super::argv::Flags;
use super::{Count, Outcome, check_count, words_of};
use clap::Parser;
use std::ffi::OsString;

/// Checkpoints a running container (not supported in this version)
#[derive(Debug, Parser)]
#[command(name = "checkpoint", override_usage = "corten-oci checkpoint [command options] <container-id>")]
struct Checkpoint {
    /// Path for saving criu image files
    #[arg(long, value_name = "DIR")]
    image_path: Option<OsString>,
    /// Path for saving work files and logs
    #[arg(long, value_name = "DIR")]
    work_path: Option<OsString>,
    /// Path for previous criu image files in pre-dump
    #[arg(long, value_name = "DIR")]
    parent_path: Option<OsString>,
    /// Leave the process running after checkpointing
    #[arg(long)]
    leave_running: bool,
    /// Allow open tcp connections
    #[arg(long)]
    tcp_established: bool,
    /// Skip in-flight tcp connections
    #[arg(long)]
    tcp_skip_in_flight: bool,
    /// Allow one to link unlinked files back when possible
    #[arg(long)]
    link_remap: bool,
    /// Allow external unix sockets
    #[arg(long)]
    ext_unix_sk: bool,
    /// Allow shell jobs
    #[arg(long)]
    shell_job: bool,
    /// Use userfaultfd to lazily restore memory pages
    #[arg(long)]
    lazy_pages: bool,
    /// criu writes \\0 to this FD once lazy-pages is ready
    #[arg(long, value_name = "FD", allow_negative_numbers = true)]
    status_fd: Option<i32>,
    /// ADDRESS:PORT of the page server
    #[arg(long, value_name = "ADDRESS:PORT")]
    page_server: Option<OsString>,
    /// Handle file locks, for safety
    #[arg(long)]
    file_locks: bool,
    /// Dump the container's memory information only, leave the container running after this
    #[arg(long)]
    pre_dump: bool,
    /// Cgroups mode: soft, full, strict or ignore
    #[arg(long, value_name = "MODE")]
    manage_cgroups_mode: Option<OsString>,
    /// Create a namespace, but don't restore its properties
    #[arg(long, value_name = "NAMESPACE")]
    empty_ns: Vec<OsString>,
    /// Enable auto deduplication of memory images
    #[arg(long)]
    auto_dedup: bool,
    #[arg(hide = true)]
    args: Vec<OsString>,
}

/// Restores a container from a previous checkpoint (not supported in this version)
#[derive(Debug, Parser)]
#[command(name = "restore", override_usage = "corten-oci restore [command options] <container-id>")]
struct Restore {
    /// Path to an AF_UNIX socket which will receive the master end of the console's pseudoterminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<OsString>,
    /// Path to criu image files for restoring
    #[arg(long, value_name = "DIR")]
    image_path: Option<OsString>,
    /// Path for saving work files and logs
    #[arg(long, value_name = "DIR")]
    work_path: Option<OsString>,
    /// Allow open tcp connections
    #[arg(long)]
    tcp_established: bool,
    /// Allow external unix sockets
    #[arg(long)]
    ext_unix_sk: bool,
    /// Allow shell jobs
    #[arg(long)]
    shell_job: bool,
    /// Handle file locks, for safety
    #[arg(long)]
    file_locks: bool,
    /// Cgroups mode: soft, full, strict or ignore
    #[arg(long, value_name = "MODE")]
    manage_cgroups_mode: Option<OsString>,
    /// Path to the root of the bundle directory
    #[arg(long, short, value_name = "DIR")]
    bundle: Option<OsString>,
    /// Detach from the container's process
    #[arg(long, short)]
    detach: bool,
    /// Specify the file to write the process id to
    #[arg(long, value_name = "FILE")]
    pid_file: Option<OsString>,
    /// Disable the use of the subreaper used to reap reparented processes
    #[arg(long)]
    no_subreaper: bool,
    /// Do not use pivot root to jail process inside rootfs
    #[arg(long)]
    no_pivot: bool,
    /// Create a namespace, but don't restore its properties
    #[arg(long, value_name = "NAMESPACE")]
    empty_ns: Vec<OsString>,
    /// Enable auto deduplication of memory images
    #[arg(long)]
    auto_dedup: bool,
    /// Use userfaultfd to lazily restore memory pages
    #[arg(long)]
    lazy_pages: bool,
    /// An LSM profile to be used during restore in the form of TYPE:NAME
    #[arg(long, value_name = "TYPE:NAME")]
    lsm_profile: Option<OsString>,
    /// An LSM mount context to be used during restore
    #[arg(long, value_name = "CONTEXT")]
    lsm_mount_context: Option<OsString>,
    #[arg(hide = true)]
    args: Vec<OsString>,
}

pub(super) fn checkpoint(words: &[OsString]) -> Outcome {
    let words = words_of!(Checkpoint, words, Flags::Anywhere);
    check_count::<Checkpoint>(&words.args, Count::Exactly(1))?;
    Err(anyhow::anyhow!("checkpoint is not supported by this version of corten-oci").into())
}

pub(super) fn restore(words: &[OsString]) -> Outcome {
    let words = words_of!(Restore, words, Flags::Anywhere);
    check_count::<Restore>(&words.args, Count::Exactly(1))?;
    Err(anyhow::anyhow!("restore is not supported by this version of corten-oci").into())
}
