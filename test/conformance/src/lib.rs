//! Suites that drive Hull through its command line, API and runtime, as real clients do.
