use std::os::unix::fs::FileExt;

use super::*;
use crate::manifest::Document;
use crate::name::{Name, Reference, Tag};

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn tag(text: &str) -> Tag {
    Tag::parse(text).unwrap()
}

struct Registry {
    root: tempfile::TempDir,
    store: Arc<Store>,
    uploads: Uploads,
}

impl Registry {
    async fn new() -> Self {
        Self::open(tempfile::tempdir().unwrap()).await
    }

    async fn open(root: tempfile::TempDir) -> Self {
        let store = Arc::new(Store::open(root.path()).unwrap());
        let uploads = Uploads::new(store.clone(), Duration::from_secs(3600)).await.unwrap();
        Self { root, store, uploads }
    }

    async fn reopen(self) -> Self {
        let Self { root, store, uploads } = self;
        drop((store, uploads));
        Self::open(root).await
    }

    async fn push(&self, repository: &str, bytes: &[u8]) -> Digest {
        let (repository, digest) = (name(repository), hull_content::sha256(bytes));
        let id = self.uploads.begin(&repository).unwrap();
        let session = self.uploads.find(&repository, &id).unwrap().unwrap();
        let mut session = session.lock().await;
        session.append(bytes).unwrap();
        session.seal(&digest).unwrap();
        session.publish(&repository, &digest).await.unwrap();
        self.uploads.end(&mut session);
        digest
    }

    async fn put(&self, repository: &str, tags: &[&str], kind: &str, text: &str) -> Result<Digest> {
        let digest = hull_content::sha256(text.as_bytes());
        let put = PutManifest {
            repository: name(repository),
            digest: digest.clone(),
            media_type: kind.into(),
            bytes: text.as_bytes().to_vec(),
            document: Document::parse(kind, text.as_bytes()).unwrap(),
            tags: tags.iter().map(|text| tag(text)).collect(),
            whole: true,
        };
        self.store.put_manifest(put).await.map(|()| digest)
    }

    async fn image(&self, repository: &str, tags: &[&str], layer: &[u8]) -> Digest {
        let digest = self.push(repository, layer).await;
        let text = image(&digest, layer.len());
        self.put(repository, tags, hull_model::media_type::OCI_MANIFEST, &text).await.unwrap()
    }

    fn files(&self) -> usize {
        let count = |part: &str| std::fs::read_dir(self.root.path().join(part)).unwrap().count();
        count("blobs/sha256") + count("uploads") + count("trash")
    }
}

fn image(digest: &Digest, size: usize) -> String {
    let descriptor = serde_json::json!({ "mediaType": "x/y", "digest": digest.as_str(), "size": size });
    serde_json::json!({ "schemaVersion": 2, "config": descriptor, "layers": [descriptor] }).to_string()
}

fn soon() -> Rules {
    Rules::default()
}

fn large(seed: u8) -> Vec<u8> {
    (0..INLINE_MAX + 1000).map(|i| (i % 251) as u8 ^ seed).collect()
}

#[tokio::test]
async fn small_blobs_are_in_the_index_and_large_ones_in_files() {
    let registry = Registry::new().await;
    let small = registry.push("a", b"hello").await;
    let large = registry.push("a", &large(0)).await;
    assert_eq!(registry.store.blob(&name("a"), &small).unwrap().unwrap().inline.unwrap(), b"hello");
    assert!(registry.store.blob(&name("a"), &large).unwrap().unwrap().inline.is_none());
    assert_eq!(registry.files(), 1);
    let registry = registry.reopen().await;
    assert_eq!(registry.store.blob_size(&name("a"), &small).unwrap(), Some(5));
    assert_eq!(registry.store.check(false).unwrap().damaged, []);
    assert!(registry.store.blob(&name("b"), &small).unwrap().is_none());
}

#[tokio::test]
async fn one_server_per_root() {
    let registry = Registry::new().await;
    assert!(matches!(Store::open(registry.root.path()), Err(StoreError::Locked(_))));
}

