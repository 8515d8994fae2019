//! Hostile layers through every command that unpacks one, and the trees and entries that they give compared with
//! those of other tools.
#![expect(clippy::disallowed_methods, reason = "the tests own the directories that they work on")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod corpus;
mod limits;
mod readers;
mod stacks;
mod store;
mod trees;
