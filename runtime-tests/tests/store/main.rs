//! The image store through the binary: what it says of itself, and what kills, full disks and power losses leave.
#![expect(clippy::disallowed_methods, reason = "the tests own the directories that they work on")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod care;
mod full;
mod killed;
mod power;
mod world;
