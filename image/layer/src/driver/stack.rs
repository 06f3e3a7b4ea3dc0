//! Root file systems by overlayfs, whatever the layers are: directories and mounted images alike.

use std::fs::DirBuilder;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use hull_mount::Overlay;
use rustix::mount::MountAttrFlags;

use super::directory::scratch;
use super::image;
use crate::LayerError;
use crate::trees::Trees;

/// A container's own files, as overlayfs wants them.
pub(crate) const UPPER: &str = "upper";
const WORK: &str = "work";

pub(crate) fn prepare(own: &Path) -> Result<(), LayerError> {
    // The upper directory becomes the container's `/`, which every user of it may pass through.
    for (name, mode) in [(UPPER, 0o755), (WORK, 0o710)] {
        let path = own.join(name);
        DirBuilder::new().mode(mode).create(&path).map_err(LayerError::io("create directory", &path))?;
    }
    Ok(())
}

/// The merged tree; read-only without a directory of one's own.
pub(crate) fn root(
    own: Option<&Path>,
    layers: &Trees,
    access: MountAttrFlags,
) -> Result<OwnedFd, LayerError> {
    let upper = own.map(|own| (own.join(UPPER), own.join(WORK)));
    let mount = |lower: &[PathBuf]| {
        let mut lower = lower.to_vec();
        // overlayfs wants one lower directory, and two when there is no upper one; empty ones change nothing.
        let wanted = if upper.is_some() { 1 } else { 2 };
        lower.extend(layers.empty().iter().take(wanted - lower.len().min(wanted)).cloned());
        hull_mount::overlay(&Overlay { lower, upper: upper.clone(), options: Vec::new() }, access)
    };
    if layers.holds_images() && !image::stacks_detached() {
        return image::with_attached(layers.places(), layers.empty(), mount);
    }
    Ok(mount(layers.paths())?)
}

/// Whether an overlay can be made of directories there.
pub(crate) fn works_in(root: &Path) -> bool {
    let Some(scratch) = scratch(root, ".probe-overlay") else { return false };
    let made = ["a", "b"].iter().all(|name| std::fs::create_dir(scratch.0.join(name)).is_ok());
    made && prepare(&scratch.0).is_ok() && {
        let lower = vec![scratch.0.join("a"), scratch.0.join("b")];
        let upper = Some((scratch.0.join(UPPER), scratch.0.join(WORK)));
        let layers = Overlay { lower, upper, options: Vec::new() };
        hull_mount::overlay(&layers, MountAttrFlags::empty()).is_ok()
    }
}
