//! From a path to an action (distribution-spec, "Endpoints").

pub(crate) mod blobs;
mod lists;
mod manifests;
mod token;
mod uploads;

use hull_model::{Digest, DigestError};

use crate::auth::Action;
use crate::error::{ApiError, ApiResult, Code};
use crate::http::{Body, Head, Method, Response};
use crate::name::{Name, Reference, Tag};
use crate::service::{Request, Service};
use crate::store::UploadId;

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    /// `/`
    Root,
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// `/metrics`
    Metrics,
    /// `/auth/token`
    Token,
    /// `/v2/<name>/tags/list`
    Tags(Name),
    /// `/v2/<name>/manifests/<reference>`
    Manifest(Name, Reference),
    /// `/v2/<name>/blobs/<digest>`
    Blob(Name, Digest),
    /// `/v2/<name>/blobs/uploads/`
    Uploads(Name),
    /// `/v2/<name>/blobs/uploads/<id>`
    Upload(Name, UploadId),
    /// `/v2/<name>/referrers/<digest>`
    Referrers(Name, Digest),
}

impl Route {
    /// Reads a path whose escapes were resolved.
    pub fn parse(path: &str) -> ApiResult<Self> {
        match path {
            "/" => return Ok(Self::Root),
            "/v2" | "/v2/" => return Ok(Self::Base),
            "/v2/_catalog" => return Ok(Self::Catalog),
            "/metrics" => return Ok(Self::Metrics),
            "/auth/token" => return Ok(Self::Token),
            _ => {}
        }
        let unknown = || ApiError::new(Code::NotFound, "there is no such page");
        let rest = path.strip_prefix("/v2/").ok_or_else(unknown)?;
        if let Some(name) = rest.strip_suffix("/tags/list") {
            return Ok(Self::Tags(parse_name(name)?));
        }
        if let Some(name) =
            rest.strip_suffix("/blobs/uploads").or_else(|| rest.strip_suffix("/blobs/uploads/"))
        {
            return Ok(Self::Uploads(parse_name(name)?));
        }
        let (rest, last) = rest.rsplit_once('/').ok_or_else(unknown)?;
        if let Some(name) = rest.strip_suffix("/blobs/uploads") {
            let no = || ApiError::new(Code::BlobUploadUnknown, "blob upload unknown to registry");
            return Ok(Self::Upload(parse_name(name)?, UploadId::parse(last).ok_or_else(no)?));
        }
        let (name, kind) = rest.rsplit_once('/').ok_or_else(unknown)?;
        match kind {
            "manifests" => Ok(Self::Manifest(parse_name(name)?, parse_reference(last)?)),
            "blobs" => Ok(Self::Blob(parse_name(name)?, parse_digest(last)?)),
            "referrers" => Ok(Self::Referrers(parse_name(name)?, parse_digest(last)?)),
            _ => Err(unknown()),
        }
    }
}

impl Route {
    /// The repository, if the path names one.
    pub fn repository(&self) -> Option<&Name> {
        match self {
            Self::Root | Self::Base | Self::Catalog | Self::Metrics | Self::Token => None,
            Self::Tags(name)
            | Self::Manifest(name, _)
            | Self::Blob(name, _)
            | Self::Uploads(name)
            | Self::Upload(name, _)
            | Self::Referrers(name, _) => Some(name),
        }
    }

    /// With the name that the repository has here, if the client asks by the upstream's host.
    fn localized(self, service: &Service, head: &Head) -> Self {
        let Some(host) = head.parameter("ns") else { return self };
        let local = |name| service.caches.localized(name, Some(&*host));
        match self {
            Self::Tags(name) => Self::Tags(local(name)),
            Self::Manifest(name, reference) => Self::Manifest(local(name), reference),
            Self::Blob(name, digest) => Self::Blob(local(name), digest),
            Self::Referrers(name, digest) => Self::Referrers(local(name), digest),
            other => other,
        }
    }
}

fn parse_name(text: &str) -> ApiResult<Name> {
    Name::parse(text).ok_or_else(|| ApiError::new(Code::NameInvalid, "invalid repository name").detail(text))
}

