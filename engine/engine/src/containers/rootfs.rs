//! A container's files from outside: through its first process while it runs, through a detached mount of its layers
//! while it does not. All paths are looked up inside that root by the kernel.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use hull_fsroot::Root;
use hull_layer::Trees;
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountAttrFlags;

use super::layered;
use super::mounts::clean;
use super::record::{Definition, MountKind, Snapshot};
use crate::{Engine, Error, Result};

/// A directory tree and a path inside it.
#[derive(Debug)]
pub(super) struct Inside {
    pub(super) root: Root,
    /// Absolute, cleaned.
    pub(super) path: String,
    /// The tree is a volume or bind mount that the container may not write, or its root is read-only.
    pub(super) read_only: bool,
}

impl Engine {
    /// The tree that `path` of the container lies in, and the path in it. Blocks.
    pub(super) fn inside(&self, now: &Arc<Snapshot>, path: &str) -> Result<Inside> {
        let path = clean(path);
        let mount = now
            .def
            .mounts
            .iter()
            .filter(|mount| Path::new(&path).starts_with(&mount.destination))
            .max_by_key(|mount| mount.destination.len());
        let read_only = mount.map_or(now.def.host.readonly_rootfs, |mount| !mount.rw);
        if now.state.status.has_processes() {
            let root = open_directory(Path::new(&format!("/proc/{}/root", now.state.pid)))?;
            return Ok(Inside { root: Root::new(root), path, read_only });
        }
        // What is mounted only while it runs is reached through its source.
        if let Some(mount) = mount.filter(|mount| mount.kind != MountKind::Tmpfs) {
            let source = Path::new(&mount.source).join(&mount.subpath);
            let below = Path::new(&path).strip_prefix(&mount.destination).unwrap_or(Path::new(""));
            let path = clean(&below.to_string_lossy());
            return Ok(Inside { root: Root::new(open_directory(&source)?), path, read_only });
        }
        Ok(Inside {
            root: Root::new(self.container_root(&now.def, MountAttrFlags::empty())?),
            path,
            read_only,
        })
    }

    /// A container's root file system, to be used while nothing else uses it.
    pub(super) fn container_root(&self, def: &Definition, access: MountAttrFlags) -> Result<OwnedFd> {
        let own = self.config().container_dir(&def.id);
        self.layers()
            .container_root(&own, &def.layers, access)
            .map_err(|error| Error::system("mount the container's root file system", error))
    }

    /// The whole root file system to be read, without what is mounted into it.
    pub(super) fn root_to_read(&self, now: &Snapshot) -> Result<OwnedFd> {
        layered::merged(self.layers(), &self.container_trees(&now.def)?)
    }

    /// The writable layer and those below.
    pub(super) fn container_trees(&self, def: &Definition) -> Result<Trees> {
        let own = self.config().container_dir(&def.id);
        self.layers()
            .container_trees(&own, &def.layers)
            .map_err(|error| Error::system("open the container's layers", error))
    }
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| Error::system(format!("open {}", path.display()), error))
}
