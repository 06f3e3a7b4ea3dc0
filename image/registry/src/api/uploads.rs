use std::sync::Arc;
use std::sync::atomic::Ordering;

use hull_model::{Algorithm, Digest};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::{Duration, timeout};

use super::{parse_digest, parse_name, permit};
use crate::auth::Action;
use crate::error::{ApiError, ApiResult, Code};
use crate::http::{Body, BodyError, Head, Response};
use crate::name::Name;
use crate::service::{Request, Service};
use crate::store::{Session, UploadId};

/// Hashed and written at once: small enough to stay in the processor's cache.
const PIECE: usize = 256 << 10;
/// How long a request waits for another one of the same upload, which may be a broken connection's.
const TURN: Duration = Duration::from_secs(5);

/// `POST` of an upload: mounts a blob of another repository, or takes a whole blob, or begins a session.
pub(super) async fn begin(
    service: &Service,
    request: &Request<'_>,
    body: &mut Body<'_>,
    name: Name,
) -> ApiResult<Response> {
    permit(service, request, &name, &[Action::Pull, Action::Push])?;
    let head = request.head;
    if let Some(digest) = head.parameter("mount") {
        let digest = parse_digest(&digest)?;
        let from = head.parameter("from").map(|from| parse_name(&from)).transpose()?;
        let readable = match &from {
            Some(from) => service.auth.allows(&request.caller, from, Action::Pull),
            // Without rights to respect, the blob may come from anywhere.
            None => service.auth.is_open(),
        };
        if readable && service.store.mount(from, name.clone(), digest.clone()).await? {
            return Ok(created(&name, &digest));
        }
    } else if let Some(digest) = head.parameter("digest") {
        let digest = parse_digest(&digest)?;
        let id = service.uploads.begin(&name)?;
        return finish_with(service, head, body, &name, &id, &digest).await;
    }
    if let Some(algorithm) = head.parameter("digest-algorithm") {
        parse_algorithm(&algorithm)?;
    }
    let id = service.uploads.begin(&name)?;
    Ok(progress(202, &name, &id, 0))
}

fn parse_algorithm(text: &str) -> ApiResult<Algorithm> {
    [Algorithm::Sha256, Algorithm::Sha384, Algorithm::Sha512]
        .into_iter()
        .find(|algorithm| algorithm.as_str() == text)
        .ok_or_else(|| ApiError::new(Code::DigestInvalid, "unsupported digest algorithm").detail(text))
}

fn created(name: &Name, digest: &Digest) -> Response {
    Response::new(201)
        .header("Location", format!("/v2/{name}/blobs/{digest}"))
        .header("Docker-Content-Digest", digest.as_str())
}

fn location(name: &Name, id: &UploadId, offset: u64) -> String {
    match offset {
        0 => format!("/v2/{name}/blobs/uploads/{id}"),
        offset => format!("/v2/{name}/blobs/uploads/{id}?received={offset}"),
    }
}

fn progress(status: u16, name: &Name, id: &UploadId, offset: u64) -> Response {
    Response::new(status)
        .header("Location", location(name, id, offset))
        .header("Docker-Upload-UUID", id.to_string())
        .header("Range", format!("0-{}", offset.saturating_sub(1)))
}

fn unknown(id: &UploadId) -> ApiError {
    ApiError::new(Code::BlobUploadUnknown, "blob upload unknown to registry").detail(id.to_string())
}

/// The upload, for this request alone.
async fn take(
    service: &Service,
    head: &Head,
    name: &Name,
    id: &UploadId,
) -> ApiResult<OwnedMutexGuard<Session>> {
    let session: Arc<Mutex<Session>> = service.uploads.find(name, id)?.ok_or_else(|| unknown(id))?;
    let busy = |_| ApiError::new(Code::RangeInvalid, "another request of this upload is under way");
    let session = timeout(TURN, session.lock_owned()).await.map_err(busy)?;
    // What was acknowledged and is gone was small and in the memory of a server that was killed.
    let acknowledged = head.parameter("received").and_then(|n| n.parse().ok()).unwrap_or(0);
    if session.ended() || session.offset() < acknowledged {
        return Err(unknown(id));
    }
    Ok(session)
}

/// `GET` of an upload: how far it is.
pub(super) async fn status(
    service: &Service,
    request: &Request<'_>,
    name: &Name,
    id: &UploadId,
) -> ApiResult<Response> {
    permit(service, request, name, &[Action::Push])?;
    let session = take(service, request.head, name, id).await?;
    Ok(progress(204, name, id, session.offset()))
}

/// `PATCH` of an upload: adds bytes.
pub(super) async fn append(
    service: &Service,
    request: &Request<'_>,
    body: &mut Body<'_>,
    name: &Name,
    id: &UploadId,
) -> ApiResult<Response> {
    permit(service, request, name, &[Action::Push])?;
    let mut session = take(service, request.head, name, id).await?;
    receive(service, request.head, body, name, &mut session).await?;
    Ok(progress(202, name, id, session.offset()))
}

