//! The program's own image, protected from what runs in a container (CVE-2019-5736).
//!
//! A container's process can reach the runtime's file through `/proc/<pid>/exe` while the runtime is inside
//! the container's pid namespace. So the runtime never executes from a writable file there: either from a sealed
//! memory copy (made once by an engine and shared by all its monitors) or from a read-only overlay of itself.

use crate::Result;
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

const OVERLAYFS_SUPER_MAGIC: u64 = 0x794c_7630;
/// `statfs(2)`: nothing can be written through this mount.
const ST_RDONLY: libc::__fsword_t = 1;

/// A copy of the file in memory that nobody can change any more (`memfd_create(2)` with every seal), ready to be
/// executed. Close-on-exec.
pub fn sealed_copy(file: impl AsFd) -> Result<OwnedFd> {
    let copy = executable_memfd()?;
    let size = rustix::fs::fstat(&file)?.st_size as u64;
    let mut offset = 0;
    while offset < size {
        let left = (size - offset) as usize;
        if rustix::fs::sendfile(&copy, &file, Some(&mut offset), left)? == 0 {
            break;
        }
    }
    rustix::fs::fcntl_add_seals(
        &copy,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(copy)
}

/// `MFD_EXEC` is there since Linux 6.3; before, every memfd can be executed.
fn executable_memfd() -> Result<OwnedFd> {
    const MFD_EXEC: MemfdFlags = MemfdFlags::from_bits_retain(0x10);
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match rustix::fs::memfd_create(c"hull-runtime", flags | MFD_EXEC) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(c"hull-runtime", flags),
        made => made,
    }
}

/// Whether this process executes from a sealed memory copy or from a read-only overlay.
pub fn is_protected_image() -> Result<bool> {
    let exe = rustix::fs::open(c"/proc/self/exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let needed = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW;
    match rustix::fs::fcntl_get_seals(&exe) {
        Ok(seals) => return Ok(seals.contains(needed)),
        Err(Errno::INVAL) => {}
        Err(error) => return Err(error),
    }
    // SAFETY: all-zero is a valid statfs64, each field being an integer.
    let mut fs: libc::statfs64 = unsafe { core::mem::zeroed() };
    // SAFETY: the kernel fills in a structure of the size it expects, for an open descriptor.
    crate::check(unsafe { libc::fstatfs64(exe.as_raw_fd(), &raw mut fs) }.into())?;
    Ok(fs.f_type as u64 == OVERLAYFS_SUPER_MAGIC && fs.f_flags & ST_RDONLY != 0)
}

/// This process's own file, opened through a private read-only overlay that has no upper layer: the file cannot be
/// written through it by anyone, whatever mounts they may change, and its pages are shared with the original.
///
/// `ENOSYS` before Linux 6.8, where an overlay is not told its layers one by one; [`sealed_copy`] serves there.
pub fn read_only_self() -> Result<OwnedFd> {
    if crate::kernel::version() < (6, 8) {
        return Err(Errno::NOSYS);
    }
    let exe = rustix::fs::readlink(c"/proc/self/exe", Vec::new())?;
    let exe = Path::new(std::ffi::OsStr::new(exe.to_str().map_err(|_| Errno::INVAL)?));
    let (Some(directory), Some(name)) = (exe.parent(), exe.file_name()) else { return Err(Errno::INVAL) };
    let own = rustix::fs::stat(c"/proc/self/exe")?;
    let fs = rustix::mount::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // Two layers are needed when there is no upper one; the second is below the first and never looked at. procfs is
    // refused as a layer.
    rustix::mount::fsconfig_set_string(&fs, c"lowerdir+", directory)?;
    rustix::mount::fsconfig_set_string(&fs, c"lowerdir+", c"/dev")?;
    rustix::mount::fsconfig_create(&fs)?;
    let mount = rustix::mount::fsmount(
        &fs,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV,
    )?;
    let file =
        rustix::fs::openat(&mount, name, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?;
    let seen = rustix::fs::fstat(&file)?;
    // The path may have been replaced since this process began: then it is another program.
    if (seen.st_ino, seen.st_size) != (own.st_ino, own.st_size) {
        return Err(Errno::STALE);
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};

    #[test]
    fn a_sealed_copy_has_the_content_and_cannot_be_written() {
        let mut source = tempfile::tempfile().expect("file");
        source.write_all(&vec![7u8; 100_000]).expect("write");
        source.rewind().expect("rewind");
        let copy = sealed_copy(&source).expect("copy");
        let mut copy = std::fs::File::from(copy);
        assert!(copy.write_all(b"x").is_err());
        assert!(copy.set_len(0).is_err());
        copy.rewind().expect("rewind");
        let mut content = Vec::new();
        copy.read_to_end(&mut content).expect("read");
        assert_eq!(content, vec![7u8; 100_000]);
    }

    #[test]
    fn the_overlay_of_this_program_is_this_program_and_cannot_be_written() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let file = read_only_self().expect("overlay");
        let own = std::fs::read("/proc/self/exe").expect("read");
        let mut seen = Vec::new();
        std::fs::File::from(file.try_clone().expect("dup")).read_to_end(&mut seen).expect("read");
        assert!(own == seen);
        let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        let error = std::fs::OpenOptions::new().write(true).open(again).expect_err("must not be writable");
        assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    }

    #[test]
    fn the_test_program_is_not_protected() {
        assert!(!is_protected_image().expect("asked"));
    }
}
