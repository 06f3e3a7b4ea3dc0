//! Any mount options: each is taken by exactly one reader, none is both set and cleared.
#![no_main]

use hull_mount::parse_options;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let options: Vec<&str> = text.split(',').collect();
    let Ok(parsed) = parse_options(&options) else {
        assert!(options.iter().any(|option| option.contains('\0') || option.starts_with('=')));
        return;
    };
    assert!(parsed.bind || !parsed.recursive_bind);
    for data in &parsed.data {
        assert!(options.contains(&data.as_str()) && !data.is_empty());
    }
    // What is left for the file system is left for it when it is read again.
    let again = parse_options(&parsed.data).expect("each was valid");
    assert_eq!(again.data, parsed.data);
    assert!(again.set.is_empty() && again.clear.is_empty() && again.propagation.is_empty() && !again.bind);
});
