//! The static program that runs inside containers and reports what it sees.
fn main() {}
