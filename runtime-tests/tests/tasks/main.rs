//! Tasks: containers that share a monitor, driven through the engine's library as the agent does.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod crash;
mod help;
mod life;
mod restart;
mod security;
mod shared;
mod streams;
mod world;
