use std::fs::{self, DirBuilder};
use std::io::{self, BufRead, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hull_content::Hasher;
use hull_model::{Algorithm, Digest, Id};
use serde::{Deserialize, Serialize};

use crate::apply::ApplyLimits;
use crate::driver::{self, Driver, DriverName, Images, Unpacked, by_name};
use crate::pipe::{PipeWriter, pipe};
use crate::{Decompressor, LayerError};

const STAGING: &str = ".staging";
const TRASH: &str = ".trash";

/// What is known of an unpacked layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerRecord {
    /// The layer together with those below it.
    pub chain_id: Digest,
    /// Digest of its uncompressed tar.
    pub diff_id: Digest,
    /// Chain id of the one below.
    pub parent: Option<Digest>,
    /// Bytes of its regular files.
    pub size: u64,
    /// Bytes of its uncompressed tar.
    pub tar_size: u64,
    /// Entries of its tar.
    pub entries: u64,
    /// How it is kept.
    #[serde(default)]
    pub driver: DriverName,
    /// Bytes it takes on disk; 0 if not known.
    #[serde(default)]
    pub stored: u64,
    /// By which damage is found; empty if not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sum: String,
}

/// The unpacked layers of one data root. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Layers {
    root: Arc<Path>,
    limits: ApplyLimits,
    driver: DriverName,
    images: Arc<Images>,
}

/// How to open a store.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// What layers may hold.
    pub limits: ApplyLimits,
    /// How new layers are kept; the best that works there if not said. Those that are there stay as they are.
    pub driver: Option<DriverName>,
}

/// A layer unpacked but not named yet; dropped, it is removed.
#[derive(Debug)]
pub struct Staged {
    layers: Layers,
    dir: PathBuf,
    diff_id: Digest,
    tar_size: u64,
    unpacked: Unpacked,
}

