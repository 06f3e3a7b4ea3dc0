//! A container's files from outside: through its first process while it runs, through a detached mount of its layers
//! while it does not. All paths are looked up inside that root by the kernel.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hull_fsroot::Root;
use hull_mount::{Overlay, overlay};
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountAttrFlags;

use super::layered;
use super::mounts::clean;
use super::record::{MountKind, Snapshot};
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
        Ok(Inside { root: Root::new(self.mount_stopped(now)?), path, read_only })
    }

    /// The root file system of a container that does not run, writable.
    fn mount_stopped(&self, now: &Snapshot) -> Result<OwnedFd> {
        let directory = self.config().container_dir(&now.def.id);
        let layers = Overlay {
            lower: now.def.layers.clone(),
            upper: Some((directory.join("upper"), directory.join("work"))),
            options: Vec::new(),
        };
        overlay(&layers, MountAttrFlags::empty())
            .map_err(|error| Error::system("mount the container's root file system", error))
    }

    /// The whole root file system to be read, without what is mounted into it.
    pub(super) fn root_to_read(&self, now: &Snapshot) -> Result<OwnedFd> {
        layered::mounted(&self.all_layers(now))
    }

    /// The writable layer and those below, topmost first.
    pub(super) fn all_layers(&self, now: &Snapshot) -> Vec<PathBuf> {
        let upper = self.config().container_dir(&now.def.id).join("upper");
        std::iter::once(upper).chain(now.def.layers.iter().cloned()).collect()
    }
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| Error::system(format!("open {}", path.display()), error))
}
