//! Saving and loading; archives of Docker's other ages and of other tools; damaged ones.

mod common;

use common::{Place, chain, gzip, noise, tar};
use hull_content::sha256;
use hull_images::{Image, ImageError, Loaded, SaveItem};
use hull_layer::tar::{Entry, Kind, Writer};
use hull_model::{Descriptor, ImageConfig, Platform, Reference, media_type};

fn import(place: &Place, tar: &[u8]) -> Image {
    let config = ImageConfig { architecture: "amd64".into(), os: "linux".into(), ..ImageConfig::default() };
    place.store.import(tar, config).unwrap().value
}

fn names(texts: &[&str]) -> Vec<Reference> {
    texts.iter().map(|t| Reference::parse_default_tag(t).unwrap()).collect()
}

fn save(place: &Place, image: &Image, texts: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    place.store.save(&[SaveItem { image, names: names(texts), family: None }], &mut bytes).unwrap();
    bytes
}

fn load(place: &Place, bytes: &[u8]) -> Result<Vec<Loaded>, ImageError> {
    place.store.load(bytes, None, &|_| ()).map(|leased| leased.value)
}

/// Builds archives by hand.
fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let files: Vec<_> = files.iter().map(|(n, b)| (n.as_str(), b.as_slice())).collect();
    tar(&files)
}

#[test]
fn import_makes_an_image_of_one_layer() {
    let place = Place::new();
    let layer = tar(&[("bin/sh", b"#!"), ("etc/x", b"1")]);
    for input in [layer.clone(), gzip(&layer)] {
        let image = import(&place, &input);
        assert_eq!(image.layers.len(), 1);
        assert_eq!(image.layers[0].diff_id, sha256(&layer));
        assert_eq!(place.file(&image, "etc/x").as_deref(), Some("1"));
        let config = place.store.config(&image).unwrap();
        assert_eq!(config.rootfs.diff_ids, [sha256(&layer)]);
    }
    let cut = &layer[..700];
    assert!(place.store.import(cut, ImageConfig::default()).is_err());
    assert_eq!(place.counts().2, 0);
}

#[test]
fn what_is_saved_is_loaded() {
    let place = Place::new();
    let image = import(&place, &gzip(&tar(&[("data", &noise(1, 100_000)), ("etc/x", b"1")])));
    let bytes = save(&place, &image, &["app:1", "reg.example/team/app"]);
    for input in [bytes.clone(), gzip(&bytes)] {
        let other = Place::new();
        let loaded = load(&other, &input).unwrap();
        assert_eq!(loaded.len(), 1);
        assert_eq!(loaded[0].image, image);
        assert_eq!(loaded[0].names, names(&["app:1", "reg.example/team/app:latest"]));
        assert_eq!(other.file(&image, "etc/x").as_deref(), Some("1"));
        assert_eq!(save(&other, &image, &["app:1", "reg.example/team/app"]), bytes);
        // And once more into the same store: nothing changes.
        let before = other.counts();
        assert_eq!(load(&other, &input).unwrap(), loaded);
        assert_eq!(other.counts(), before);
    }
}

/// The two tables of contents, as docker, podman and skopeo look for them.
#[test]
fn the_archive_is_both_formats() {
    let place = Place::new();
    let image = import(&place, &tar(&[("etc/x", b"1")]));
    let bytes = save(&place, &image, &["app:1"]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tar");
    std::fs::write(&path, &bytes).unwrap();
    let status =
        std::process::Command::new("tar").arg("-xf").arg(&path).arg("-C").arg(dir.path()).status().unwrap();
    assert!(status.success());
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(dir.path().join(name)).unwrap()).unwrap()
    };
    let table = read("manifest.json");
    assert_eq!(table[0]["RepoTags"], serde_json::json!(["app:1"]));
    assert_eq!(table[0]["Config"], format!("blobs/sha256/{}", image.id.hex()));
    assert!(dir.path().join(table[0]["Layers"][0].as_str().unwrap()).exists());
    let index = read("index.json");
    assert_eq!(index["manifests"][0]["digest"], image.manifest.digest.as_str());
    assert_eq!(index["manifests"][0]["annotations"]["io.containerd.image.name"], "docker.io/library/app:1");
    assert_eq!(read("oci-layout")["imageLayoutVersion"], "1.0.0");
    assert_eq!(read("repositories")["app"]["1"], image.layers[0].diff_id.hex());
}

