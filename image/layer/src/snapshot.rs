use std::collections::HashSet;
use std::os::fd::AsFd;
use std::path::PathBuf;

use hull_model::Digest;
use rustix::fs::FileType;

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
