//! Layers and snapshots: applying, diffing and packing file system trees.
//!
//! ```text
//! <root>/<chain id hex>/layer.erofs   the layer's own files, whiteouts as overlayfs wants them: one EROFS image,
//! <root>/<chain id hex>/diff          or, from another driver, a directory
//! <root>/<chain id hex>/layer.json    diff id, parent, driver, sizes, sum
//! <root>/.staging/<random>/           being unpacked
//! <root>/.trash/<random>/             being deleted
//! ```
//!
//! A layer is unpacked into `.staging`, checked against its diff id and renamed into place; it is renamed to `.trash`
//! before it is deleted. A process killed at any instant therefore leaves whole layers, and what lies in the other two
//! is removed when the store is opened. As for blobs, a power cut is covered by one `syncfs` per image before the image is
//! recorded.
//!
//! Unpacking is one pass in two threads: one decompresses, the other computes the diff id and writes. No layer needs
//! those below it, so all of an image are unpacked at once.
//!
//! How layers are kept is a matter of drivers, behind one trait (`driver.rs`). New layers are kept by the store's; those
//! that are there stay as they are, and root file systems are made of any mixture.

mod apply;
mod changes;
mod decompress;
mod driver;
mod error;
mod pack;
mod pipe;
mod root;
mod snapshot;
mod store;
pub mod tar;
mod trees;
mod walk;

pub use apply::{Applied, ApplyLimits, ApplyOptions, Whiteouts, extract};
pub use changes::{Change, ChangeKind, changes};
pub use decompress::{Compression, Decompressor, Start};
pub use driver::{DriverName, UnknownDriver};
pub use error::LayerError;
pub use pack::{Exclude, PackOptions, pack, pack_path};
pub use snapshot::{Snapshot, tree_size};
pub use store::{LayerRecord, Layers, Options, Staged, Trash};
pub use trees::Trees;
