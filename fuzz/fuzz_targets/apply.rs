//! Any bytes as a layer: nothing may appear beside the root. Run as root for devices and owners.
#![no_main]

use hull_layer::{ApplyLimits, ApplyOptions, extract};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let dir = tempfile::tempdir().expect("temporary directory");
    let root = dir.path().join("root");
    std::fs::create_dir(&root).expect("root");
    let limits = ApplyLimits { entries: 1000, bytes: 16 << 20, ..ApplyLimits::default() };
    let root = std::fs::File::open(root).expect("root");
    let _ = extract(&root, bytes, &ApplyOptions::layer(limits));
    assert_eq!(std::fs::read_dir(dir.path()).expect("list").count(), 1);
});
