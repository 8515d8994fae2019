//! The only room with `unsafe`, `libc` and raw file descriptors.
//!
//! Every function takes and returns owned or borrowed descriptors and typed values; an error names the
//! call, the object and the errno ([`SysError`]).
#![allow(unsafe_code)]

pub mod error;

pub use error::SysError;
