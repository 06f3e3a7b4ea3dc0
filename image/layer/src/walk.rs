use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::LayerError;
use crate::root::open_dir_in;

/// One thing found in a tree.
pub(crate) struct Node<'a> {
    /// Path from the root of the walk, without leading slash.
    pub(crate) path: &'a [u8],
    /// Its directory.
    pub(crate) dir: &'a OwnedFd,
    /// Its name there.
    pub(crate) name: &'a [u8],
    /// What it is, links not followed.
    pub(crate) stat: &'a Stat,
}

impl Node<'_> {
    pub(crate) fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    pub(crate) fn is_whiteout(&self) -> bool {
        self.file_type() == FileType::CharacterDevice && self.stat.st_rdev == 0
    }

    pub(crate) fn failed(&self, step: &'static str) -> impl FnOnce(Errno) -> LayerError {
        LayerError::io(step, String::from_utf8_lossy(self.path).into_owned())
    }

    /// Opens it for reading. A pipe put in its place meanwhile does not block.
    pub(crate) fn open(&self) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::openat(self.dir, self.name, flags, Mode::empty())
    }
}

struct Frame {
    dir: OwnedFd,
    names: std::vec::IntoIter<Vec<u8>>,
    path: usize,
}

/// Visits everything below `root` in order of names, a directory before what is in it, never through a link. What
/// vanishes meanwhile is passed over. `visit` returns whether to go into a directory.
pub(crate) fn walk(
    root: impl AsFd,
    mut visit: impl FnMut(&Node<'_>) -> Result<bool, LayerError>,
) -> Result<(), LayerError> {
    let root = open_dir_in(root, b"").map_err(LayerError::io("open", "."))?;
    let mut path = Vec::new();
    let mut stack = vec![frame(&root, b".", 0).map_err(LayerError::io("list", "."))?];
    while let Some(frame_now) = stack.last_mut() {
        path.truncate(frame_now.path);
        let Some(name) = frame_now.names.next() else {
            stack.pop();
            continue;
        };
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&name);
        let shown = || String::from_utf8_lossy(&path).into_owned();
        let stat = match rustix::fs::statat(&frame_now.dir, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(e) => return Err(LayerError::io("stat", shown())(e)),
        };
        let node = Node { path: &path, dir: &frame_now.dir, name: &name, stat: &stat };
        if visit(&node)? && node.file_type() == FileType::Directory {
            match frame(&frame_now.dir, &name, path.len()) {
                Ok(next) => stack.push(next),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(e) => return Err(LayerError::io("list", shown())(e)),
            }
        }
    }
    Ok(())
}

fn frame(dir: &OwnedFd, name: &[u8], path: usize) -> Result<Frame, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let names = names(&dir)?.into_iter();
    Ok(Frame { dir, names, path })
}

/// Names in a directory, sorted.
pub(crate) fn names(dir: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}
