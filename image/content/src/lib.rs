//! Blobs by digest: verified, resumable, deduplicated.
//!
//! ```text
//! <root>/blobs/sha256/<hex>     whole, verified content; never changed, only added and removed
//! <root>/ingest/<name>          downloads under way, named by the digest they will have; locked (flock) by their writer
//! ```
//!
//! A blob appears under its name only by a rename after its digest was computed over every byte written, so
//! a process killed at any instant leaves either no blob or a whole one. A power cut is different: the rename can
//! reach the disk before the bytes. Callers therefore call [`Store::sync`] once per image, before they record it;
//! a blob left shorter by a cut before that is noticed by [`Store::contains`], which compares sizes, and is
//! fetched again.

mod error;
mod hash;
mod ingest;
mod store;

pub use error::ContentError;
pub use hash::{Hasher, sha256};
pub use ingest::Ingest;
pub use store::{Store, Verdict};
