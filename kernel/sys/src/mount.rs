//! `mount_setattr(2)`.

use crate::{Result, check};
use rustix::mount::MountAttrFlags;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Propagation of a mount, for [`mount_setattr`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// `MS_SHARED`
    Shared,
    /// `MS_SLAVE`
    Slave,
    /// `MS_PRIVATE`
    Private,
    /// `MS_UNBINDABLE`
    Unbindable,
}

/// What `mount_setattr(2)` changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct MountAttr<'a> {
    /// Attributes to set. An access time mode here needs the whole access time mask in `clear`.
    pub set: Option<MountAttrFlags>,
    /// Attributes to clear.
    pub clear: Option<MountAttrFlags>,
    /// New propagation.
    pub propagation: Option<Propagation>,
    /// User namespace whose id mapping the mount takes (`MOUNT_ATTR_IDMAP`).
    pub idmap: Option<BorrowedFd<'a>>,
}

/// `mount_setattr(2)` on the mount that `mount` is a descriptor of (`AT_EMPTY_PATH`), with all mounts below it if
/// `recursive`.
pub fn mount_setattr(mount: BorrowedFd<'_>, recursive: bool, attr: &MountAttr<'_>) -> Result<()> {
    const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
    let mut raw = libc::mount_attr {
        attr_set: attr.set.map_or(0, |flags| u64::from(flags.bits())),
        attr_clr: attr.clear.map_or(0, |flags| u64::from(flags.bits())),
        propagation: match attr.propagation {
            None => 0,
            Some(Propagation::Shared) => libc::MS_SHARED,
            Some(Propagation::Slave) => libc::MS_SLAVE,
            Some(Propagation::Private) => libc::MS_PRIVATE,
            Some(Propagation::Unbindable) => libc::MS_UNBINDABLE,
        },
        userns_fd: 0,
    };
    if let Some(namespace) = attr.idmap {
        raw.attr_set |= MOUNT_ATTR_IDMAP;
        raw.userns_fd = namespace.as_raw_fd() as u64;
    }
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: an empty NUL-terminated path and a complete mount_attr of the size given.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const raw,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}
