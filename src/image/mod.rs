//! Images: references, registries, the store, unpacking and snapshots.
