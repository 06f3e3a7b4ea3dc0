//! Image actions on an engine in a temporary directory, with images imported from archives made here.

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use hull_docker_api::{Filters, ImageDeleted};

use super::*;
use crate::Kind;

async fn engine() -> (tempfile::TempDir, Engine) {
    let dir = tempfile::tempdir().expect("temp dir");
    let engine = open(&dir).await;
    (dir, engine)
}

async fn open(dir: &tempfile::TempDir) -> Engine {
    let config = Config::new(dir.path().join("data"), dir.path().join("run"), "/nonexistent".into());
    tokio::task::spawn_blocking(|| Engine::open(config)).await.expect("join").expect("open")
}

fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append_data(&mut header, name, content.as_bytes()).expect("append");
    }
    builder.into_inner().expect("archive")
}

fn request(archive: Vec<u8>, repository: Option<&str>) -> ImportRequest {
    // Several chunks, as they come over a network.
    let chunks: Vec<_> = archive.chunks(700).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
    ImportRequest {
        source: ImportSource::Stream(Box::pin(stream::iter(chunks))),
        repository: repository.map(str::to_owned),
        tag: None,
        message: None,
        changes: vec!["CMD [\"/hello\"]".to_owned(), "LABEL made=here".to_owned()],
        platform: None,
    }
}

async fn import(engine: &Engine, content: &str, repository: Option<&str>) -> String {
    let request = request(archive(&[("hello", content), ("etc/motd", "hi")]), repository);
    let mut progress = engine.image_import(request).await.expect("import");
    progress.next().await.expect("message").expect("id").status
}

fn filters(json: &str) -> Filters {
    Filters::parse(json).expect("filters")
}

fn untagged(deleted: &[ImageDeleted]) -> Vec<&str> {
    deleted.iter().map(|d| d.untagged.as_str()).filter(|name| !name.is_empty()).collect()
}

fn blobs_and_layers(dir: &tempfile::TempDir) -> (usize, usize) {
    let count = |path: &str| {
        let entries = std::fs::read_dir(dir.path().join("data").join(path)).expect("list");
        entries.flatten().filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')).count()
    };
    (count("content/blobs/sha256"), count("layers"))
}

#[tokio::test]
async fn an_imported_image_is_listed_inspected_and_ready_to_run() {
    let (dir, engine) = engine().await;
    let id = import(&engine, "#!/bin/sh", Some("team/app:1")).await;
    let list = engine.image_list(ListOptions::default()).await.expect("list");
    assert_eq!(list.len(), 1);
    assert_eq!((list[0].id.as_str(), list[0].size), (id.as_str(), 11));
    assert_eq!(list[0].repo_tags, Some(vec!["team/app:1".to_owned()]));
    let inspect = engine.image_inspect("team/app:1", false, None).await.expect("inspect");
    assert_eq!(inspect.comment, "Imported from -");
    assert_eq!(inspect.root_fs.layers.len(), 1);
    assert_eq!(inspect.config.expect("config").cmd.0, ["/hello"]);
    let run = engine.image_for_run("team/app:1", "").await.expect("run");
    let trees = engine.layers().trees(&run.layers).expect("layers");
    assert_eq!(std::fs::read_to_string(trees.paths()[0].join("etc/motd")).expect("read"), "hi");
    let history = engine.image_history(&id[7..19], None).await.expect("history");
    assert_eq!((history.len(), history[0].size, history[0].id.as_str()), (1, 11, id.as_str()));
    drop(engine);
    let engine = open(&dir).await;
    assert_eq!(engine.image_inspect("team/app:1", false, None).await.expect("after restart").id, id);
    let other = engine.image_for_run("team/app:1", "linux/s390x").await.expect_err("platform");
    assert_eq!(other.kind(), Kind::NotFound);
}

#[tokio::test]
async fn a_broken_archive_leaves_nothing() {
    let (dir, engine) = engine().await;
    let mut broken = archive(&[("hello", "world")]);
    broken.truncate(520);
    let error = engine.image_import(request(broken, Some("x"))).await.err().expect("truncated");
    assert_eq!(error.kind(), Kind::InvalidParameter, "{error}");
    let climbing =
        engine.image_import(request(b"no archive at all".repeat(100), None)).await.err().expect("garbage");
    assert_eq!(climbing.kind(), Kind::InvalidParameter, "{climbing}");
    assert_eq!(blobs_and_layers(&dir), (0, 0));
    let bad = engine.image_import(request(archive(&[]), Some("UPPER"))).await.err().expect("name");
    assert!(bad.message().contains("must be lowercase"), "{bad}");
}

#[tokio::test]
async fn an_image_goes_with_its_last_name() {
    let (dir, engine) = engine().await;
    let id = import(&engine, "one", Some("a")).await;
    engine.image_tag("a", "b", Some("2")).await.expect("tag");
    let first = engine.image_remove("a", false, false).await.expect("remove");
    assert_eq!(untagged(&first), ["a:latest"]);
    assert!(first.iter().all(|d| d.deleted.is_empty()));
    let last = engine.image_remove("b:2", false, false).await.expect("remove");
    assert_eq!(untagged(&last), ["b:2"]);
    assert_eq!(last[1].deleted, id);
    assert_eq!(last.len(), 3, "name, image, layer");
    assert_eq!(blobs_and_layers(&dir), (0, 0));
    let gone = engine.image_remove("b:2", false, false).await.expect_err("gone");
    assert_eq!((gone.kind(), gone.message()), (Kind::NotFound, "No such image: b:2"));
}

