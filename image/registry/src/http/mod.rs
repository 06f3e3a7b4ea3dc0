//! HTTP/1.1 for a registry: few kinds of requests, large bodies.
//!
//! Its own, because blobs of plain connections go from the page cache to the socket by sendfile(2), uploads go from
//! the socket into the buffer that is hashed and written, and every wait has a limit. What is ambiguous in a request
//! is refused: two lengths, a length beside chunks, other encodings, folded headers.

mod body;
mod connection;
mod head;
mod response;
mod stream;

pub use body::{Body, BodyError};
pub(crate) use connection::{serve, serve_metrics};
pub use head::{Head, HeadError, Method};
pub use response::{Payload, Response, Tail};
pub(crate) use stream::Stream;

use std::time::Duration;

/// Limits of connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a request's line and headers.
    pub head_size: usize,
    /// For a request's line and headers to arrive once they began.
    pub head_time: Duration,
    /// For the next request of a connection to begin.
    pub idle_time: Duration,
    /// For the next piece of a body, at least 64 KiB, to arrive or leave.
    pub body_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_size: 32 << 10,
            head_time: Duration::from_secs(15),
            idle_time: Duration::from_secs(90),
            body_time: Duration::from_secs(60),
        }
    }
}
