//! What lies on disk, little endian. Linux, `fs/erofs/erofs_fs.h`.

use rustix::io::Errno;

use crate::builder::Meta;
use crate::error::{Result, refused};

/// Bytes of a block.
pub(crate) const BLOCK: usize = 4096;
/// Where the superblock begins.
pub(crate) const SUPERBLOCK: usize = 1024;
/// Where the root's inode begins: a root nid has 16 bits only, so it comes first.
pub(crate) const ROOT: usize = SUPERBLOCK + 128;
/// An inode's number is its place in units of this.
pub(crate) const SLOT: usize = 32;
/// Bytes of an inode of the extended kind, the one with times.
pub(crate) const INODE: usize = 64;
/// No block: a hole, or a file that has none of its own.
pub(crate) const NO_BLOCK: u32 = u32::MAX;

const MAGIC: u32 = 0xE0F5_E1E2;
/// Times are those of modification, not of change.
const COMPAT_MTIME: u32 = 2;
/// Files may be made of chunks with holes between.
const INCOMPAT_CHUNKED: u32 = 4;

/// How a file's bytes are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// In blocks from this one on.
    Plain(u32),
    /// The same, but what does not fill a block follows the inode.
    Inline(u32),
    /// In chunks of `1 << bits` blocks; their addresses follow the inode.
    Chunks(u8),
    /// A device's number, or 0.
    None(u32),
}

/// Type bits of a mode, stat(2).
pub(crate) mod kind {
    pub(crate) const FIFO: u16 = 0o010000;
    pub(crate) const CHAR: u16 = 0o020000;
    pub(crate) const DIRECTORY: u16 = 0o040000;
    pub(crate) const BLOCK: u16 = 0o060000;
    pub(crate) const REGULAR: u16 = 0o100000;
    pub(crate) const SYMLINK: u16 = 0o120000;
}

/// Where the number of links is in an inode.
pub(crate) const LINKS_AT: usize = 44;

/// An inode with its extended attributes; what is inline comes behind.
pub(crate) fn inode(
    kind: u16,
    meta: &Meta,
    attributes: &[u8],
    size: u64,
    layout: Layout,
    links: u32,
    number: u32,
) -> Vec<u8> {
    let (code, place) = match layout {
        Layout::Plain(block) => (0, block),
        Layout::None(value) => (0, value),
        Layout::Inline(block) => (2, block),
        Layout::Chunks(bits) => (4, u32::from(bits)),
    };
    let mut bytes = Vec::with_capacity(INODE + attributes.len());
    bytes.extend_from_slice(&(1u16 | code << 1).to_le_bytes());
    bytes.extend_from_slice(&attribute_count(attributes).to_le_bytes());
    bytes.extend_from_slice(&(kind | (meta.mode & 0o7777)).to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(&size.to_le_bytes());
    bytes.extend_from_slice(&place.to_le_bytes());
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&meta.uid.to_le_bytes());
    bytes.extend_from_slice(&meta.gid.to_le_bytes());
    bytes.extend_from_slice(&meta.mtime.to_le_bytes());
    bytes.extend_from_slice(&meta.mtime_nanoseconds.to_le_bytes());
    bytes.extend_from_slice(&links.to_le_bytes());
    bytes.extend_from_slice(&[0; 16]);
    bytes.extend_from_slice(attributes);
    bytes
}

fn attribute_count(attributes: &[u8]) -> u16 {
    match attributes.len() {
        0 => 0,
        // Checked by `attributes`.
        n => ((n - 12) / 4 + 1) as u16,
    }
}

/// Extended attributes as they follow an inode; those of unknown name spaces are left out, as a file system would
/// refuse them.
pub(crate) fn attributes(list: &[(Vec<u8>, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for (name, value) in list {
        let Some((index, name)) = name_space(name) else { continue };
        let (Ok(name_length), Ok(value_length)) = (u8::try_from(name.len()), u16::try_from(value.len()))
        else {
            return Err(refused("set an extended attribute", Errno::RANGE));
        };
        if bytes.is_empty() {
            bytes.resize(12, 0);
        }
        bytes.extend_from_slice(&[name_length, index]);
        bytes.extend_from_slice(&value_length.to_le_bytes());
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    // The field counts words in 16 bits.
    match bytes.len() {
        n if n > 12 + 4 * 0xfffe => Err(refused("set extended attributes", Errno::NOSPC)),
        _ => Ok(bytes),
    }
}

fn name_space(name: &[u8]) -> Option<(u8, &[u8])> {
    match name {
        b"system.posix_acl_access" => return Some((2, b"")),
        b"system.posix_acl_default" => return Some((3, b"")),
        _ => {}
    }
    [(1, &b"user."[..]), (4, b"trusted."), (6, b"security.")]
        .into_iter()
        .find_map(|(index, prefix)| Some((index, name.strip_prefix(prefix).filter(|rest| !rest.is_empty())?)))
}

/// Type of an entry in a directory, by the mode's type bits.
pub(crate) fn entry_type(kind: u16) -> u8 {
    match kind {
        kind::REGULAR => 1,
        kind::DIRECTORY => 2,
        kind::CHAR => 3,
        kind::BLOCK => 4,
        kind::FIFO => 5,
        _ => 7,
    }
}

/// A device's number as the kernel's `new_encode_dev` has it.
pub(crate) fn device(major: u32, minor: u32) -> Result<u32> {
    match (major, minor) {
        (..=0xfff, ..=0xf_ffff) => Ok((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)),
        _ => Err(refused("make a device", Errno::INVAL)),
    }
}

/// What the superblock says.
pub(crate) struct Superblock {
    pub(crate) inodes: u64,
    pub(crate) blocks: u32,
    pub(crate) uuid: [u8; 16],
    pub(crate) chunked: bool,
}

impl Superblock {
    pub(crate) fn bytes(&self) -> [u8; 128] {
        let mut bytes = [0; 128];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &MAGIC.to_le_bytes());
        put(8, &COMPAT_MTIME.to_le_bytes());
        put(12, &[12, 0]);
        put(14, &((ROOT / SLOT) as u16).to_le_bytes());
        put(16, &self.inodes.to_le_bytes());
        put(36, &self.blocks.to_le_bytes());
        put(48, &self.uuid);
        put(80, &if self.chunked { INCOMPAT_CHUNKED } else { 0 }.to_le_bytes());
        bytes
    }
}
