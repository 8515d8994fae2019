//! The only room with `unsafe`, `libc` and raw file descriptors.
//!
//! Every function takes and returns owned or borrowed descriptors and typed values; an error names the
//! call, the object and the errno ([`SysError`]).
#![allow(unsafe_code)]

pub mod bpf;
pub mod error;
pub mod mount;
pub mod pty;
pub mod root;
pub mod tree;
pub mod pidfd;

pub use error::SysError;
