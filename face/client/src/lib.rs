//! Typed client of the Docker Engine API over unix sockets and TCP.
//!
//! [`Client`] sends requests and keeps one idle connection for the next; [`Client::hijack`] turns a connection into
//! a raw stream for attach and exec. The API's newest version is used right away: only when the engine answers that
//! it is older, the request is repeated with what the engine speaks, so a current engine costs no extra round trip.

mod api;
mod client;
mod endpoint;
mod error;
mod query;
mod stream;
mod transport;

pub use client::{Body, Client, Payload, Reply, Upgraded, empty, full, json, stream_body};
pub use endpoint::{Endpoint, TlsFiles};
pub use error::Error;
pub use hyper::Method;
pub use query::{Query, path_part};
pub use stream::{Demux, JsonLines};
pub use transport::Transport;
