use std::fs::File;

use rustix::io::Errno;

use crate::directories;
use crate::error::{Result, refused};
use crate::format::{self, BLOCK, INODE, Layout, NO_BLOCK, ROOT, SUPERBLOCK, Superblock, kind};
use crate::output::Output;
use crate::sum::Sum;
use crate::tree::{Id, Node, Tree};

/// Ends of files up to this many bytes are kept with the inode; longer ones get a block of their own, since they would
/// leave much of the inode's block empty.
const LONGEST_END: u64 = 2048;
/// Chunks of a sparse file; each costs four bytes. Longer files get larger chunks.
const MOST_CHUNKS: u64 = 16 << 10;
/// Longest target of a symbolic link, as for the kernel.
const LONGEST_TARGET: usize = 4095;
const OPAQUE: &[u8] = b"trusted.overlay.opaque";

/// What is known of a file besides its content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits with set-id and sticky.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last modification, seconds since 1970.
    pub mtime: i64,
    /// And nanoseconds.
    pub mtime_nanoseconds: u32,
    /// Extended attributes, full name and value, each name once.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Meta {
    pub(crate) fn cost(&self) -> u64 {
        self.xattrs.iter().map(|(name, value)| (name.len() + value.len()) as u64 + 48).sum::<u64>()
            + size_of::<Meta>() as u64
    }

    pub(crate) fn opaque(&self) -> Meta {
        let mut meta = self.clone();
        meta.set_opaque();
        meta
    }

    fn is_opaque(&self) -> bool {
        self.xattrs.iter().any(|(name, _)| name == OPAQUE)
    }

    fn set_opaque(&mut self) {
        if !self.is_opaque() {
            self.xattrs.push((OPAQUE.into(), b"y".into()));
        }
    }
}

/// What is neither file, directory nor link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// Character device.
    Character(u32, u32),
    /// Block device.
    Block(u32, u32),
    /// Named pipe.
    Fifo,
}

/// An image that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Of its blocks.
    pub sum: Sum,
    /// Bytes of the image.
    pub size: u64,
}

/// An image being written. What is added under a name that is taken takes its place; the space of what was there is
/// lost, not given back.
#[derive(Debug)]
pub struct Builder {
    out: Output,
    tree: Tree,
    inodes: u32,
    chunked: bool,
}

/// A file being written.
#[derive(Debug)]
pub struct Data {
    meta: Meta,
    attributes: Vec<u8>,
    size: u64,
    written: u64,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// Whole blocks from this one on, the end apart.
    Dense { start: u32, blocks: u64, end: Vec<u8> },
    /// Addresses of chunks of `1 << bits` blocks.
    Sparse { bits: u8, table: Vec<u32>, open: Option<u64> },
}

impl Builder {
    /// An image in `file`, which is empty, with a root directory of mode 0755. `memory` bounds what names and
    /// directories may take, in bytes.
    pub fn new(file: File, root: Meta, memory: u64) -> Self {
        Self { out: Output::new(file), tree: Tree::new(root, memory), inodes: 1, chunked: false }
    }

    /// The root directory.
    pub fn root(&self) -> Id {
        Tree::ROOT
    }

    /// The directory a path leads to, symbolic links followed inside the tree. Components that are missing are made
    /// with `missing`; where one was deleted ([`Builder::whiteout`]), what is below stays hidden.
    ///
    /// # Errors
    /// Something other than a directory in the way, a link that leads nowhere, too long a path.
    pub fn lead(&mut self, path: &[u8], missing: &Meta) -> Result<Id> {
        self.tree.lead(path, Some(missing))
    }

    /// Sets what is known of a directory; that it is opaque stays.
    ///
    /// # Errors
    /// No directory.
    pub fn set(&mut self, directory: Id, meta: Meta) -> Result<()> {
        format::attributes(&meta.xattrs)?;
        self.tree.charge(meta.cost())?;
        let known = &mut self.tree.directory_mut(directory)?.meta;
        *known = if known.is_opaque() { meta.opaque() } else { meta };
        Ok(())
    }

    /// A directory, or what one that is there is to be from now on. Over a whiteout it hides what is below.
    ///
    /// # Errors
    /// Too long a name, too many attributes.
    pub fn directory(&mut self, parent: Id, name: &[u8], meta: Meta) -> Result<Id> {
        format::attributes(&meta.xattrs)?;
        let meta = match self.tree.child(parent, name)?.map(|id| (id, self.tree.node(id))) {
            Some((id, Node::Directory(_))) => return self.set(id, meta).map(|()| id),
            Some((_, Node::Other { whiteout: true, .. })) => meta.opaque(),
            _ => meta,
        };
        self.tree.make_directory(parent, name, meta)
    }

    /// Hides what layers below have in a directory.
    ///
    /// # Errors
    /// No directory.
    pub fn opaque(&mut self, directory: Id) -> Result<()> {
        self.tree.directory_mut(directory)?.meta.set_opaque();
        Ok(())
    }

