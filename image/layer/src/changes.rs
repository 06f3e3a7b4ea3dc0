use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use crate::LayerError;
use crate::root::{is_opaque, is_whiteout};
use crate::trees::Trees;
use crate::walk::{Node, names, walk};

/// What happened to a path; numbers are those of Docker's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// Was there before (`C`).
    Modified = 0,
    /// New (`A`).
    Added = 1,
    /// Gone (`D`).
    Deleted = 2,
}

/// A change of a container's file system.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Absolute path in the container.
    pub path: Vec<u8>,
    /// What happened.
    pub kind: ChangeKind,
}

/// Differences an upper directory makes to the layers below it, sorted by path (`docker diff`).
///
/// A directory that only passes through (copied up for the sake of something in it) counts as modified exactly when
/// something directly in it was added or deleted, or its own mode, owner or time changed.
pub fn changes(upper: impl AsFd, below: &Trees) -> Result<Vec<Change>, LayerError> {
    let lower = Lower::open(below.paths())?;
    let mut found = BTreeSet::new();
    walk(upper, |node| {
        node_change(node, &lower, &mut found)?;
        Ok(true)
    })?;
    with_parents(found)
}

/// A directory something was added to or deleted from is modified.
fn with_parents(mut found: BTreeSet<Change>) -> Result<Vec<Change>, LayerError> {
    let parents: Vec<Change> = found
        .iter()
        .filter(|change| change.kind != ChangeKind::Modified)
        .filter_map(|change| {
            let parent = &change.path[..change.path.iter().rposition(|b| *b == b'/').filter(|at| *at > 0)?];
            Some(Change { path: parent.to_vec(), kind: ChangeKind::Modified })
        })
        .collect();
    for parent in parents {
        if !found.contains(&Change { kind: ChangeKind::Added, ..parent.clone() }) {
            found.insert(parent);
        }
    }
    Ok(found.into_iter().collect())
}

fn node_change(node: &Node<'_>, lower: &Lower, found: &mut BTreeSet<Change>) -> Result<(), LayerError> {
    let absolute = |path: &[u8]| [b"/", path].concat();
    let mut insert = |path: &[u8], kind| {
        found.insert(Change { path: absolute(path), kind });
    };
    if node.is_whiteout() {
        if lower.find(node.path).is_some() {
            insert(node.path, ChangeKind::Deleted);
        }
        return Ok(());
    }
    match lower.find(node.path) {
        None => insert(node.path, ChangeKind::Added),
        Some(old) if same_directory(&old, node.stat) => {}
        Some(_) => insert(node.path, ChangeKind::Modified),
    }
    if node.file_type() == FileType::Directory {
        let dir = node.open().map_err(node.failed("open"))?;
        if is_opaque(&dir) {
            let here: BTreeSet<_> = names(&dir).map_err(node.failed("list"))?.into_iter().collect();
            for name in lower.list(node.path).difference(&here) {
                insert(&[node.path, b"/", name.as_slice()].concat(), ChangeKind::Deleted);
            }
        }
    }
    Ok(())
}

