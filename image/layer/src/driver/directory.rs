//! Layers as directories of files, stacked by overlayfs.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File};
use std::io::{BufRead, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use hull_content::Hasher;
use hull_model::Algorithm;
use rustix::fs::{FileType, OFlags};
use rustix::mount::MountAttrFlags;

use super::{Driver, DriverName, Unpacked, open, stack};
use crate::apply::{ApplyLimits, ApplyOptions, extract};
use crate::root::open_in;
use crate::trees::Trees;
use crate::walk::{Node, walk};
use crate::{Change, Exclude, LayerError, LayerRecord};

#[derive(Debug)]
pub(crate) struct Directory;

impl Driver for Directory {
    fn name(&self) -> DriverName {
        DriverName::Overlay
    }

    fn place(&self) -> &'static str {
        "diff"
    }

    fn unpack(&self, dir: &Path, tar: &mut dyn BufRead, limits: ApplyLimits) -> Result<Unpacked, LayerError> {
        let diff = dir.join(self.place());
        DirBuilder::new().mode(0o755).create(&diff).map_err(LayerError::io("create directory", &diff))?;
        let root = open(&diff)?;
        rustix::fs::fchmod(&root, rustix::fs::Mode::from_raw_mode(0o755))
            .map_err(LayerError::io("set the mode of", &diff))?;
        let applied = extract(&root, tar, &ApplyOptions::layer(limits))?;
        let (sum, stored) = summary(&root)?;
        Ok(Unpacked { applied, stored, sum })
    }

    fn is_intact(&self, dir: &Path, record: &LayerRecord) -> Result<bool, LayerError> {
        let (sum, _) = summary(open(&dir.join(self.place()))?)?;
        Ok(record.sum.is_empty() || record.sum == sum)
    }

    fn prepare(&self, own: &Path, _layers: &Trees) -> Result<(), LayerError> {
        stack::prepare(own)
    }

    fn root(&self, own: &Path, layers: &Trees, access: MountAttrFlags) -> Result<OwnedFd, LayerError> {
        stack::root(Some(own), layers, access)
    }

    fn visible(&self, own: &Path, layers: &[PathBuf]) -> Vec<PathBuf> {
        std::iter::once(own.join(stack::UPPER)).chain(layers.iter().cloned()).collect()
    }

    fn changes(&self, own: &Path, layers: &Trees) -> Result<Vec<Change>, LayerError> {
        crate::changes(open(&own.join(stack::UPPER))?, layers)
    }

    fn pack(
        &self,
        own: &Path,
        _layers: &Trees,
        output: &mut dyn Write,
        exclude: Option<Exclude<'_>>,
    ) -> Result<(), LayerError> {
        let options = crate::PackOptions { whiteouts: true, exclude, ..Default::default() };
        crate::pack(open(&own.join(stack::UPPER))?, output, &options).map(drop)
    }

    fn own_size(&self, own: &Path) -> Result<u64, LayerError> {
        crate::tree_size(open(&own.join(stack::UPPER))?)
    }
}

/// A digest over all names, metadata and contents of a tree, and the bytes it takes on disk.
fn summary(root: impl AsFd) -> Result<(String, u64), LayerError> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut known = HashMap::new();
    let mut stored = 0;
    walk(&root, |node| {
        let stat = node.stat;
        let first = known.len();
        let identity = *known.entry((stat.st_dev, stat.st_ino)).or_insert(first);
        hasher.update(&(node.path.len() as u64).to_le_bytes());
        hasher.update(node.path);
        let time = (stat.st_mtime, stat.st_mtime_nsec);
        let owner = (stat.st_uid, stat.st_gid);
        let line = format!("{:o} {owner:?} {} {time:?} {}", stat.st_mode, stat.st_rdev, stat.st_size);
        // Sizes of directories are the file system's own affair.
        let line = if node.file_type() == FileType::Directory { format!("{owner:?} {time:?}") } else { line };
        hasher.update(line.as_bytes());
        hasher.update(&(identity as u64).to_le_bytes());
        if identity == first {
            stored += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
            hasher.update(&content(node)?);
        }
        Ok(true)
    })?;
    let directory =
        open_in(&root, b"", OFlags::RDONLY | OFlags::DIRECTORY).map_err(LayerError::io("open", "."))?;
    let stat = rustix::fs::fstat(&directory).map_err(LayerError::io("stat", "."))?;
    hasher.update(format!("{:o} {} {} {}", stat.st_mode, stat.st_uid, stat.st_gid, stat.st_mtime).as_bytes());
    Ok((hasher.finish().hex().to_owned(), stored))
}

/// Checksum of a file's bytes, target of a link, and the extended attributes.
fn content(node: &Node<'_>) -> Result<Vec<u8>, LayerError> {
    match node.file_type() {
        FileType::RegularFile => {
            let file = File::from(node.open().map_err(node.failed("open"))?);
            let mut found = attributes(&file);
            found.extend_from_slice(&checksum(file, node)?.to_le_bytes());
            Ok(found)
        }
        FileType::Directory => Ok(attributes(node.open().map_err(node.failed("open"))?)),
        FileType::Symlink => rustix::fs::readlinkat(node.dir, node.name, Vec::new())
            .map(|target| target.into_bytes())
            .map_err(node.failed("read link")),
        _ => Ok(Vec::new()),
    }
}

fn checksum(mut file: File, node: &Node<'_>) -> Result<u32, LayerError> {
    let shown = || String::from_utf8_lossy(node.path).into_owned();
    let mut crc = flate2::Crc::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(crc.sum()),
            Ok(n) => crc.update(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(LayerError::io("read", shown())(e)),
        }
    }
}

fn attributes(file: impl AsFd) -> Vec<u8> {
    let mut list = vec![0; 4096];
    let Ok(n) = rustix::fs::flistxattr(&file, &mut list[..]) else { return Vec::new() };
    let mut names: Vec<_> = list[..n].split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    let mut found = Vec::new();
    for name in names {
        let mut value = vec![0; 64 << 10];
        if let Ok(n) = rustix::fs::fgetxattr(&file, name, &mut value[..]) {
            found.extend_from_slice(name);
            found.extend_from_slice(&(n as u64).to_le_bytes());
            found.extend_from_slice(&value[..n]);
        }
    }
    found
}

/// Whether a directory can be made and removed there, for probes.
pub(super) fn scratch(root: &Path, name: &str) -> Option<tempdir::Scratch> {
    let path = root.join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir(&path).ok()?;
    Some(tempdir::Scratch(path))
}

pub(super) mod tempdir {
    use std::path::PathBuf;

    /// A directory removed when dropped.
    pub(crate) struct Scratch(pub(crate) PathBuf);

    impl Drop for Scratch {
        fn drop(&mut self) {
            // What stays is removed by the next probe.
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}
