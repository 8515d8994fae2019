//! Tasks: containers that share a monitor, driven through the engine's library as the agent does.
mod crash;
mod help;
mod life;
mod restart;
mod security;
mod shared;
mod streams;
mod world;
