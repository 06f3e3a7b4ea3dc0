//! `/images`, `/commit` and `/distribution`.

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use futures_util::{StreamExt, stream};
use hull_docker_api::{AuthConfig, ContainerConfig, JsonMessage, ManifestUpload};
use hull_engine::Engine;
use hull_engine::images::{
    CommitRequest, Compression, ImportRequest, ImportSource, ListOptions, Progress, PullRequest, PushRequest,
};
use hyper::StatusCode;

use crate::error::HttpError;
use crate::request::Call;
use crate::respond::{self, Answer, empty, json, json_with};
use crate::router::ImageOp;
use crate::stream as bodies;

const REGISTRY_AUTH: &str = "x-registry-auth";

pub(crate) async fn list(engine: &Engine, call: Call) -> Answer {
    let query = &call.query;
    let mut filters = query.filters()?;
    // Clients before 1.25 name one reference this way.
    if let Some(reference) = query.text("filter") {
        filters.add("reference", reference);
    }
    let options = ListOptions {
        all: query.flag("all"),
        shared_size: query.flag("shared-size"),
        manifests: query.flag("manifests"),
        filters,
    };
    json(&engine.image_list(options).await?)
}

/// Pull with `fromImage`, import with `fromSrc`.
pub(crate) async fn create(engine: &Engine, call: Call) -> Answer {
    let peer = call.peer.clone();
    let query = &call.query;
    let platform = query.string("platform");
    let progress = if let Some(image) = query.string("fromImage") {
        let referrers = query.flag("referrers");
        let tag = query.string("tag");
        let request = PullRequest { image, tag, platform, referrers, auth: registry_auth(&call) };
        engine.image_pull(request).await?
    } else if let Some(source) = query.string("fromSrc") {
        let (repository, tag) = (query.string("repo"), query.string("tag"));
        let (message, changes) = (query.string("message"), query.all("changes"));
        let source =
            if source == "-" { ImportSource::Stream(call.into_stream()) } else { ImportSource::Url(source) };
        engine.image_import(ImportRequest { source, repository, tag, message, changes, platform }).await?
    } else {
        return Err(HttpError::bad_request("image name cannot be empty: give fromImage or fromSrc"));
    };
    follow(&peer, progress).await
}

pub(crate) async fn load(engine: &Engine, call: Call) -> Answer {
    let peer = call.peer.clone();
    let quiet = call.query.flag_or("quiet", false);
    let platform = platform(&call);
    let progress = engine.image_load(call.into_stream(), quiet, platform).await?;
    follow(&peer, progress).await
}

pub(crate) async fn save_all(engine: &Engine, call: Call) -> Answer {
    save(engine, call.query.all("names"), call).await
}

async fn save(engine: &Engine, names: Vec<String>, call: Call) -> Answer {
    if names.is_empty() {
        return Err(HttpError::bad_request("no image names given"));
    }
    let compression = call.query.text("compression").unwrap_or_default().parse::<Compression>()?;
    let archive = engine.image_save(names, platform(&call), compression).await?;
    Ok(respond::with_type(StatusCode::OK, "application/x-tar", bodies::bytes(&call.peer, archive)))
}

pub(crate) async fn prune(engine: &Engine, call: Call) -> Answer {
    let filters = call.query.filters()?;
    // Hull's own: what would be removed.
    if call.query.flag("dry-run") {
        return json(&engine.image_prune_preview(&filters)?);
    }
    json(&engine.image_prune(&filters).await?)
}

pub(crate) async fn one(engine: &Engine, name: &str, op: ImageOp, call: Call) -> Answer {
    match op {
        ImageOp::Inspect => {
            json(&engine.image_inspect(name, call.query.flag("manifests"), platform(&call)).await?)
        }
        ImageOp::History => json(&engine.image_history(name, platform(&call)).await?),
        ImageOp::Save => save(engine, vec![name.to_owned()], call).await,
        ImageOp::Layers => json(&engine.image_layers(name, call.query.flag("files"), platform(&call)).await?),
        ImageOp::Remove => {
            let (force, noprune) = (call.query.flag("force"), call.query.flag("noprune"));
            json(&engine.image_remove(name, force, noprune).await?)
        }
        ImageOp::Tag => {
            let repository = call.query.text("repo").unwrap_or_default();
            engine.image_tag(name, repository, call.query.text("tag")).await?;
            empty(StatusCode::CREATED)
        }
        ImageOp::Push => {
            let request = PushRequest {
                image: name.to_owned(),
                tag: call.query.string("tag"),
                platform: platform(&call),
                referrers: call.query.flag("referrers"),
                auth: registry_auth(&call),
            };
            let progress = engine.image_push(request).await?;
            follow(&call.peer, progress).await
        }
    }
}

