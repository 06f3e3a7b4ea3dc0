//! System calls rustix lacks, the only crate that may use unsafe.
