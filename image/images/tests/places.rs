//! Where images come from: mirrors of any registry, rewrites, blocks; slow connections; identity tokens; waiting.

mod common;

use std::sync::{Arc, Mutex};

use common::{
    Fault, Place, Reply, Sample, Server, chain, config, gzip, noise, pull, quiet, repository, request, tar,
};
use hull_distribution::{Client, Config, Credentials, DistributionError, Registries, Secret};
use hull_images::{ImageError, PullEvent, PullProgress};
use hull_model::Reference;

fn ruled(text: &str) -> Config {
    Config { registries: Registries::parse(text).unwrap(), ..config() }
}

async fn serving(sample: &Sample) -> Server {
    let server = Server::start().await;
    server.add(sample);
    server
}

fn user() -> Credentials {
    Credentials { username: "user".into(), password: Secret::new("pass"), ..Credentials::default() }
}

async fn pull_with(config: Config, name: &str) -> Result<(), ImageError> {
    let reference: Reference = Reference::parse_default_tag(name).unwrap();
    let repository = repository(config, &reference, Some(user()));
    Place::new().store.pull(&repository, &request(&reference), &quiet()).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn any_registry_may_have_mirrors() {
    let sample = Sample::ordinary();
    let (mirror, own) = (serving(&sample).await, serving(&sample).await);
    let s = sample.clone();
    // The mirror lacks one blob: that one comes from the registry.
    mirror.rule(move |r| r.path.contains(s.layers[1].as_str()).then(|| Reply::new(404, "")));
    let text = format!(
        "[[registry]]\nprefix = \"{0}\"\nmirrors = [{{ location = \"http://{1}/copies\", pull-through = true }}]",
        own.address, mirror.address
    );
    pull_with(ruled(&text), &format!("{}/some/image", own.address)).await.unwrap();
    let ns = format!("ns={}", own.address.replace(':', "%3A"));
    let asked = mirror.log();
    assert!(asked.iter().all(|r| r.path.starts_with("/v2/copies/some/image/") && r.path.ends_with(&ns)));
    assert!(asked.iter().all(|r| r.header("authorization").is_empty()));
    let blobs: Vec<_> = own.log().into_iter().filter(|r| r.path.contains("/blobs/")).collect();
    assert_eq!(blobs.len(), 1, "{:?}", blobs.iter().map(|r| &r.path).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn names_lead_elsewhere_and_nowhere() {
    let sample = Sample::ordinary();
    let server = serving(&sample).await;
    let text = format!("[aliases]\ntool = \"{0}/team/tool\"\n", server.address);
    pull_with(ruled(&text), "tool").await.unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert!(server.log().iter().all(|r| r.path.starts_with("/v2/team/tool/")));
    let text = format!("short-names = \"{0}/hub\"", server.address);
    let before = server.log().len();
    pull_with(ruled(&text), "some/image").await.unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert!(server.log()[before..].iter().all(|r| r.path.starts_with("/v2/hub/some/image/")));
    let text = format!("[[registry]]\nprefix = \"{0}/some\"\nblocked = true", server.address);
    let before = server.log().len();
    let error = pull_with(ruled(&text), &format!("{}/some/image", server.address)).await.unwrap_err();
    assert!(error.to_string().contains("is blocked"), "{error}");
    assert_eq!(server.log().len(), before);
    pull_with(ruled(&text), &format!("{}/other/image", server.address)).await.unwrap();
}

/// A connection that everybody waits for gets help; what arrives is the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_blob_comes_over_several_connections() {
    let layer = tar(&[("data", &noise(4, 40_000_000))]);
    let sample = Sample::new(&[(layer.clone(), gzip(&layer))], "amd64");
    for ranges in [true, false] {
        let server = serving(&sample).await;
        let (s, own) = (sample.clone(), server.clone());
        server.rule(move |r| {
            let mut reply = own.own_answer(r);
            if !r.path.ends_with(s.layers[0].as_str()) {
                return None;
            }
            if ranges {
                reply = reply.header("Accept-Ranges", "bytes");
            }
            Some(Reply { fault: Fault::Slow(400_000), ..reply })
        });
        let place = Place::new();
        pull(&place, &server.reference()).await.unwrap_or_else(|e| panic!("{}", chain(&e)));
        let asked = server.log().into_iter().filter(|r| r.path.ends_with(sample.layers[0].as_str()));
        let parts = asked.filter(|r| !r.header("range").is_empty()).count();
        assert_eq!(parts > 3, ranges, "{parts} parts");
        assert_eq!(place.counts(), (3, 1, 0));
    }
}

/// Parts that fail leave one connection, which goes on where the parts stopped.
#[tokio::test(flavor = "multi_thread")]
async fn parts_that_fail_are_no_loss() {
    let layer = tar(&[("data", &noise(5, 40_000_000))]);
    let sample = Sample::new(&[(layer.clone(), gzip(&layer))], "amd64");
    let server = serving(&sample).await;
    let (s, own) = (sample.clone(), server.clone());
    server.rule(move |r| {
        if !r.path.ends_with(s.layers[0].as_str()) {
            return None;
        }
        let bounded = r.header("range").rsplit('-').next().is_some_and(|last| !last.is_empty());
        match bounded {
            true => Some(Reply::new(416, "")),
            false => {
                let reply = own.own_answer(r).header("Accept-Ranges", "bytes");
                let fault = if r.before == 0 { Fault::Slow(400_000) } else { Fault::None };
                Some(Reply { fault, ..reply })
            }
        }
    });
    let place = Place::new();
    pull(&place, &server.reference()).await.unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert_eq!(place.counts(), (3, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_beginning_is_fetched_again() {
    let sample = Sample::ordinary();
    let server = serving(&sample).await;
    let place = Place::new();
    let digest = &sample.layers[0];
    let mut ingest = place.store.content().ingest(digest, None).unwrap();
    ingest.append(&[0; 5000]).unwrap();
    drop(ingest);
    pull(&place, &server.reference()).await.unwrap_or_else(|e| panic!("{}", chain(&e)));
    let asked = server.log().into_iter().filter(|r| r.path.ends_with(digest.as_str()));
    let ranges: Vec<String> = asked.map(|r| r.header("range").to_owned()).collect();
    assert_eq!(ranges, ["bytes=5000-", ""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_asks_for_too_long_a_wait_is_not_waited_for() {
    let sample = Sample::ordinary();
    let server = serving(&sample).await;
    server.rule(|r| {
        let body = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#;
        r.path.contains("/manifests/").then(|| Reply::new(429, body).header("Retry-After", "3600"))
    });
    let error = pull(&Place::new(), &server.reference()).await.unwrap_err().to_string();
    assert!(error.ends_with("slow down (try again in 3600 s)"), "{error}");
    assert_eq!(server.count("/manifests/"), 1);
    // A date that has passed is no wait at all.
    let server = serving(&sample).await;
    server.rule(|r| {
        (r.path.contains("/manifests/") && r.before == 0)
            .then(|| Reply::new(429, "").header("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT"))
    });
    pull(&Place::new(), &server.reference()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_may_yield_a_token_to_keep() {
    let server = Server::start().await;
    let realm = format!("Bearer realm=\"http://{}/token\",service=\"svc\"", server.address);
    server.rule(|r| {
        let known = r.header("authorization") == "Basic dXNlcjpwYXNz";
        r.path.starts_with("/token").then(|| match known && r.path.contains("offline_token=true") {
            true => Reply::new(200, r#"{"token":"tok","refresh_token":"keep"}"#),
            false => Reply::new(401, "{}"),
        })
    });
    server.rule(move |r| {
        (r.header("authorization") != "Bearer tok")
            .then(|| Reply::new(401, "{}").header("WWW-Authenticate", &realm))
    });
    let client = Client::new(config());
    let identity = client.login(&server.address, user()).await.unwrap().expect("a token");
    assert_eq!(identity.reveal(), "keep");
    assert!(!format!("{identity:?}").contains("keep"));
}

/// Errors may end up anywhere: what a user logged in with must not be in them, nor what an address carries.
#[tokio::test(flavor = "multi_thread")]
async fn errors_tell_no_secrets() {
    let sample = Sample::ordinary();
    let server = serving(&sample).await;
    let told = Arc::new(Mutex::new(Vec::new()));
    for status in [401, 403, 404, 500] {
        let s = sample.clone();
        server.rule(move |r| r.path.contains("/signed").then(|| Reply::new(status, r.path.clone())));
        server.rule(move |r| {
            let location = "/signed?X-Amz-Signature=hunter2&token=hunter2";
            r.path.ends_with(s.layers[0].as_str()).then(|| Reply::new(307, "").header("Location", location))
        });
        let reference = server.reference();
        let secret = Credentials {
            username: "u".into(),
            password: Secret::new("hunter2"),
            registry_token: Secret::new("hunter2"),
            ..Credentials::default()
        };
        let repository = repository(config(), &reference, Some(secret));
        let events = told.clone();
        let progress: PullProgress =
            Arc::new(move |e: PullEvent| events.lock().unwrap().push(format!("{e:?}")));
        let error = Place::new().store.pull(&repository, &request(&reference), &progress).await.unwrap_err();
        for text in [chain(&error), format!("{error:?}"), told.lock().unwrap().concat()] {
            assert!(!text.contains("hunter2"), "{text}");
        }
        if status == 404 {
            assert!(
                matches!(error, ImageError::Distribution(DistributionError::PullDenied { .. })),
                "{error}"
            );
        }
    }
}
