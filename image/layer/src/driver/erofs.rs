//! Layers as EROFS images: one file each, written while the tar streams in.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use hull_erofs::{Builder, Data, Error, Meta, Special, Sum};
use hull_model::Id;
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::directory::scratch;
use super::{Directory, Driver, DriverName, Unpacked, image, open, stack};
use crate::apply::{Applied, ApplyLimits, is_foreign_attribute};
use crate::root::{clean, split};
use crate::tar::{Entry, Kind, Reader};
use crate::trees::Trees;
use crate::{Change, Exclude, LayerError, LayerRecord};

#[derive(Debug)]
pub(crate) struct Erofs;

impl Driver for Erofs {
    fn name(&self) -> DriverName {
        DriverName::Erofs
    }

    fn place(&self) -> &'static str {
        "layer.erofs"
    }

    fn unpack(&self, dir: &Path, tar: &mut dyn BufRead, limits: ApplyLimits) -> Result<Unpacked, LayerError> {
        let path = dir.join(self.place());
        let create = File::options().read(true).write(true).create_new(true).open(&path);
        let file = create.map_err(LayerError::io("create", &path))?;
        let unpacked = write_image(file, tar, limits)?;
        let stored = path.metadata().map_err(LayerError::io("stat", &path))?.blocks() * 512;
        Ok(Unpacked { stored, ..unpacked })
    }

    fn is_intact(&self, dir: &Path, record: &LayerRecord) -> Result<bool, LayerError> {
        let path = dir.join(self.place());
        let sum = Sum::of(&open(&path)?).map_err(LayerError::io("read", &path))?;
        Ok(record.sum.is_empty() || record.sum == text(sum))
    }

    fn prepare(&self, own: &Path, layers: &Trees) -> Result<(), LayerError> {
        Directory.prepare(own, layers)
    }

    fn root(&self, own: &Path, layers: &Trees, access: MountAttrFlags) -> Result<OwnedFd, LayerError> {
        Directory.root(own, layers, access)
    }

    fn visible(&self, own: &Path, layers: &[PathBuf]) -> Vec<PathBuf> {
        Directory.visible(own, layers)
    }

    fn changes(&self, own: &Path, layers: &Trees) -> Result<Vec<Change>, LayerError> {
        Directory.changes(own, layers)
    }

    fn pack(
        &self,
        own: &Path,
        layers: &Trees,
        output: &mut dyn Write,
        exclude: Option<Exclude<'_>>,
    ) -> Result<(), LayerError> {
        Directory.pack(own, layers, output, exclude)
    }

    fn own_size(&self, own: &Path) -> Result<u64, LayerError> {
        Directory.own_size(own)
    }
}

/// Whether images written there can be mounted and stacked.
pub(super) fn works_in(root: &Path) -> bool {
    let Some(scratch) = scratch(root, ".probe-erofs") else { return false };
    let tried = || -> Result<(), LayerError> {
        let empty = [0; 1024];
        Erofs.unpack(&scratch.0, &mut &empty[..], ApplyLimits::default())?;
        stack::prepare(&scratch.0)?;
        let trees = Trees::open(&image::Images::default(), &[scratch.0.join(Erofs.place())], &scratch.0)?;
        stack::root(Some(&scratch.0), &trees, MountAttrFlags::empty()).map(drop)
    };
    tried().is_ok()
}

fn text(sum: Sum) -> String {
    format!("{:016x}", sum.0)
}

fn write_image(file: File, tar: &mut dyn BufRead, limits: ApplyLimits) -> Result<Unpacked, LayerError> {
    let mut reader = Reader::new(tar, limits.header);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let missing = Meta { mode: 0o755, mtime: now.as_secs() as i64, ..Meta::default() };
    let builder = Builder::new(file, missing.clone(), limits.memory);
    let mut writer = Writer { builder, missing, applied: Applied::default(), parent: None };
    while let Some(entry) = reader.next_entry()? {
        writer.applied.count(&entry, &limits)?;
        writer.entry(&entry, &mut reader)?;
    }
    // Overlays want layers that differ.
    let uuid = Id::random().to_string().into_bytes();
    let uuid = <[u8; 16]>::try_from(&uuid[..16]).unwrap_or_default();
    let finished = writer.builder.finish(uuid).map_err(|error| failed("image", error))?;
    Ok(Unpacked { applied: writer.applied, stored: finished.size, sum: text(finished.sum) })
}

struct Writer {
    builder: Builder,
    /// What directories are that the archive does not list.
    missing: Meta,
    applied: Applied,
    /// The directory last written to: most entries follow a sibling.
    parent: Option<(Vec<u8>, hull_erofs::Id)>,
}

