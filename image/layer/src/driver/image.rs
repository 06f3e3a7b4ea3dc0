//! EROFS images mounted: straight from their files, or through loop devices.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use hull_mount::MountOptions;
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::Driver;
use crate::LayerError;

/// Images kept mounted when no container needs them any more.
const MOST_IDLE: usize = 256;

/// The images that are mounted, each once, however many containers it is part of: they share its pages. A mount is
/// detached, held by its descriptor here and by the overlays made of it, and gone with the last of them.
#[derive(Debug, Default)]
pub(crate) struct Images {
    mounted: Mutex<HashMap<PathBuf, Arc<OwnedFd>>>,
}

impl Images {
    /// The mount of an image.
    pub(crate) fn mount(&self, image: &Path) -> Result<Arc<OwnedFd>, LayerError> {
        if let Some(mounted) = self.lock().get(image) {
            return Ok(mounted.clone());
        }
        let mount = Arc::new(mount(image)?);
        let mut mounted = self.lock();
        if mounted.len() >= MOST_IDLE {
            mounted.retain(|_, mount| Arc::strong_count(mount) > 1);
        }
        // Another thread may have been first: all should use the same.
        Ok(mounted.entry(image.to_owned()).or_insert(mount).clone())
    }

    /// Forgets an image that is being removed, so that its space is given back.
    pub(crate) fn forget(&self, layer: &Path) {
        self.lock().retain(|image, _| !image.starts_with(layer));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, Arc<OwnedFd>>> {
        self.mounted.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Whether a place is an image, by its name.
pub(crate) fn is_image(place: &Path) -> bool {
    place.file_name().is_some_and(|name| name == super::Erofs.place())
}

/// A detached read-only mount of an image.
pub(crate) fn mount(image: &Path) -> Result<OwnedFd, LayerError> {
    match from_file(image) {
        // Before Linux 6.12, or a file system that cannot: a block device is wanted.
        Err(error) if error.errno() == Some(Errno::NOTBLK) => through_loop(image),
        result => Ok(result?),
    }
}

fn from_file(image: &Path) -> hull_mount::Result<OwnedFd> {
    let options = MountOptions { set: MountAttrFlags::MOUNT_ATTR_RDONLY, ..MountOptions::default() };
    let options = MountOptions { superblock_flags: vec!["ro"], ..options };
    // Read here, in this process: the text need not be valid UTF-8, but ours is.
    hull_mount::new_filesystem("erofs", Some(&image.to_string_lossy()), &options)
}

/// The device frees itself when the mount is gone.
pub(crate) fn through_loop(image: &Path) -> Result<OwnedFd, LayerError> {
    let file = File::open(image).map_err(LayerError::io("open", image))?;
    let device = hull_sys::loop_device::attach(file.as_fd())
        .map_err(LayerError::io("make a loop device of", image))?;
    let options = MountOptions { superblock_flags: vec!["ro"], ..MountOptions::default() };
    Ok(hull_mount::new_filesystem("erofs", Some(&device.path), &options)?)
}

/// Whether overlayfs takes detached mounts as layers: `clone_private_mount` does since Linux 6.15.
pub(crate) fn stacks_detached() -> bool {
    hull_sys::kernel::version() >= (6, 15)
}

/// Calls `work` with paths of all layers, images attached in a mount namespace that lives as long as the call: what older
/// kernels make an overlay of must be attached. Pages are shared where loop devices are, by the device.
pub(crate) fn with_attached(
    places: &[PathBuf],
    empty: &[PathBuf],
    work: impl FnOnce(&[PathBuf]) -> hull_mount::Result<OwnedFd> + Send,
) -> Result<OwnedFd, LayerError> {
    let Some(base) = empty.first() else { return Err(LayerError::Thread) };
    let apart = || Ok(attach_all(places, base, work));
    hull_sys::ns::with_own_mounts(apart).map_err(LayerError::io("make a mount namespace for", base))?
}

fn attach_all(
    places: &[PathBuf],
    base: &Path,
    work: impl FnOnce(&[PathBuf]) -> hull_mount::Result<OwnedFd>,
) -> Result<OwnedFd, LayerError> {
    // Opened before the mounts hide it: it may lie on the way to a layer.
    let points = hull_mount::new_filesystem("tmpfs", Some("tmpfs"), &MountOptions::default())?;
    let target = File::open(base).map_err(LayerError::io("open", base))?;
    hull_mount::attach(&points, &target)?;
    let mut paths = Vec::with_capacity(places.len());
    for (index, place) in places.iter().enumerate() {
        if !is_image(place) {
            paths.push(place.clone());
            continue;
        }
        let point = base.join(index.to_string());
        std::fs::create_dir(&point).map_err(LayerError::io("create directory", &point))?;
        let target = File::open(&point).map_err(LayerError::io("open", &point))?;
        hull_mount::attach(mount(place)?, &target)?;
        paths.push(point);
    }
    Ok(work(&paths)?)
}
