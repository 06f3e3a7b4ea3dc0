//! Filling a new volume with what the image has at the volume's place.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use hull_fsroot::Root;
use hull_layer::Layers;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use super::layered;
use crate::{Error, Result};

/// Copies the directory at `destination` inside the layers into `volume`, if the volume is empty and the image has a
/// directory there. The volume gets that directory's owner and mode too.
pub(super) fn fill(store: &Layers, places: &[PathBuf], destination: &str, volume: &Path) -> Result<()> {
    let trees = store.trees(places).map_err(|error| Error::system("open the image's layers", error))?;
    let layers = trees.paths();
    let failed =
        |error: Errno| Error::system(format!("copy image content into volume at {destination}"), error);
    let somewhere =
        layers.iter().any(|layer| layer.join(destination.trim_start_matches('/')).symlink_metadata().is_ok());
    if layers.is_empty()
        || (!somewhere && !through_link(layers, destination))
        || !is_empty(volume).map_err(failed)?
    {
        return Ok(());
    }
    let root = Root::new(layered::merged(store, &trees)?);
    let Some(_) =
        root.resolve_if_exists(destination).map_err(|error| Error::system("look into image", error))?
    else {
        return Ok(());
    };
    let Ok(source) = root.open_file(destination, OFlags::RDONLY | OFlags::DIRECTORY) else { return Ok(()) };
    let target =
        rustix::fs::open(volume, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(failed)?;
    copy_directory(&source, &target).map_err(failed)
}

/// Whether a part of the path is a symbolic link in some layer, so that only the whole tells where it leads.
fn through_link(layers: &[PathBuf], destination: &str) -> bool {
    let mut prefixes = Path::new(destination.trim_start_matches('/'))
        .ancestors()
        .filter(|path| !path.as_os_str().is_empty());
    prefixes.any(|prefix| layers.iter().any(|layer| layer.join(prefix).is_symlink()))
}

fn is_empty(path: &Path) -> rustix::io::Result<bool> {
    match std::fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    }
}

/// Content and metadata of a directory into another one.
fn copy_directory(source: &OwnedFd, target: &OwnedFd) -> rustix::io::Result<()> {
    let mut entries = Dir::read_from(source)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_bytes() == b"." || name.to_bytes() == b".." {
            continue;
        }
        copy_entry(source.as_fd(), target.as_fd(), Path::new(std::ffi::OsStr::from_bytes(name.to_bytes())))?;
    }
    let stat = rustix::fs::fstat(source)?;
    rustix::fs::fchown(
        target,
        Some(rustix::fs::Uid::from_raw(stat.st_uid)),
        Some(rustix::fs::Gid::from_raw(stat.st_gid)),
    )?;
    rustix::fs::fchmod(target, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    copy_attributes(source.as_fd(), target.as_fd())?;
    rustix::fs::futimens(target, &times(&stat))
}

fn copy_entry(source: BorrowedFd<'_>, target: BorrowedFd<'_>, name: &Path) -> rustix::io::Result<()> {
    let stat = rustix::fs::statat(source, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let open = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(target, name, Mode::from_raw_mode(0o700))?;
            let from = rustix::fs::openat(source, name, open | OFlags::DIRECTORY, Mode::empty())?;
            let to = rustix::fs::openat(target, name, open | OFlags::DIRECTORY, Mode::empty())?;
            return copy_directory(&from, &to);
        }
        FileType::RegularFile => {
            let from = rustix::fs::openat(source, name, open, Mode::empty())?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let to = rustix::fs::openat(target, name, flags, Mode::from_raw_mode(0o600))?;
            copy_content(&from, &to)?;
            copy_attributes(from.as_fd(), to.as_fd())?;
        }
        FileType::Symlink => {
            let link = rustix::fs::readlinkat(source, name, Vec::new())?;
            rustix::fs::symlinkat(link.as_c_str(), target, name)?;
        }
        FileType::Socket | FileType::Unknown => return Ok(()),
        kind => rustix::fs::mknodat(target, name, kind, Mode::from_raw_mode(0o600), stat.st_rdev)?,
    }
    let owner = (Some(rustix::fs::Uid::from_raw(stat.st_uid)), Some(rustix::fs::Gid::from_raw(stat.st_gid)));
    rustix::fs::chownat(target, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        rustix::fs::chmodat(target, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
    }
    rustix::fs::utimensat(target, name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)
}

fn copy_content(source: &OwnedFd, target: &OwnedFd) -> rustix::io::Result<()> {
    let mut from = std::fs::File::from(source.try_clone().map_err(|_| Errno::MFILE)?);
    let mut to = std::fs::File::from(target.try_clone().map_err(|_| Errno::MFILE)?);
    std::io::copy(&mut from, &mut to)
        .map(|_| ())
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Extended attributes, without those of overlayfs itself.
fn copy_attributes(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let mut names = vec![0u8; 4096];
    let Ok(length) = rustix::fs::flistxattr(source, &mut names) else { return Ok(()) };
    names.truncate(length);
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"trusted.overlay.") {
            continue;
        }
        let mut value = vec![0u8; 65536];
        let name = std::ffi::OsStr::from_bytes(name);
        let length = rustix::fs::fgetxattr(source, name, &mut value)?;
        match rustix::fs::fsetxattr(target, name, &value[..length], rustix::fs::XattrFlags::empty()) {
            Ok(()) | Err(Errno::NOTSUP) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds: i64, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: nanoseconds as i64 };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}
