use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, OFlags, Stat};
use rustix::io::Errno;

use crate::LayerError;
use crate::root::{clean, is_opaque, open_dir_in, open_in, split};
use crate::tar::{Entry, Kind, Time, Writer};
use crate::walk::{Node, walk};

/// Whether a path (relative, no leading slash) is left out.
pub type Exclude<'a> = &'a dyn Fn(&[u8]) -> bool;

/// How to pack a tree.
#[derive(Default)]
pub struct PackOptions<'a> {
    /// The tree is the upper directory of an overlay: its whiteouts become `.wh.` entries, as in a layer.
    pub whiteouts: bool,
    /// Put before every name, `""` or `"dir"`; then the root itself gets an entry as well.
    pub prefix: Vec<u8>,
    /// Paths (relative, no leading slash) left out with everything below.
    pub exclude: Option<Exclude<'a>>,
    /// Paths (relative, no leading slash) told of as deleted, by `.wh.` entries at the end.
    pub deleted: &'a [Vec<u8>],
}

/// Writes everything below `root` as a tar stream (with end mark) and returns the stream. Sockets are left out, as tar
/// cannot hold them.
pub fn pack<W: Write>(root: impl AsFd, output: W, options: &PackOptions<'_>) -> Result<W, LayerError> {
    let root =
        open_in(&root, b"", OFlags::RDONLY | OFlags::DIRECTORY).map_err(LayerError::io("open", "."))?;
    let mut packer = Packer { writer: Writer::new(output), links: HashMap::new(), options };
    if !options.prefix.is_empty() {
        packer.root(&root)?;
    }
    walk(&root, |node| packer.node(node))?;
    options.deleted.iter().try_for_each(|path| packer.deleted(path))?;
    packer.finish()
}

/// Writes one path inside `root` as a tar stream, a directory with all below it, under the name `name`. Links in the
/// parents are resolved inside the root; a link as last component is packed as a link.
pub fn pack_path<W: Write>(root: impl AsFd, path: &[u8], name: &[u8], output: W) -> Result<W, LayerError> {
    let shown = || String::from_utf8_lossy(path).into_owned();
    let cleaned = clean(path).ok_or_else(|| LayerError::Climbs { entry: shown(), name: shown() })?;
    let directory = open_in(&root, &cleaned, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW);
    match directory {
        Ok(directory) => {
            return pack(
                &directory,
                output,
                &PackOptions { prefix: name.to_vec(), ..PackOptions::default() },
            );
        }
        Err(Errno::NOTDIR | Errno::LOOP) => {}
        Err(e) => return Err(LayerError::io("open", shown())(e)),
    }
    let (parent, last) = split(&cleaned);
    let dir = open_dir_in(&root, parent).map_err(LayerError::io("open", shown()))?;
    let stat = rustix::fs::statat(&dir, last, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
        .map_err(LayerError::io("stat", shown()))?;
    let options = PackOptions::default();
    let mut packer = Packer { writer: Writer::new(output), links: HashMap::new(), options: &options };
    packer.named(&Node { path: &cleaned, dir: &dir, name: last, stat: &stat }, name.to_vec())?;
    packer.finish()
}

struct Packer<'a, W> {
    writer: Writer<W>,
    /// First name of each file that has more than one.
    links: HashMap<(u64, u64), Vec<u8>>,
    options: &'a PackOptions<'a>,
}

