use std::io::{self, BufRead};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::LayerError;
use crate::root::{clean, is_whiteout, open_dir_in, open_in, remove_all, set_opaque, split};
use crate::tar::{Entry, HeaderLimits, Kind, Reader, Time};

/// What to do with entries named `.wh.…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whiteouts {
    /// They delete (OCI image-spec layer.md, "Whiteouts"); written as overlayfs wants them.
    Overlay,
    /// They delete what is there: the tree is not to be stacked.
    Delete,
    /// They are ordinary files (`docker cp`, `docker import`).
    Ordinary,
}

/// How much a layer may hold.
#[derive(Clone, Copy, Debug)]
pub struct ApplyLimits {
    /// Entries; each costs an inode.
    pub entries: u64,
    /// Bytes of all files together, holes included.
    pub bytes: u64,
    /// Bytes of the whole uncompressed stream.
    pub stream: u64,
    /// Bytes of memory for the names of one layer.
    pub memory: u64,
    /// What the tar reader may hold in memory.
    pub header: HeaderLimits,
}

impl Default for ApplyLimits {
    fn default() -> Self {
        Self {
            entries: 20_000_000,
            bytes: 1 << 42,
            stream: 1 << 42,
            memory: 1 << 30,
            header: HeaderLimits::default(),
        }
    }
}

/// How to unpack.
#[derive(Clone, Copy, Debug)]
pub struct ApplyOptions {
    /// Whiteouts.
    pub whiteouts: Whiteouts,
    /// Limits.
    pub limits: ApplyLimits,
    /// Owner given to everything instead of the recorded one.
    pub owner: Option<(u32, u32)>,
    /// Refuse to put a directory in place of something else and something else in place of a directory
    /// (`docker cp`'s noOverwriteDirNonDir).
    pub keep_kind: bool,
}

impl ApplyOptions {
    /// For a layer of an image.
    pub fn layer(limits: ApplyLimits) -> Self {
        Self { whiteouts: Whiteouts::Overlay, limits, owner: None, keep_kind: false }
    }

    /// For copying into a tree that is in use.
    pub fn copy() -> Self {
        Self { whiteouts: Whiteouts::Ordinary, limits: ApplyLimits::default(), owner: None, keep_kind: false }
    }
}

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of all regular files (hard links counted once).
    pub bytes: u64,
}

/// Unpacks a tar stream under the directory `root`. Names are taken relative to it whatever they begin with; symbolic
/// links in the parents of a name are resolved inside of it; a name or hard link that would climb out is refused.
///
/// On an error the tree is left half written: layers are unpacked in a staging directory for that reason.
pub fn extract<R: BufRead>(root: impl AsFd, input: R, options: &ApplyOptions) -> Result<Applied, LayerError> {
    let mut reader = Reader::new(input, options.limits.header);
    let root = open_dir_in(&root, b"").map_err(LayerError::io("open", "."))?;
    let mut tree = Tree { root, options, parent: None, directories: Vec::new(), applied: Applied::default() };
    while let Some(entry) = reader.next_entry()? {
        tree.applied.count(&entry, &options.limits)?;
        tree.entry(&entry, &mut reader)?;
    }
    tree.finish()
}

struct Tree<'a> {
    root: OwnedFd,
    options: &'a ApplyOptions,
    /// The directory last written to: most entries follow a sibling.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Times of directories, set last because writing into them changes them.
    directories: Vec<(Vec<u8>, Time, Option<Time>)>,
    applied: Applied,
}

/// An entry with its place: parent directory (open) and last component.
struct Place<'a> {
    entry: &'a Entry,
    path: &'a [u8],
    name: &'a [u8],
}

impl Place<'_> {
    fn failed<E: Into<io::Error>>(&self, step: &'static str) -> impl FnOnce(E) -> LayerError {
        let entry = self.entry.display_name();
        move |source| LayerError::Entry { entry, step, source: source.into() }
    }
}