/// `PUT` of an upload: adds bytes, if there are any, and makes it a blob.
pub(super) async fn finish(
    service: &Service,
    request: &Request<'_>,
    body: &mut Body<'_>,
    name: &Name,
    id: &UploadId,
) -> ApiResult<Response> {
    permit(service, request, name, &[Action::Push])?;
    let missing = || ApiError::new(Code::DigestInvalid, "the digest parameter is missing");
    let digest = parse_digest(&request.head.parameter("digest").ok_or_else(missing)?)?;
    finish_with(service, request.head, body, name, id, &digest).await
}

async fn finish_with(
    service: &Service,
    head: &Head,
    body: &mut Body<'_>,
    name: &Name,
    id: &UploadId,
    digest: &Digest,
) -> ApiResult<Response> {
    let mut session = take(service, head, name, id).await?;
    session.expect(digest.algorithm());
    receive(service, head, body, name, &mut session).await?;
    let sealed = match session.is_small() {
        true => session.seal(digest),
        false => tokio::task::block_in_place(|| session.seal(digest)),
    };
    if let Err(error) = sealed {
        service.uploads.cancel(&mut session);
        return Err(error.into());
    }
    let result = session.publish(name, digest).await;
    service.uploads.end(&mut session);
    result?;
    service.metrics().blobs_pushed.fetch_add(1, Ordering::Relaxed);
    Ok(created(name, digest))
}

/// Takes a body into the upload. What came before it broke off stays, to be resumed.
async fn receive(
    service: &Service,
    head: &Head,
    body: &mut Body<'_>,
    name: &Name,
    session: &mut Session,
) -> ApiResult<()> {
    let begin = session.offset();
    check_range(head, name, session)?;
    let limit = service.policy.blob_size;
    let too_large = || {
        let message = format!("blobs of more than {limit} bytes are not taken");
        ApiError::new(Code::BlobTooLarge, message)
    };
    if head.length().is_some_and(|length| begin.saturating_add(length) > limit) {
        return Err(too_large());
    }
    let room = head.length().map_or(PIECE, |length| usize::try_from(length).unwrap_or(PIECE).min(PIECE));
    let mut buffer = Vec::with_capacity(room);
    loop {
        buffer.clear();
        let more = body.fill(&mut buffer, PIECE).await;
        if session.offset() + buffer.len() as u64 > limit {
            service.uploads.cancel(session);
            return Err(too_large());
        }
        let appended = match buffer.len() {
            ..=4096 => session.append(&buffer),
            _ => tokio::task::block_in_place(|| session.append(&buffer)),
        };
        if let Err(error) = appended {
            // A full disk has room for others again when this one gives its own back.
            if error.is_full() {
                service.uploads.cancel(session);
            }
            return Err(error.into());
        }
        match more {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => return Err(broken_off(&error)),
        }
    }
}

fn broken_off(error: &BodyError) -> ApiError {
    ApiError::new(Code::BlobUploadInvalid, format!("the upload broke off: {error}"))
}

/// A chunk begins where the last one ended, and is as long as it says.
fn check_range(head: &Head, name: &Name, session: &Session) -> ApiResult<()> {
    let Some(range) = head.header("content-range") else { return Ok(()) };
    let parts = range.strip_prefix("bytes ").unwrap_or(range);
    let parts = parts.split('/').next().unwrap_or_default().split_once('-');
    let number =
        |text: &str| -> Option<u64> { text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())? };
    let parsed = parts.and_then(|(first, last)| Some((number(first)?, number(last)?)));
    let Some((first, last)) = parsed.filter(|(first, last)| first <= last || *last == 0) else {
        return Err(ApiError::new(Code::BlobUploadInvalid, "malformed Content-Range").detail(range));
    };
    if first != session.offset() {
        let message = "the chunk does not begin where the last one ended";
        return Err(ApiError::new(Code::RangeInvalid, message)
            .header("Location", location(name, &session.id(), session.offset()))
            .header("Docker-Upload-UUID", session.id().to_string())
            .header("Range", format!("0-{}", session.offset().saturating_sub(1))));
    }
    if head.length().is_some_and(|length| length != 0 && last - first + 1 != length) {
        return Err(ApiError::new(Code::SizeInvalid, "Content-Range and Content-Length differ"));
    }
    Ok(())
}

/// `DELETE` of an upload.
pub(super) async fn cancel(
    service: &Service,
    request: &Request<'_>,
    name: &Name,
    id: &UploadId,
) -> ApiResult<Response> {
    permit(service, request, name, &[Action::Push])?;
    let mut session = take(service, request.head, name, id).await?;
    service.uploads.cancel(&mut session);
    Ok(Response::new(204))
}
