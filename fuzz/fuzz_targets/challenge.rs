//! Headers of registries that ask for authentication.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for challenge in hull_distribution::parse_challenges(text) {
        assert!(!challenge.scheme.is_empty());
    }
});
