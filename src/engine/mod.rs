//! Containers from images, without a daemon.
