//! A request as handlers see it: version, query, headers, and a body that is read as the operation wants.

use std::io;

use bytes::Bytes;
use futures_util::TryStreamExt;
use http_body_util::{BodyExt, Limited};
use hull_engine::bytestream::ByteStream;
use hyper::body::{Body as _, Incoming};
use hyper::header::{self, HeaderMap};
use hyper::upgrade::OnUpgrade;
use serde::de::DeserializeOwned;

use crate::error::HttpError;
use crate::query::Query;
use crate::server::Peer;
use crate::version::ApiVersion;

/// JSON bodies above this many bytes are refused. Docker's own documents are a few KiB.
const MAX_JSON: usize = 8 << 20;

/// One request, its path already consumed by the router.
pub(crate) struct Call {
    pub(crate) version: ApiVersion,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) peer: Peer,
    pub(crate) upgrade: Option<OnUpgrade>,
    pub(crate) body: Incoming,
}

impl Call {
    /// The body as JSON, checked as docker checks it: a body needs `Content-Type: application/json`, no body at all
    /// reads as the default document.
    pub(crate) async fn json<T: DeserializeOwned + Default>(&mut self) -> Result<T, HttpError> {
        Ok(self.json_if_any().await?.unwrap_or_default())
    }

    /// As [`Call::json`]; `None` when there is no body.
    pub(crate) async fn json_if_any<T: DeserializeOwned>(&mut self) -> Result<Option<T>, HttpError> {
        let has_body = !self.body.is_end_stream();
        check_content_type(&self.headers, has_body)?;
        if !has_body {
            return Ok(None);
        }
        let bytes = read(&mut self.body, MAX_JSON).await?;
        parse(&bytes).map(Some)
    }

    /// The text of a header, if it is there and readable.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as bytes that come over time, for actions that read it while it arrives.
    pub(crate) fn into_stream(self) -> ByteStream {
        Box::pin(self.body.into_data_stream().map_err(io::Error::other))
    }
}

/// Parses one JSON document and nothing behind it.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, HttpError> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(HttpError::bad_request("invalid JSON: got EOF while reading request body"));
    }
    serde_json::from_slice(bytes).map_err(|error| HttpError::bad_request(format!("invalid JSON: {error}")))
}

fn check_content_type(headers: &HeaderMap, has_body: bool) -> Result<(), HttpError> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    if given.is_empty() && !has_body {
        return Ok(());
    }
    let media_type = given.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    match media_type.as_str() {
        "application/json" => Ok(()),
        "" => Err(HttpError::bad_request(format!(
            "malformed Content-Type header ({given}): mime: no media type"
        ))),
        _ => Err(HttpError::bad_request(format!(
            "unsupported Content-Type header ({given}): must be 'application/json'"
        ))),
    }
}

async fn read(body: &mut Incoming, limit: usize) -> Result<Bytes, HttpError> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(HttpError::bad_request(format!("request body is larger than {limit} bytes")))
        }
        Err(error) => Err(HttpError::bad_request(format!("cannot read the request body: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(content_type: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if !content_type.is_empty() {
            headers.insert(header::CONTENT_TYPE, content_type.parse().unwrap());
        }
        headers
    }

    #[test]
    fn content_types_as_docker_checks_them() {
        assert!(check_content_type(&typed(""), false).is_ok());
        assert!(check_content_type(&typed("application/json; charset=utf-8"), true).is_ok());
        let wrong = check_content_type(&typed("text/plain"), true).unwrap_err();
        assert_eq!(
            wrong.message(),
            "unsupported Content-Type header (text/plain): must be 'application/json'"
        );
        let none = check_content_type(&typed(""), true).unwrap_err();
        assert_eq!(none.message(), "malformed Content-Type header (): mime: no media type");
        assert_eq!(none.status(), 400);
    }

    #[test]
    fn malformed_json_is_named() {
        let error = parse::<serde_json::Value>(b"{\"a\": }").unwrap_err();
        assert_eq!(error.status(), 400);
        assert!(error.message().starts_with("invalid JSON: "), "{}", error.message());
        assert!(parse::<serde_json::Value>(b"{} {}").is_err());
        assert_eq!(
            parse::<serde_json::Value>(b" ").unwrap_err().message(),
            "invalid JSON: got EOF while reading request body"
        );
    }
}
