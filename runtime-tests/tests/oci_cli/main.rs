//! The command line of the OCI runtime, where its callers depend on details.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod events;
mod exec;
mod list;
mod log;
mod update;
mod words;
