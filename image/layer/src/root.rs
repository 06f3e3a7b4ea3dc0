use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// How the store marks a directory that hides everything below it.
pub(crate) const OPAQUE: &CStr = c"trusted.overlay.opaque";

/// Opens a path inside `root`; symbolic links in it, absolute ones too, are resolved as if `root` were `/`, so that
/// nothing outside can be reached (openat2(2), RESOLVE_IN_ROOT).
pub(crate) fn open_in(root: impl AsFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // A rename somewhere on the machine raced with a ".." of a link.
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Opens a directory inside `root`, following links, only to name things in it.
pub(crate) fn open_dir_in(root: impl AsFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    open_in(root, path, OFlags::PATH | OFlags::DIRECTORY)
}

/// Whether `name` in `dir` is a whiteout: a character device 0:0.
pub(crate) fn is_whiteout(dir: impl AsFd, name: &[u8]) -> bool {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::CharacterDevice && s.st_rdev == 0)
}

/// Whether an open directory hides what is below it.
pub(crate) fn is_opaque(dir: impl AsFd) -> bool {
    let mut value = [0u8; 4];
    matches!(rustix::fs::fgetxattr(dir, OPAQUE, &mut value[..]), Ok(1) if value[0] == b'y')
}

/// Makes a directory hide what is below it.
pub(crate) fn set_opaque(dir: impl AsFd) -> Result<(), Errno> {
    rustix::fs::fsetxattr(dir, OPAQUE, b"y", rustix::fs::XattrFlags::empty())
}

/// Removes `name` in `dir`, with everything in it if it is a directory; never follows a link.
pub(crate) fn remove_all(dir: impl AsFd, name: &[u8]) -> io::Result<()> {
    match rustix::fs::unlinkat(&dir, name, AtFlags::empty()) {
        Ok(()) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(e) => return Err(e.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let child = rustix::fs::openat(&dir, name, flags, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(&child)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            remove_all(&child, entry.file_name().to_bytes())?;
        }
    }
    Ok(rustix::fs::unlinkat(&dir, name, AtFlags::REMOVEDIR)?)
}

/// A path without `.`, empty and `..` components; `None` if it climbs above its start.
pub(crate) fn clean(path: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join(&b'/'))
}

/// Parent and last component of a cleaned path.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleaning() {
        for (path, want) in [
            ("./a//b/", Some("a/b")),
            ("/a/../b", Some("b")),
            (".", Some("")),
            ("a/..", Some("")),
            ("..", None),
            ("a/../../b", None),
            ("/../etc", None),
        ] {
            assert_eq!(clean(path.as_bytes()), want.map(|w| w.as_bytes().to_vec()), "{path}");
        }
        assert_eq!(split(b"a/b/c"), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(split(b"c"), (&b""[..], &b"c"[..]));
    }
}
