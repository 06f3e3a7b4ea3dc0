//! Responses: JSON as Go's encoder writes it (one line, a newline at the end), errors, empty answers.

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::error::HttpError;

/// The body of every response.
pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// What a handler gives back.
pub(crate) type Answer = Result<Response<Body>, HttpError>;

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn nothing() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A JSON document with status 200.
pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> Answer {
    json_with(StatusCode::OK, value)
}

/// A JSON document that is written already.
pub(crate) fn json_text(mut text: Vec<u8>) -> Answer {
    text.push(b'\n');
    Ok(with_type(StatusCode::OK, "application/json", full(text)))
}

/// A JSON document.
pub(crate) fn json_with<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> Answer {
    let mut body = serde_json::to_vec(value).map_err(|error| {
        HttpError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write the answer as JSON: {error}"))
    })?;
    body.push(b'\n');
    Ok(with_type(status, "application/json", full(body)))
}

/// A response without a body.
pub(crate) fn empty(status: StatusCode) -> Answer {
    let mut response = Response::new(nothing());
    *response.status_mut() = status;
    Ok(response)
}

/// 204, what most actions answer.
pub(crate) fn no_content() -> Answer {
    empty(StatusCode::NO_CONTENT)
}

/// A body of the named content type.
pub(crate) fn with_type(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An error as docker shapes it. 304 has no body by the rules of HTTP.
pub(crate) fn error(error: &HttpError) -> Response<Body> {
    if error.status() == StatusCode::NOT_MODIFIED {
        let mut response = Response::new(nothing());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    let document = serde_json::json!({ "message": error.message() });
    with_type(error.status(), "application/json", full(format!("{document}\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn errors_have_dockers_shape() {
        let response = error(&HttpError::bad_request("no \"such\" <thing>"));
        assert_eq!(response.status(), 400);
        assert_eq!(response.headers()["content-type"], "application/json");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "{\"message\":\"no \\\"such\\\" <thing>\"}\n");
    }
}