impl Layers {
    /// Opens the store in that directory, made if it is not there, and removes what an earlier process left half done.
    /// Only one process may have it open.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, LayerError> {
        Self::open_with(root, Options::default())
    }

    /// The same, not as usual.
    pub fn open_with(root: impl Into<PathBuf>, options: Options) -> Result<Self, LayerError> {
        let root: Arc<Path> = Arc::from(root.into());
        create_dir(&root)?;
        let driver = match options.driver {
            None => driver::choose(&root),
            Some(driver) if driver::works(driver, &root) => driver,
            Some(driver) => return Err(LayerError::Driver { driver, path: root.to_path_buf() }),
        };
        let layers = Self { root, limits: options.limits, driver, images: Arc::default() };
        for name in [STAGING, TRASH] {
            let dir = layers.root.join(name);
            create_dir(&dir)?;
            for entry in fs::read_dir(&dir).map_err(LayerError::io("list", &dir))? {
                let path = entry.map_err(LayerError::io("list", &dir))?.path();
                remove_tree(&path)?;
            }
        }
        Ok(layers)
    }

    /// The directory of the store.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn dir(&self, chain_id: &Digest) -> PathBuf {
        self.root.join(chain_id.hex())
    }

    pub(crate) fn images(&self) -> &Images {
        &self.images
    }

    /// How new layers are kept.
    pub fn driver(&self) -> DriverName {
        self.driver
    }

    /// Where the tree of that layer is: a directory, an image, whatever its driver makes; what
    /// [`Layers::container_root`] and the like take.
    pub fn place(&self, chain_id: &Digest) -> PathBuf {
        let dir = self.dir(chain_id);
        driver::find_place(&dir).unwrap_or_else(|| dir.join(by_name(self.driver).place()))
    }

    /// Whether a layer is as it was made: reads all of it.
    ///
    /// # Errors
    /// When it is not there or cannot be read.
    pub fn is_intact(&self, chain_id: &Digest) -> Result<bool, LayerError> {
        let record = self.record(chain_id)?;
        by_name(record.driver).is_intact(&self.dir(chain_id), &record)
    }

    /// Whether that layer is unpacked.
    pub fn contains(&self, chain_id: &Digest) -> bool {
        self.dir(chain_id).join("layer.json").exists()
    }

    /// The record of a layer.
    pub fn record(&self, chain_id: &Digest) -> Result<LayerRecord, LayerError> {
        let path = self.dir(chain_id).join("layer.json");
        let bytes = fs::read(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => LayerError::NotFound(chain_id.clone()),
            _ => LayerError::io("read", path)(e),
        })?;
        serde_json::from_slice(&bytes)
            .map_err(|source| LayerError::Record { chain_id: chain_id.to_string(), source })
    }

    /// All layers, in no order.
    pub fn list(&self) -> Result<Vec<LayerRecord>, LayerError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(LayerError::io("list", &*self.root))? {
            let name = entry.map_err(LayerError::io("list", &*self.root))?.file_name();
            let Ok(chain_id) = format!("sha256:{}", name.to_string_lossy()).parse::<Digest>() else {
                continue;
            };
            match self.record(&chain_id) {
                Ok(record) => found.push(record),
                Err(LayerError::NotFound(_)) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(found)
    }

    /// Unpacks a layer, compressed or not, into the staging directory, computing its diff id on the way.
    ///
    /// The whole input is read, also what follows the archive's end mark, since the diff id covers it. If `expected` is
    /// given and another diff id comes out, nothing is kept.
    pub fn stage(&self, input: impl Read + Send, expected: Option<&Digest>) -> Result<Staged, LayerError> {
        let dir = self.root.join(STAGING).join(Id::random().short());
        create_dir(&dir)?;
        let algorithm = expected.map_or(Algorithm::Sha256, Digest::algorithm);
        // From here on dropping it removes the directory.
        let mut staged = Staged {
            layers: self.clone(),
            dir,
            diff_id: Digest::from_hash(Algorithm::Sha256, &[0; 32]),
            tar_size: 0,
            unpacked: Unpacked::default(),
        };
        let driver = by_name(self.driver);
        (staged.unpacked, staged.diff_id, staged.tar_size) =
            unpack(driver, &staged.dir, input, algorithm, self.limits)?;
        match expected {
            Some(expected) if *expected != staged.diff_id => {
                Err(LayerError::DiffId { expected: expected.clone(), actual: staged.diff_id.clone() })
            }
            _ => Ok(staged),
        }
    }

    /// Brings these layers to the disk, and that they are there; whether that could be done without flushing the whole file
    /// system (`syncfs(2)`), which is what layers of many files need.
    ///
    /// # Errors
    /// When one is not there or the disk refuses.
    pub fn sync(&self, chain_ids: &[Digest]) -> Result<bool, LayerError> {
        for chain_id in chain_ids {
            let dir = self.dir(chain_id);
            let place = self.place(chain_id);
            if place.is_dir() {
                return Ok(false);
            }
            for path in [&place, &dir.join("layer.json"), &dir] {
                let file = fs::File::open(path).map_err(LayerError::io("open", path))?;
                file.sync_all().map_err(LayerError::io("sync", path))?;
            }
        }
        let root = fs::File::open(&self.root).map_err(LayerError::io("open", &*self.root))?;
        root.sync_all().map_err(LayerError::io("sync", &*self.root))?;
        Ok(true)
    }

    /// Removes a layer; whether it was there. It vanishes at once and is deleted after.
    pub fn remove(&self, chain_id: &Digest) -> Result<bool, LayerError> {
        match self.discard(chain_id)? {
            Some(trash) => trash.delete().map(|()| true),
            None => Ok(false),
        }
    }

    /// Makes a layer vanish, which is quick; its files are deleted by [`Trash::delete`], or when the store is opened
    /// next.
    pub fn discard(&self, chain_id: &Digest) -> Result<Option<Trash>, LayerError> {
        let (from, to) = (self.dir(chain_id), self.root.join(TRASH).join(Id::random().short()));
        match fs::rename(&from, &to) {
            Ok(()) => {
                self.images.forget(&from);
                Ok(Some(Trash(to)))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(LayerError::io("remove", from)(e)),
        }
    }
}

/// A layer that is gone but whose files are still to be deleted.
#[must_use]
#[derive(Debug)]
pub struct Trash(PathBuf);

impl Trash {
    /// Deletes the files.
    pub fn delete(self) -> Result<(), LayerError> {
        remove_tree(&self.0)
    }
}

impl Staged {
    /// Digest of the uncompressed tar.
    pub fn diff_id(&self) -> &Digest {
        &self.diff_id
    }

    /// Bytes of the regular files.
    pub fn size(&self) -> u64 {
        self.unpacked.applied.bytes
    }

    /// Gives the layer its name. If it is there already (unpacked twice at once), that one stays.
    pub fn commit(self, chain_id: &Digest, parent: Option<&Digest>) -> Result<LayerRecord, LayerError> {
        let record = LayerRecord {
            chain_id: chain_id.clone(),
            diff_id: self.diff_id.clone(),
            parent: parent.cloned(),
            size: self.unpacked.applied.bytes,
            tar_size: self.tar_size,
            entries: self.unpacked.applied.entries,
            driver: self.layers.driver,
            stored: self.unpacked.stored,
            sum: self.unpacked.sum.clone(),
        };
        let path = self.dir.join("layer.json");
        let text = serde_json::to_vec(&record)
            .map_err(|source| LayerError::Record { chain_id: chain_id.to_string(), source })?;
        fs::write(&path, text).map_err(LayerError::io("write", &path))?;
        let target = self.layers.dir(chain_id);
        match fs::rename(&self.dir, &target) {
            Ok(()) => Ok(record),
            Err(_) if self.layers.contains(chain_id) => self.layers.record(chain_id),
            // A directory without record is what a power cut left.
            Err(e) if matches!(e.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
                self.layers.remove(chain_id)?;
                fs::rename(&self.dir, &target).map_err(LayerError::io("rename into place", &target))?;
                Ok(record)
            }
            Err(e) => Err(LayerError::io("rename into place", &target)(e)),
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Gone when it was committed; what cannot be removed now is removed when the store is opened next.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Decompresses in one thread, hashes and writes in this one.
fn unpack(
    driver: &dyn Driver,
    dir: &Path,
    input: impl Read + Send,
    algorithm: Algorithm,
    limits: ApplyLimits,
) -> Result<(Unpacked, Digest, u64), LayerError> {
    let mut hasher = Hasher::new(algorithm);
    let (unpacked, size) = std::thread::scope(|scope| {
        let (writer, mut reader) = pipe(|piece| hasher.update(piece));
        let source = scope.spawn(move || decompress_into(input, limits.stream, &writer));
        let unpacked = driver.unpack(dir, &mut reader, limits);
        if unpacked.is_ok() {
            drain(&mut reader);
        }
        // Lets the other thread stop at its next piece.
        drop(reader);
        // A failed source looks like a cut archive to the other end: its own error says more.
        let size = source.join().map_err(|_| LayerError::Thread)??;
        Ok::<_, LayerError>((unpacked?, size))
    })?;
    Ok((unpacked, hasher.finish(), size))
}

fn decompress_into(input: impl Read, limit: u64, pipe: &PipeWriter) -> Result<u64, LayerError> {
    let mut input = Decompressor::new(SourceErrors(input))?;
    let compression = input.compression().as_str();
    let mut size = 0;
    loop {
        match pipe.send_from(&mut input).map_err(|e| classify(e, compression))? {
            0 => return Ok(size),
            n => size += n as u64,
        }
        if size > limit {
            return Err(LayerError::Limit { what: "uncompressed bytes", limit });
        }
    }
}

/// Marks the errors of the source so that they can be told from the decoder's.
struct SourceErrors<R>(R);

#[derive(Debug, thiserror::Error)]
#[error("source")]
struct FromSource(#[source] io::Error);

impl<R: Read> Read for SourceErrors<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|e| match e.kind() {
            io::ErrorKind::Interrupted => e,
            kind => io::Error::new(kind, FromSource(e)),
        })
    }
}

fn classify(error: io::Error, compression: &'static str) -> LayerError {
    match error.downcast::<FromSource>() {
        Ok(FromSource(source)) => LayerError::Source(source),
        Err(source) => LayerError::Decompress { compression, source },
    }
}

fn drain(reader: &mut impl BufRead) {
    while let Ok(rest) = reader.fill_buf() {
        match rest.len() {
            0 => return,
            n => reader.consume(n),
        }
    }
}

fn create_dir(path: &Path) -> Result<(), LayerError> {
    // 0711: a user namespace's root must be able to walk through.
    DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(path)
        .map_err(LayerError::io("create directory", path))
}

fn remove_tree(path: &Path) -> Result<(), LayerError> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(LayerError::io("remove", path)(e)),
        _ => Ok(()),
    }
}