    /// Hides what layers below have under a name: a character device 0:0, as overlayfs marks it. What is there under this
    /// name stays, since a layer's own wins; a directory hides what is below it then.
    ///
    /// # Errors
    /// Too long a name.
    pub fn whiteout(&mut self, parent: Id, name: &[u8]) -> Result<()> {
        match self.tree.child(parent, name)?.map(|id| (id, self.tree.node(id))) {
            Some((id, Node::Directory(_))) => self.opaque(id),
            Some(_) => Ok(()),
            None => self.special_node(parent, name, &Meta::default(), Special::Character(0, 0), true),
        }
    }

    /// A device or named pipe.
    ///
    /// # Errors
    /// A device's number that Linux does not have.
    pub fn special(&mut self, parent: Id, name: &[u8], meta: &Meta, what: Special) -> Result<()> {
        // As on any file system: a device 0:0 is a whiteout to overlayfs.
        let whiteout = what == Special::Character(0, 0);
        self.special_node(parent, name, meta, what, whiteout)
    }

    fn special_node(
        &mut self,
        dir: Id,
        name: &[u8],
        meta: &Meta,
        what: Special,
        whiteout: bool,
    ) -> Result<()> {
        let (kind, number) = match what {
            Special::Character(major, minor) => (kind::CHAR, format::device(major, minor)?),
            Special::Block(major, minor) => (kind::BLOCK, format::device(major, minor)?),
            Special::Fifo => (kind::FIFO, 0),
        };
        let attributes = format::attributes(&meta.xattrs)?;
        let place = self.inode(kind, meta, &attributes, 0, Layout::None(number), &[])?;
        self.tree.put(dir, name, Node::Other { place, kind, whiteout }).map(drop)
    }

    /// A symbolic link.
    ///
    /// # Errors
    /// An empty or too long target.
    pub fn symlink(&mut self, parent: Id, name: &[u8], meta: &Meta, target: &[u8]) -> Result<()> {
        match target.len() {
            0 => return Err(refused("link", Errno::NOENT)),
            n if n > LONGEST_TARGET => return Err(refused("link", Errno::NAMETOOLONG)),
            _ => {}
        }
        // Its mode is always this one, stat(2).
        let meta = Meta { mode: 0o777, ..meta.clone() };
        let mut data = self.begin(meta, target.len() as u64, false)?;
        self.write(&mut data, target)?;
        let place = self.end(data, kind::SYMLINK)?;
        self.tree.put(parent, name, Node::Symlink { place, target: target.into() }).map(drop)
    }

    /// One more name for what is called `name` in `from`, links not followed.
    ///
    /// # Errors
    /// Nothing there, or a directory.
    pub fn hard_link(&mut self, parent: Id, name: &[u8], from: &[u8], from_name: &[u8]) -> Result<()> {
        let from = self.tree.lead(from, None)?;
        let id = self.tree.child(from, from_name)?.ok_or_else(|| refused("link", Errno::NOENT))?;
        match self.tree.node(id) {
            Node::Directory(_) => Err(refused("a directory cannot be linked", Errno::ISDIR)),
            _ => self.tree.name(parent, name, id),
        }
    }

    /// Begins a file of that size. Nothing else may be added until [`Builder::file`] names it. `sparse` files may be
    /// written in pieces with holes between.
    ///
    /// # Errors
    /// Too many attributes.
    pub fn begin(&mut self, meta: Meta, size: u64, sparse: bool) -> Result<Data> {
        let attributes = format::attributes(&meta.xattrs)?;
        let place = if sparse { sparse_place(size) } else { self.dense_place(size, attributes.len())? };
        Ok(Data { meta, attributes, size, written: 0, place })
    }

    fn dense_place(&self, size: u64, attributes: usize) -> Result<Place> {
        let end = size % BLOCK as u64;
        let room = (BLOCK - INODE).saturating_sub(attributes) as u64;
        let inline = end <= LONGEST_END.min(room);
        let blocks = if inline { size / BLOCK as u64 } else { size.div_ceil(BLOCK as u64) };
        let start = if blocks > 0 { self.out.position()? } else { NO_BLOCK };
        Ok(Place::Dense { start, blocks, end: Vec::new() })
    }

    /// Adds bytes to a file.
    ///
    /// # Errors
    /// More than its size, or the image's file cannot be written.
    pub fn write(&mut self, data: &mut Data, bytes: &[u8]) -> Result<()> {
        self.write_at(data, data.written, bytes)
    }

    /// Adds bytes to a sparse file, behind those it has.
    ///
    /// # Errors
    /// As for [`Builder::write`].
    pub fn write_at(&mut self, data: &mut Data, offset: u64, bytes: &[u8]) -> Result<()> {
        let end = offset.checked_add(bytes.len() as u64);
        let end = end.filter(|end| offset >= data.written && *end <= data.size);
        let end = end.ok_or_else(|| refused("write", Errno::FBIG))?;
        match &mut data.place {
            Place::Dense { blocks, end: kept, .. } => {
                if offset != data.written {
                    return Err(refused("write", Errno::SPIPE));
                }
                let in_blocks = (*blocks * BLOCK as u64).saturating_sub(offset).min(bytes.len() as u64);
                let (first, rest) = bytes.split_at(in_blocks as usize);
                self.out.append(first)?;
                kept.extend_from_slice(rest);
            }
            Place::Sparse { bits, table, open } => {
                let mut chunks = Chunks { out: &mut self.out, bits: *bits, table, open, size: data.size };
                chunks.write(data.written, offset, bytes)?;
            }
        }
        data.written = end;
        Ok(())
    }

