//! Images for several platforms, artifacts and what refers to what.

mod common;

use common::{Place, Reply, Sample, Server, chain, config, gzip, noise, quiet, repository, request, tar};
use hull_content::sha256;
use hull_distribution::Access;
use hull_images::{ImageError, PullRequest, SaveItem, WithFamily};
use hull_model::{Descriptor, Digest, Platform, Reference, media_type};

fn sample(architecture: &str) -> Sample {
    let bytes = tar(&[("arch", architecture.as_bytes()), ("data", &noise(architecture.len() as u64, 2000))]);
    Sample::new(&[(bytes.clone(), gzip(&bytes))], architecture)
}

fn entry(bytes: &[u8], platform: Option<Platform>) -> Descriptor {
    let mut entry = Descriptor::new(media_type::OCI_MANIFEST, sha256(bytes), bytes.len() as u64);
    entry.platform = platform;
    entry
}

/// A manifest of another kind than images, with one blob; about `subject` if there is one.
fn artifact(server: &Server, kind: &str, content: &[u8], subject: Option<Descriptor>) -> Vec<u8> {
    let blob = Descriptor::new("application/spdx+json", sha256(content), content.len() as u64);
    let empty = Descriptor::new("application/vnd.oci.empty.v1+json", sha256(b"{}"), 2);
    let mut document = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": kind,
        "config": empty, "layers": [blob],
    });
    if let Some(subject) = subject {
        document["subject"] = serde_json::to_value(subject).unwrap();
    }
    let manifest = serde_json::to_vec(&document).unwrap();
    let blobs =
        [(sha256(b"{}").to_string(), b"{}".to_vec()), (sha256(content).to_string(), content.to_vec())];
    server.add(&Sample {
        blobs: blobs.into(),
        manifest: manifest.clone(),
        media_type: media_type::OCI_MANIFEST.into(),
        layers: Vec::new(),
    });
    manifest
}

/// Two platforms and an attestation under one index; the index's bytes.
fn family(server: &Server) -> Vec<u8> {
    let mut entries = Vec::new();
    for architecture in ["arm64", "amd64"] {
        let sample = sample(architecture);
        server.add(&sample);
        entries.push(entry(&sample.manifest, Some(Platform::new("linux", architecture, ""))));
    }
    let attestation = artifact(server, "application/vnd.in-toto+json", b"{\"built\":1}", None);
    let mut attached = entry(&attestation, Some(Platform::new("unknown", "unknown", "")));
    attached.annotations.insert("vnd.docker.reference.type".into(), "attestation-manifest".into());
    entries.push(attached);
    let index =
        serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries});
    let index = serde_json::to_vec(&index).unwrap();
    server.add_manifest(media_type::OCI_INDEX, &index);
    index
}

async fn pull_all(place: &Place, reference: &Reference) -> Result<WithFamily, ImageError> {
    let repository = repository(config(), reference, None);
    place.store.pull_all(&repository, &request(reference), &quiet()).await.map(|leased| leased.value)
}

