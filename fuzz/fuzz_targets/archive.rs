//! Any bytes as a Docker archive or OCI layout: what is refused leaves no blob and no layer.
#![no_main]

use hull_content::Store;
use hull_images::ImageStore;
use hull_layer::Layers;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let dir = tempfile::tempdir().expect("temporary directory");
    let content = Store::open(dir.path().join("content")).expect("content");
    let layers = Layers::open(dir.path().join("layers")).expect("layers");
    let store = ImageStore::new(content, layers);
    if store.load(bytes, None, &|_| ()).is_err() {
        assert!(store.content().list().expect("list").is_empty());
        assert!(store.layers().list().expect("list").is_empty());
    }
});
