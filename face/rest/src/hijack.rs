//! Attach and exec: the connection leaves HTTP and becomes a raw stream.
//!
//! A client that asks for it (`Upgrade: tcp`) gets `101 UPGRADED`; its socket is taken out of hyper together with
//! the bytes hyper has read too many, and belongs to the engine from then on. A client that does not ask gets a
//! `200` whose body is the stream; so does any connection that has no descriptor of its own (TLS), relayed through
//! a socket pair.

use std::io;
use std::os::fd::OwnedFd;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use hull_docker_api::{MEDIA_TYPE_MULTIPLEXED, MEDIA_TYPE_RAW};
use hull_engine::containers::ClientStream;
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::header::{self, HeaderValue};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{TcpStream, UnixStream};

use crate::error::HttpError;
use crate::respond::{self, Answer, Body};
use crate::server::Peer;
use crate::stream as bodies;
use crate::version::ApiVersion;

/// Bytes read at once from a relayed stream.
const CHUNK: usize = 32 * 1024;

/// What a client's connection becomes.
pub(crate) struct Hijack {
    pub(crate) peer: Peer,
    pub(crate) upgrade: Option<OnUpgrade>,
    /// What the client may still send as input when it did not ask for an upgrade.
    pub(crate) input: Option<Incoming>,
    pub(crate) version: ApiVersion,
    /// Whether the stream comes from a terminal and has no frames.
    pub(crate) tty: bool,
}

impl Hijack {
    /// Answers the client and runs `session` with its connection once the answer is out.
    pub(crate) fn answer<F, S>(self, session: F) -> Answer
    where
        F: FnOnce(ClientStream) -> S + Send + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        match self.upgrade {
            Some(upgrade) => {
                tokio::spawn(async move {
                    match take(upgrade).await {
                        Ok(client) => session(client).await,
                        Err(error) => tracing::debug!(%error, "the client left before its stream began"),
                    }
                });
                Ok(switching(media_type(self.version, self.tty)))
            }
            None => {
                let (ours, theirs) = pair()?;
                tokio::spawn(session(theirs));
                Ok(relayed(&self.peer, self.input, ours))
            }
        }
    }
}

/// The stream's media type: framed streams have a name of their own since API 1.42.
pub(crate) fn media_type(version: ApiVersion, tty: bool) -> &'static str {
    if !tty && version >= ApiVersion::minor(42) { MEDIA_TYPE_MULTIPLEXED } else { MEDIA_TYPE_RAW }
}

fn switching(media_type: &'static str) -> Response<Body> {
    let mut response = Response::new(respond::nothing());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.extensions_mut().insert(ReasonPhrase::from_static(b"UPGRADED"));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
    response
}

/// Takes the socket out of hyper.
async fn take(upgrade: OnUpgrade) -> io::Result<ClientStream> {
    let upgraded = upgrade.await.map_err(io::Error::other)?;
    let upgraded = match upgraded.downcast::<TokioIo<UnixStream>>() {
        Ok(parts) => {
            let socket = OwnedFd::from(parts.io.into_inner().into_std()?);
            return Ok(ClientStream { early: parts.read_buf, socket });
        }
        Err(upgraded) => upgraded,
    };
    match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => {
            let socket = OwnedFd::from(parts.io.into_inner().into_std()?);
            Ok(ClientStream { early: parts.read_buf, socket })
        }
        Err(upgraded) => relay_upgraded(upgraded),
    }
}

/// A connection that is more than its descriptor: its bytes go through a socket pair.
fn relay_upgraded(upgraded: Upgraded) -> io::Result<ClientStream> {
    let (mut ours, theirs) = UnixStream::pair()?;
    tokio::spawn(async move {
        let mut client = TokioIo::new(upgraded);
        if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut ours).await {
            tracing::debug!(%error, "relayed stream ended");
        }
    });
    Ok(ClientStream { early: Bytes::new(), socket: OwnedFd::from(theirs.into_std()?) })
}

fn pair() -> Result<(UnixStream, ClientStream), HttpError> {
    let pair = UnixStream::pair().and_then(|(ours, theirs)| Ok((ours, theirs.into_std()?)));
    let (ours, theirs) = pair.map_err(|error| {
        HttpError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot make a socket pair: {error}"))
    })?;
    Ok((ours, ClientStream { early: Bytes::new(), socket: OwnedFd::from(theirs) }))
}

