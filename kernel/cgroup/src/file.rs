//! Reading and writing the files of a cgroup.

use crate::{Error, Result};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::Path;

pub(crate) fn failed<'a>(
    operation: impl Into<String> + 'a,
    path: &'a Path,
) -> impl FnOnce(Errno) -> Error + 'a {
    move |source| Error::File { operation: operation.into(), path: path.into(), source }
}

pub(crate) fn open_write(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Writes a value in one write, as cgroup files want it.
pub(crate) fn write(path: &Path, value: &str) -> Result<()> {
    try_write(path, value).map_err(failed(format!("write {value:?} to"), path))
}

pub(crate) fn try_write(path: &Path, value: &str) -> rustix::io::Result<()> {
    let file = open_write(path)?;
    rustix::io::write(&file, value.as_bytes()).map(drop)
}

pub(crate) fn read(path: &Path) -> Result<String> {
    try_read(path).map_err(failed("read", path))
}

pub(crate) fn try_read(path: &Path) -> rustix::io::Result<String> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut content = Vec::with_capacity(4096);
    loop {
        content.reserve(4096);
        match rustix::io::read(&file, rustix::buffer::spare_capacity(&mut content)) {
            // The kernel fills the buffer as far as whole lines fit: much room left is the end.
            Ok(length) if length < 2048 => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&content).into_owned())
}

/// A file with one number; `max` is `None`.
pub(crate) fn read_number(path: &Path) -> Result<Option<u64>> {
    let text = read(path)?;
    Ok(text.trim().parse().ok())
}

/// Lines `key value`.
pub(crate) fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key, value.trim().parse().ok()?))
    })
}