#[tokio::test(flavor = "multi_thread")]
async fn all_platforms_and_attestations() {
    let server = Server::start().await;
    let index = family(&server);
    let place = Place::new();
    let found = pull_all(&place, &server.reference()).await.unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert_eq!(found.image.platform.architecture, "amd64");
    assert_eq!(found.image.repo_digest(), &sha256(&index));
    assert_eq!((found.family.images.len(), found.family.artifacts.len()), (1, 1));
    assert_eq!(place.file(&found.family.images[0], "arch").as_deref(), Some("arm64"));
    assert!(place.store.is_whole(found.image.index.as_ref().unwrap()).unwrap());
    assert_eq!(place.store.family_of(&found.image).unwrap().images, found.family.images);
    // Saved and loaded, everything is the same again.
    let names = vec![server.reference()];
    let item = SaveItem { image: &found.image, names: names.clone(), family: Some(&found.family) };
    let mut archive = Vec::new();
    place.store.save(&[item], &mut archive).unwrap();
    let back = Place::new();
    let loaded = back.store.load(archive.as_slice(), None, &|_| ()).unwrap().value;
    assert_eq!((&loaded[0].image, &loaded[0].names), (&found.image, &names));
    assert_eq!(loaded[0].family, found.family);
    // One platform of the archive is one platform.
    let arm: Platform = "linux/arm64".parse().unwrap();
    let one = Place::new();
    let loaded = one.store.load(archive.as_slice(), Some(&arm), &|_| ()).unwrap().value;
    assert_eq!(loaded[0].image, found.family.images[0]);
    assert!(loaded[0].family.images.is_empty());
    // What nobody needs goes.
    drop(loaded);
    place.store.collect(&|_| false).unwrap();
    assert_eq!(place.counts(), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_platform_leaves_the_index_incomplete() {
    let server = Server::start().await;
    family(&server);
    let place = Place::new();
    let image = common::pull(&place, &server.reference()).await.unwrap().value;
    assert!(!place.store.is_whole(image.index.as_ref().unwrap()).unwrap());
    assert!(place.store.family_of(&image).unwrap().images.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_may_nest_but_not_forever() {
    let server = Server::start().await;
    let mut inner = family(&server);
    for depth in 1..6 {
        let mut inside = entry(&inner, Some(Platform::new("linux", "amd64", "")));
        inside.media_type = media_type::OCI_INDEX.into();
        let outer = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [inside]});
        inner = serde_json::to_vec(&outer).unwrap();
        server.add_manifest(media_type::OCI_INDEX, &inner);
        let all = pull_all(&Place::new(), &server.reference()).await;
        let one = common::pull(&Place::new(), &server.reference()).await;
        match depth {
            1 => assert!(all.is_ok() && one.is_ok()),
            2.. if depth >= 3 => {
                assert!(matches!(all, Err(ImageError::Nested)) && matches!(one, Err(ImageError::Nested)))
            }
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn artifacts_are_kept_as_they_are() {
    let server = Server::start().await;
    let large = noise(11, 9 << 20);
    let manifest = artifact(&server, "application/vnd.example.sbom", &large, None);
    let place = Place::new();
    let reference = server.reference();
    let repository = repository(config(), &reference, None);
    let error = place.store.pull(&repository, &request(&reference), &quiet()).await.unwrap_err();
    assert!(matches!(error, ImageError::NotAnImage(_)), "{error}");
    let pulled = place.store.pull_artifact(&repository, &reference, &quiet()).await.unwrap().value;
    assert_eq!(pulled.manifest.digest, sha256(&manifest));
    assert_eq!(pulled.artifact_type, "application/vnd.example.sbom");
    assert_eq!((pulled.blobs.len(), pulled.size()), (2, large.len() as u64 + 2));
    assert!(pulled.digests().all(|digest| place.store.content().size(digest).unwrap().is_some()));
    assert_eq!(place.store.describe_artifact(&pulled.manifest).unwrap(), pulled);
}

#[tokio::test(flavor = "multi_thread")]
async fn referrers_are_found_with_and_without_their_api() {
    let server = Server::start().await;
    let subject: Digest = sha256(b"subject");
    let listed = |kind: &str| {
        let mut entry = Descriptor::new(media_type::OCI_MANIFEST, sha256(kind.as_bytes()), 10);
        entry.artifact_type = Some(kind.into());
        entry
    };
    let index = |entries: &[Descriptor]| {
        serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries})
            .to_string()
    };
    let whole = index(&[listed("a/sbom"), listed("a/signature")]);
    let repository = |server: &Server| {
        let reference = server.reference();
        hull_distribution::Client::new(config()).repository(&reference, Access::Pull, None)
    };
    let body = whole.clone();
    server.rule(move |r| r.path.contains("/referrers/").then(|| Reply::new(200, body.clone())));
    let found = repository(&server).referrers(&subject, None).await.unwrap();
    assert_eq!((found.manifests.len(), found.by_tag), (2, false));
    let found = repository(&server).referrers(&subject, Some("a/sbom")).await.unwrap();
    assert_eq!(found.manifests, [listed("a/sbom")]);
    // An older registry: the index is under a tag.
    let server = Server::start().await;
    let tag = format!("/manifests/sha256-{}", subject.hex());
    server.rule(|r| r.path.contains("/referrers/").then(|| Reply::new(404, "")));
    assert_eq!(repository(&server).referrers(&subject, None).await.unwrap().manifests, []);
    server.rule(move |r| {
        r.path
            .ends_with(&tag)
            .then(|| Reply::new(200, whole.clone()).header("Content-Type", media_type::OCI_INDEX))
    });
    let found = repository(&server).referrers(&subject, None).await.unwrap();
    assert_eq!((found.manifests.len(), found.by_tag), (2, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_layers_add_change_remove_and_waste() {
    let first = tar(&[("etc/a", b"12345"), ("etc/b", b"123"), ("opt/x", b"1"), ("opt/y", b"22")]);
    let second = tar(&[("etc/a", b"1"), ("etc/.wh.b", b""), ("opt/.wh..wh..opq", b""), ("opt/z", b"4444")]);
    let sample = Sample::new(&[(first.clone(), gzip(&first)), (second.clone(), gzip(&second))], "amd64");
    let server = Server::start().await;
    server.add(&sample);
    let place = Place::new();
    let image = common::pull(&place, &server.reference()).await.unwrap().value;
    let contents = place.store.contents(&image).unwrap();
    let told: Vec<_> = contents.iter().map(|layer| (layer.size, layer.wasted, layer.counts)).collect();
    assert_eq!(told, [(11, 11, [4, 0, 0]), (5, 0, [1, 1, 1])]);
    let paths: Vec<_> = contents[1].files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["etc/a", "etc/b", "opt/z"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_platform_fits() {
    let server = Server::start().await;
    family(&server);
    let place = Place::new();
    let reference = server.reference();
    let repository = repository(config(), &reference, None);
    let request = PullRequest { platform: Some(Platform::new("linux", "s390x", "")), ..request(&reference) };
    let error = place.store.pull(&repository, &request, &quiet()).await.unwrap_err();
    assert!(matches!(error, ImageError::NoPlatform(_)), "{error}");
}
