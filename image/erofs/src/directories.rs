//! Directories, written last: only then are their names known, and how many each file has.

use rustix::io::Errno;

use crate::error::{Result, refused};
use crate::format::{self, BLOCK, INODE, LINKS_AT, Layout, NO_BLOCK, ROOT, SLOT, kind};
use crate::output::Output;
use crate::tree::{Directory, Id, Node, Tree};

const ENTRY: usize = 12;

/// A directory on its way to the disk.
struct Plan {
    id: Id,
    /// Bytes of its entries.
    size: usize,
    /// Bytes of them that follow the inode.
    inline: usize,
    attributes: Vec<u8>,
    /// Where its inode will be, from the start of the region of inodes.
    place: usize,
}

/// Writes all directories that can be reached, and how many names files have; gives back the root's inode with its
/// attributes.
pub(crate) fn write(tree: &Tree, out: &mut Output, inodes: &mut u32) -> Result<Vec<u8>> {
    let mut links = vec![0u32; tree.len()];
    let mut plans = plan(tree, &mut links)?;
    out.finish()?;
    let region = lay_out(&mut plans);
    let start = u64::from(out.position()?);
    let mut numbers = vec![0u64; tree.len()];
    for plan in &plans {
        let place = if plan.id == Tree::ROOT { ROOT } else { start as usize * BLOCK + plan.place };
        numbers[plan.id.0 as usize] = (place / SLOT) as u64;
    }
    let data_start = start + (region / BLOCK) as u64;
    let root = write_out(tree, out, &plans, &links, &numbers, (region, data_start), inodes)?;
    patch_links(tree, out, &links)?;
    Ok(root)
}

/// Every directory once, a parent before its children; counts names on the way.
fn plan(tree: &Tree, links: &mut [u32]) -> Result<Vec<Plan>> {
    let mut plans = Vec::new();
    let mut ahead = vec![Tree::ROOT];
    links[0] = 1;
    while let Some(id) = ahead.pop() {
        let directory = tree.directory(id)?;
        for child in directory.children.values() {
            links[child.0 as usize] += 1;
            if let Node::Directory(_) = tree.node(*child) {
                ahead.push(*child);
                // Its name for its parent.
                links[id.0 as usize] += 1;
            }
        }
        // Its own name for itself.
        links[id.0 as usize] += 1;
        let attributes = format::attributes(&directory.meta.xattrs)?;
        let size = size_of_entries(directory);
        let room = if id == Tree::ROOT { 0 } else { (BLOCK - INODE).saturating_sub(attributes.len()) };
        if id == Tree::ROOT && ROOT + INODE + attributes.len() > BLOCK {
            return Err(refused("set the root's extended attributes", Errno::NOSPC));
        }
        let end = size % BLOCK;
        let inline = if end <= room { end } else { 0 };
        plans.push(Plan { id, size, inline, attributes, place: 0 });
    }
    Ok(plans)
}

/// Packs the inodes into blocks, first fit among the last few; gives back the bytes they take.
fn lay_out(plans: &mut [Plan]) -> usize {
    const OPEN: usize = 16;
    let mut used: Vec<usize> = Vec::new();
    for plan in plans.iter_mut().filter(|plan| plan.id != Tree::ROOT) {
        let length = INODE + plan.attributes.len() + plan.inline;
        if length > BLOCK {
            plan.place = used.len() * BLOCK;
            used.resize(used.len() + length.div_ceil(BLOCK), BLOCK);
            continue;
        }
        let first = used.len().saturating_sub(OPEN);
        let index = (first..used.len()).find(|index| used[*index] + length <= BLOCK).unwrap_or(used.len());
        if index == used.len() {
            used.push(0);
        }
        plan.place = index * BLOCK + used[index];
        used[index] = (used[index] + length).next_multiple_of(SLOT);
    }
    used.len() * BLOCK
}

