use std::sync::atomic::Ordering;

use hull_content::Hasher;
use hull_model::{Algorithm, Digest};

use super::blobs::matches_tag;
use super::{parse_digest, permit};
use crate::auth::Action;
use crate::error::{ApiError, ApiResult, Code};
use crate::http::{Body, BodyError, Head, Payload, Response};
use crate::manifest::Document;
use crate::name::{Name, Reference, Tag};
use crate::service::{Request, Service};
use crate::store::{PutManifest, StoredManifest};

/// Tags that one push may set at most.
const TAGS_MAX: usize = 100;

/// `GET` and `HEAD` of a manifest.
pub(super) async fn pull(
    service: &Service,
    request: &Request<'_>,
    name: &Name,
    reference: &Reference,
) -> ApiResult<Response> {
    permit(service, request, name, &[Action::Pull])?;
    let found = match service.caches.find(name) {
        Some(cache) => cache.manifest(service, reference).await?,
        None => service.store.manifest(name, reference)?.map(|manifest| (manifest, None)),
    };
    let Some((manifest, warning)) = found else { return Err(unknown(reference)) };
    service.metrics().manifests_pulled.fetch_add(1, Ordering::Relaxed);
    let mut response = answer(request.head, manifest)?;
    if let Some(warning) = warning {
        response = response.header("Warning", format!("299 - \"{warning}\""));
    }
    Ok(response)
}

pub(crate) fn unknown(reference: &Reference) -> ApiError {
    ApiError::new(Code::ManifestUnknown, "manifest unknown").detail(reference.to_string())
}

fn answer(head: &Head, manifest: StoredManifest) -> ApiResult<Response> {
    let digest = parse_digest(&manifest.digest)?;
    let response = Response::new(if matches_tag(head, &digest) { 304 } else { 200 })
        .header("Content-Type", &manifest.media_type)
        .header("Docker-Content-Digest", digest.as_str())
        .header("Etag", format!("\"{digest}\""));
    Ok(response.payload(Payload::Bytes(manifest.bytes)))
}

/// `PUT` of a manifest.
pub(super) async fn push(
    service: &Service,
    request: &Request<'_>,
    body: &mut Body<'_>,
    name: Name,
    reference: Reference,
) -> ApiResult<Response> {
    permit(service, request, &name, &[Action::Pull, Action::Push])?;
    let media_type = media_type(request.head)?;
    let limit = service.policy.manifest_size;
    let bytes = body.read(limit).await.map_err(|error| match error {
        BodyError::TooLarge => ApiError::new(
            Code::ManifestTooLarge,
            format!("manifests of more than {limit} bytes are not taken"),
        ),
        error => error.into(),
    })?;
    let document = Document::parse(&media_type, &bytes)?;
    let digest = digest(&reference, &bytes)?;
    let tags = tags(request.head, &reference)?;
    let subject = document.subject.clone();
    let put = PutManifest {
        repository: name.clone(),
        digest: digest.clone(),
        media_type,
        bytes,
        document,
        tags: tags.clone(),
        whole: !service.policy.sparse,
    };
    service.store.put_manifest(put).await?;
    service.metrics().manifests_pushed.fetch_add(1, Ordering::Relaxed);
    let mut response = Response::new(201)
        .header("Location", format!("/v2/{name}/manifests/{digest}"))
        .header("Docker-Content-Digest", digest.as_str());
    if let Some(subject) = subject {
        response = response.header("OCI-Subject", subject.as_str());
    }
    if matches!(reference, Reference::Digest(_)) {
        response = tags.iter().fold(response, |response, tag| response.header("OCI-Tag", tag.as_str()));
    }
    Ok(response)
}

/// The type without parameters, which goes back to clients in a header.
fn media_type(head: &Head) -> ApiResult<String> {
    let text = head.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$&^_.+-/".contains(&b);
    if text.is_empty() || text.len() > 255 || !text.bytes().all(token) || text.matches('/').count() != 1 {
        return Err(ApiError::new(
            Code::ManifestInvalid,
            "the manifest's Content-Type is missing or malformed",
        ));
    }
    Ok(text.to_owned())
}

fn digest(reference: &Reference, bytes: &[u8]) -> ApiResult<Digest> {
    let algorithm = match reference {
        Reference::Tag(_) => Algorithm::Sha256,
        Reference::Digest(digest) => digest.algorithm(),
    };
    let mut hasher = Hasher::new(algorithm);
    hasher.update(bytes);
    let actual = hasher.finish();
    match reference {
        Reference::Digest(digest) if *digest != actual => {
            let detail = serde_json::json!({ "digest": digest.as_str(), "received": actual.as_str() });
            let message = "provided digest did not match uploaded content";
            Err(ApiError::new(Code::DigestInvalid, message).detail(detail))
        }
        _ => Ok(actual),
    }
}

fn tags(head: &Head, reference: &Reference) -> ApiResult<Vec<Tag>> {
    if let Reference::Tag(tag) = reference {
        return Ok(vec![tag.clone()]);
    }
    let mut tags = Vec::new();
    for text in head.parameters("tag") {
        let invalid = || ApiError::new(Code::TagInvalid, "invalid tag").detail(&*text);
        tags.push(Tag::parse(&text).ok_or_else(invalid)?);
        if tags.len() > TAGS_MAX {
            return Err(ApiError::new(Code::UriTooLong, format!("more than {TAGS_MAX} tags at once")));
        }
    }
    Ok(tags)
}

/// `DELETE` of a tag, or of a manifest with all its tags.
pub(super) async fn delete(
    service: &Service,
    request: &Request<'_>,
    name: Name,
    reference: Reference,
) -> ApiResult<Response> {
    permit(service, request, &name, &[Action::Delete])?;
    if service.store.delete_manifest(name, reference.clone()).await? {
        Ok(Response::new(202))
    } else {
        Err(unknown(&reference))
    }
}
