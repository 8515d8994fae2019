//! Attacks that other runtimes have met: each test has the number of its CVE in its name.
//!
//! The modules `a1_…` are about paths, mounts, procfs and descriptors, `a2_…` about identity, privileges,
//! namespaces and helpers of the host, `a3_…` about images and their store. docs/threat-model.md lists the attacks and corten's defences.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod a1_descriptors;
mod a1_dev;
mod a1_engine;
mod a1_proc;
mod a1_races;
mod a1_removal;
mod a2_identity;
mod a2_namespaces;
mod a3_images;
mod races;
#[path = "../engine/world.rs"]
#[allow(dead_code, reason = "shared with the tests of the engine")]
mod world;
