//! corten, a lightweight container runtime.
//!
//! The map of the house; each module may use only what stands right of its arrow
//! (`tests/layering.rs` holds the code to it):
//!
//! ```text
//! cli     -> agent, engine, image, runtime, error, sys  command lines: `corten oci VERB` and `corten VERB`
//! agent   -> engine, image, error, sys            the node agent: CRI, the ECS API, static pods
//! engine  -> image, network, runtime, error, sys  containers from images: monitor, tasks, run, exec, logs, volumes
//! network -> error, sys                           network namespaces, the bridge, published ports, CNI
//! image   -> error, sys                           references, registries, the store, unpacking, snapshots
//! runtime -> error, sys                           the OCI runtime: plan, create, start, exec, kill, delete
//! error   -> sys                                  kinds of errors: what a caller can do about a failure
//! sys     -> nothing of ours                      every `unsafe` and every raw file descriptor
//! ```
#![deny(unsafe_code)]

pub mod agent;
pub mod cli;
pub mod engine;
pub mod error;
pub mod image;
pub mod network;
pub mod runtime;
pub mod sys;