/// As Docker before 25 wrote them: a directory for each layer, equal layers as links.
#[test]
fn old_docker_archives() {
    let (one, two) = (tar(&[("a", b"1")]), tar(&[("b", b"2")]));
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [sha256(&one), sha256(&two), sha256(&one)]},
    });
    let config = serde_json::to_vec(&config).unwrap();
    let config_name = format!("{}.json", sha256(&config).hex());
    let table = serde_json::json!([{
        "Config": config_name, "RepoTags": ["old:1"], "Layers": ["aa/layer.tar", "bb/layer.tar", "cc/layer.tar"],
    }]);
    let mut writer = Writer::new(Vec::new());
    let mut add =
        |name: &str, bytes: &[u8]| writer.append_bytes(&Entry::new(Kind::File, name), bytes).unwrap();
    add("aa/VERSION", b"1.0");
    add("aa/json", b"{}");
    add("aa/layer.tar", &one);
    add("bb/layer.tar", &two);
    add(&config_name, &config);
    add("manifest.json", &serde_json::to_vec(&table).unwrap());
    add("repositories", b"{}");
    let link = Entry { link: b"../aa/layer.tar".to_vec(), ..Entry::new(Kind::Symlink, "cc/layer.tar") };
    writer.append(&link, &mut std::io::empty()).unwrap();
    let bytes = writer.finish().unwrap();
    let place = Place::new();
    let loaded = load(&place, &bytes).unwrap();
    assert_eq!(loaded[0].names, names(&["old:1"]));
    assert_eq!(loaded[0].image.id, sha256(&config));
    assert_eq!(loaded[0].image.layers.len(), 3);
    assert_eq!(place.file(&loaded[0].image, "b").as_deref(), Some("2"));
    // Configuration, manifest, two layers; VERSION and json are not kept.
    assert_eq!(place.counts(), (4, 3, 0));
}

/// An OCI layout with an index of platforms, named by annotation.
#[test]
fn oci_layouts() {
    let mut files = vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
    let mut entries = Vec::new();
    for name in ["arm64", "amd64"] {
        let sample = common::Sample::new(
            &[(tar(&[("arch", name.as_bytes())]), gzip(&tar(&[("arch", name.as_bytes())])))],
            name,
        );
        for (digest, bytes) in &sample.blobs {
            files.push((format!("blobs/{}", digest.replace(':', "/")), bytes.clone()));
        }
        let digest = sha256(&sample.manifest);
        files.push((format!("blobs/sha256/{}", digest.hex()), sample.manifest.clone()));
        let mut entry = Descriptor::new(media_type::OCI_MANIFEST, digest, sample.manifest.len() as u64);
        entry.platform = Some(Platform::new("linux", name, ""));
        entries.push(entry);
    }
    let inner =
        serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries});
    let inner = serde_json::to_vec(&inner).unwrap();
    files.push((format!("blobs/sha256/{}", sha256(&inner).hex()), inner.clone()));
    let mut top = Descriptor::new(media_type::OCI_INDEX, sha256(&inner), inner.len() as u64);
    top.annotations.insert("org.opencontainers.image.ref.name".into(), "quay.io/a/b:v2".into());
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [top]});
    files.push(("index.json".into(), serde_json::to_vec(&index).unwrap()));
    let bytes = archive(&files);
    for name in ["amd64", "arm64"] {
        let place = Place::new();
        let platform = Platform::new("linux", name, "");
        let loaded = place.store.load(bytes.as_slice(), Some(&platform), &|_| ()).unwrap().value;
        assert_eq!(loaded[0].names, names(&["quay.io/a/b:v2"]));
        assert_eq!(place.file(&loaded[0].image, "arch").as_deref(), Some(name));
        assert_eq!(loaded[0].image.repo_digest(), &sha256(&inner));
    }
    let place = Place::new();
    let error =
        place.store.load(bytes.as_slice(), Some(&Platform::new("linux", "s390x", "")), &|_| ()).unwrap_err();
    assert!(matches!(error, ImageError::NoPlatform(_)), "{error}");
    assert_eq!(place.counts(), (0, 0, 0));
}

