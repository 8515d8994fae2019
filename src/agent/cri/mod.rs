//! Kubernetes' container runtime interface, v1.

/// Bindings of `api.proto`.
#[allow(missing_debug_implementations, clippy::all, clippy::pedantic, clippy::unwrap_used)]
pub mod api {
    tonic::include_proto!("runtime.v1");
}
