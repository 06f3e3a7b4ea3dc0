//! What is in an image's layers, read from their archives: independent of how layers are kept unpacked.

use std::collections::BTreeMap;
use std::io::BufReader;

use hull_layer::Decompressor;
use hull_layer::tar::{HeaderLimits, Kind, Reader};
use hull_model::Digest;

use crate::{Image, ImageError, ImageStore};

/// What a layer does to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// There was nothing.
    Added,
    /// It replaces what a lower layer had.
    Changed,
    /// It takes away what a lower layer had.
    Removed,
}

/// One path of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerFile {
    /// Without leading slash; bytes that are no UTF-8 are replaced.
    pub path: String,
    /// What happens to it.
    pub effect: Effect,
    /// What it is.
    pub kind: Kind,
    /// Bytes of a file.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
}

/// A layer and what it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerContents {
    /// Digest of its tar.
    pub diff_id: Digest,
    /// Bytes of its blob.
    pub compressed: u64,
    /// Bytes of its files.
    pub size: u64,
    /// Of these, bytes that a higher layer replaces or removes: they are carried for nothing.
    pub wasted: u64,
    /// Paths added, changed, removed; directories that only hold others are not counted.
    pub counts: [u64; 3],
    /// The paths in the archive's order.
    pub files: Vec<LayerFile>,
}

/// Where a path is now: in which layer, and its bytes.
struct Holder {
    layer: usize,
    size: u64,
    is_dir: bool,
}

impl ImageStore {
    /// Reads every layer's archive and tells what each adds, changes, removes, and wastes.
    ///
    /// # Errors
    /// A blob that is not there or damaged.
    pub fn contents(&self, image: &Image) -> Result<Vec<LayerContents>, ImageError> {
        let mut tree: BTreeMap<Vec<u8>, Holder> = BTreeMap::new();
        let mut found: Vec<LayerContents> = Vec::new();
        for (at, layer) in image.layers.iter().enumerate() {
            let blob = self.content().open_blob(&layer.blob.digest)?;
            let failed = || ImageError::layer(&layer.blob.digest);
            let plain = Decompressor::new(blob).map_err(failed())?;
            let input = BufReader::with_capacity(128 << 10, plain);
            let mut reader = Reader::new(input, HeaderLimits::default());
            found.push(LayerContents {
                diff_id: layer.diff_id.clone(),
                compressed: layer.blob.size,
                size: 0,
                wasted: 0,
                counts: [0; 3],
                files: Vec::new(),
            });
            while let Some(entry) = reader.next_entry().map_err(|e| failed()(e.into()))? {
                let Some(path) = crate::load::clean(&entry.name) else { continue };
                let size = if entry.kind == Kind::File { entry.size } else { 0 };
                let is_dir = entry.kind == Kind::Directory;
                let (parent, name) = match path.iter().rposition(|b| *b == b'/') {
                    Some(slash) => (&path[..slash], &path[slash + 1..]),
                    None => (&b""[..], path.as_slice()),
                };
                if name == b".wh..wh..opq" {
                    remove_below(&mut tree, parent, at, &mut found);
                    continue;
                }
                let (path, effect) = match name.strip_prefix(b".wh.") {
                    Some(gone) => {
                        let parts: Vec<&[u8]> =
                            [parent, gone].into_iter().filter(|p| !p.is_empty()).collect();
                        let target = parts.join(&b'/');
                        remove(&mut tree, &target, at, &mut found);
                        (target, Effect::Removed)
                    }
                    None => {
                        let before = tree.get(&path).map(|holder| (holder.layer, holder.is_dir));
                        if !(is_dir && before.is_some_and(|(_, was_dir)| was_dir)) {
                            remove(&mut tree, &path, at, &mut found);
                        }
                        tree.insert(path.clone(), Holder { layer: at, size, is_dir });
                        let lower = before.is_some_and(|(layer, _)| layer < at);
                        (path, if lower { Effect::Changed } else { Effect::Added })
                    }
                };
                let own = &mut found[at];
                own.size += size;
                own.counts[effect as usize] += 1;
                let path = String::from_utf8_lossy(&path).into_owned();
                own.files.push(LayerFile { path, effect, kind: entry.kind, size, mode: entry.mode });
            }
        }
        Ok(found)
    }
}

/// Takes a path and all below out of the tree; bytes of lower layers are wasted from now on.
fn remove(tree: &mut BTreeMap<Vec<u8>, Holder>, path: &[u8], at: usize, found: &mut [LayerContents]) {
    if let Some(holder) = tree.remove(path) {
        if holder.layer < at {
            found[holder.layer].wasted += holder.size;
        }
        if holder.is_dir {
            remove_below(tree, path, at, found);
        }
    }
}

fn remove_below(tree: &mut BTreeMap<Vec<u8>, Holder>, path: &[u8], at: usize, found: &mut [LayerContents]) {
    let mut start = path.to_vec();
    if !start.is_empty() {
        start.push(b'/');
    }
    let below: Vec<Vec<u8>> = tree
        .range(start.clone()..)
        .take_while(|(name, _)| name.starts_with(&start))
        .filter(|(_, holder)| holder.layer < at)
        .map(|(name, _)| name.clone())
        .collect();
    for name in below {
        if let Some(holder) = tree.remove(&name) {
            found[holder.layer].wasted += holder.size;
        }
    }
}