/// The stream as the body of a 200; what the client still sends of its request is the other direction.
fn relayed(peer: &Peer, request: Option<Incoming>, ours: UnixStream) -> Response<Body> {
    let (output, mut input) = ours.into_split();
    tokio::spawn(async move {
        let Some(request) = request else { return };
        let mut chunks = request.into_data_stream();
        while let Some(Ok(chunk)) = chunks.next().await {
            if input.write_all(&chunk).await.is_err() {
                return;
            }
        }
        // Dropping the half shuts the direction down: end of input for the process.
    });
    respond::with_type(StatusCode::OK, MEDIA_TYPE_RAW, bodies::bytes(peer, read_to_end(output)))
}

fn read_to_end(output: OwnedReadHalf) -> impl futures_util::Stream<Item = io::Result<Bytes>> + Send {
    stream::unfold(output, |mut output| async move {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        match output.read_buf(&mut chunk).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(chunk.freeze()), output)),
            Err(error) => Some((Err(error), output)),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use hyper::Request;
    use hyper::service::service_fn;

    use super::*;

    #[test]
    fn media_types_follow_version_and_terminal() {
        assert_eq!(media_type(ApiVersion::MAX, false), "application/vnd.docker.multiplexed-stream");
        assert_eq!(media_type(ApiVersion::MAX, true), "application/vnd.docker.raw-stream");
        assert_eq!(media_type(ApiVersion::minor(41), false), "application/vnd.docker.raw-stream");
    }

    /// Serves one connection whose every request becomes a stream that sends back what it gets, in capitals.
    async fn shouting(stream: UnixStream, tty: bool) {
        let (_stop, shutdown) = tokio::sync::watch::channel(false);
        let peer = Peer::of(stream.as_fd(), crate::server::Kind::Unix, shutdown).unwrap();
        let service = service_fn(move |mut request: Request<Incoming>| {
            let wants = request.headers().contains_key(header::UPGRADE);
            let upgrade = wants.then(|| hyper::upgrade::on(&mut request));
            let input = Some(request.into_body());
            let hijack = Hijack { peer: peer.clone(), upgrade, input, version: ApiVersion::MAX, tty };
            std::future::ready(hijack.answer(shout).map_err(|_| io::Error::other("no answer")))
        });
        let _ = hyper::server::conn::http1::Builder::new()
            .half_close(true)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
            .await;
    }

    async fn shout(client: ClientStream) {
        let socket = std::os::unix::net::UnixStream::from(client.socket);
        let mut socket = UnixStream::from_std(socket).unwrap();
        socket.write_all(&client.early.to_ascii_uppercase()).await.unwrap();
        let mut chunk = [0; 64];
        while let Ok(read @ 1..) = socket.read(&mut chunk).await {
            socket.write_all(&chunk[..read].to_ascii_uppercase()).await.unwrap();
        }
    }

    async fn conversation(request: &str, then: &str, tty: bool) -> String {
        let (mut client, server) = UnixStream::pair().unwrap();
        tokio::spawn(shouting(server, tty));
        client.write_all(request.as_bytes()).await.unwrap();
        let mut start = [0; 12];
        client.read_exact(&mut start).await.unwrap();
        client.write_all(then.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut rest = String::new();
        client.read_to_string(&mut rest).await.unwrap();
        String::from_utf8_lossy(&start).into_owned() + &rest
    }

    #[tokio::test]
    async fn an_upgraded_connection_becomes_the_stream_with_what_was_read_too_early() {
        let request = "POST /x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly ";
        let answer = conversation(request, "and late", false).await;
        let (head, stream) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 101 UPGRADED\r\n"), "{head}");
        assert!(head.contains("content-type: application/vnd.docker.multiplexed-stream"), "{head}");
        assert!(head.contains("upgrade: tcp"), "{head}");
        assert_eq!(stream, "EARLY AND LATE");
    }

    #[tokio::test]
    async fn without_upgrade_the_stream_is_the_body() {
        let request =
            "POST /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer = conversation(request, "5\r\nhello\r\n0\r\n\r\n", true).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("content-type: application/vnd.docker.raw-stream"), "{head}");
        assert_eq!(body, "5\r\nHELLO\r\n0\r\n\r\n");
    }
}
