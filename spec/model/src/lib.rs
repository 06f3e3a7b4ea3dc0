//! Names and documents every part of Hull agrees on: digests, references, ids, OCI image documents.
//!
//! Nothing here does I/O. Text from outside is parsed once into these types; from then on a [`Digest`], a
//! [`Reference`] or an [`Id`] is always valid.

mod digest;
mod document;
mod id;
pub mod media_type;
mod platform;
mod reference;

pub use digest::{Algorithm, Digest, DigestError};
pub use document::{
    ContainerDefaults, Descriptor, DocumentError, Healthcheck, History, ImageConfig, Index, Manifest,
    ManifestOrIndex, RootFs, chain_ids,
};
pub use id::{Id, IdError, is_short_id};
pub use platform::{Platform, PlatformError};
pub use reference::{DEFAULT_DOMAIN, DEFAULT_TAG, Reference, ReferenceError};