#[tokio::test]
async fn an_upload_goes_on_after_a_restart() {
    let registry = Registry::new().await;
    let (repository, bytes) = (name("a"), large(1));
    let id = registry.uploads.begin(&repository).unwrap();
    let (first, second) = bytes.split_at(INLINE_MAX + 10);
    registry.uploads.find(&repository, &id).unwrap().unwrap().lock().await.append(first).unwrap();
    let registry = registry.reopen().await;
    assert!(registry.uploads.find(&name("other"), &id).unwrap().is_none());
    let session = registry.uploads.find(&repository, &id).unwrap().unwrap();
    let mut session = session.lock().await;
    assert_eq!(session.offset(), first.len() as u64);
    session.append(second).unwrap();
    let digest = hull_content::sha256(&bytes);
    assert!(session.seal(&hull_content::sha256(b"other")).is_err());
    session.seal(&digest).unwrap();
    session.publish(&repository, &digest).await.unwrap();
    registry.uploads.end(&mut session);
    assert!(registry.uploads.find(&repository, &id).unwrap().is_none());
    assert_eq!(registry.store.check(false).unwrap().damaged, []);
    assert_eq!(registry.files(), 1);
}

#[tokio::test]
async fn an_id_that_this_registry_did_not_make_is_unknown() {
    let registry = Registry::new().await;
    let id = registry.uploads.begin(&name("a")).unwrap();
    assert_eq!(UploadId::parse(&id.to_string()), Some(id));
    let forged = UploadId::parse("00000000-0000-0000-0000-000000000000").unwrap();
    assert!(registry.uploads.find(&name("a"), &forged).unwrap().is_none());
    for text in ["", "x", "../../../../etc/passwd", "00000000-0000-0000-0000-00000000000/"] {
        assert_eq!(UploadId::parse(text), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_blob_by_many_at_once() {
    let registry = Arc::new(Registry::new().await);
    let tasks: Vec<_> = (0..16)
        .map(|number| {
            let registry = registry.clone();
            tokio::spawn(async move { registry.push(&format!("r{}", number % 4), &large(7)).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(registry.store.totals().unwrap()[3], 1);
    assert_eq!(registry.files(), 1);
    assert_eq!(registry.store.check(false).unwrap().damaged, []);
}

#[tokio::test]
async fn a_manifest_names_what_is_there() {
    let registry = Registry::new().await;
    let missing = hull_content::sha256(b"missing");
    let kind = hull_model::media_type::OCI_MANIFEST;
    let error = registry.put("a", &["t"], kind, &image(&missing, 7)).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused(e) if e.code == crate::Code::ManifestBlobUnknown));
    let there = registry.push("a", b"there").await;
    let error = registry.put("a", &["t"], kind, &image(&there, 6)).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused(e) if e.code == crate::Code::ManifestInvalid));
    assert!(registry.store.tags(&name("a"), "", 10).unwrap().entries.is_empty());
    registry.put("a", &["t"], kind, &image(&there, 5)).await.unwrap();
    // A blob of another repository is not this one's, until it is mounted.
    assert!(registry.put("b", &["t"], kind, &image(&there, 5)).await.is_err());
    assert!(registry.store.mount(Some(name("a")), name("b"), there.clone()).await.unwrap());
    registry.put("b", &["t"], kind, &image(&there, 5)).await.unwrap();
    assert!(!registry.store.mount(Some(name("c")), name("b"), there).await.unwrap());
}

#[tokio::test]
async fn collection_takes_what_nobody_needs_and_nothing_else() {
    let registry = Registry::new().await;
    let kept = registry.image("a", &["t"], &large(1)).await;
    let gone = registry.image("a", &["u"], &large(2)).await;
    let loose = registry.push("a", &large(3)).await;
    let shared = hull_content::sha256(&large(2));
    registry.store.mount(Some(name("a")), name("b"), shared.clone()).await.unwrap();
    registry
        .put("b", &["t"], hull_model::media_type::OCI_MANIFEST, &image(&shared, large(2).len()))
        .await
        .unwrap();
    registry.store.delete_manifest(name("a"), Reference::Digest(gone.clone())).await.unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    let trial = registry.store.would_collect(&soon()).await.unwrap();
    assert_eq!((trial.links, trial.blobs, trial.bytes), (2, 1, large(3).len() as u64));
    assert_eq!(registry.files(), 3, "a trial changes nothing");
    // While a client was just told that the blob is there, it stays.
    let grace = Rules { grace: Duration::from_secs(60), ..soon() };
    assert_eq!(registry.store.collect(&grace, &registry.uploads).await.unwrap(), Collected::default());
    let done = registry.store.collect(&soon(), &registry.uploads).await.unwrap();
    assert_eq!((done.links, done.blobs, done.bytes), (2, 1, large(3).len() as u64));
    assert_eq!(registry.files(), 2);
    assert!(registry.store.blob(&name("a"), &loose).unwrap().is_none());
    assert!(registry.store.blob(&name("b"), &shared).unwrap().is_some());
    assert!(registry.store.manifest(&name("a"), &Reference::Digest(kept)).unwrap().is_some());
    // What was collected can come again.
    registry.push("a", &large(3)).await;
    assert_eq!(registry.store.check(false).unwrap().damaged, []);
}

#[tokio::test]
async fn untagged_manifests_go_when_nothing_names_them() {
    let registry = Registry::new().await;
    let child = registry.image("a", &[], b"child").await;
    let alone = registry.image("a", &[], b"alone").await;
    let index = serde_json::json!({ "schemaVersion": 2, "manifests":
        [{ "mediaType": hull_model::media_type::OCI_MANIFEST, "digest": child.as_str(), "size": 5 }] });
    let kind = hull_model::media_type::OCI_INDEX;
    registry.put("a", &["multi"], kind, &index.to_string()).await.unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    let rules = Rules { untagged: Some(Duration::ZERO), ..soon() };
    assert_eq!(registry.store.would_collect(&rules).await.unwrap().manifests, 1);
    assert_eq!(registry.store.collect(&rules, &registry.uploads).await.unwrap().manifests, 1);
    assert!(registry.store.manifest(&name("a"), &Reference::Digest(alone)).unwrap().is_none());
    assert!(registry.store.manifest(&name("a"), &Reference::Digest(child)).unwrap().is_some());
    registry.store.delete_manifest(name("a"), Reference::Tag(tag("multi"))).await.unwrap();
    let done = registry.store.collect(&rules, &registry.uploads).await.unwrap();
    assert_eq!((done.manifests, done.blobs), (2, 1));
    assert!(!registry.store.has_repository(&name("a")).unwrap());
}

#[tokio::test]
async fn retention_keeps_the_newest_tags() {
    let registry = Registry::new().await;
    for number in 0..5 {
        registry.image("ci/app", &[&format!("build-{number}")], &[number]).await;
    }
    registry.image("ci/app", &["release"], b"release").await;
    let rule =
        Retention { repositories: "ci/*".into(), tags: "build-*".into(), keep_last: Some(2), keep_for: None };
    let rules = Rules { retention: vec![rule], ..soon() };
    let done = registry.store.collect(&rules, &registry.uploads).await.unwrap();
    assert_eq!(done.tags, 3);
    let left = registry.store.tags(&name("ci/app"), "", 10).unwrap().entries;
    assert_eq!(left, ["build-3", "build-4", "release"]);
}

#[tokio::test]
async fn damage_is_found_and_the_next_push_heals_it() {
    let registry = Registry::new().await;
    let digest = registry.push("a", &large(5)).await;
    let small = registry.push("a", b"small").await;
    let file = std::fs::File::options()
        .write(true)
        .open(registry.root.path().join("blobs/sha256").join(digest.hex()))
        .unwrap();
    file.write_at(b"!", 100).unwrap();
    let found = registry.store.check(false).unwrap();
    assert_eq!(found.damaged, [(digest.to_string(), "it has another digest")]);
    assert!(registry.store.blob(&name("a"), &digest).unwrap().is_some());
    let (store, id) = (registry.store.clone(), digest.clone());
    tokio::task::spawn_blocking(move || store.check(true)).await.unwrap().unwrap();
    assert!(registry.store.blob(&name("a"), &digest).unwrap().is_none());
    assert!(registry.store.blob(&name("a"), &small).unwrap().is_some());
    registry.push("a", &large(5)).await;
    assert!(registry.store.blob(&name("a"), &id).unwrap().is_some());
    assert_eq!(registry.store.check(false).unwrap().damaged, []);
}

#[tokio::test]
async fn files_without_a_record_are_collected() {
    let registry = Registry::new().await;
    registry.image("a", &["t"], &large(1)).await;
    let stray = registry.root.path().join("blobs/sha256").join(hull_content::sha256(b"stray").hex());
    std::fs::write(&stray, b"stray").unwrap();
    let done = registry.store.collect(&soon(), &registry.uploads).await.unwrap();
    assert_eq!(done.files, 0, "it may be about to be recorded");
    let old = SystemTime::now() - Duration::from_secs(7200);
    std::fs::File::options().write(true).open(&stray).unwrap().set_modified(old).unwrap();
    assert_eq!(registry.store.collect(&soon(), &registry.uploads).await.unwrap().files, 1);
    assert!(!stray.exists());
    assert_eq!(registry.store.check(false).unwrap().damaged, []);
}

#[tokio::test]
async fn referrers_are_described() {
    let registry = Registry::new().await;
    let subject = registry.image("a", &["t"], b"subject").await;
    let config = registry.push("a", b"{}").await;
    let text = serde_json::json!({
        "schemaVersion": 2, "artifactType": "my/type", "annotations": { "k": "v" },
        "config": { "mediaType": "x/y", "digest": config.as_str(), "size": 2 }, "layers": [],
        "subject": { "mediaType": "x/y", "digest": subject.as_str(), "size": 5 } });
    registry.put("a", &[], hull_model::media_type::OCI_MANIFEST, &text.to_string()).await.unwrap();
    let found = registry.store.referrers(&name("a"), &subject).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0]["artifactType"], &found[0]["annotations"]["k"]), (&"my/type".into(), &"v".into()));
    assert!(registry.store.referrers(&name("b"), &subject).unwrap().is_empty());
}