#[tokio::test]
async fn removal_by_id_needs_force_for_several_repositories() {
    let (_dir, engine) = engine().await;
    let id = import(&engine, "one", Some("a")).await;
    engine.image_tag("a", "b", None).await.expect("tag");
    let short = &id[7..19];
    let conflict = engine.image_remove(short, false, false).await.expect_err("two repositories");
    assert_eq!(conflict.kind(), Kind::Conflict);
    assert_eq!(
        conflict.message(),
        format!(
            "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
        )
    );
    let deleted = engine.image_remove(short, true, false).await.expect("force");
    assert_eq!(untagged(&deleted), ["a:latest", "b:latest"]);
    assert!(engine.image_list(ListOptions::default()).await.expect("list").is_empty());
}

#[tokio::test]
async fn shared_layers_stay_until_the_last_image_goes() {
    let (dir, engine) = engine().await;
    let bytes = archive(&[("same", "content")]);
    for (name, label) in [("a", "LABEL n=1"), ("b", "LABEL n=2")] {
        let mut request = request(bytes.clone(), Some(name));
        request.changes.push(label.to_owned());
        drop(engine.image_import(request).await.expect("import"));
    }
    assert_eq!(blobs_and_layers(&dir).1, 1);
    let list =
        engine.image_list(ListOptions { shared_size: true, ..Default::default() }).await.expect("list");
    assert!(list.iter().all(|image| image.shared_size == 7));
    assert_eq!(engine.images_usage().await.expect("usage").1, 7);
    engine.image_remove("a", false, false).await.expect("remove");
    assert_eq!(blobs_and_layers(&dir).1, 1);
    engine.image_remove("b", false, false).await.expect("remove");
    assert_eq!(blobs_and_layers(&dir), (0, 0));
}

#[tokio::test]
async fn a_name_moves_and_leaves_a_dangling_image() {
    let (_dir, engine) = engine().await;
    let old = import(&engine, "one", Some("a")).await;
    let new = import(&engine, "two", Some("a")).await;
    assert_eq!(engine.image_inspect("a", false, None).await.expect("inspect").id, new);
    let dangling = ListOptions { filters: filters(r#"{"dangling":["true"]}"#), ..Default::default() };
    let list = engine.image_list(dangling).await.expect("list");
    assert_eq!(list.iter().map(|i| i.id.as_str()).collect::<Vec<_>>(), [old.as_str()]);
    assert_eq!(list[0].repo_tags, Some(Vec::new()));
    let pruned = engine.image_prune(&filters("")).await.expect("prune");
    assert_eq!(pruned.images_deleted.expect("deleted")[0].deleted, old);
    assert_eq!(pruned.space_reclaimed, 5);
    let told = engine.image_prune_preview(&filters(r#"{"dangling":["false"]}"#)).expect("preview");
    let pruned = engine.image_prune(&filters(r#"{"dangling":["false"]}"#)).await.expect("prune");
    assert_eq!(
        told.images_deleted.map(|list| list.iter().filter(|one| !one.deleted.is_empty()).count()),
        Some(1)
    );
    assert!(told.space_reclaimed <= pruned.space_reclaimed);
    assert_eq!(untagged(&pruned.images_deleted.expect("deleted")), ["a:latest"]);
}

#[tokio::test]
async fn lists_are_filtered() {
    let (_dir, engine) = engine().await;
    import(&engine, "one", Some("team/app:1")).await;
    import(&engine, "two", Some("busybox")).await;
    for (filter, count) in [
        (r#"{"reference":["busy*"]}"#, 1),
        (r#"{"reference":["*/*:1"]}"#, 1),
        (r#"{"label":["made=here"]}"#, 2),
        (r#"{"label!":["made"]}"#, 0),
        (r#"{"until":["1h"]}"#, 0),
    ] {
        let options = ListOptions { filters: filters(filter), ..Default::default() };
        assert_eq!(engine.image_list(options).await.expect(filter).len(), count, "{filter}");
    }
    let unknown = ListOptions { filters: filters(r#"{"since":["nope"]}"#), ..Default::default() };
    assert_eq!(engine.image_list(unknown).await.expect_err("unknown").kind(), Kind::NotFound);
}

#[tokio::test]
async fn what_interrupted_actions_left_is_swept() {
    let (dir, engine) = engine().await;
    import(&engine, "one", Some("a")).await;
    let before = blobs_and_layers(&dir);
    let store = &engine.0.images.store;
    let held = store.lease();
    held.hold(&store.content().put(b"left over").expect("put"));
    assert_eq!(engine.sweep().await.expect("sweep"), 0, "not while blobs come in");
    drop(held);
    assert_eq!(engine.sweep().await.expect("sweep"), 9);
    store.content().put(b"more").expect("put");
    engine.images_settle().await.expect("settle");
    assert_eq!(blobs_and_layers(&dir), before);
}

#[tokio::test]
async fn an_image_that_is_not_there_is_told_of() {
    let (_dir, engine) = engine().await;
    let error = engine.image_for_run("nothing/here", "").await.expect_err("nothing");
    assert_eq!((error.kind(), error.message()), (Kind::NotFound, "No such image: nothing/here:latest"));
}
