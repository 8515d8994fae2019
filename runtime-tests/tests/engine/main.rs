//! Containers from images, through `corten run` and its sisters.
#![expect(clippy::unwrap_used, reason = "a failure is the test's, where it happens")]

mod crash;
mod exits;
mod layers;
mod life;
mod options;
mod terminal;
mod verbs;
mod world;
