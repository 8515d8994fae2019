//! Containers from images, through `corten run` and its sisters.

mod crash;
mod exits;
mod life;
mod options;
mod terminal;
mod world;
