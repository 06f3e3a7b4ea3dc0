//! Unix socket addresses of paths of any length.
//!
//! An address holds 108 bytes; a container's directory may have a longer name. The directory is opened, and the
//! socket is named through `/proc/self/fd`.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::net::SocketAddrUnix;

/// The address of `path`; valid while the descriptor is open.
pub(crate) fn address(path: &Path) -> io::Result<(SocketAddrUnix, OwnedFd)> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let (parent, name) = (path.parent().ok_or_else(invalid)?, path.file_name().ok_or_else(invalid)?);
    let directory =
        rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let through = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    Ok((SocketAddrUnix::new(through)?, directory))
}