pub(crate) fn parse_digest(text: &str) -> ApiResult<Digest> {
    text.parse().map_err(|e: DigestError| ApiError::new(Code::DigestInvalid, e.to_string()).detail(text))
}

fn parse_reference(text: &str) -> ApiResult<Reference> {
    if text.contains(':') {
        return parse_digest(text).map(Reference::Digest);
    }
    match Tag::parse(text) {
        Some(tag) => Ok(Reference::Tag(tag)),
        None => Err(ApiError::new(Code::TagInvalid, "invalid tag").detail(text)),
    }
}

/// Answers a request.
pub(crate) async fn answer(
    service: &Service,
    request: &mut Request<'_>,
    body: &mut Body<'_>,
) -> ApiResult<Response> {
    let head = request.head;
    let (method, route) = (head.method, Route::parse(&head.path));
    if let Ok(Route::Root) = route {
        return Ok(Response::new(200).bytes("text/plain; charset=utf-8", "This is a registry.\n"));
    }
    request.caller = service.auth.caller(head).await.map_err(|error| {
        let base = service.base(head);
        error.header("WWW-Authenticate", service.auth.challenge("", "invalid_token", &base))
    })?;
    let get = matches!(method, Method::Get | Method::Head);
    let route = if get { route?.localized(service, head) } else { route? };
    match route {
        Route::Root => Err(ApiError::new(Code::NotFound, "there is no such page")),
        Route::Base if get => base(service, request),
        Route::Catalog if get => lists::catalog(service, request),
        Route::Metrics if get && service.policy.metrics => {
            base(service, request)?;
            service.metrics_page()
        }
        Route::Metrics if get => Err(ApiError::new(Code::NotFound, "there is no such page")),
        // Clients that would rather post a form ask again with GET when that is refused.
        Route::Token if method == Method::Get => token::issue(service, request),
        Route::Tags(name) if get => lists::tags(service, request, &name),
        Route::Referrers(name, digest) if get => lists::referrers(service, request, &name, &digest),
        Route::Manifest(name, reference) => match method {
            Method::Get | Method::Head => manifests::pull(service, request, &name, &reference).await,
            Method::Put => manifests::push(service, request, body, name, reference).await,
            Method::Delete => manifests::delete(service, request, name, reference).await,
            _ => Err(not_allowed()),
        },
        Route::Blob(name, digest) => match method {
            Method::Get | Method::Head => blobs::pull(service, request, &name, &digest).await,
            Method::Delete => blobs::delete(service, request, name, digest).await,
            _ => Err(not_allowed()),
        },
        Route::Uploads(name) if method == Method::Post => uploads::begin(service, request, body, name).await,
        Route::Upload(name, id) => match method {
            Method::Get | Method::Head => uploads::status(service, request, &name, &id).await,
            Method::Patch => uploads::append(service, request, body, &name, &id).await,
            Method::Put => uploads::finish(service, request, body, &name, &id).await,
            Method::Delete => uploads::cancel(service, request, &name, &id).await,
            _ => Err(not_allowed()),
        },
        _ => Err(not_allowed()),
    }
}

fn not_allowed() -> ApiError {
    ApiError::new(Code::Unsupported, "this is not done with this address")
}

fn base(service: &Service, request: &Request<'_>) -> ApiResult<Response> {
    if !service.auth.allows_base(&request.caller) {
        return Err(service.auth.refusal(&request.caller, "", &service.base(request.head)));
    }
    Ok(Response::new(200).bytes("application/json", "{}"))
}

/// Fails unless the caller may do that with the repository, and the registry does it at all.
fn permit(service: &Service, request: &Request<'_>, name: &Name, actions: &[Action]) -> ApiResult<()> {
    service.auth.check(&request.caller, name, actions, &service.base(request.head))?;
    let changes = actions.iter().any(|action| *action != Action::Pull);
    if changes && service.policy.read_only {
        return Err(ApiError::new(Code::Unsupported, "the registry is read-only"));
    }
    if actions.contains(&Action::Delete) && !service.policy.delete {
        return Err(ApiError::new(Code::Unsupported, "the registry does not delete"));
    }
    if actions.contains(&Action::Push) && service.caches.find(name).is_some() {
        return Err(ApiError::new(Code::Unsupported, "the repository is a cache of an upstream registry"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