#[tokio::test]
async fn uploads_that_are_given_up_go() {
    let registry = Registry::new().await;
    let id = registry.uploads.begin(&name("a")).unwrap();
    let session = registry.uploads.find(&name("a"), &id).unwrap().unwrap();
    session.lock().await.append(&large(0)).unwrap();
    assert_eq!(registry.files(), 1);
    let none = Uploads::new(registry.store.clone(), Duration::ZERO).await.unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(none.expire().unwrap(), 1);
    assert_eq!(registry.files(), 0);
}

#[tokio::test]
async fn uploads_that_rest_hold_nothing_and_go_on() {
    let registry = Registry::new().await;
    let repository = name("a");
    let id = registry.uploads.begin(&repository).unwrap();
    registry.uploads.find(&repository, &id).unwrap().unwrap().lock().await.append(b"few").unwrap();
    registry.uploads.rest(Duration::from_secs(60));
    assert_eq!((registry.uploads.open(), registry.files()), (1, 0));
    registry.uploads.rest(Duration::ZERO);
    assert_eq!((registry.uploads.open(), registry.files()), (0, 1));
    let session = registry.uploads.find(&repository, &id).unwrap().unwrap();
    let mut session = session.lock().await;
    assert_eq!(session.offset(), 3);
    session.append(b" bytes").unwrap();
    session.seal(&hull_content::sha256(b"few bytes")).unwrap();
}
