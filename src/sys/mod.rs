//! The only room with `unsafe`, `libc` and raw file descriptors.
//!
//! Every function takes and returns owned or borrowed descriptors and typed values; an error names the
//! call, the object and the errno ([`SysError`]).
#![allow(unsafe_code)]

#[cfg(target_env = "musl")]
pub mod allocator;
pub mod appear;
pub mod background;
pub mod bpf;
pub mod caps;
pub mod classic_mount;
pub mod clock;
pub mod copy;
pub mod dirents;
pub mod disk;
#[cfg(target_arch = "x86_64")]
pub mod entry;
pub mod error;
pub mod eventfd;
pub mod exe;
pub mod host;
#[cfg(target_arch = "x86_64")]
pub mod inflate;
pub mod keyring;
pub mod landlock;
pub mod link;
pub mod lock;
pub mod mount;
pub mod netlink;
pub mod numa;
pub mod packet;
pub mod pidfd;
pub mod process;
pub mod program;
pub mod pty;
pub mod random;
pub mod range_lock;
pub mod reactor;
pub mod regex;
pub mod resolver;
pub mod rlimit;
pub mod root;
pub mod sched;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod tree;
pub mod xattr;

pub use error::SysError;