impl Writer {
    fn entry<R: BufRead>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<(), LayerError> {
        let climbs = || LayerError::Climbs { entry: entry.display_name(), name: entry.display_name() };
        let path = clean(&entry.name).ok_or_else(climbs)?;
        let (parent_path, name) = split(&path);
        if name.is_empty() {
            let root = self.builder.root();
            return match entry.kind {
                Kind::Directory => self.builder.set(root, meta(entry)).map_err(refused(entry)),
                _ => Err(climbs()),
            };
        }
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            return self.whiteout(entry, parent_path, hidden);
        }
        let parent = self.parent(parent_path).map_err(refused(entry))?;
        if entry.kind == Kind::File {
            return self.file(entry, parent, name, reader);
        }
        self.other(entry, &path, parent, name)
    }

    fn other(
        &mut self,
        entry: &Entry,
        path: &[u8],
        parent: hull_erofs::Id,
        name: &[u8],
    ) -> Result<(), LayerError> {
        let (major, minor) = entry.device;
        let meta = meta(entry);
        let special = match entry.kind {
            Kind::HardLink => return self.hard_link(entry, path, parent, name),
            Kind::Symlink => {
                self.parent = None;
                let target = entry.link.as_slice();
                return self.builder.symlink(parent, name, &meta, target).map_err(refused(entry));
            }
            Kind::Directory => {
                let made = self.builder.directory(parent, name, meta);
                return made.map(drop).map_err(refused(entry));
            }
            Kind::CharDevice => Special::Character(major, minor),
            Kind::BlockDevice => Special::Block(major, minor),
            Kind::Fifo | Kind::File => Special::Fifo,
        };
        self.parent = None;
        self.builder.special(parent, name, &meta, special).map_err(refused(entry))
    }

    fn parent(&mut self, path: &[u8]) -> Result<hull_erofs::Id, Error> {
        match &self.parent {
            Some((known, id)) if known == path => Ok(*id),
            _ => {
                let id = self.builder.lead(path, &self.missing)?;
                self.parent = Some((path.to_vec(), id));
                Ok(id)
            }
        }
    }

    fn whiteout(&mut self, entry: &Entry, parent: &[u8], hidden: &[u8]) -> Result<(), LayerError> {
        // Housekeeping of aufs, which Docker passes over as well.
        if hidden.starts_with(b".wh.") && hidden != b".wh..opq" {
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(LayerError::Climbs { entry: entry.display_name(), name: entry.display_name() });
        }
        let parent = self.parent(parent).map_err(refused(entry))?;
        match hidden {
            b".wh..opq" => self.builder.opaque(parent),
            _ => self.builder.whiteout(parent, hidden),
        }
        .map_err(refused(entry))
    }

    fn file<R: BufRead>(
        &mut self,
        entry: &Entry,
        parent: hull_erofs::Id,
        name: &[u8],
        reader: &mut Reader<R>,
    ) -> Result<(), LayerError> {
        let sparse = entry.sparse.is_some();
        let mut data = self.builder.begin(meta(entry), entry.size, sparse).map_err(refused(entry))?;
        match &entry.sparse {
            None => self.range(entry, &mut data, reader, 0, entry.size)?,
            Some(extents) => {
                for extent in extents {
                    self.range(entry, &mut data, reader, extent.offset, extent.length)?;
                }
            }
        }
        // A file may take the place of a directory.
        self.parent = None;
        self.builder.file(parent, name, data).map_err(refused(entry))?;
        Ok(())
    }

    fn range<R: BufRead>(
        &mut self,
        entry: &Entry,
        data: &mut Data,
        reader: &mut Reader<R>,
        mut offset: u64,
        length: u64,
    ) -> Result<(), LayerError> {
        let end = offset.saturating_add(length);
        while offset < end {
            let builder = &mut self.builder;
            let n = reader
                .chunk(end - offset, |piece| builder.write_at(data, offset, piece).map_err(refused(entry)))?;
            if n == 0 {
                return Err(crate::tar::TarError::Truncated.into());
            }
            offset += n as u64;
        }
        Ok(())
    }

    fn hard_link(
        &mut self,
        entry: &Entry,
        path: &[u8],
        parent: hull_erofs::Id,
        name: &[u8],
    ) -> Result<(), LayerError> {
        let target = clean(&entry.link).ok_or_else(|| LayerError::Climbs {
            entry: entry.display_name(),
            name: String::from_utf8_lossy(&entry.link).into_owned(),
        })?;
        let (from, from_name) = split(&target);
        let refuse = |step, source| refused(entry)(Error::Refused { step, source });
        if from_name.is_empty() {
            return Err(refuse("a directory cannot be linked", Errno::ISDIR));
        }
        if target == path {
            return Err(refuse("links to itself", Errno::NOENT));
        }
        self.parent = None;
        self.builder.hard_link(parent, name, from, from_name).map_err(refused(entry))
    }
}

fn meta(entry: &Entry) -> Meta {
    // Each name once, the last value counts.
    let xattrs: BTreeMap<&[u8], &[u8]> = entry
        .xattrs
        .iter()
        .filter(|(name, _)| !is_foreign_attribute(name))
        .map(|(name, value)| (name.as_slice(), value.as_slice()))
        .collect();
    Meta {
        mode: (entry.mode & 0o7777) as u16,
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime.seconds,
        mtime_nanoseconds: entry.mtime.nanoseconds,
        xattrs: xattrs.into_iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
    }
}

fn refused(entry: &Entry) -> impl FnOnce(Error) -> LayerError + '_ {
    |error| failed(&entry.display_name(), error)
}

fn failed(entry: &str, error: Error) -> LayerError {
    match error {
        Error::Refused { step, source } => {
            LayerError::Entry { entry: entry.into(), step, source: source.into() }
        }
        Error::Limit { what, limit } => LayerError::Limit { what, limit },
        Error::Write(source) => LayerError::Entry { entry: entry.into(), step: "write", source },
    }
}
