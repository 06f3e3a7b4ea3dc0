//! Registry client: resolve, pull, push, authentication, mirrors (OCI distribution-spec, Docker Registry HTTP API v2).
//!
//! A [`Client`] is made once from a [`Config`]; a [`Repository`] is one repository seen with one user's credentials, and
//! carries the requests. Nothing is believed before its digest and size were checked, so a mirror or a plain-text connection
//! can refuse service but not change content.
//!
//! Credentials go to the registry's own host and to the token server it names, over TLS unless the registry itself is
//! plain; never to other hosts of a redirect or foreign layers' addresses, and to mirrors
//! only where the configuration says so.

mod auth;
mod blob;
mod challenge;
mod config;
mod error;
mod ranges;
mod referrers;
mod registries;
mod repository;
mod transport;
mod upload;

pub use blob::BlobStream;
pub use challenge::{Challenge, parse_challenges};
pub use config::{Config, Credentials, HostConfig, Secret};
pub use error::{Connection, DistributionError, RegistryError};
pub use referrers::Referrers;
pub use registries::{Mirror, Registries, RegistriesError, RegistryRule};
pub use repository::{Access, Client, Download, Fetched, Repository};
pub use upload::{BlobSource, Uploaded};

/// Largest manifest, index or configuration accepted, in bytes (distribution-spec: registries enforce 4 MiB for
/// manifests).
pub const MAX_DOCUMENT: u64 = 8 << 20;
