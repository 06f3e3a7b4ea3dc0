//! The Docker Engine REST API turned into engine actions.
//!
//! The way of a request: [`server`] accepts connections and speaks HTTP/1.1; [`version`] splits the API version off
//! the path; [`router`] names the operation; a handler in [`routes`] reads query and body into one typed engine
//! action and turns its outcome into a response ([`respond`], [`stream`]). Attach and exec leave HTTP altogether:
//! [`hijack`] takes the connection out of hyper and gives its descriptor to the engine, which passes it on to the
//! container's monitor. The crate keeps no state between requests.

mod error;
mod hijack;
mod query;
mod request;
mod respond;
mod router;
mod routes;
mod server;
mod stream;
mod version;

pub use server::{Listener, serve};
pub use version::{MAX_API_VERSION, MIN_API_VERSION};
