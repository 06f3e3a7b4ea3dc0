use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::LayerError;
use crate::driver::{Images, of_place, stacks_detached};

/// The trees of some layers, to be looked into: each a directory with whiteouts as overlayfs has them, whatever the layer
/// is kept as. Held open as long as this lives.
#[derive(Debug)]
pub struct Trees {
    places: Vec<PathBuf>,
    paths: Vec<PathBuf>,
    empty: [PathBuf; 2],
    held: Vec<Arc<OwnedFd>>,
}

impl Trees {
    /// `places` topmost first; `store` has room for empty directories.
    pub(crate) fn open(images: &Images, places: &[PathBuf], store: &Path) -> Result<Self, LayerError> {
        let empty = ["a", "b"].map(|name| store.join(".empty").join(name));
        if places.len() < 2 || !stacks_detached() {
            for path in &empty {
                std::fs::create_dir_all(path).map_err(LayerError::io("create directory", path))?;
            }
        }
        let mut trees = Self { places: places.to_vec(), paths: Vec::new(), empty, held: Vec::new() };
        for place in places {
            let path = match of_place(place).name() {
                crate::DriverName::Erofs => {
                    let mount = images.mount(place)?;
                    let path = format!("/proc/self/fd/{}", mount.as_raw_fd()).into();
                    trees.held.push(mount);
                    path
                }
                _ => place.clone(),
            };
            trees.paths.push(path);
        }
        Ok(trees)
    }

    /// Paths of the trees, topmost first; good in this process, as long as this lives.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Where the layers are kept.
    pub(crate) fn places(&self) -> &[PathBuf] {
        &self.places
    }

    /// Empty directories, there when there are fewer than two layers.
    pub(crate) fn empty(&self) -> &[PathBuf] {
        &self.empty
    }

    pub(crate) fn holds_images(&self) -> bool {
        !self.held.is_empty()
    }
}
