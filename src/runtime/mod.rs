//! The OCI runtime: synchronous and single-threaded.