#[test]
fn damaged_archives_change_nothing() {
    let place = Place::new();
    let image = import(&place, &tar(&[("etc/x", &noise(4, 3000)), ("y", b"2")]));
    let good = save(&place, &image, &["app:1"]);
    let swapped = |from: &[u8], to: &[u8]| {
        let at = good.windows(from.len()).position(|w| w == from).unwrap();
        [&good[..at], to, &good[at + from.len()..]].concat()
    };
    let payload = noise(4, 3000);
    let mut flipped = payload.clone();
    flipped[10] ^= 1;
    let packed = gzip(&good);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("holds no image", tar(&[("x", b"y")])),
        ("holds no image", Vec::new()),
        ("is not valid", noise(8, 4000)),
        ("truncated", good[..good.len() / 2].to_vec()),
        ("cannot be decompressed", b"BZh9............".to_vec()),
        ("image archive is not valid", packed[..packed.len() / 2].to_vec()),
        ("does not match its digest", swapped(&payload, &flipped)),
        ("invalid reference format", swapped(br#""app:1""#, br#""A p:1""#)),
        ("manifest.json in the archive is not valid", swapped(br#"[{"Config""#, br#"[["Config""#)),
        ("does not hold it", swapped(br#""Config":"blobs/sha256/"#, br#""Config":"blobs/sha25X/"#)),
        ("not a digest", tar(&[("blobs/sha256/../../../etc/x", b"1"), ("blobs/x", b"")])),
    ];
    for (message, bytes) in cases {
        let other = Place::new();
        let text = chain(&load(&other, &bytes).unwrap_err());
        assert!(text.contains(message), "{text} / {message}");
        assert_eq!(other.counts(), (0, 0, 0), "{message}: {text}");
        // In a store that has the image already, it stays whole.
        let before = place.counts();
        assert!(load(&place, &bytes).is_err());
        assert_eq!(place.counts(), before, "{message}");
        assert!(place.store.snapshot(&image).is_ok());
    }
}

/// Layers whose bytes are not what the configuration says, or attack.
#[test]
fn archives_with_bad_layers_change_nothing() {
    let good = tar(&[("a", b"1")]);
    for (layer, message) in [
        (tar(&[("a", b"2")]), "does not match its diff id"),
        (tar(&[("../x", b"2")]), "does not match its diff id"),
        (noise(1, 2000), "not a valid archive"),
    ] {
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [sha256(&good), sha256(&good)]},
        });
        let table =
            serde_json::json!([{"Config": "c.json", "RepoTags": null, "Layers": ["good.tar", "bad.tar"]}]);
        let bytes = archive(&[
            ("c.json".into(), serde_json::to_vec(&config).unwrap()),
            ("good.tar".into(), good.clone()),
            ("bad.tar".into(), layer),
            ("manifest.json".into(), serde_json::to_vec(&table).unwrap()),
        ]);
        let place = Place::new();
        let text = chain(&load(&place, &bytes).unwrap_err());
        assert!(text.contains(message) || text.contains("outside of the layer"), "{text}");
        assert_eq!(place.counts(), (0, 0, 0), "{message}");
    }
}

/// Every blob of a store damaged in turn is noticed when it is saved.
#[test]
fn damaged_blobs_are_not_saved() {
    let place = Place::new();
    let image = import(&place, &tar(&[("etc/x", b"1")]));
    for digest in image.blobs() {
        let path = place.store.content().path(digest);
        let good = std::fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[7] ^= 0x20;
        std::fs::write(&path, &bad).unwrap();
        let item = SaveItem { image: &image, names: Vec::new(), family: None };
        let error = place.store.save(&[item], std::io::sink()).unwrap_err();
        assert!(error.to_string().contains("is damaged"), "{error}");
        std::fs::write(&path, &good).unwrap();
    }
}
