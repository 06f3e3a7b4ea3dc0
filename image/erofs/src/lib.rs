//! Writing EROFS images in one pass: a tree arrives entry by entry, in any order, and leaves as one file that Linux
//! mounts read-only.
//!
//! ```text
//! block 0      superblock (byte 1024), inode of the root (byte 1152)
//! block 1 …    in the order things arrive: blocks of files; runs of inodes, each with the end of its file
//! at the end   inodes and names of directories, which are known last
//! ```
//!
//! Format: Linux, `fs/erofs/erofs_fs.h` and Documentation/filesystems/erofs.rst. Nothing is compressed, and nothing is
//! kept in memory but names and the inodes of directories. Inodes count from the start of the image (`meta_blkaddr` 0),
//! so they may lie anywhere in it and are written as soon as their file has been.
//!
//! An image carries a sum over its blocks ([`Sum`]) that is computed while it is written, whatever the order of writing:
//! [`Sum::of`] computes it again to find damage.

mod builder;
mod directories;
mod error;
mod format;
mod output;
mod sum;
mod tree;

pub use builder::{Builder, Data, Finished, Meta, Special};
pub use error::Error;
pub use sum::Sum;
pub use tree::Id;

#[cfg(test)]
mod tests;
