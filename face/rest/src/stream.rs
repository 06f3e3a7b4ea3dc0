//! Response bodies that are produced over time. Dropping a body drops its source, which is how a client that
//! disappears cancels its pull, events, stats or logs.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::respond::{self, Body};
use crate::server::Peer;

/// A body of byte chunks, sent as they come.
pub(crate) fn bytes<S>(peer: &Peer, source: S) -> Body
where
    S: Stream<Item = io::Result<Bytes>> + Send + 'static,
{
    let source = UntilGone { source: Box::pin(source), gone: Box::pin(peer.gone()) };
    StreamBody::new(source.map(|chunk| chunk.map(Frame::data))).boxed_unsync()
}

/// A body of JSON documents, one per line, each flushed by itself.
pub(crate) fn json_lines<S, T>(peer: &Peer, source: S) -> Response<Body>
where
    S: Stream<Item = T> + Send + 'static,
    T: Serialize,
{
    let lines = source.map(|document| line(&document));
    respond::with_type(StatusCode::OK, "application/json", bytes(peer, lines))
}

/// One JSON document and a newline.
pub(crate) fn line<T: Serialize>(document: &T) -> io::Result<Bytes> {
    let mut line = serde_json::to_vec(document)?;
    line.push(b'\n');
    Ok(line.into())
}

/// Ends with an error as soon as the client is gone, even while the source has nothing to say.
struct UntilGone<S> {
    source: Pin<Box<S>>,
    gone: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl<S: Stream<Item = io::Result<Bytes>>> Stream for UntilGone<S> {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.gone.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())));
        }
        self.source.as_mut().poll_next(cx)
    }
}
