//! `tmpcopyup`: the content of a directory copied into the tmpfs that will cover it.

use crate::Error;
use crate::error::StepExt;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir};
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Copies files, directories, links and device nodes with owner and mode; never through a symbolic link.
pub(crate) fn copy(from: &OwnedFd, to: &OwnedFd) -> Result<(), Error> {
    let step = || "copy the directory below".to_owned();
    // The source may be an O_PATH descriptor.
    let from = rustix::fs::openat(from, c".", DIRECTORY, Mode::empty()).step(step)?;
    let mut buffer = [MaybeUninit::uninit(); 8192];
    let mut entries = RawDir::new(&from, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry.step(step)?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            copy_entry(&from, to, name)?;
        }
    }
    Ok(())
}

fn copy_entry(from: &OwnedFd, to: &OwnedFd, name: &CStr) -> Result<(), Error> {
    let step = || format!("copy {}", name.to_string_lossy());
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW).step(step)?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    let kind = FileType::from_raw_mode(stat.st_mode);
    match kind {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, mode).step(step)?;
            let inner_from = rustix::fs::openat(from, name, DIRECTORY, Mode::empty()).step(step)?;
            let inner_to = rustix::fs::openat(to, name, DIRECTORY, Mode::empty()).step(step)?;
            copy(&inner_from, &inner_to)?;
        }
        FileType::RegularFile => copy_file(from, to, name, mode)?,
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new()).step(step)?;
            rustix::fs::symlinkat(target.as_c_str(), to, name).step(step)?;
        }
        FileType::Socket | FileType::Unknown => return Ok(()),
        _ => rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev).step(step)?,
    }
    let owner = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(to, name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW).step(step)?;
    if kind != FileType::Symlink {
        // chown clears the set-user-id bits.
        rustix::fs::chmodat(to, name, mode, AtFlags::empty()).step(step)?;
    }
    Ok(())
}

fn copy_file(from: &OwnedFd, to: &OwnedFd, name: &CStr, mode: Mode) -> Result<(), Error> {
    let step = || format!("copy {}", name.to_string_lossy());
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let source = rustix::fs::openat(from, name, flags | OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())
        .step(step)?;
    let target = rustix::fs::openat(to, name, flags | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, mode)
        .step(step)?;
    loop {
        if rustix::fs::sendfile(&target, &source, None, 1 << 20).step(step)? == 0 {
            return Ok(());
        }
    }
}
