//! Layers and snapshots: applying, diffing and packing file system trees.
//!
//! ```text
//! <root>/<chain id hex>/diff          the layer's own files, whiteouts as overlayfs wants them
//! <root>/<chain id hex>/layer.json    diff id, parent, sizes
//! <root>/.staging/<random>/           being unpacked
//! <root>/.trash/<random>/             being deleted
//! ```
//!
//! A layer is unpacked into `.staging`, checked against its diff id and renamed into place; it is renamed to `.trash`
//! before it is deleted. A process killed at any instant therefore leaves whole layers, and what lies in the other two
//! is removed when the store is opened. As for blobs, a power cut is covered by one `syncfs` per image before the image is
//! recorded.
//!
//! Unpacking is one pass in two threads: one decompresses and computes the diff id, the other writes files.

mod apply;
mod changes;
mod decompress;
mod error;
mod pack;
mod pipe;
mod root;
mod snapshot;
mod store;
pub mod tar;
mod walk;

pub use apply::{Applied, ApplyLimits, ApplyOptions, Whiteouts, extract};
pub use changes::{Change, ChangeKind, changes};
pub use decompress::{Compression, Decompressor, Start};
pub use error::LayerError;
pub use pack::{Exclude, PackOptions, pack, pack_path};
pub use snapshot::{Snapshot, tree_size};
pub use store::{LayerRecord, Layers, Staged, Trash};