    /// Gives a file its name, when all of it is written.
    ///
    /// # Errors
    /// Bytes are missing, too long a name.
    pub fn file(&mut self, parent: Id, name: &[u8], data: Data) -> Result<()> {
        let place = self.end(data, kind::REGULAR)?;
        self.tree.put(parent, name, Node::Other { place, kind: kind::REGULAR, whiteout: false }).map(drop)
    }

    fn end(&mut self, data: Data, kind: u16) -> Result<u64> {
        let Data { meta, attributes, size, written, place } = data;
        match place {
            Place::Dense { .. } if written != size => Err(refused("write", Errno::IO)),
            Place::Dense { start, end, .. } => {
                self.out.pad()?;
                let layout = if end.is_empty() { Layout::Plain(start) } else { Layout::Inline(start) };
                self.inode(kind, &meta, &attributes, size, layout, &end)
            }
            Place::Sparse { bits, mut table, mut open } => {
                let out = &mut self.out;
                Chunks { out, bits, table: &mut table, open: &mut open, size }.close(written)?;
                self.chunked = true;
                let table: Vec<u8> = table.iter().flat_map(|block| block.to_le_bytes()).collect();
                self.inode(kind, &meta, &attributes, size, Layout::Chunks(bits), &table)
            }
        }
    }

    fn inode(
        &mut self,
        kind: u16,
        meta: &Meta,
        attributes: &[u8],
        size: u64,
        layout: Layout,
        rest: &[u8],
    ) -> Result<u64> {
        self.inodes += 1;
        let mut record = format::inode(kind, meta, attributes, size, layout, 1, self.inodes);
        record.extend_from_slice(rest);
        self.out.record(&record)
    }

    /// Writes the directories and what makes an image of it. `uuid` distinguishes it from the others of an overlay.
    ///
    /// # Errors
    /// When the image's file cannot be written.
    pub fn finish(mut self, uuid: [u8; 16]) -> Result<Finished> {
        let root = directories::write(&self.tree, &mut self.out, &mut self.inodes)?;
        let blocks = self.out.position()?;
        let superblock =
            Superblock { inodes: self.inodes.into(), blocks, uuid, chunked: self.chunked }.bytes();
        let mut first = [0; BLOCK];
        first[SUPERBLOCK..ROOT].copy_from_slice(&superblock);
        first[ROOT..ROOT + root.len()].copy_from_slice(&root);
        let (sum, size) = self.out.put_first(&first)?;
        Ok(Finished { sum, size })
    }
}

fn sparse_place(size: u64) -> Place {
    let blocks = size.div_ceil(BLOCK as u64);
    let bits = (0..31).find(|bits| blocks.div_ceil(1 << bits) <= MOST_CHUNKS).unwrap_or(31);
    let chunks = blocks.div_ceil(1 << bits) as usize;
    Place::Sparse { bits, table: vec![NO_BLOCK; chunks], open: None }
}

/// The chunks of a sparse file, written in ascending order.
struct Chunks<'a> {
    out: &'a mut Output,
    bits: u8,
    table: &'a mut [u32],
    /// The chunk being written.
    open: &'a mut Option<u64>,
    size: u64,
}

impl Chunks<'_> {
    fn length(&self) -> u64 {
        (BLOCK as u64) << self.bits
    }

    /// `written` is where the last write ended.
    fn write(&mut self, mut written: u64, mut offset: u64, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let chunk = offset / self.length();
            if *self.open != Some(chunk) {
                self.close(written)?;
                self.table[chunk as usize] = self.out.position()?;
                *self.open = Some(chunk);
                written = chunk * self.length();
            }
            self.advance(written, offset)?;
            let n = (((chunk + 1) * self.length() - offset) as usize).min(bytes.len());
            self.out.append(&bytes[..n])?;
            offset += n as u64;
            written = offset;
            bytes = &bytes[n..];
        }
        Ok(())
    }

    /// Fills the open chunk.
    fn close(&mut self, written: u64) -> Result<()> {
        let Some(chunk) = self.open.take() else { return Ok(()) };
        let end = ((chunk + 1) * self.length()).min(self.size.next_multiple_of(BLOCK as u64));
        self.advance(written, end)
    }

    /// A hole within a chunk.
    fn advance(&mut self, from: u64, to: u64) -> Result<()> {
        let block = BLOCK as u64;
        let zeros = [0; BLOCK];
        let aligned = from.next_multiple_of(block);
        if aligned > to {
            return self.out.append(&zeros[..(to - from) as usize]);
        }
        self.out.pad()?;
        let blocks = (to - aligned) / block;
        if blocks > 0 {
            self.out.skip(blocks)?;
        }
        self.out.append(&zeros[..(to % block) as usize])
    }
}