impl<W: Write> Packer<'_, W> {
    fn finish(self) -> Result<W, LayerError> {
        self.writer.finish().map_err(output_error)
    }

    fn root(&mut self, root: &OwnedFd) -> Result<(), LayerError> {
        let stat = rustix::fs::fstat(root).map_err(LayerError::io("stat", "."))?;
        let mut name = self.options.prefix.clone();
        name.push(b'/');
        let mut entry = describe(&stat, Kind::Directory, name);
        entry.xattrs = attributes(root);
        self.write(&entry, &mut io::empty())
    }

    fn node(&mut self, node: &Node<'_>) -> Result<bool, LayerError> {
        if self.options.exclude.is_some_and(|exclude| exclude(node.path)) {
            return Ok(false);
        }
        let mut name = self.options.prefix.clone();
        if !name.is_empty() {
            name.push(b'/');
        }
        name.extend_from_slice(node.path);
        if self.options.whiteouts && node.is_whiteout() {
            let at = name.len() - node.name.len();
            name.splice(at..at, *b".wh.");
            self.write(&Entry { mode: 0, ..describe(node.stat, Kind::File, name) }, &mut io::empty())?;
            return Ok(false);
        }
        self.named(node, name)?;
        Ok(true)
    }

    fn deleted(&mut self, path: &[u8]) -> Result<(), LayerError> {
        let mut name = path.to_vec();
        let at = name.len() - split(path).1.len();
        name.splice(at..at, *b".wh.");
        self.write(&Entry { mode: 0, ..Entry::new(Kind::File, name) }, &mut io::empty())
    }

    fn named(&mut self, node: &Node<'_>, name: Vec<u8>) -> Result<(), LayerError> {
        if node.stat.st_nlink > 1 && node.file_type() != FileType::Directory {
            let identity = (node.stat.st_dev, node.stat.st_ino);
            if let Some(first) = self.links.get(&identity) {
                let mut entry = describe(node.stat, Kind::HardLink, name);
                entry.link = first.clone();
                return self.write(&entry, &mut io::empty());
            }
            self.links.insert(identity, name.clone());
        }
        match node.file_type() {
            FileType::RegularFile => self.file(node, name),
            FileType::Directory => self.directory(node, name),
            FileType::Symlink => {
                let mut entry = describe(node.stat, Kind::Symlink, name);
                let target = rustix::fs::readlinkat(node.dir, node.name, Vec::new())
                    .map_err(node.failed("read link"))?;
                entry.link = target.into_bytes();
                self.write(&entry, &mut io::empty())
            }
            FileType::CharacterDevice => {
                self.write(&describe(node.stat, Kind::CharDevice, name), &mut io::empty())
            }
            FileType::BlockDevice => {
                self.write(&describe(node.stat, Kind::BlockDevice, name), &mut io::empty())
            }
            FileType::Fifo => self.write(&describe(node.stat, Kind::Fifo, name), &mut io::empty()),
            _ => Ok(()),
        }
    }

    fn file(&mut self, node: &Node<'_>, name: Vec<u8>) -> Result<(), LayerError> {
        let file = match node.open() {
            Err(Errno::NOENT) => return Ok(()),
            result => result.map_err(node.failed("open"))?,
        };
        let stat = rustix::fs::fstat(&file).map_err(node.failed("stat"))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            // Replaced since it was listed.
            return Ok(());
        }
        let mut entry = describe(&stat, Kind::File, name);
        entry.size = u64::try_from(stat.st_size).unwrap_or(0);
        entry.xattrs = attributes(&file);
        self.write(&entry, &mut File::from(file))
    }

    fn directory(&mut self, node: &Node<'_>, mut name: Vec<u8>) -> Result<(), LayerError> {
        name.push(b'/');
        let mut entry = describe(node.stat, Kind::Directory, name.clone());
        let dir = match node.open() {
            Err(Errno::NOENT | Errno::LOOP) => return Ok(()),
            result => result.map_err(node.failed("open"))?,
        };
        entry.xattrs = attributes(&dir);
        self.write(&entry, &mut io::empty())?;
        if self.options.whiteouts && is_opaque(&dir) {
            name.extend_from_slice(b".wh..wh..opq");
            self.write(&Entry { mode: 0, ..describe(node.stat, Kind::File, name) }, &mut io::empty())?;
        }
        Ok(())
    }

    fn write(&mut self, entry: &Entry, data: &mut dyn io::Read) -> Result<(), LayerError> {
        self.writer.append(entry, data).map_err(output_error)
    }
}

fn output_error(source: io::Error) -> LayerError {
    LayerError::Io { step: "write", path: "archive".into(), source }
}

fn describe(stat: &Stat, kind: Kind, name: Vec<u8>) -> Entry {
    let device = match kind {
        Kind::CharDevice | Kind::BlockDevice => {
            (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
        }
        _ => (0, 0),
    };
    Entry {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Time { seconds: stat.st_mtime, nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) },
        device,
        ..Entry::new(kind, name)
    }
}

/// Attributes an image can carry: capabilities and the user's own, not the kernel's or overlayfs's notes.
fn attributes(file: &OwnedFd) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut list = vec![0; 1024];
    let n = loop {
        match rustix::fs::flistxattr(file, &mut list[..]) {
            Ok(n) => break n,
            Err(Errno::RANGE) if list.len() < 1 << 20 => list = vec![0; list.len() * 4],
            Err(_) => return Vec::new(),
        }
    };
    let mut found: Vec<_> = list[..n]
        .split(|b| *b == 0)
        .filter(|name| {
            *name == b"security.capability"
                || name.starts_with(b"user.") && !name.starts_with(b"user.overlay.")
        })
        .filter_map(|name| Some((name.to_vec(), attribute(file, name)?)))
        .collect();
    found.sort();
    found
}

fn attribute(file: &OwnedFd, name: &[u8]) -> Option<Vec<u8>> {
    let mut value = vec![0; 64 << 10];
    let n = rustix::fs::fgetxattr(file, name, &mut value[..]).ok()?;
    value.truncate(n);
    Some(value)
}
