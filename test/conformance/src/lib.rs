//! Suites that drive Hull through its command line, API and runtime, as real clients do.
//!
//! The suites are the tests of this package; here is what they stand on.

pub mod ground;

pub use ground::{Client, Ground};
