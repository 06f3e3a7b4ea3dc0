use std::sync::Arc;

use hull_model::Digest;

use super::permit;
use crate::auth::Action;
use crate::error::{ApiError, ApiResult, Code};
use crate::http::{Head, Method, Payload, Response};
use crate::name::Name;
use crate::service::{Request, Service};
use crate::store::{Blob, Content};

/// `GET` and `HEAD` of a blob.
pub(super) async fn pull(
    service: &Service,
    request: &Request<'_>,
    name: &Name,
    digest: &Digest,
) -> ApiResult<Response> {
    permit(service, request, name, &[Action::Pull])?;
    if request.head.method == Method::Head
        && let Some(size) = service.store.blob_size(name, digest)?
    {
        return Ok(headers(200, digest).payload(length_only(size)));
    }
    if let Some(blob) = service.store.blob(name, digest)?
        && let Some(response) = serve(service, request.head, digest, blob).await?
    {
        return Ok(response);
    }
    if let Some(cache) = service.caches.find(name) {
        return cache.blob(service, request.head, digest).await;
    }
    Err(unknown(digest))
}

pub(crate) fn unknown(digest: &Digest) -> ApiError {
    ApiError::new(Code::BlobUnknown, "blob unknown to registry").detail(digest.as_str())
}

/// A body that only its length is told of.
pub(crate) fn length_only(size: u64) -> Payload {
    let (_, written) = tokio::sync::watch::channel(0);
    match null() {
        Ok(file) => Payload::Tail(crate::http::Tail { file, offset: 0, length: size, written }),
        Err(_) => Payload::Empty,
    }
}

fn null() -> std::io::Result<Arc<std::fs::File>> {
    static NULL: std::sync::OnceLock<Arc<std::fs::File>> = std::sync::OnceLock::new();
    if let Some(file) = NULL.get() {
        return Ok(file.clone());
    }
    let file = Arc::new(std::fs::File::open("/dev/null")?);
    Ok(NULL.get_or_init(|| file).clone())
}

pub(crate) fn headers(status: u16, digest: &Digest) -> Response {
    Response::new(status)
        .header("Content-Type", "application/octet-stream")
        .header("Docker-Content-Digest", digest.as_str())
        .header("Etag", format!("\"{digest}\""))
        .header("Cache-Control", "max-age=31536000, immutable")
        .header("Accept-Ranges", "bytes")
}

async fn serve(service: &Service, head: &Head, digest: &Digest, blob: Blob) -> ApiResult<Option<Response>> {
    let file = match blob.inline {
        Some(_) => None,
        None => match open(service, digest, blob.size)? {
            Some(file) => Some(file),
            None => {
                service.store.blob_is_damaged(digest.clone()).await?;
                return Ok(None);
            }
        },
    };
    if matches_tag(head, digest) {
        return Ok(Some(Response::new(304).header("Etag", format!("\"{digest}\""))));
    }
    let part = range(head, digest, blob.size)?;
    let (offset, length) = part.unwrap_or((0, blob.size));
    let mut response = headers(if part.is_some() { 206 } else { 200 }, digest);
    if part.is_some() {
        let last = offset + length - 1;
        response = response.header("Content-Range", format!("bytes {offset}-{last}/{}", blob.size));
    }
    Ok(Some(response.payload(match (blob.inline, file) {
        (Some(bytes), _) => Payload::Bytes(bytes[offset as usize..(offset + length) as usize].to_vec()),
        (None, Some(file)) => Payload::File { file, offset, length },
        (None, None) => Payload::Empty,
    })))
}

/// The file of a blob, unless it is missing or has another size.
fn open(service: &Service, digest: &Digest, size: u64) -> ApiResult<Option<Arc<std::fs::File>>> {
    let Some(Content::File(file)) = service.store.blobs().open(digest)? else { return Ok(None) };
    Ok((file.metadata()?.len() == size).then(|| Arc::new(file)))
}

/// Whether the client has the content already (RFC 9110 section 13.1.2).
pub(crate) fn matches_tag(head: &Head, digest: &Digest) -> bool {
    let wanted = format!("\"{digest}\"");
    head.header("if-none-match").is_some_and(|tags| {
        tags.split(',')
            .any(|tag| matches!(tag.trim(), tag if tag == "*" || tag.trim_start_matches("W/") == wanted))
    })
}

/// The part that is asked for (RFC 9110 section 14.2): offset and length. Of several parts, or of what is no range,
/// all is sent.
pub(crate) fn range(head: &Head, digest: &Digest, size: u64) -> ApiResult<Option<(u64, u64)>> {
    let Some(text) = head.header("range").and_then(|range| range.strip_prefix("bytes=")) else {
        return Ok(None);
    };
    if head.header("if-range").is_some_and(|tag| tag != format!("\"{digest}\"")) {
        return Ok(None);
    }
    let Some((first, last)) = text.split_once('-') else { return Ok(None) };
    let number = |text: &str| match text.trim() {
        "" => Some(None),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
            Some(Some(digits.parse().unwrap_or(u64::MAX)))
        }
        _ => None,
    };
    let (Some(first), Some(last)) = (number(first), number(last)) else { return Ok(None) };
    let unsatisfiable = || {
        let message = "the blob has no such part";
        Err(ApiError::new(Code::RangeInvalid, message).header("Content-Range", format!("bytes */{size}")))
    };
    match (first, last) {
        (None, None) => Ok(None),
        (None, Some(0)) => unsatisfiable(),
        (None, Some(tail)) => Ok(Some((size.saturating_sub(tail), tail.min(size))).filter(|_| size > 0)),
        (Some(first), Some(last)) if last < first => Ok(None),
        (Some(first), _) if first >= size => unsatisfiable(),
        (Some(first), last) => {
            let last = last.unwrap_or(u64::MAX).min(size - 1);
            Ok(Some((first, last - first + 1)))
        }
    }
}

/// `DELETE` of a blob: takes it out of the repository.
pub(super) async fn delete(
    service: &Service,
    request: &Request<'_>,
    name: Name,
    digest: Digest,
) -> ApiResult<Response> {
    permit(service, request, &name, &[Action::Delete])?;
    if service.store.unlink(name, digest.clone()).await? {
        Ok(Response::new(202).header("Docker-Content-Digest", digest.as_str()))
    } else {
        Err(unknown(&digest))
    }
}