fn write_out(
    tree: &Tree,
    out: &mut Output,
    plans: &[Plan],
    links: &[u32],
    numbers: &[u64],
    (region, data_start): (usize, u64),
    inodes: &mut u32,
) -> Result<Vec<u8>> {
    let mut nodes = vec![0; region];
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    let mut next = data_start;
    let mut root = Vec::new();
    for plan in plans {
        let directory = tree.directory(plan.id)?;
        let mut entries = entries(tree, plan.id, directory, numbers);
        let rest = entries.split_off(plan.size - plan.inline);
        let start = if entries.is_empty() {
            NO_BLOCK
        } else {
            u32::try_from(next).map_err(|_| refused("write directories", Errno::FBIG))?
        };
        entries.resize(entries.len().next_multiple_of(BLOCK), 0);
        next += (entries.len() / BLOCK) as u64;
        let layout = if plan.inline > 0 { Layout::Inline(start) } else { Layout::Plain(start) };
        *inodes += 1;
        let number = if plan.id == Tree::ROOT { 1 } else { *inodes };
        let meta = &directory.meta;
        let links = links[plan.id.0 as usize];
        let mut record =
            format::inode(kind::DIRECTORY, meta, &plan.attributes, plan.size as u64, layout, links, number);
        record.extend_from_slice(&rest);
        blocks.push(entries);
        match plan.id {
            Tree::ROOT => root = record,
            _ => nodes[plan.place..plan.place + record.len()].copy_from_slice(&record),
        }
    }
    out.append(&nodes)?;
    blocks.iter().try_for_each(|entries| out.append(entries))?;
    out.finish()?;
    Ok(root)
}

/// All names in order of their bytes, `.` and `..` among them, with what they stand for.
fn names(id: Id, directory: &Directory) -> impl Iterator<Item = (&[u8], Id)> {
    let mut own = [(&b"."[..], id), (&b".."[..], directory.parent)].into_iter().peekable();
    let mut children = directory.children.iter().map(|(name, id)| (&**name, *id)).peekable();
    std::iter::from_fn(move || match (own.peek(), children.peek()) {
        (Some((own_name, _)), Some((name, _))) if own_name < name => own.next(),
        (Some(_), None) => own.next(),
        _ => children.next(),
    })
}

/// Bytes of a directory: entries do not cross blocks.
fn size_of_entries(directory: &Directory) -> usize {
    let (mut full, mut used) = (0, 0);
    for (name, _) in names(Tree::ROOT, directory) {
        let length = ENTRY + name.len();
        if used + length > BLOCK {
            (full, used) = (full + 1, 0);
        }
        used += length;
    }
    full * BLOCK + used
}

fn entries(tree: &Tree, id: Id, directory: &Directory, numbers: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut block: Vec<(&[u8], Id)> = Vec::new();
    let mut used = 0;
    for (name, child) in names(id, directory) {
        if used + ENTRY + name.len() > BLOCK {
            bytes.extend_from_slice(&block_of(tree, &block, numbers));
            bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
            block.clear();
            used = 0;
        }
        used += ENTRY + name.len();
        block.push((name, child));
    }
    bytes.extend_from_slice(&block_of(tree, &block, numbers));
    bytes
}

fn block_of(tree: &Tree, entries: &[(&[u8], Id)], numbers: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BLOCK);
    let mut name_at = entries.len() * ENTRY;
    for (name, id) in entries {
        let (number, kind) = match tree.node(*id) {
            Node::Directory(_) => (numbers[id.0 as usize], kind::DIRECTORY),
            Node::Other { place, kind, .. } => (place / SLOT as u64, *kind),
            Node::Symlink { place, .. } => (place / SLOT as u64, kind::SYMLINK),
        };
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&(name_at as u16).to_le_bytes());
        bytes.extend_from_slice(&[format::entry_type(kind), 0]);
        name_at += name.len();
    }
    entries.iter().for_each(|(name, _)| bytes.extend_from_slice(name));
    bytes
}

/// Files were written with one name each.
fn patch_links(tree: &Tree, out: &mut Output, links: &[u32]) -> Result<()> {
    for (index, count) in links.iter().enumerate().filter(|(_, count)| **count > 1) {
        let place = match tree.node(Id(index as u32)) {
            Node::Directory(_) => continue,
            Node::Other { place, .. } | Node::Symlink { place, .. } => *place,
        };
        out.patch(place + LINKS_AT as u64, &count.to_le_bytes())?;
    }
    Ok(())
}
