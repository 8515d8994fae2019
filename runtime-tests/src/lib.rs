//! The harness of the privileged tests.
