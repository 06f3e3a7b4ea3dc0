use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use hull_model::Digest;
use rustix::fs::FileType;
use rustix::mount::MountAttrFlags;

use crate::walk::walk;
use crate::{LayerError, Layers};

/// The read-only part of a container's file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Directories of its layers, topmost first, as overlayfs wants them.
    pub lower: Vec<PathBuf>,
    /// Bytes of their regular files together.
    pub size: u64,
}

impl Layers {
    /// The snapshot of these layers (chain ids, lowest first). All must be there.
    pub fn snapshot(&self, chain_ids: &[Digest]) -> Result<Snapshot, LayerError> {
        let mut snapshot = Snapshot::default();
        for chain_id in chain_ids.iter().rev() {
            snapshot.size += self.record(chain_id)?.size;
            snapshot.lower.push(self.diff_dir(chain_id));
        }
        Ok(snapshot)
    }

    /// The merged tree as a detached mount, as a container sees it: with the container's `upper` and `work` directories, or
    /// read-only without. For looking into stopped containers (`docker cp`, `docker export`); it goes away with the
    /// descriptor.
    pub fn mount(&self, snapshot: &Snapshot, upper: Option<(&Path, &Path)>) -> Result<OwnedFd, LayerError> {
        let mut lower = snapshot.lower.clone();
        // overlayfs wants one lower directory, and two when there is no upper one; empty ones change nothing.
        let wanted = if upper.is_some() { 1 } else { 2 };
        for name in ["a", "b"].iter().take(wanted - lower.len().min(wanted)) {
            lower.push(self.empty_dir(name)?);
        }
        let overlay = hull_mount::Overlay {
            lower,
            upper: upper.map(|(upper, work)| (upper.to_path_buf(), work.to_path_buf())),
            options: Vec::new(),
        };
        let attributes = match upper {
            Some(_) => MountAttrFlags::empty(),
            None => MountAttrFlags::MOUNT_ATTR_RDONLY,
        };
        Ok(hull_mount::overlay(&overlay, attributes)?)
    }

    /// An empty directory, the lower one of an image without layers.
    pub fn empty_dir(&self, name: &str) -> Result<PathBuf, LayerError> {
        let path = self.root().join(".empty").join(name);
        std::fs::create_dir_all(&path).map_err(LayerError::io("create directory", &path))?;
        Ok(path)
    }
}

/// Bytes of all files in a tree, those with several names counted once, directories not at all (Docker's way of
/// telling a container's size).
pub fn tree_size(root: impl AsFd) -> Result<u64, LayerError> {
    let mut seen = HashSet::new();
    let mut size = 0;
    walk(root, |node| {
        let first = node.stat.st_nlink < 2 || seen.insert((node.stat.st_dev, node.stat.st_ino));
        if node.file_type() != FileType::Directory && first {
            size += u64::try_from(node.stat.st_size).unwrap_or(0);
        }
        Ok(true)
    })?;
    Ok(size)
}
