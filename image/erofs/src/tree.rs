//! Names: which there are, and where a path leads. All in memory, without recursion: depth is an attacker's choice.

use std::collections::{BTreeMap, VecDeque};

use rustix::io::Errno;

use crate::builder::Meta;
use crate::error::{Error, Result, refused};

/// Longest path, as for the kernel (PATH_MAX without the final zero).
const LONGEST_PATH: usize = 4095;
/// Longest name, as for the kernel.
const LONGEST_NAME: usize = 255;
/// Most symbolic links followed in one path, as in the kernel.
const MOST_LINKS: u32 = 40;
/// What a node and its name cost besides the name.
const NODE_COST: u64 = 128;

/// A file or directory of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub(crate) u32);

#[derive(Debug)]
pub(crate) enum Node {
    Directory(Box<Directory>),
    /// Anything else: its inode is written already.
    Other {
        /// Where.
        place: u64,
        /// Type bits of its mode.
        kind: u16,
        /// An overlay's mark of deletion.
        whiteout: bool,
    },
    Symlink {
        place: u64,
        target: Box<[u8]>,
    },
}

#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) meta: Meta,
    pub(crate) children: BTreeMap<Box<[u8]>, Id>,
    pub(crate) parent: Id,
}

#[derive(Debug)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
    memory: u64,
    limit: u64,
}

impl Tree {
    pub(crate) const ROOT: Id = Id(0);

    pub(crate) fn new(root: Meta, limit: u64) -> Self {
        let root = Directory { meta: root, children: BTreeMap::new(), parent: Self::ROOT };
        Self { nodes: vec![Node::Directory(Box::new(root))], memory: 0, limit }
    }

    pub(crate) fn node(&self, id: Id) -> &Node {
        &self.nodes[id.0 as usize]
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn directory(&self, id: Id) -> Result<&Directory> {
        match self.node(id) {
            Node::Directory(directory) => Ok(directory),
            _ => Err(refused("open the directory", Errno::NOTDIR)),
        }
    }

    pub(crate) fn directory_mut(&mut self, id: Id) -> Result<&mut Directory> {
        match &mut self.nodes[id.0 as usize] {
            Node::Directory(directory) => Ok(directory),
            _ => Err(refused("open the directory", Errno::NOTDIR)),
        }
    }

    pub(crate) fn child(&self, directory: Id, name: &[u8]) -> Result<Option<Id>> {
        Ok(self.directory(directory)?.children.get(name).copied())
    }

    /// Puts a node under a name, in place of what is there.
    pub(crate) fn put(&mut self, directory: Id, name: &[u8], node: Node) -> Result<Id> {
        let held = match &node {
            Node::Directory(directory) => directory.meta.cost(),
            Node::Symlink { target, .. } => target.len() as u64,
            Node::Other { .. } => 0,
        };
        let id = u32::try_from(self.nodes.len()).map_err(|_| self.full())?;
        self.name(directory, name, Id(id))?;
        self.charge(held + NODE_COST)?;
        self.nodes.push(node);
        Ok(Id(id))
    }

    /// Gives a node one more name.
    pub(crate) fn name(&mut self, directory: Id, name: &[u8], id: Id) -> Result<()> {
        if name.len() > LONGEST_NAME {
            return Err(refused("create", Errno::NAMETOOLONG));
        }
        self.charge(name.len() as u64 + NODE_COST)?;
        self.directory_mut(directory)?.children.insert(name.into(), id);
        Ok(())
    }

    pub(crate) fn charge(&mut self, bytes: u64) -> Result<()> {
        self.memory += bytes;
        if self.memory > self.limit { Err(self.full()) } else { Ok(()) }
    }

    fn full(&self) -> Error {
        Error::Limit { what: "bytes of names", limit: self.limit }
    }

    /// The directory a path leads to, symbolic links followed with the tree's root as `/`. With `missing`, the path's own
    /// components that are not there are made with it; those of links are not.
    pub(crate) fn lead(&mut self, path: &[u8], missing: Option<&Meta>) -> Result<Id> {
        if path.len() > LONGEST_PATH {
            return Err(refused("open the parent directory", Errno::NAMETOOLONG));
        }
        let mut ahead: VecDeque<(Box<[u8]>, bool)> = parts(path).map(|part| (part, false)).collect();
        let (mut at, mut links) = (Self::ROOT, 0);
        while let Some((part, of_link)) = ahead.pop_front() {
            if &*part == b".." {
                at = self.directory(at)?.parent;
                continue;
            }
            let make = missing.filter(|_| !of_link);
            let found = self.child(at, &part)?;
            match found.map(|id| (id, self.node(id))) {
                Some((id, Node::Directory(_))) => at = id,
                Some((_, Node::Symlink { target, .. })) => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(refused("open the parent directory", Errno::LOOP));
                    }
                    if target.first() == Some(&b'/') {
                        at = Self::ROOT;
                    }
                    parts(target).rev().for_each(|part| ahead.push_front((part, true)));
                }
                Some((_, Node::Other { whiteout, .. })) => match make {
                    Some(meta) if *whiteout => at = self.make_directory(at, &part, meta.opaque())?,
                    _ => return Err(refused("open the parent directory", Errno::NOTDIR)),
                },
                None => match make {
                    Some(meta) => at = self.make_directory(at, &part, meta.clone())?,
                    None => return Err(refused("open the parent directory", Errno::NOENT)),
                },
            }
        }
        Ok(at)
    }

    pub(crate) fn make_directory(&mut self, parent: Id, name: &[u8], meta: Meta) -> Result<Id> {
        let directory = Directory { meta, children: BTreeMap::new(), parent };
        self.put(parent, name, Node::Directory(Box::new(directory)))
    }
}

fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = Box<[u8]>> + '_ {
    path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).map(Box::from)
}
