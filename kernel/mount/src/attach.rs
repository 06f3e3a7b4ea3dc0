//! Making detached mounts and attaching them.

use crate::{Error, MountOptions, Result};
use hull_sys::mount::{MountAttr, Propagation, mount_setattr};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// `AT_RECURSIVE` of `open_tree(2)`.
const RECURSIVE: OpenTreeFlags = OpenTreeFlags::from_bits_retain(0x8000);

pub(crate) fn set_option(fs: BorrowedFd<'_>, option: &str) -> rustix::io::Result<()> {
    match option.split_once('=') {
        Some((key, value)) => fsconfig_set_string(fs, key, value),
        None => fsconfig_set_flag(fs, option),
    }
}

/// A detached mount of a new instance of a file system: `source` and the file system's own options from `options.data`,
/// attributes applied; propagation is left to [`attach`]'s caller.
pub fn new_filesystem(kind: &str, source: Option<&str>, options: &MountOptions) -> Result<OwnedFd> {
    new_filesystem_and_context(kind, source, options).map(|(mount, _)| mount)
}

/// [`new_filesystem`], with the context it was made with: of no more use, for who closes many descriptors together.
pub fn new_filesystem_and_context(
    kind: &str,
    source: Option<&str>,
    options: &MountOptions,
) -> Result<(OwnedFd, OwnedFd)> {
    let fs =
        fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(Error::step(format!("open file system {kind}")))?;
    if let Some(source) = source {
        fsconfig_set_string(&fs, c"source", source)
            .map_err(logged(&fs, format!("set source {source} of {kind}")))?;
    }
    for flag in &options.superblock_flags {
        fsconfig_set_flag(&fs, *flag).map_err(logged(&fs, format!("set {flag} of {kind}")))?;
    }
    for option in &options.data {
        set_option(fs.as_fd(), option).map_err(logged(&fs, format!("set option {option} of {kind}")))?;
    }
    fsconfig_create(&fs).map_err(logged(&fs, format!("create file system {kind}")))?;
    let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, options.set)
        .map_err(logged(&fs, format!("mount {kind}")))?;
    Ok((mount, fs))
}

/// What the file system wrote to the log of its context (`fsopen(2)`: reading returns messages `e text`, `w text`).
pub(crate) fn logged<'f>(fs: &'f OwnedFd, step: impl Into<String> + 'f) -> impl FnOnce(Errno) -> Error + 'f {
    move |source| {
        let mut lines = Vec::new();
        let mut buffer = [0u8; 1024];
        while let Ok(length @ 1..) = rustix::io::read(fs, &mut buffer) {
            let line = String::from_utf8_lossy(&buffer[..length]);
            lines.push(line.get(2..).unwrap_or_default().trim_end().to_owned());
        }
        Error::Step { step: step.into(), log: lines.join("; "), source }
    }
}

/// A detached copy of the mount at a trusted path (`open_tree(2)`, `OPEN_TREE_CLONE`): a bind mount to be.
pub fn bind(source: &Path, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= RECURSIVE;
    }
    open_tree(CWD, source, flags).map_err(Error::step(format!("bind {}", source.display())))
}

/// A detached copy of the mount at an open file or directory.
pub fn clone_of(file: impl AsFd, recursive: bool) -> Result<OwnedFd> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= RECURSIVE;
    }
    open_tree(file, c"", flags).map_err(Error::step("bind an open file"))
}

/// Attaches a detached mount on an open file or directory. Nothing is looked up: what was checked is what is covered.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> Result<()> {
    move_mount(
        mount,
        c"",
        target,
        c"",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )
    .map_err(Error::step("attach a mount"))
}

/// Attaches a detached mount on `name` directly below an open directory that nobody else can change. Symbolic links are not
/// followed.
pub fn attach_at(mount: impl AsFd, directory: impl AsFd, name: &str) -> Result<()> {
    move_mount(mount, c"", directory, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(Error::step(format!("attach a mount on {name}")))
}

/// Attaches a detached mount over `/` of this mount namespace, without hiding it from lookups that start at the root, which
/// stays the old one until `pivot_root`.
pub fn attach_beneath_root(mount: impl AsFd) -> Result<()> {
    move_mount(mount, c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(Error::step("attach the root file system"))
}

/// Sets and clears attributes of the mount behind a descriptor (`mount_setattr(2)`).
pub fn set_attributes(
    mount: impl AsFd,
    recursive: bool,
    set: MountAttrFlags,
    clear: MountAttrFlags,
) -> Result<()> {
    let attr = MountAttr { set: Some(set), clear: Some(clear), ..MountAttr::default() };
    mount_setattr(mount.as_fd(), recursive, &attr).map_err(Error::step("set mount attributes"))
}

/// [`set_attributes`] of a mount just copied, which also leaves its original's propagation.
pub fn set_attributes_privately(
    mount: impl AsFd,
    recursive: bool,
    set: MountAttrFlags,
    clear: MountAttrFlags,
) -> Result<()> {
    let propagation = Some(Propagation::Private);
    let attr = MountAttr { set: Some(set), clear: Some(clear), propagation, ..MountAttr::default() };
    mount_setattr(mount.as_fd(), recursive, &attr).map_err(Error::step("set mount attributes"))
}

/// Changes the propagation of the mount behind a descriptor.
pub fn change_propagation(mount: impl AsFd, recursive: bool, propagation: Propagation) -> Result<()> {
    let attr = MountAttr { propagation: Some(propagation), ..MountAttr::default() };
    mount_setattr(mount.as_fd(), recursive, &attr).map_err(Error::step("change mount propagation"))
}

/// Makes the mount behind `root` the root of this mount namespace and detaches the old one
/// (`pivot_root(".", ".")`, then the old root, now on top, is unmounted).
pub fn detach_root(root: impl AsFd) -> Result<()> {
    rustix::process::fchdir(root).map_err(Error::step("enter the new root"))?;
    rustix::process::pivot_root(c".", c".").map_err(Error::step("pivot_root"))?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH).map_err(Error::step("unmount the old root"))?;
    rustix::process::chdir(c"/").map_err(Error::step("enter /"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags, openat};

    #[test]
    fn a_tmpfs_takes_its_options() {
        let options = crate::parse_options(&["ro", "nosuid", "mode=711", "size=64k"]).expect("options");
        let mount = new_filesystem("tmpfs", Some("tmpfs"), &options).expect("tmpfs");
        let stat = rustix::fs::fstat(&mount).expect("stat");
        assert_eq!(stat.st_mode & 0o7777, 0o711);
        let made = openat(&mount, "x", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o600));
        assert_eq!(made.err(), Some(Errno::ROFS));
        assert_eq!(rustix::fs::fstatvfs(&mount).expect("statvfs").f_blocks * 4096, 65536);
    }
}
