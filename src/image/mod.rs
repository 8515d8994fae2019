//! Images: references, registries, the store, unpacking and snapshots.

pub mod build;
pub mod diff;
pub mod digest;
pub mod load;
pub mod manifest;
pub mod platform;
pub mod pull;
pub mod push;
pub mod reference;
pub mod registry;
pub mod save;
pub mod snapshot;
pub mod store;
pub mod unpack;
