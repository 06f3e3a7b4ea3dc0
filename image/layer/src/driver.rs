//! How layers are kept: behind one trait, chosen by what the kernel and the file system can.

use std::fmt::{self, Debug, Display};
use std::fs::File;
use std::io::BufRead;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::mount::MountAttrFlags;
use serde::{Deserialize, Serialize};

use crate::apply::{Applied, ApplyLimits};
use crate::trees::Trees;
use crate::{Change, Exclude, LayerError, LayerRecord};

mod directory;
mod erofs;
mod image;
mod stack;
mod vfs;

pub(crate) use directory::Directory;
pub(crate) use erofs::Erofs;
pub(crate) use image::{Images, stacks_detached};
pub(crate) use vfs::Vfs;

/// A way to keep layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DriverName {
    /// Each layer one EROFS image, mounted below an overlay.
    Erofs,
    /// Each layer a directory, stacked by overlayfs.
    #[default]
    Overlay,
    /// Each layer a directory, copied for every container; for any file system.
    Vfs,
}

impl DriverName {
    /// All there are.
    pub const ALL: [DriverName; 3] = [Self::Erofs, Self::Overlay, Self::Vfs];

    /// As `docker info` names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Erofs => "erofs",
            Self::Overlay => "overlay2",
            Self::Vfs => "vfs",
        }
    }
}

impl Display for DriverName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name no driver has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("storage driver {0} is not implemented; there are erofs, overlay2 and vfs")]
pub struct UnknownDriver(pub String);

impl FromStr for DriverName {
    type Err = UnknownDriver;

    fn from_str(name: &str) -> Result<Self, UnknownDriver> {
        match name {
            "erofs" => Ok(Self::Erofs),
            "overlay2" | "overlay" | "overlayfs" => Ok(Self::Overlay),
            "vfs" => Ok(Self::Vfs),
            _ => Err(UnknownDriver(name.into())),
        }
    }
}

/// What a driver made of a tar stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unpacked {
    pub(crate) applied: Applied,
    /// Bytes it takes on disk.
    pub(crate) stored: u64,
    /// By which damage is found; text of the driver's own.
    pub(crate) sum: String,
}

/// Keeps layers, and makes root file systems of them.
///
/// A layer's life: [`Driver::unpack`] writes it into an empty directory, which the store renames to the layer's own and
/// which is gone in one go when it is removed. What the driver keeps in it is its own affair; from outside a layer is its
/// *place*, a path below its directory, by which any driver's layers are told apart ([`image::is_image`]): a store may
/// hold layers of several, and a container's root file system be made of them.
///
/// A container's own files lie in a directory of the engine, the *own* directory: [`Driver::prepare`] fills it once, and
/// the other methods get it together with the places of the layers below, topmost first.
pub(crate) trait Driver: Debug + Send + Sync {
    fn name(&self) -> DriverName;

    /// Where in the layer's directory its tree is.
    fn place(&self) -> &'static str;

    /// Unpacks an uncompressed tar stream, to its end mark, into an empty directory. Needs no other layer, so that all
    /// of an image can be unpacked at once. Nothing of the stream reaches beyond the directory.
    fn unpack(&self, dir: &Path, tar: &mut dyn BufRead, limits: ApplyLimits) -> Result<Unpacked, LayerError>;

    /// Whether the layer in the directory is as it was made. A layer without a recorded sum cannot be judged.
    fn is_intact(&self, dir: &Path, record: &LayerRecord) -> Result<bool, LayerError>;

    /// Makes what a container needs of its own before it can have a root file system.
    fn prepare(&self, own: &Path, layers: &Trees) -> Result<(), LayerError>;

    /// A container's root file system as a detached mount that goes away with its descriptor.
    fn root(&self, own: &Path, layers: &Trees, access: MountAttrFlags) -> Result<OwnedFd, LayerError>;

    /// Places of all the trees a container's files are found in, topmost first.
    fn visible(&self, own: &Path, layers: &[PathBuf]) -> Vec<PathBuf>;

    /// What a container's own files change.
    fn changes(&self, own: &Path, layers: &Trees) -> Result<Vec<Change>, LayerError>;

    /// The same as a layer's tar stream, without the paths that are excluded.
    fn pack(
        &self,
        own: &Path,
        layers: &Trees,
        output: &mut dyn std::io::Write,
        exclude: Option<Exclude<'_>>,
    ) -> Result<(), LayerError>;

    /// Bytes of a container's own files.
    fn own_size(&self, own: &Path) -> Result<u64, LayerError>;
}

/// The driver to unpack with in a store where none was asked for: the fastest that works there.
pub(crate) fn choose(root: &Path) -> DriverName {
    DriverName::ALL.into_iter().find(|driver| works(*driver, root)).unwrap_or(DriverName::Vfs)
}

/// Whether a driver works in a store: tried there.
pub(crate) fn works(driver: DriverName, root: &Path) -> bool {
    match driver {
        DriverName::Erofs => erofs::works_in(root),
        DriverName::Overlay => stack::works_in(root),
        DriverName::Vfs => true,
    }
}

pub(crate) fn by_name(name: DriverName) -> &'static dyn Driver {
    match name {
        DriverName::Erofs => &Erofs,
        DriverName::Overlay => &Directory,
        DriverName::Vfs => &Vfs,
    }
}

/// The merged tree of layers, read-only.
pub(crate) fn stack(layers: &Trees) -> Result<OwnedFd, LayerError> {
    stack::root(None, layers, MountAttrFlags::MOUNT_ATTR_RDONLY)
}

/// The driver that prepared a container's own directory.
pub(crate) fn of_own(own: &Path) -> &'static dyn Driver {
    if own.join(vfs::ROOT).is_dir() { &Vfs } else { &Directory }
}

/// The driver a place belongs to.
pub(crate) fn of_place(place: &Path) -> &'static dyn Driver {
    if image::is_image(place) { &Erofs } else { &Directory }
}

/// Where the tree of the layer in that directory is; nothing if there is none.
pub(crate) fn find_place(dir: &Path) -> Option<PathBuf> {
    [Erofs.place(), Directory.place()].into_iter().map(|place| dir.join(place)).find(|place| place.exists())
}

fn open(path: &Path) -> Result<File, LayerError> {
    File::open(path).map_err(LayerError::io("open", path))
}

#[cfg(test)]
mod tests;
