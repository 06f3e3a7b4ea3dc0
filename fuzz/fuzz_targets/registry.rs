//! What a registry reads from strangers: requests, paths, and manifests.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(Some((head, length))) = hull_registry_server::http::Head::parse(data) {
        assert!(length <= data.len());
        let route = hull_registry_server::Route::parse(&head.path).ok();
        if let Some(name) = route.as_ref().and_then(|route| route.repository()) {
            // What was accepted is safe in a path of a file system.
            assert!(!name.as_str().split('/').any(|part| part.is_empty() || part.starts_with('.')));
        }
        let _ = (head.parameter("digest"), head.parameters("tag").count(), head.shown());
    }
    for kind in [hull_model::media_type::OCI_MANIFEST, hull_model::media_type::OCI_INDEX] {
        let _ = hull_registry_server::manifest::Document::parse(kind, data);
    }
});
