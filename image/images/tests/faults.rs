//! Pulling from registries that fail in every way we know.

mod common;

use std::sync::{Arc, Mutex};

use common::{
    Fault, Place, Reply, Req, Sample, Server, chain, config, gzip, noise, pull, quiet, repository, request,
    tar,
};
use hull_content::sha256;
use hull_distribution::{Credentials, DistributionError, Secret};
use hull_images::{ImageError, LayerStatus, PullEvent, PullRequest};
use hull_model::{Descriptor, Platform, media_type};

async fn serving(sample: &Sample) -> Server {
    let server = Server::start().await;
    server.add(sample);
    server
}

fn is_layer(request: &Req, sample: &Sample) -> bool {
    request.method == "GET" && request.path.ends_with(sample.layers[0].as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_pull() {
    let sample = Sample::ordinary();
    let server = serving(&sample).await;
    let place = Place::new();
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = events.clone();
    let reference = server.reference();
    let repository = repository(config(), &reference, None);
    let image = place
        .store
        .pull(&repository, &request(&reference), &(Arc::new(move |e| seen.lock().unwrap().push(e)) as _))
        .await
        .unwrap()
        .value;
    assert_eq!(place.file(&image, "etc/b").as_deref(), Some("two"));
    assert_eq!(image.size, 3 + 300_000 + 3);
    assert_eq!(place.counts(), (4, 2, 0));
    let events = events.lock().unwrap().clone();
    assert_eq!(events[0], PullEvent::Resolved(sha256(&sample.manifest)));
    for layer in &sample.layers {
        let of: Vec<_> = events
            .iter()
            .filter_map(|e| match e {
                PullEvent::Layer(digest, status) if digest == layer => Some(status.clone()),
                _ => None,
            })
            .collect();
        assert_eq!(of.first(), Some(&LayerStatus::Pulling));
        assert_eq!(of.last(), Some(&LayerStatus::Complete));
        assert!(of.contains(&LayerStatus::Verifying) && of.contains(&LayerStatus::Downloaded));
    }
    // Again: nothing but the manifest is fetched.
    let before = server.count("/blobs/");
    let again = pull(&place, &reference).await.unwrap().value;
    assert_eq!((again.id, server.count("/blobs/")), (image.id, before));
}

/// Each fault happens twice to the same blob, then the registry is well.
#[tokio::test(flavor = "multi_thread")]
async fn transfers_go_on_where_they_stopped() {
    let sample = Sample::ordinary();
    for fault in [
        Reply::fault(Fault::Drop),
        Reply::fault(Fault::Hang),
        Reply::new(500, ""),
        Reply::new(503, "").header("Retry-After", "0"),
        Reply::new(429, "").header("Retry-After", "0"),
    ] {
        let server = serving(&sample).await;
        let (s, f) = (sample.clone(), fault.clone());
        server.rule(move |r| (is_layer(r, &s) && r.before < 2).then(|| f.clone()));
        let place = Place::new();
        let image =
            pull(&place, &server.reference()).await.unwrap_or_else(|e| panic!("{fault:?}: {}", chain(&e)));
        assert_eq!(place.file(&image.value, "etc/b").as_deref(), Some("two"));
    }
    for fault in [Fault::Truncate(100_000), Fault::Stall(100_000)] {
        let server = serving(&sample).await;
        let (s, own) = (sample.clone(), server.clone());
        server.rule(move |r| (is_layer(r, &s) && r.before < 2).then(|| Reply { fault, ..own.own_answer(r) }));
        let place = Place::new();
        pull(&place, &server.reference()).await.unwrap_or_else(|e| panic!("{fault:?}: {}", chain(&e)));
        let log = server.log();
        let ranges: Vec<_> =
            log.iter().filter(|r| is_layer(r, &sample)).map(|r| r.header("range").to_owned()).collect();
        assert_eq!(ranges, ["", "bytes=100000-", "bytes=200000-"], "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_without_ranges_still_serves() {
    let sample = Sample::ordinary();
    let server = serving(&sample).await;
    let (s, blob) = (sample.clone(), sample.blobs[sample.layers[0].as_str()].clone());
    server.rule(move |r| {
        let fault = if r.before < 2 { Fault::Truncate(100_000) } else { Fault::None };
        is_layer(r, &s).then(|| Reply { fault, ..Reply::new(200, blob.clone()) })
    });
    // Never further than the truncation: gives up after retries without progress.
    let place = Place::new();
    pull(&place, &server.reference()).await.unwrap();
}

/// The next pull, perhaps by another process, starts at the byte where this one was lost.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_pull_resumes() {
    let sample = Sample::ordinary();
    let server = serving(&sample).await;
    let (s, own) = (sample.clone(), server.clone());
    server.rule(move |r| {
        (is_layer(r, &s) && r.before == 0)
            .then(|| Reply { fault: Fault::Truncate(150_000), ..own.own_answer(r) })
    });
    let s = sample.clone();
    server.rule(move |r| (is_layer(r, &s) && r.before < 5).then(|| Reply::fault(Fault::Drop)));
    let place = Place::new();
    assert!(pull(&place, &server.reference()).await.is_err());
    let store = common::open(place.dir.path());
    let repository = repository(config(), &server.reference(), None);
    store.pull(&repository, &request(&server.reference()), &quiet()).await.unwrap();
    let log = server.log();
    assert_eq!(log.iter().rfind(|r| is_layer(r, &sample)).unwrap().header("range"), "bytes=150000-");
}

#[tokio::test(flavor = "multi_thread")]
async fn permanent_faults_end_in_a_clear_error_and_nothing_half_done() {
    let sample = Sample::ordinary();
    let wrong = noise(9, sample.blobs[sample.layers[0].as_str()].len());
    let longer = [&sample.blobs[sample.layers[0].as_str()][..], b"more"].concat();
    for (reply, message) in [
        (Reply::fault(Fault::Drop), "connection"),
        (Reply::fault(Fault::Hang), "timeout awaiting response"),
        (Reply::new(500, ""), "received unexpected HTTP status: 500"),
        (Reply::new(403, r#"{"errors":[{"code":"DENIED","message":"no"}]}"#), "pull access denied"),
        (Reply::new(404, ""), "not found"),
        (Reply::new(429, r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#), "slow down"),
        (Reply::new(200, wrong), "does not match its digest"),
        (Reply::new(200, longer), "bytes, expected"),
        (Reply::new(302, "").header("Location", "ftp://x/"), "unexpected way"),
        (Reply::new(302, ""), "redirect without location"),
    ] {
        let server = serving(&sample).await;
        let (s, r) = (sample.clone(), reply.clone());
        server.rule(move |q| is_layer(q, &s).then(|| r.clone()));
        let place = Place::new();
        let error = pull(&place, &server.reference()).await.unwrap_err();
        let text = chain(&error).to_lowercase();
        assert!(text.contains(&message.to_lowercase()), "{reply:?}: {text}");
        let (_, layers, half) = place.counts();
        assert!(layers <= 1 && half == 0, "{message}");
        // And when the registry is well again, so is the pull.
        let well = serving(&sample).await;
        pull(&place, &well.reference()).await.unwrap_or_else(|e| panic!("{message}: {}", chain(&e)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn circles_of_redirects_end() {
    let sample = Sample::ordinary();
    let server = serving(&sample).await;
    let s = sample.clone();
    server.rule(move |r| is_layer(r, &s).then(|| Reply::new(307, "").header("Location", &r.path)));
    let error = pull(&Place::new(), &server.reference()).await.unwrap_err();
    assert!(error.to_string().contains("more than 10 redirects"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_images_are_refused() {
    let good = tar(&[("a", b"1")]);
    let evil = tar(&[("../../evil", b"1")]);
    let truncated = tar(&[("a", &noise(3, 5000))]);
    let layer_type = |sample: Sample, kind: &str| {
        let manifest =
            String::from_utf8(sample.manifest.clone()).unwrap().replace(media_type::OCI_LAYER_GZIP, kind);
        Sample { manifest: manifest.into_bytes(), ..sample }
    };
    for (sample, message) in [
        (Sample::new(&[(evil.clone(), gzip(&evil))], "amd64"), "would be outside of the layer"),
        (Sample::new(&[(good.clone(), gzip(&tar(&[("a", b"2")])))], "amd64"), "does not match its diff id"),
        (Sample::new(&[(good.clone(), truncated[..2000].to_vec())], "amd64"), "truncated"),
        (Sample::new(&[(good.clone(), gzip(&good)[..50].to_vec())], "amd64"), "cannot be decompressed"),
        (Sample::new(&[(good.clone(), noise(5, 5000))], "amd64"), "not a valid archive"),
        (Sample::new(&[(good.clone(), gzip(&good))], "s390x"), "does not match the specified platform"),
        (
            layer_type(Sample::new(&[(good.clone(), gzip(&good))], "amd64"), "application/x-chart"),
            "not an image",
        ),
    ] {
        let server = serving(&sample).await;
        let place = Place::new();
        let text = chain(&pull(&place, &server.reference()).await.unwrap_err());
        assert!(text.contains(message), "{text} / {message}");
        assert_eq!((place.counts().1, place.counts().2), (0, 0), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_manifests_are_refused() {
    let config = Descriptor::new(media_type::OCI_CONFIG, sha256(b"x"), 1 << 40);
    let huge = serde_json::json!({"schemaVersion": 2, "config": config, "layers": []}).to_string();
    for (kind, body, message) in [
        (media_type::OCI_MANIFEST, "{".to_owned(), "manifest is not valid"),
        (media_type::OCI_MANIFEST, r#"{"schemaVersion":2,"manifests":[]}"#.into(), "ambiguous"),
        (
            media_type::OCI_INDEX,
            r#"{"schemaVersion":2,"manifests":[]}"#.into(),
            "no matching manifest for linux/amd64",
        ),
        (
            media_type::DOCKER_MANIFEST_V1_SIGNED,
            r#"{"schemaVersion":1,"fsLayers":[]}"#.into(),
            "schema 1 are not supported",
        ),
        (media_type::OCI_MANIFEST, huge, "is larger than"),
    ] {
        let server = Server::start().await;
        server.add_manifest(kind, body.as_bytes());
        let text = chain(&pull(&Place::new(), &server.reference()).await.unwrap_err());
        assert!(text.contains(message), "{text} / {message}");
    }
    let server = Server::start().await;
    let error = pull(&Place::new(), &server.reference()).await.unwrap_err();
    let name = server.reference().familiar();
    assert_eq!(
        error.to_string(),
        format!("manifest for {name} not found: manifest unknown: manifest unknown")
    );
    // Bytes that are not what the digest says.
    server.add_manifest(media_type::OCI_MANIFEST, b"{}");
    let digested = server.reference().with_digest(sha256(b"other"));
    server.rule(|r| r.path.contains("/manifests/").then(|| Reply::new(200, "{}")));
    let error = pull(&Place::new(), &digested).await.unwrap_err();
    assert!(matches!(error, ImageError::Distribution(DistributionError::DigestMismatch { .. })), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platform_decides() {
    let layer = |name: &str| {
        let bytes = tar(&[("arch", name.as_bytes())]);
        Sample::new(&[(bytes.clone(), gzip(&bytes))], name)
    };
    let server = Server::start().await;
    let mut manifests = Vec::new();
    for name in ["arm64", "amd64"] {
        let sample = layer(name);
        server.add(&sample);
        let mut entry =
            Descriptor::new(media_type::OCI_MANIFEST, sha256(&sample.manifest), sample.manifest.len() as u64);
        entry.platform = Some(Platform::new("linux", name, ""));
        manifests.push(entry);
    }
    let index =
        serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests});
    let index = serde_json::to_vec(&index).unwrap();
    server.add_manifest(media_type::OCI_INDEX, &index);
    let reference = server.reference();
    for name in ["arm64", "amd64"] {
        let place = Place::new();
        let repository = repository(config(), &reference, None);
        let request = PullRequest { platform: Some(Platform::new("linux", name, "")), ..request(&reference) };
        let image = place.store.pull(&repository, &request, &quiet()).await.unwrap().value;
        assert_eq!(place.file(&image, "arch").as_deref(), Some(name));
        assert_eq!(image.repo_digest(), &sha256(&index));
        assert_eq!(image.platform.architecture, name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_layer_is_fetched_once() {
    let sample = Sample::ordinary();
    let server = serving(&sample).await;
    let place = Place::new();
    let reference = server.reference();
    let (a, b) = tokio::join!(pull(&place, &reference), pull(&place, &reference));
    assert_eq!(a.unwrap().value, b.unwrap().value);
    for layer in &sample.layers {
        assert_eq!(server.count(layer.as_str()), 1);
    }
    // Twice in one image, at different heights.
    let bytes = tar(&[("x", b"1")]);
    let twice = Sample::new(&[(bytes.clone(), gzip(&bytes)), (bytes.clone(), gzip(&bytes))], "amd64");
    let server = serving(&twice).await;
    pull(&place, &server.reference()).await.unwrap();
    assert_eq!(server.count(twice.layers[0].as_str()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_given_up_leaves_a_head_start() {
    let sample = Sample::ordinary();
    let server = serving(&sample).await;
    let (s, own) = (sample.clone(), server.clone());
    server.rule(move |r| {
        (is_layer(r, &s) && r.before == 0)
            .then(|| Reply { fault: Fault::Stall(100_000), ..own.own_answer(r) })
    });
    let place = Place::new();
    let reference = server.reference();
    let patient = hull_distribution::Config { idle_timeout: std::time::Duration::from_secs(60), ..config() };
    let slow = repository(patient, &reference, None);
    let (there, mut told) = tokio::sync::mpsc::unbounded_channel();
    let progress: hull_images::PullProgress = Arc::new(move |e| {
        if matches!(e, PullEvent::Layer(_, LayerStatus::Downloading(n, _)) if n >= 65_536) {
            let _ = there.send(());
        }
    });
    let request = request(&reference);
    tokio::select! {
        _ = place.store.pull(&slow, &request, &progress) => panic!("it cannot end"),
        _ = told.recv() => {}
    }
    pull(&place, &reference).await.unwrap();
    assert_eq!(place.counts(), (4, 2, 0));
}

fn credentials() -> Credentials {
    Credentials { username: "user".into(), password: Secret::new("pass"), ..Credentials::default() }
}

/// Basic `user:pass`.
const BASIC: &str = "Basic dXNlcjpwYXNz";

#[tokio::test(flavor = "multi_thread")]
async fn basic_authentication() {
    let sample = Sample::ordinary();
    let server = serving(&sample).await;
    server.rule(|r| {
        let denied =
            Reply::new(401, r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#);
        (r.header("authorization") != BASIC).then(|| denied.header("WWW-Authenticate", "Basic realm=\"x\""))
    });
    let reference = server.reference();
    let place = Place::new();
    let good = repository(config(), &reference, Some(credentials()));
    place.store.pull(&good, &request(&reference), &quiet()).await.unwrap();
    let error = pull(&Place::new(), &reference).await.unwrap_err().to_string();
    assert!(
        error.starts_with(&format!(
            "pull access denied for {}/some/image, repository does not",
            server.address
        )),
        "{error}"
    );
    let client = hull_distribution::Client::new(config());
    client.login(&server.address, credentials()).await.unwrap();
    let bad = Credentials { password: Secret::new("wrong"), ..credentials() };
    let error = client.login(&server.address, bad).await.unwrap_err();
    assert!(matches!(error, DistributionError::Login { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens() {
    let sample = Sample::ordinary();
    let server = serving(&sample).await;
    let realm = format!(
        "Bearer realm=\"http://{}/token?x=1\",service=\"svc\",scope=\"repository:some/image:pull\"",
        server.address
    );
    server.rule(|r| {
        r.path.starts_with("/token").then(|| match (r.method.as_str(), r.header("authorization")) {
            ("POST", _) if String::from_utf8_lossy(&r.body).contains("refresh_token=idt&") => {
                Reply::new(403, "{}")
            }
            ("POST", _) if String::from_utf8_lossy(&r.body).ends_with("refresh_token=idt") => {
                Reply::new(200, r#"{"access_token":"tok"}"#)
            }
            ("GET", BASIC) => Reply::new(200, r#"{"token":"tok"}"#),
            _ => Reply::new(401, r#"{"details":"incorrect username or password"}"#),
        })
    });
    server.rule(move |r| {
        (r.header("authorization") != "Bearer tok")
            .then(|| Reply::new(401, "{}").header("WWW-Authenticate", &realm))
    });
    let reference = server.reference();
    let identity = Credentials { identity_token: Secret::new("idt"), ..Credentials::default() };
    for given in [credentials(), identity] {
        let place = Place::new();
        let repository = repository(config(), &reference, Some(given));
        place.store.pull(&repository, &request(&reference), &quiet()).await.unwrap();
    }
    let asked: Vec<_> = server.log().into_iter().filter(|r| r.path.starts_with("/token")).collect();
    // One token for a whole pull, parallel layers included.
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].path, "/token?x=1&service=svc&scope=repository%3Asome%2Fimage%3Apull&account=user");
    let error = pull(&Place::new(), &reference).await.unwrap_err().to_string();
    assert!(
        error.contains("pull access denied") && error.ends_with("incorrect username or password"),
        "{error}"
    );
}

/// A blob on another host, as with object storage: it must not see the registry's credentials.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_stay_with_their_host() {
    let sample = Sample::ordinary();
    let (server, storage) = (serving(&sample).await, serving(&sample).await);
    let elsewhere = storage.address.clone();
    server.rule(|r| {
        (r.header("authorization") != BASIC)
            .then(|| Reply::new(401, "{}").header("WWW-Authenticate", "Basic realm=\"x\""))
    });
    server.rule(move |r| {
        let location = format!("http://{elsewhere}{}", r.path);
        r.path.contains("/blobs/").then(|| Reply::new(307, "").header("Location", location))
    });
    let reference = server.reference();
    let place = Place::new();
    let repository = repository(config(), &reference, Some(credentials()));
    place.store.pull(&repository, &request(&reference), &quiet()).await.unwrap();
    let seen = storage.log();
    assert!(seen.len() >= 3 && seen.iter().all(|r| r.header("authorization").is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_come_first_and_get_no_credentials() {
    let sample = Sample::ordinary();
    let mirror = serving(&sample).await;
    mirror.rule(|r| (!r.header("authorization").is_empty()).then(|| Reply::new(500, "")));
    let reference: hull_model::Reference = "some/image:latest".parse().unwrap();
    let dead = Server::start().await;
    dead.rule(|_| Some(Reply::new(502, "")));
    let config = hull_distribution::Config {
        mirrors: vec![format!("http://{}", dead.address), format!("http://{}/", mirror.address)],
        ..config()
    };
    let place = Place::new();
    let repository = repository(config, &reference, Some(credentials()));
    let image = place.store.pull(&repository, &request(&reference), &quiet()).await.unwrap().value;
    assert_eq!(place.file(&image, "etc/b").as_deref(), Some("two"));
    assert!(mirror.log().iter().all(|r| r.header("authorization").is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_layers_come_from_their_addresses() {
    let mut sample = Sample::ordinary();
    let elsewhere = Server::start().await;
    let blob = sample.blobs.remove(sample.layers[0].as_str()).unwrap();
    elsewhere.rule(move |_| Some(Reply::new(200, blob.clone())));
    let mut manifest: serde_json::Value = serde_json::from_slice(&sample.manifest).unwrap();
    manifest["layers"][0]["urls"] = serde_json::json!([format!("http://{}/layer", elsewhere.address)]);
    sample.manifest = serde_json::to_vec(&manifest).unwrap();
    let server = serving(&sample).await;
    let place = Place::new();
    let image = pull(&place, &server.reference()).await.unwrap().value;
    assert_eq!(place.file(&image, "etc/a").as_deref(), Some("one"));
    assert!(elsewhere.log().iter().all(|r| r.header("authorization").is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let reference = hull_model::Reference::parse_default_tag(&format!("{address}/x")).unwrap();
    let error = pull(&Place::new(), &reference).await.unwrap_err().to_string();
    assert!(error.ends_with(&format!("dial tcp {address}: connect: connection refused")), "{error}");
    let reference = hull_model::Reference::parse_default_tag("registry.invalid/x").unwrap();
    let error = pull(&Place::new(), &reference).await.unwrap_err().to_string();
    assert!(error.contains("dial tcp: lookup registry.invalid"), "{error}");
}
