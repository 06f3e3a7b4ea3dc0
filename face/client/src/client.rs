//! Requests, answers and connections.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;

use hull_docker_api::{API_VERSION, ErrorResponse};

use crate::{Endpoint, Error, Query, Transport};

/// A request's body.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// No body.
pub fn empty() -> Payload {
    Payload { content_type: None, body: PayloadBody::Bytes(Bytes::new()) }
}

/// A body of bytes.
pub fn full(content_type: &'static str, bytes: impl Into<Bytes>) -> Payload {
    Payload { content_type: Some(content_type), body: PayloadBody::Bytes(bytes.into()) }
}

/// A JSON body. Values of the API always serialize; a failure gives an empty body the engine refuses.
pub fn json<T: Serialize>(value: &T) -> Payload {
    full("application/json", serde_json::to_vec(value).unwrap_or_default())
}

/// A body that is sent as it comes, in chunks.
pub fn stream_body<S>(content_type: &'static str, chunks: S) -> Payload
where
    S: futures_util::Stream<Item = std::io::Result<Bytes>> + Send + 'static,
{
    let body = StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data)));
    Payload { content_type: Some(content_type), body: PayloadBody::Stream(body.boxed_unsync()) }
}

/// What a request carries, made by [`empty`], [`json`], [`full`] or [`stream_body`].
pub struct Payload {
    content_type: Option<&'static str>,
    body: PayloadBody,
}

enum PayloadBody {
    Bytes(Bytes),
    Stream(Body),
}

/// A client of one engine.
pub struct Client {
    endpoint: Endpoint,
    user_agent: String,
    version: Mutex<String>,
    fixed_version: bool,
    headers: Vec<(String, String)>,
    idle: Mutex<Option<SendRequest<Body>>>,
}

/// An answer whose head has come.
pub struct Reply {
    /// Head and body.
    pub response: Response<Incoming>,
    connection: Option<SendRequest<Body>>,
}

/// A connection that has become a raw stream.
#[derive(Debug)]
pub struct Upgraded {
    /// The stream.
    pub io: Transport,
    /// What came with the answer's head already.
    pub buffered: Bytes,
    /// Whether output is in frames ([`crate::Demux`]); `None` when the engine does not tell (before API 1.42).
    pub framed: Option<bool>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// A client that connects when it is first used. `version` fixes the API version (`DOCKER_API_VERSION`).
    pub fn new(endpoint: Endpoint, user_agent: &str, version: Option<&str>) -> Self {
        Self {
            endpoint,
            user_agent: user_agent.to_owned(),
            fixed_version: version.is_some(),
            version: Mutex::new(version.unwrap_or(API_VERSION).trim_start_matches('v').to_owned()),
            headers: Vec::new(),
            idle: Mutex::new(None),
        }
    }

    /// Headers to add to every request (`HttpHeaders` of docker's config.json).
    pub fn with_headers(mut self, headers: impl IntoIterator<Item = (String, String)>) -> Self {
        self.headers.extend(headers);
        self
    }

    /// The engine's address.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The API version in use.
    pub fn api_version(&self) -> String {
        lock(&self.version).clone()
    }

    /// Opens the connection the next request will use, so that connecting overlaps with other work.
    pub async fn connect(&self) -> Result<(), Error> {
        if lock(&self.idle).is_some() {
            return Ok(());
        }
        let connection = self.open().await?;
        *lock(&self.idle) = Some(connection);
        Ok(())
    }

