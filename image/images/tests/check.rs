//! Damage is found, whatever it is in, and mended.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::{Place, gzip, noise, tar};
use hull_images::{Fault, Image, Part};
use hull_model::{ImageConfig, Platform};

fn image(place: &Place) -> Image {
    let host = Platform::host();
    let config = ImageConfig { architecture: host.architecture, os: host.os, ..ImageConfig::default() };
    let layer = gzip(&tar(&[("a", &noise(1, 50_000)), ("b", b"small")]));
    place.store.import(layer.as_slice(), config).expect("image").value
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).expect("list").map(|entry| entry.expect("entry").path()) {
            if entry.is_dir() { open.push(entry) } else { found.push(entry) }
        }
    }
    found
}

/// Flips a bit in the middle.
fn damage(path: &Path) {
    let file = File::options().read(true).write(true).open(path).expect("open");
    let about = file.metadata().expect("stat");
    let (mut byte, at) = ([0], about.len() / 2);
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[byte[0] ^ 4], at).expect("write");
    file.set_modified(about.modified().expect("time")).expect("time");
}

#[test]
fn every_damaged_file_is_found_and_nothing_else() {
    let place = Place::new();
    let image = image(&place);
    let images = [image.clone()];
    let whole = place.store.check(&images).expect("check");
    assert_eq!((whole.blobs, whole.layers, whole.findings.len()), (3, 1, 0));
    let kept = files(&place.dir.path().join("content/blobs"));
    let layers = files(&place.dir.path().join("layers"));
    let layers = layers.into_iter().filter(|path| !path.ends_with("layer.json"));
    for path in kept.into_iter().chain(layers) {
        damage(&path);
        let report = place.store.check(&images).expect("check");
        let [finding] = report.findings.as_slice() else { panic!("{path:?}: {report:?}") };
        assert_eq!(finding.fault, Fault::Damaged, "{path:?}");
        assert!(finding.is_of(&image));
        damage(&path);
    }
    assert!(place.store.check(&images).expect("check").findings.is_empty());
}

#[test]
fn a_damaged_layer_is_made_again_from_its_blob() {
    let place = Place::new();
    let mut image = image(&place);
    let part = Part::Layer(image.layers[0].chain_id.clone());
    let layers = files(&place.dir.path().join("layers"));
    let largest = layers.iter().max_by_key(|path| path.metadata().map_or(0, |about| about.len()));
    damage(largest.expect("a file"));
    assert_eq!(place.store.check_part(&part), Some(Fault::Damaged));
    place.store.remove_damaged(&part).expect("removed");
    assert_eq!(place.store.check_part(&part), Some(Fault::Missing));
    place.store.unpack(&mut image).expect("unpacked");
    assert_eq!(place.store.check_part(&part), None);
    assert_eq!(place.file(&image, "b").as_deref(), Some("small"));
    place.store.remove_damaged(&Part::Blob(image.layers[0].blob.digest.clone())).expect("removed");
    let report = place.store.check(&[image]).expect("check");
    assert_eq!(report.findings.len(), 1);
    assert_eq!(report.findings[0].fault, Fault::Missing);
}
