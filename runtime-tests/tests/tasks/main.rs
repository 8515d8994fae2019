//! Tasks: containers that share a monitor, driven through the engine's library as the agent does.
mod crash;
mod life;
mod restart;
mod streams;
mod world;
