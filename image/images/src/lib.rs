//! Images as wholes: pull, push, load, save, import, over content, layers and registries.
//!
//! An [`Image`] is a manifest whose configuration and layer blobs are in the content store and whose layers are
//! unpacked. Which images exist, what they are called and when they go is not decided here but by whoever keeps that
//! record. Everything that makes an image returns it with a [`Lease`], to be kept until the record is written.
//!
//! The order of writing is always: blobs and layers, one flush of the file system, then (by the caller) the record.

mod archive;
mod artifact;
mod build;
mod check;
mod collect;
mod contents;
mod error;
mod family;
mod image;
mod lease;
mod load;
mod pull;
mod push;
mod save;
mod store;

pub use archive::{ArchiveError, LoadEvent};
pub use artifact::Artifact;
pub use build::NewLayer;
pub use check::{Fault, Finding, Part, Report};
pub use collect::{Freed, IsNeeded};
pub use contents::{Effect, LayerContents, LayerFile};
pub use error::ImageError;
pub use family::{Family, WithFamily};
pub use image::{Image, ImageLayer};
pub use lease::Lease;
pub use load::Loaded;
pub use pull::{LayerStatus, PullEvent, PullProgress, PullRequest};
pub use push::{Mounts, PushEvent, PushProgress, PushStatus, PushTarget};
pub use save::SaveItem;
pub use store::{ImageStore, Leased};