    /// Sends a request and decodes the JSON answer.
    pub async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: &Query,
        payload: Payload,
    ) -> Result<T, Error> {
        let request = format!("{method} {path}");
        let bytes = self.request_bytes(method, path, query, payload).await?;
        serde_json::from_slice(&bytes).map_err(|source| Error::Decode { request, source })
    }

    /// Sends a request and returns the whole answer.
    pub async fn request_bytes(
        &self,
        method: Method,
        path: &str,
        query: &Query,
        payload: Payload,
    ) -> Result<Bytes, Error> {
        self.send(method, path, query, payload, &[]).await?.bytes(self).await
    }

    /// Sends a request and waits for the answer's head. A refusal is an error with the engine's message.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        query: &Query,
        payload: Payload,
        headers: &[(&str, &str)],
    ) -> Result<Reply, Error> {
        let body = match payload.body {
            PayloadBody::Stream(body) => {
                let reply = self.send_once(&method, path, query, payload.content_type, body, headers).await?;
                return reply.check(self).await;
            }
            PayloadBody::Bytes(bytes) => bytes,
        };
        let attempt = || full_body(body.clone());
        let reply = match self.send_once(&method, path, query, payload.content_type, attempt(), headers).await
        {
            // An idle connection may have been closed by the engine; nothing of the request was processed then.
            Err(Error::Http(error)) if error.is_canceled() => {
                self.send_once(&method, path, query, payload.content_type, attempt(), headers).await?
            }
            other => other?,
        };
        match reply.check(self).await {
            Err(Error::Api { status: 400, message }) if self.downgrade(&message) => {
                let reply =
                    self.send_once(&method, path, query, payload.content_type, attempt(), headers).await?;
                reply.check(self).await
            }
            other => other,
        }
    }

    /// Sends a request that turns the connection into a raw stream (attach, exec).
    pub async fn hijack(
        &self,
        path: &str,
        query: &Query,
        payload: Payload,
        headers: &[(&str, &str)],
    ) -> Result<Upgraded, Error> {
        let mut all = vec![("Connection", "Upgrade"), ("Upgrade", "tcp")];
        all.extend_from_slice(headers);
        let reply = self.send(Method::POST, path, query, payload, &all).await?;
        let status = reply.response.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::NotUpgraded { status: status.as_u16() });
        }
        let framed = reply.response.headers().get(hyper::header::CONTENT_TYPE).and_then(|value| match value
            .as_bytes()
        {
            b"application/vnd.docker.multiplexed-stream" => Some(true),
            _ => None,
        });
        let upgraded = hyper::upgrade::on(reply.response).await?;
        match upgraded.downcast::<TokioIo<Transport>>() {
            Ok(parts) => Ok(Upgraded { io: parts.io.into_inner(), buffered: parts.read_buf, framed }),
            Err(_) => Err(Error::NotUpgraded { status: status.as_u16() }),
        }
    }

    async fn send_once(
        &self,
        method: &Method,
        path: &str,
        query: &Query,
        content_type: Option<&'static str>,
        body: Body,
        headers: &[(&str, &str)],
    ) -> Result<Reply, Error> {
        let target = match path {
            "/_ping" => path.to_owned(),
            _ => format!("/v{}{path}{}", lock(&self.version), query.as_str()),
        };
        let mut request = Request::builder().method(method).uri(target).header("Host", "docker");
        request = request.header("User-Agent", &self.user_agent);
        if let Some(content_type) = content_type {
            request = request.header("Content-Type", content_type);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).map_err(|error| Error::Endpoint {
            endpoint: self.endpoint.to_string(),
            reason: error.to_string(),
        })?;
        let mut connection = match self.take_idle().await {
            Some(connection) => connection,
            None => self.open().await?,
        };
        let response = connection.send_request(request).await?;
        Ok(Reply { response, connection: Some(connection) })
    }

    /// The idle connection, unless the engine has closed it meanwhile.
    async fn take_idle(&self) -> Option<SendRequest<Body>> {
        let mut connection = lock(&self.idle).take()?;
        connection.ready().await.is_ok().then_some(connection)
    }

    async fn open(&self) -> Result<SendRequest<Body>, Error> {
        let transport = Transport::connect(&self.endpoint)
            .await
            .map_err(|source| Error::Connect { endpoint: self.endpoint.to_string(), source })?;
        let (sender, connection) = http1::handshake(TokioIo::new(transport)).await?;
        // The task ends with the connection; its error is reported to whoever waits for the answer.
        tokio::spawn(async move {
            let _ = connection.with_upgrades().await;
        });
        Ok(sender)
    }

    /// Takes the engine's newest version out of its refusal; false when this is another refusal.
    fn downgrade(&self, message: &str) -> bool {
        if self.fixed_version || !message.contains("is too new") {
            return false;
        }
        let Some(version) =
            message.rsplit("version is ").next().map(|rest| rest.trim_end_matches('.').trim())
        else {
            return false;
        };
        let valid = version.split('.').count() == 2 && version.split('.').all(|n| n.parse::<u32>().is_ok());
        let changed = valid && *lock(&self.version) != version;
        if changed {
            *lock(&self.version) = version.to_owned();
        }
        changed
    }
}

impl Reply {
    /// The whole body; the connection becomes idle again.
    pub async fn bytes(mut self, client: &Client) -> Result<Bytes, Error> {
        let bytes = self.response.into_body().collect().await?.to_bytes();
        if let Some(mut connection) = self.connection.take() {
            // The connection is ready again once its task has seen the end of the answer.
            if connection.ready().await.is_ok() {
                *lock(&client.idle) = Some(connection);
            }
        }
        Ok(bytes)
    }

    /// The next piece of the body, `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        while let Some(frame) = self.response.body_mut().frame().await {
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name).and_then(|value| value.to_str().ok())
    }

    async fn check(self, client: &Client) -> Result<Self, Error> {
        let status = self.response.status();
        if status.is_success()
            || status == StatusCode::SWITCHING_PROTOCOLS
            || status == StatusCode::NOT_MODIFIED
        {
            return Ok(self);
        }
        let body = self.bytes(client).await?;
        let message = match serde_json::from_slice::<ErrorResponse>(&body) {
            Ok(error) if !error.message.is_empty() => error.message,
            _ => match String::from_utf8_lossy(&body).trim() {
                "" => status.to_string(),
                text => text.to_owned(),
            },
        };
        Err(Error::Api { status: status.as_u16(), message })
    }
}

fn full_body(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}
