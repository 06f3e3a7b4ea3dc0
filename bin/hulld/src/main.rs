//! The Hull engine daemon.

fn main() {}