pub(crate) async fn commit(engine: &Engine, mut call: Call) -> Answer {
    let config: Option<ContainerConfig> = match call.headers.contains_key(hyper::header::CONTENT_TYPE) {
        true => call.json_if_any::<Option<ContainerConfig>>().await?.flatten(),
        false => None,
    };
    let query = &call.query;
    let request = CommitRequest {
        container: query.string("container").unwrap_or_default(),
        repository: query.string("repo"),
        tag: query.string("tag"),
        comment: query.string("comment").unwrap_or_default(),
        author: query.string("author").unwrap_or_default(),
        pause: query.flag_or("pause", true),
        changes: query.all("changes"),
        config,
    };
    json_with(StatusCode::CREATED, &engine.image_commit(request).await?)
}

pub(crate) async fn distribution(engine: &Engine, name: &str, call: Call) -> Answer {
    json(&engine.distribution_inspect(name, registry_auth(&call)).await?)
}

pub(crate) async fn manifest(engine: &Engine, name: &str, call: Call) -> Answer {
    json(&engine.manifest_fetch(name, registry_auth(&call)).await?)
}

pub(crate) async fn push_manifest(engine: &Engine, name: &str, mut call: Call) -> Answer {
    let auth = registry_auth(&call);
    let upload: ManifestUpload = call.json().await?;
    let digest = engine.manifest_push(name, upload, auth).await?;
    json_with(StatusCode::CREATED, &serde_json::json!({ "Digest": digest.as_str() }))
}

pub(crate) async fn referrers(engine: &Engine, name: &str, call: Call) -> Answer {
    let kind = call.query.text("artifactType").filter(|kind| !kind.is_empty());
    json(&engine.referrer_list(name, kind, registry_auth(&call)).await?)
}

/// The progress of an action as a stream of JSON. What fails before there is anything to say is an HTTP error with a
/// status of its own; later failures are the last message of the stream.
async fn follow(peer: &crate::server::Peer, mut progress: Progress) -> Answer {
    let first = match progress.next().await {
        Some(Err(error)) => return Err(error.into()),
        first => first,
    };
    let messages = stream::iter(first).chain(progress).map(|message| match message {
        Ok(message) => message,
        Err(error) => JsonMessage::error(error.message()),
    });
    Ok(bodies::json_lines(peer, messages))
}

/// `platform=linux/arm64`, or since 1.48 its JSON form.
fn platform(call: &Call) -> Option<String> {
    let text = call.query.text("platform")?;
    let Ok(document) = serde_json::from_str::<serde_json::Value>(text) else { return Some(text.to_owned()) };
    let part =
        |name: &str| document.get(name).and_then(serde_json::Value::as_str).filter(|part| !part.is_empty());
    let parts: Vec<&str> =
        [part("os"), part("architecture"), part("variant")].into_iter().flatten().collect();
    Some(parts.join("/"))
}

/// The credentials of `X-Registry-Auth`. As in docker, a header that cannot be read is the same as none.
fn registry_auth(call: &Call) -> Option<AuthConfig> {
    decode_auth(call.header(REGISTRY_AUTH)?)
}

fn decode_auth(header: &str) -> Option<AuthConfig> {
    const URL_SAFE: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::URL_SAFE,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    // Some clients use the standard alphabet.
    let header = header.trim().replace('+', "-").replace('/', "_");
    let document = URL_SAFE.decode(header).ok()?;
    serde_json::from_slice(&document).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_in_every_spelling_of_base64() {
        for header in
            ["eyJ1c2VybmFtZSI6IsO_w74ifQ==", "eyJ1c2VybmFtZSI6IsO_w74ifQ", "eyJ1c2VybmFtZSI6IsO/w74ifQ=="]
        {
            assert_eq!(decode_auth(header).unwrap().username, "ÿþ", "{header}");
        }
        assert!(decode_auth("!").is_none());
        assert!(decode_auth("bm90IGpzb24").is_none());
    }
}
