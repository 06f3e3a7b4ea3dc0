//! Manifests, indexes and configurations of any bytes; a configuration survives being written and read.
#![no_main]

use hull_model::{ImageConfig, ManifestOrIndex, Platform};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(ManifestOrIndex::Index(index)) = ManifestOrIndex::parse("", bytes) {
        let _ = index.choose(&Platform::host());
    }
    if let Ok(config) = ImageConfig::parse(bytes) {
        let again = serde_json::to_vec(&config).expect("it was JSON");
        assert_eq!(ImageConfig::parse(&again).expect("it parsed before"), config);
    }
});
