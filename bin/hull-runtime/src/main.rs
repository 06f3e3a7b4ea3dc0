//! OCI runtime command and container monitor.

fn main() {}