impl Applied {
    /// Counts an entry; what is too much is an error.
    pub(crate) fn count(&mut self, entry: &Entry, limits: &ApplyLimits) -> Result<(), LayerError> {
        self.entries += 1;
        self.bytes = self.bytes.saturating_add(entry.size);
        if self.entries > limits.entries {
            return Err(LayerError::Limit { what: "entries", limit: limits.entries });
        }
        if self.bytes > limits.bytes {
            return Err(LayerError::Limit { what: "bytes", limit: limits.bytes });
        }
        Ok(())
    }
}

impl Tree<'_> {
    fn entry<R: BufRead>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<(), LayerError> {
        let path = self.inside(entry, &entry.name)?;
        let (parent, name) = split(&path);
        let place = Place { entry, path: &path, name };
        if name.is_empty() {
            return self.root_entry(&place);
        }
        if self.options.whiteouts != Whiteouts::Ordinary
            && let Some(hidden) = name.strip_prefix(b".wh.")
        {
            return self.whiteout(&place, parent, hidden);
        }
        self.open_parent(&place, parent)?;
        match entry.kind {
            Kind::File => self.file(&place, reader),
            Kind::Directory => self.directory(&place),
            Kind::HardLink => self.hard_link(&place),
            Kind::Symlink => self.symlink(&place),
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => self.node(&place),
        }
    }

    fn inside(&self, entry: &Entry, name: &[u8]) -> Result<Vec<u8>, LayerError> {
        clean(name).ok_or_else(|| LayerError::Climbs {
            entry: entry.display_name(),
            name: String::from_utf8_lossy(name).into_owned(),
        })
    }

    /// The layer's own root (`./`): only a directory makes sense.
    fn root_entry(&mut self, place: &Place<'_>) -> Result<(), LayerError> {
        if place.entry.kind != Kind::Directory {
            return Err(LayerError::Climbs {
                entry: place.entry.display_name(),
                name: place.entry.display_name(),
            });
        }
        let root =
            open_in(&self.root, b"", OFlags::RDONLY | OFlags::DIRECTORY).map_err(place.failed("open"))?;
        self.own_and_attributes(place, &root)?;
        self.directories.push((Vec::new(), place.entry.mtime, place.entry.atime));
        Ok(())
    }

    fn whiteout(&mut self, place: &Place<'_>, parent: &[u8], hidden: &[u8]) -> Result<(), LayerError> {
        if hidden == b".wh..opq" {
            self.open_parent(place, parent)?;
            let dir = open_in(&self.root, parent, OFlags::RDONLY | OFlags::DIRECTORY)
                .map_err(place.failed("open"))?;
            if !self.overlay() {
                return empty(&dir).map_err(place.failed("empty the directory"));
            }
            return set_opaque(&dir).map_err(place.failed("mark the directory opaque"));
        }
        if hidden.starts_with(b".wh.") {
            // Housekeeping of aufs, which Docker passes over as well.
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(LayerError::Climbs {
                entry: place.entry.display_name(),
                name: place.entry.display_name(),
            });
        }
        self.open_parent(place, parent)?;
        let dir = self.parent_fd(place)?;
        if !self.overlay() {
            return match remove_all(dir, hidden) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(place.failed("delete")(e)),
                _ => Ok(()),
            };
        }
        match rustix::fs::mknodat(dir, hidden, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => Ok(()),
            // The layer has both: what it adds wins, and a directory begins empty.
            Err(Errno::EXIST) => match open_child_dir(dir, hidden) {
                Ok(child) => set_opaque(&child).map_err(place.failed("mark the directory opaque")),
                Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
                Err(e) => Err(place.failed("open")(e)),
            },
            Err(e) => Err(place.failed("make the whiteout")(e)),
        }
    }

    fn parent_fd(&self, place: &Place<'_>) -> Result<&OwnedFd, LayerError> {
        self.parent.as_ref().map(|(_, fd)| fd).ok_or_else(|| place.failed("open the parent")(Errno::BADF))
    }

    fn open_parent(&mut self, place: &Place<'_>, parent: &[u8]) -> Result<(), LayerError> {
        if self.parent.as_ref().is_some_and(|(path, _)| path == parent) {
            return Ok(());
        }
        let fd = match open_dir_in(&self.root, parent) {
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_parents(place, parent)?,
            result => result.map_err(place.failed("open the parent directory"))?,
        };
        self.parent = Some((parent.to_vec(), fd));
        Ok(())
    }

    /// Parents the archive does not list are made with mode 0755, owned by root, as Docker does.
    fn make_parents(&mut self, place: &Place<'_>, parent: &[u8]) -> Result<OwnedFd, LayerError> {
        let mut dir = open_dir_in(&self.root, b"").map_err(place.failed("open the parent directory"))?;
        let ends =
            parent.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(i, _)| i).chain([parent.len()]);
        for end in ends {
            let (path, name) = (&parent[..end], split(&parent[..end]).1);
            dir = match open_dir_in(&self.root, path) {
                Err(Errno::NOENT) => self.make_parent(place, &dir, name, path, false)?,
                Err(Errno::NOTDIR) if self.overlay() && is_whiteout(&dir, name) => {
                    remove_all(&dir, name).map_err(place.failed("replace the whiteout"))?;
                    self.make_parent(place, &dir, name, path, true)?
                }
                result => result.map_err(place.failed("open the parent directory"))?,
            };
        }
        Ok(dir)
    }

    fn make_parent(
        &self,
        place: &Place<'_>,
        dir: &OwnedFd,
        name: &[u8],
        path: &[u8],
        opaque: bool,
    ) -> Result<OwnedFd, LayerError> {
        rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o755))
            .map_err(place.failed("make the parent directory"))?;
        let child = open_child_dir(dir, name).map_err(place.failed("open the parent directory"))?;
        // mkdir applies the umask.
        rustix::fs::fchmod(&child, Mode::from_raw_mode(0o755))
            .map_err(place.failed("set the mode of the parent"))?;
        if let Some((uid, gid)) = self.options.owner {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::fs::fchown(&child, Some(uid), Some(gid))
                .map_err(place.failed("set the owner of the parent"))?;
        }
        if opaque {
            set_opaque(&child).map_err(place.failed("mark the directory opaque"))?;
        }
        open_dir_in(&self.root, path).map_err(place.failed("open the parent directory"))
    }

    fn overlay(&self) -> bool {
        self.options.whiteouts == Whiteouts::Overlay
    }

    /// Runs `make` and, when something is in the way, removes that and runs it again.
    fn replacing<T>(
        &mut self,
        place: &Place<'_>,
        step: &'static str,
        make: impl Fn(&OwnedFd) -> Result<T, Errno>,
    ) -> Result<T, LayerError> {
        match make(self.parent_fd(place)?) {
            Err(Errno::EXIST) => {}
            result => return result.map_err(place.failed(step)),
        }
        if self.options.keep_kind && open_child_dir(self.parent_fd(place)?, place.name).is_ok() {
            return Err(place.failed("cannot overwrite directory with non-directory")(Errno::ISDIR));
        }
        remove_all(self.parent_fd(place)?, place.name).map_err(place.failed("replace what is there"))?;
        make(self.parent_fd(place)?).map_err(place.failed(step))
    }

    fn file<R: BufRead>(&mut self, place: &Place<'_>, reader: &mut Reader<R>) -> Result<(), LayerError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self.replacing(place, "create", |dir| {
            rustix::fs::openat(dir, place.name, flags, Mode::from_raw_mode(0o600))
        })?;
        match &place.entry.sparse {
            None => write_range(place, &file, reader, 0, u64::MAX)?,
            Some(extents) => {
                rustix::fs::ftruncate(&file, place.entry.size).map_err(place.failed("set the size"))?;
                for extent in extents {
                    write_range(place, &file, reader, extent.offset, extent.length)?;
                }
            }
        }
        self.own_and_attributes(place, &file)?;
        rustix::fs::futimens(&file, &times(place.entry.mtime, place.entry.atime))
            .map_err(place.failed("set the times"))
    }

    fn directory(&mut self, place: &Place<'_>) -> Result<(), LayerError> {
        let child = match rustix::fs::mkdirat(self.parent_fd(place)?, place.name, Mode::from_raw_mode(0o700))
        {
            Ok(()) => open_child_dir(self.parent_fd(place)?, place.name),
            Err(Errno::EXIST) => match open_child_dir(self.parent_fd(place)?, place.name) {
                Err(Errno::NOTDIR | Errno::LOOP) => return self.directory_instead(place),
                result => result,
            },
            Err(e) => Err(e),
        };
        let child = child.map_err(place.failed("create"))?;
        self.finish_directory(place, &child)
    }

    /// A directory in place of something else; over a whiteout it hides the directory below.
    fn directory_instead(&mut self, place: &Place<'_>) -> Result<(), LayerError> {
        if self.options.keep_kind {
            return Err(place.failed("cannot overwrite non-directory with directory")(Errno::NOTDIR));
        }
        let dir = self.parent_fd(place)?;
        let opaque = self.overlay() && is_whiteout(dir, place.name);
        remove_all(dir, place.name).map_err(place.failed("replace what is there"))?;
        rustix::fs::mkdirat(dir, place.name, Mode::from_raw_mode(0o700)).map_err(place.failed("create"))?;
        let child = open_child_dir(dir, place.name).map_err(place.failed("open"))?;
        if opaque {
            set_opaque(&child).map_err(place.failed("mark the directory opaque"))?;
        }
        self.finish_directory(place, &child)
    }

    fn finish_directory(&mut self, place: &Place<'_>, child: &OwnedFd) -> Result<(), LayerError> {
        self.own_and_attributes(place, child)?;
        self.directories.push((place.path.to_vec(), place.entry.mtime, place.entry.atime));
        Ok(())
    }

    fn hard_link(&mut self, place: &Place<'_>) -> Result<(), LayerError> {
        let target = self.inside(place.entry, &place.entry.link)?;
        let (parent, name) = split(&target);
        if name.is_empty() {
            return Err(place.failed("a directory cannot be linked")(Errno::ISDIR));
        }
        if target == place.path {
            return Err(place.failed("links to itself")(Errno::NOENT));
        }
        let from = open_dir_in(&self.root, parent).map_err(place.failed("find the link's target"))?;
        // Without AT_SYMLINK_FOLLOW: a link to a symbolic link names that link, wherever it points.
        self.replacing(place, "link", |dir| {
            rustix::fs::linkat(&from, name, dir, place.name, AtFlags::empty())
        })
    }

    fn symlink(&mut self, place: &Place<'_>) -> Result<(), LayerError> {
        let target = place.entry.link.as_slice();
        self.replacing(place, "link", |dir| rustix::fs::symlinkat(target, dir, place.name))?;
        self.own_and_times_at(place)
    }

    fn node(&mut self, place: &Place<'_>) -> Result<(), LayerError> {
        let (major, minor) = place.entry.device;
        let (kind, device) = match place.entry.kind {
            Kind::CharDevice => (FileType::CharacterDevice, rustix::fs::makedev(major, minor)),
            Kind::BlockDevice => (FileType::BlockDevice, rustix::fs::makedev(major, minor)),
            _ => (FileType::Fifo, 0),
        };
        let mode = Mode::from_raw_mode(0o600);
        self.replacing(place, "create", |dir| rustix::fs::mknodat(dir, place.name, kind, mode, device))?;
        self.own_and_times_at(place)?;
        let mode = Mode::from_raw_mode(place.entry.mode);
        // Not a link: it was made just above, and nobody else writes here.
        rustix::fs::chmodat(self.parent_fd(place)?, place.name, mode, AtFlags::empty())
            .map_err(place.failed("set the mode"))
    }

    fn owner(&self, entry: &Entry) -> (Option<Uid>, Option<Gid>) {
        let (uid, gid) = self.options.owner.unwrap_or((entry.uid, entry.gid));
        (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
    }

    fn own_and_times_at(&self, place: &Place<'_>) -> Result<(), LayerError> {
        let dir = self.parent_fd(place)?;
        let (uid, gid) = self.owner(place.entry);
        rustix::fs::chownat(dir, place.name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(place.failed("set the owner"))?;
        let times = times(place.entry.mtime, place.entry.atime);
        rustix::fs::utimensat(dir, place.name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(place.failed("set the times"))
    }

    /// Owner first: chown(2) takes set-id bits and capabilities away.
    fn own_and_attributes(&self, place: &Place<'_>, file: &OwnedFd) -> Result<(), LayerError> {
        let (uid, gid) = self.owner(place.entry);
        rustix::fs::fchown(file, uid, gid).map_err(place.failed("set the owner"))?;
        rustix::fs::fchmod(file, Mode::from_raw_mode(place.entry.mode))
            .map_err(place.failed("set the mode"))?;
        for (name, value) in &place.entry.xattrs {
            if !is_foreign_attribute(name) {
                set_attribute(place, file, name, value)?;
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Applied, LayerError> {
        for (path, mtime, atime) in self.directories.iter().rev() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            // Gone or replaced by a later entry: nothing to set.
            if let Ok(dir) = open_in(&self.root, path, flags) {
                let path = || String::from_utf8_lossy(path).into_owned();
                rustix::fs::futimens(&dir, &times(*mtime, *atime))
                    .map_err(LayerError::io("set the times of", path()))?;
            }
        }
        Ok(self.applied)
    }
}

fn empty(dir: &OwnedFd) -> io::Result<()> {
    crate::walk::names(dir)?.iter().try_for_each(|name| remove_all(dir, name))
}

fn open_child_dir(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// Up to `limit` of the entry's bytes, to `offset` of the file.
fn write_range<R: BufRead>(
    place: &Place<'_>,
    file: &OwnedFd,
    reader: &mut Reader<R>,
    mut offset: u64,
    limit: u64,
) -> Result<(), LayerError> {
    let end = offset.saturating_add(limit);
    loop {
        let n = reader
            .chunk(end - offset, |piece| write_all_at(file, piece, offset).map_err(place.failed("write")))?;
        if n == 0 {
            return Ok(());
        }
        offset += n as u64;
    }
}

fn write_all_at(file: &OwnedFd, mut bytes: &[u8], mut offset: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, offset) {
            Ok(n) => {
                bytes = &bytes[n..];
                offset += n as u64;
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn times(mtime: Time, atime: Option<Time>) -> Timestamps {
    let spec = |time: Time| Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    Timestamps { last_access: spec(atime.unwrap_or(mtime)), last_modification: spec(mtime) }
}

/// `trusted.*` is how overlayfs keeps its own notes, which decide what is visible: no archive may write them.
pub(crate) fn is_foreign_attribute(name: &[u8]) -> bool {
    name.starts_with(b"trusted.") || name.starts_with(b"user.overlay.") || name.contains(&0)
}

/// Attributes a file system cannot hold are left out, except capabilities, without which a program would quietly not
/// work.
fn set_attribute(place: &Place<'_>, file: &OwnedFd, name: &[u8], value: &[u8]) -> Result<(), LayerError> {
    match rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()) {
        Ok(()) => Ok(()),
        Err(Errno::NOTSUP | Errno::PERM) if name != b"security.capability" => Ok(()),
        Err(e) => Err(place.failed("set an extended attribute")(e)),
    }
}

#[cfg(test)]
mod tests;