/// The same for a tree that is whole by itself, as a copy of the layers that was changed: told by metadata.
pub(crate) fn differences(tree: impl AsFd, lower: &Lower) -> Result<Vec<Change>, LayerError> {
    let mut found = BTreeSet::new();
    let deleted = |dir: &OwnedFd, path: &[u8], found: &mut BTreeSet<Change>| {
        let here: BTreeSet<_> = names(dir).map_err(LayerError::io("list", "."))?.into_iter().collect();
        for name in lower.list(path).difference(&here) {
            let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
            let path = [b"/", path, slash, name.as_slice()].concat();
            found.insert(Change { path, kind: ChangeKind::Deleted });
        }
        Ok::<(), LayerError>(())
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(&tree, c".", flags, Mode::empty()).map_err(LayerError::io("open", "."))?;
    deleted(&root, b"", &mut found)?;
    walk(&root, |node| {
        let kind = match lower.find(node.path) {
            None => Some(ChangeKind::Added),
            Some(old) if same_file(&old, node.stat) => None,
            Some(_) => Some(ChangeKind::Modified),
        };
        let is_directory = node.file_type() == FileType::Directory;
        if is_directory && kind != Some(ChangeKind::Added) {
            deleted(&node.open().map_err(node.failed("open"))?, node.path, &mut found)?;
        }
        if let Some(kind) = kind {
            found.insert(Change { path: [b"/", node.path].concat(), kind });
        }
        Ok(true)
    })?;
    with_parents(found)
}

fn same_file(old: &Stat, new: &Stat) -> bool {
    let is_directory = FileType::from_raw_mode(new.st_mode) == FileType::Directory;
    (old.st_mode, old.st_uid, old.st_gid, old.st_rdev) == (new.st_mode, new.st_uid, new.st_gid, new.st_rdev)
        && (is_directory || old.st_size == new.st_size)
        && (old.st_mtime, old.st_mtime_nsec) == (new.st_mtime, new.st_mtime_nsec)
}

fn same_directory(old: &Stat, new: &Stat) -> bool {
    FileType::from_raw_mode(new.st_mode) == FileType::Directory
        && (old.st_mode, old.st_uid, old.st_gid) == (new.st_mode, new.st_uid, new.st_gid)
        && (old.st_mtime, old.st_mtime_nsec) == (new.st_mtime, new.st_mtime_nsec)
}

/// The layers below, looked at without mounting them.
pub(crate) struct Lower {
    layers: Vec<OwnedFd>,
}

enum Found {
    Here(Stat),
    Below,
    Nowhere,
}

impl Lower {
    pub(crate) fn open(below: &[std::path::PathBuf]) -> Result<Self, LayerError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |path: &std::path::PathBuf| {
            rustix::fs::open(path, flags, Mode::empty()).map_err(LayerError::io("open", path))
        };
        Ok(Self { layers: below.iter().map(open).collect::<Result<_, _>>()? })
    }

    /// What the merged layers have at that path.
    fn find(&self, path: &[u8]) -> Option<Stat> {
        for layer in &self.layers {
            match find_in(layer, path) {
                Found::Here(stat) => return Some(stat),
                Found::Below => {}
                Found::Nowhere => return None,
            }
        }
        None
    }

    /// Names in a merged directory.
    fn list(&self, path: &[u8]) -> BTreeSet<Vec<u8>> {
        let mut candidates = BTreeSet::new();
        for layer in &self.layers {
            if let Some(dir) = open_dir(layer, path) {
                candidates.extend(names(&dir).unwrap_or_default());
            }
        }
        let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
        candidates.retain(|name| self.find(&[path, slash, name.as_slice()].concat()).is_some());
        candidates
    }
}

fn open_dir(layer: &OwnedFd, path: &[u8]) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut dir = rustix::fs::openat(layer, c".", flags, Mode::empty()).ok()?;
    for part in path.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
        dir = rustix::fs::openat(&dir, part, flags, Mode::empty()).ok()?;
    }
    Some(dir)
}

fn find_in(layer: &OwnedFd, path: &[u8]) -> Found {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(mut dir) = rustix::fs::openat(layer, c".", flags, Mode::empty()) else { return Found::Below };
    let mut opaque = false;
    let absent = |opaque| if opaque { Found::Nowhere } else { Found::Below };
    let mut parts = path.split(|b| *b == b'/').peekable();
    while let Some(part) = parts.next() {
        if is_whiteout(&dir, part) {
            return Found::Nowhere;
        }
        let Ok(stat) = rustix::fs::statat(&dir, part, AtFlags::SYMLINK_NOFOLLOW) else {
            return absent(opaque);
        };
        if parts.peek().is_none() {
            return Found::Here(stat);
        }
        // Anything but a directory hides the directory of that name below.
        let Ok(next) = rustix::fs::openat(&dir, part, flags, Mode::empty()) else { return Found::Nowhere };
        opaque |= is_opaque(&next);
        dir = next;
    }
    absent(opaque)
}
