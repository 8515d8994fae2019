//! The ECS task API.
