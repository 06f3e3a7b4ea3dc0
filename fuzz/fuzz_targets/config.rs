//! Any bytes as config.json: refused or understood, without a panic and before anything is made.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(spec) = hull_oci::container::parse_config(bytes) {
        let _ = hull_oci::check(&spec, Path::new("/nonexistent"));
    }
});
