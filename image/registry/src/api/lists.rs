use hull_model::{Digest, media_type};

use super::permit;
use crate::auth::Action;
use crate::error::{ApiError, ApiResult, Code};
use crate::http::{Head, Response};
use crate::name::Name;
use crate::service::{Request, Service};
use crate::store::Page;

/// Entries of one page at most.
const PAGE_MAX: usize = 10_000;

/// `n` of a request.
fn limit(head: &Head) -> ApiResult<usize> {
    let Some(text) = head.parameter("n") else { return Ok(PAGE_MAX) };
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits {
        let message = "the number of entries must be a number that is not negative";
        return Err(ApiError::new(Code::PaginationInvalid, message).detail(&*text));
    }
    Ok(text.parse().unwrap_or(PAGE_MAX).min(PAGE_MAX))
}

/// The answer with the way to the next page.
fn paged(path: &str, limit: usize, page: &Page, body: &serde_json::Value) -> Response {
    let mut response = Response::new(200);
    if let Some(last) = page.entries.last().filter(|_| page.more && limit > 0) {
        let last = last.replace('/', "%2F");
        response = response.header("Link", format!("<{path}?n={limit}&last={last}>; rel=\"next\""));
    }
    response.bytes("application/json", body.to_string())
}

/// `GET` of the tags of a repository.
pub(super) fn tags(service: &Service, request: &Request<'_>, name: &Name) -> ApiResult<Response> {
    permit(service, request, name, &[Action::Pull])?;
    let limit = limit(request.head)?;
    if !service.store.has_repository(name)? {
        return Err(
            ApiError::new(Code::NameUnknown, "repository name not known to registry").detail(name.as_str())
        );
    }
    let last = request.head.parameter("last").unwrap_or_default();
    let page = service.store.tags(name, &last, limit)?;
    let body = serde_json::json!({ "name": name.as_str(), "tags": page.entries });
    Ok(paged(&format!("/v2/{name}/tags/list"), limit, &page, &body))
}

/// `GET` of the catalog: the repositories that the caller may pull.
pub(super) fn catalog(service: &Service, request: &Request<'_>) -> ApiResult<Response> {
    if !service.auth.allows_catalog(&request.caller) {
        return Err(service.auth.refusal(&request.caller, "registry:catalog:*", &service.base(request.head)));
    }
    let limit = limit(request.head)?;
    let mut last = request.head.parameter("last").unwrap_or_default().into_owned();
    let bearer = matches!(request.caller, crate::auth::Caller::Bearer(_));
    let mut page = Page { entries: Vec::new(), more: true };
    // Repositories that are not for the caller make room for more.
    while page.more && page.entries.len() < limit {
        let next = service.store.repositories(&last, limit - page.entries.len())?;
        page.more = next.more;
        last = next.entries.last().cloned().unwrap_or_default();
        page.entries.extend(next.entries.into_iter().filter(|entry| {
            let name = Name::parse(entry);
            name.is_some_and(|name| bearer || service.auth.allows(&request.caller, &name, Action::Pull))
        }));
    }
    let body = serde_json::json!({ "repositories": page.entries });
    Ok(paged("/v2/_catalog", limit, &page, &body))
}

/// `GET` of the manifests about a manifest.
pub(super) fn referrers(
    service: &Service,
    request: &Request<'_>,
    name: &Name,
    digest: &Digest,
) -> ApiResult<Response> {
    permit(service, request, name, &[Action::Pull])?;
    let mut manifests = service.store.referrers(name, digest)?;
    let mut response = Response::new(200);
    if let Some(kind) = request.head.parameter("artifactType").filter(|kind| !kind.is_empty()) {
        manifests.retain(|manifest| manifest["artifactType"].as_str() == Some(&*kind));
        response = response.header("OCI-Filters-Applied", "artifactType");
    }
    let index =
        serde_json::json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests });
    Ok(response.bytes(media_type::OCI_INDEX, index.to_string()))
}
