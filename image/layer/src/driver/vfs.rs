//! Layers as directories, and for every container a copy of all: slow and large, but it needs nothing of the kernel.

use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::io::{BufRead, BufWriter, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::mount::MountAttrFlags;

use super::{Directory, Driver, DriverName, Unpacked, open};
use crate::apply::{ApplyLimits, ApplyOptions, Whiteouts, extract};
use crate::changes::{Lower, differences};
use crate::trees::Trees;
use crate::{Change, ChangeKind, Exclude, LayerError, LayerRecord, PackOptions};

/// The copy.
pub(super) const ROOT: &str = "root";

#[derive(Debug)]
pub(crate) struct Vfs;

impl Driver for Vfs {
    fn name(&self) -> DriverName {
        DriverName::Vfs
    }

    fn place(&self) -> &'static str {
        Directory.place()
    }

    fn unpack(&self, dir: &Path, tar: &mut dyn BufRead, limits: ApplyLimits) -> Result<Unpacked, LayerError> {
        Directory.unpack(dir, tar, limits)
    }

    fn is_intact(&self, dir: &Path, record: &LayerRecord) -> Result<bool, LayerError> {
        Directory.is_intact(dir, record)
    }

    fn prepare(&self, own: &Path, layers: &Trees) -> Result<(), LayerError> {
        let root = own.join(ROOT);
        DirBuilder::new().mode(0o755).create(&root).map_err(LayerError::io("create directory", &root))?;
        let target = open(&root)?;
        for layer in layers.paths().iter().rev() {
            copy(open(layer)?, &target)?;
        }
        Ok(())
    }

    fn root(&self, own: &Path, _layers: &Trees, access: MountAttrFlags) -> Result<OwnedFd, LayerError> {
        let mount = hull_mount::bind(&own.join(ROOT), false)?;
        hull_mount::set_attributes(&mount, false, access, MountAttrFlags::empty())?;
        Ok(mount)
    }

    fn visible(&self, own: &Path, _layers: &[PathBuf]) -> Vec<PathBuf> {
        vec![own.join(ROOT)]
    }

    fn changes(&self, own: &Path, layers: &Trees) -> Result<Vec<Change>, LayerError> {
        differences(open(&own.join(ROOT))?, &Lower::open(layers.paths())?)
    }

    fn pack(
        &self,
        own: &Path,
        layers: &Trees,
        output: &mut dyn Write,
        exclude: Option<Exclude<'_>>,
    ) -> Result<(), LayerError> {
        let is_excluded = |path: &[u8]| exclude.is_some_and(|exclude| exclude(path));
        let (mut kept, mut deleted) = (BTreeSet::new(), Vec::new());
        for change in self.changes(own, layers)? {
            let path = change.path[1..].to_vec();
            match change.kind {
                ChangeKind::Deleted if !is_excluded(&path) => deleted.push(path),
                ChangeKind::Deleted => {}
                _ => {
                    // The way there, too.
                    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
                    kept.extend(ends.chain([path.len()]).map(|end| path[..end].to_vec()));
                }
            }
        }
        let leave_out = |path: &[u8]| is_excluded(path) || !kept.contains(path);
        let options = PackOptions { exclude: Some(&leave_out), deleted: &deleted, ..Default::default() };
        crate::pack(open(&own.join(ROOT))?, output, &options).map(drop)
    }

    /// There is no telling what a copy shares: all of it counts.
    fn own_size(&self, own: &Path) -> Result<u64, LayerError> {
        crate::tree_size(open(&own.join(ROOT))?)
    }
}

/// One layer over what is there: through a tar stream, which says all there is to say.
fn copy(layer: impl AsFd + Send, target: impl AsFd) -> Result<(), LayerError> {
    let (reader, writer) = std::io::pipe().map_err(LayerError::io("make a pipe", ""))?;
    std::thread::scope(|scope| {
        let packer = scope.spawn(move || {
            let options = PackOptions { whiteouts: true, ..PackOptions::default() };
            let mut output = crate::pack(layer, BufWriter::with_capacity(256 << 10, writer), &options)?;
            output.flush().map_err(LayerError::io("write", "copy"))
        });
        let options =
            ApplyOptions { whiteouts: Whiteouts::Delete, ..ApplyOptions::layer(ApplyLimits::default()) };
        let applied = extract(target, std::io::BufReader::with_capacity(256 << 10, reader), &options);
        let packed = packer.join().map_err(|_| LayerError::Thread)?;
        // When applying failed, the packer only saw its pipe close.
        applied.and(packed)
    })
}
