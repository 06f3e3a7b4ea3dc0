use std::collections::HashSet;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use hull_model::Digest;
use rustix::fs::FileType;
use rustix::mount::MountAttrFlags;

use crate::driver::{by_name, of_own};
use crate::trees::Trees;
use crate::walk::walk;
use crate::{Change, DriverName, Exclude, LayerError, Layers};

/// The read-only part of a container's file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Places of its layers ([`Layers::place`]), topmost first.
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
            snapshot.lower.push(self.place(chain_id));
        }
        Ok(snapshot)
    }

    /// The trees of layers, by their places, topmost first.
    ///
    /// # Errors
    /// A layer that cannot be opened.
    pub fn trees(&self, places: &[PathBuf]) -> Result<Trees, LayerError> {
        Trees::open(self.images(), places, self.root())
    }

    /// The merged tree, read-only, as a detached mount that goes away with the descriptor.
    ///
    /// # Errors
    /// A layer that cannot be opened, or the kernel cannot stack.
    pub fn mount(&self, places: &[PathBuf]) -> Result<OwnedFd, LayerError> {
        crate::driver::stack(&self.trees(places)?)
    }

    /// Makes what a container of these layers needs of its own, in the directory `own`, before the first
    /// [`Layers::root`].
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn prepare(&self, own: &Path, places: &[PathBuf]) -> Result<(), LayerError> {
        by_name(self.driver()).prepare(own, &self.trees(places)?)
    }

    /// A container's root file system as a detached mount: the layers, and the files of its own in the directory `own`.
    /// It goes away with the descriptor.
    ///
    /// # Errors
    /// A layer that cannot be opened, or the kernel cannot stack.
    pub fn container_root(
        &self,
        own: &Path,
        places: &[PathBuf],
        access: MountAttrFlags,
    ) -> Result<OwnedFd, LayerError> {
        of_own(own).root(own, &self.trees(places)?, access)
    }

    /// The trees a container sees merged, its own files first, to be looked into without mounting them; as it runs, too.
    ///
    /// # Errors
    /// A layer that cannot be opened.
    pub fn container_trees(&self, own: &Path, places: &[PathBuf]) -> Result<Trees, LayerError> {
        self.trees(&of_own(own).visible(own, places))
    }

    /// Trees merged, read-only, as a detached mount.
    ///
    /// # Errors
    /// What the kernel cannot stack.
    pub fn merge(&self, trees: &Trees) -> Result<OwnedFd, LayerError> {
        crate::driver::stack(trees)
    }

    /// How a container's own files are kept: what was the store's driver when it was made.
    pub fn container_driver(&self, own: &Path) -> DriverName {
        match of_own(own).name() {
            DriverName::Overlay if self.driver() == DriverName::Erofs => DriverName::Erofs,
            name => name,
        }
    }

    /// What a container changed.
    ///
    /// # Errors
    /// When something cannot be read.
    pub fn container_changes(&self, own: &Path, places: &[PathBuf]) -> Result<Vec<Change>, LayerError> {
        of_own(own).changes(own, &self.trees(places)?)
    }

    /// What a container changed, as a layer's tar stream.
    ///
    /// # Errors
    /// When something cannot be read or written.
    pub fn container_pack(
        &self,
        own: &Path,
        places: &[PathBuf],
        output: &mut dyn Write,
        exclude: Option<Exclude<'_>>,
    ) -> Result<(), LayerError> {
        of_own(own).pack(own, &self.trees(places)?, output, exclude)
    }

    /// Bytes of a container's own files.
    ///
    /// # Errors
    /// When something cannot be read.
    pub fn container_size(&self, own: &Path) -> Result<u64, LayerError> {
        of_own(own).own_size(own)
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
