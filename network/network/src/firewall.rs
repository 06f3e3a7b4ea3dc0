//! The nftables table of an engine.
