//! The registry: OCI distribution-spec 1.1 over a store of its own.
//!
//! ```text
//! server      listeners, TLS, the end            http       requests and answers, sendfile
//! service     what requests are answered by      api        paths to actions, one file per kind
//! auth        logins, tokens, rights             cache      upstreams
//! store       index, blobs, uploads, collection  manifest   what is read in manifests
//! ```
//!
//! Nothing here reads the environment or prints; the program that does is `hull-registry`.

mod access_log;
mod api;
pub mod auth;
mod cache;
pub mod config;
mod control;
mod error;
pub mod http;
pub mod manifest;
mod metrics;
pub mod name;
mod server;
mod service;
pub mod store;

pub use access_log::{AccessLog, Format};
pub use api::Route;
pub use cache::{Caches, Upstream};
pub use control::{Command, ask, run as run_command};
pub use error::{ApiError, ApiResult, Code};
pub use metrics::Metrics;
pub use server::{Server, ServerError};
pub use service::{Policy, Request, Service};
