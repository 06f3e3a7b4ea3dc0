//! Project tasks: demo, test, dist, install, bench, checks.

fn main() {}
