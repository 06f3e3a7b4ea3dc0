//! Reading and writing tar streams: ustar, pax (IEEE 1003.1) and the GNU forms found in images.
//!
//! The reader gives names, links and extended attributes as bytes exactly as they are in the stream and judges
//! nothing but the format; what may be written where is decided by whoever applies it.

mod number;
mod read;
mod write;

pub use read::{Limits as HeaderLimits, Reader, TarError};
pub use write::Writer;

/// Size of a header and unit of padding.
pub(crate) const BLOCK: usize = 512;

/// Kind of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Regular file; its bytes follow.
    File,
    /// Another name of an earlier entry, whose name is in `link`.
    HardLink,
    /// Symbolic link to `link`.
    Symlink,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// Directory.
    Directory,
    /// Named pipe.
    Fifo,
}

/// Seconds since 1970 and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// Seconds, negative before 1970.
    pub seconds: i64,
    /// 0 to 999,999,999, counted forward from `seconds`.
    pub nanoseconds: u32,
}

/// A hole-free part of a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where in the file.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
}

/// One entry of a tar stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Path, relative by custom.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with set-id and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size of the file in bytes (with holes), 0 for anything else.
    pub size: u64,
    /// Last modification.
    pub mtime: Time,
    /// Last access, if recorded.
    pub atime: Option<Time>,
    /// Target of a link.
    pub link: Vec<u8>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes, name and value.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Extents of a sparse file, ascending; `None` if all bytes are in the stream.
    pub sparse: Option<Vec<Extent>>,
}

impl Entry {
    /// An entry of that kind and name, everything else zero.
    pub fn new(kind: Kind, name: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.into(),
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Time::default(),
            atime: None,
            link: Vec::new(),
            device: (0, 0),
            xattrs: Vec::new(),
            sparse: None,
        }
    }

    /// Name for messages.
    pub fn display_name(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }
}

#[cfg(test)]
mod tests;
