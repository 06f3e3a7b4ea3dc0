//! Where the bytes of blobs are.

use std::fmt::Debug;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use hull_model::{Algorithm, Digest};

use super::{Result, StoreError, UploadId};

const ALGORITHMS: [Algorithm; 3] = [Algorithm::Sha256, Algorithm::Sha384, Algorithm::Sha512];

/// Bytes of blobs by digest, and of uploads under way. A local directory ([`LocalBlobs`]) today.
///
/// An upload is staged, flushed, published under its digest, and the publication settled; only then does anyone rely
/// on it. Publishing is atomic and replaces what had the name. All of it may be called from any thread, but `publish`,
/// `settle` and `remove` come from one thread only.
pub trait BlobStorage: Debug + Send + Sync {
    /// Opens an upload's bytes for appending; `None` if there are none and they shall not be begun.
    fn stage(&self, upload: &UploadId, begin: bool) -> Result<Option<Box<dyn Staged>>>;
    /// Uploads that have bytes, and when each last changed.
    fn staged(&self) -> Result<Vec<(UploadId, SystemTime)>>;
    /// Drops an upload's bytes, if there are any.
    fn discard(&self, upload: &UploadId);
    /// Names an upload's flushed bytes by their digest.
    fn publish(&self, upload: &UploadId, digest: &Digest) -> Result<()>;
    /// When this returns, what was published survives a power cut.
    fn settle(&self) -> Result<()>;
    /// The bytes of a blob; `None` if there are none.
    fn open(&self, digest: &Digest) -> Result<Option<Content>>;
    /// Size of a blob in bytes.
    fn size(&self, digest: &Digest) -> Result<Option<u64>>;
    /// Takes a blob's bytes away, if there are any; quick whatever their size.
    fn remove(&self, digest: &Digest) -> Result<()>;
    /// Frees the space of what was removed.
    fn sweep(&self);
    /// All blobs with bytes here, and when each was written.
    fn list(&self) -> Result<Vec<(Digest, u64, SystemTime)>>;
}

/// Bytes of an upload. Only appended to, so every length ever acknowledged can be resumed.
pub trait Staged: Debug + Send {
    /// Bytes so far.
    fn len(&self) -> u64;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Adds bytes.
    fn append(&mut self, bytes: &[u8]) -> Result<()>;
    /// When this returns, the bytes survive a power cut.
    fn flush(&mut self) -> Result<()>;
    /// The bytes so far; more appear as they are added.
    fn content(&self) -> Result<Content>;
}

/// A blob's bytes.
#[derive(Debug)]
pub enum Content {
    /// In a file, which the kernel can send by itself.
    File(File),
}

/// Blobs in files of a directory.
#[derive(Debug)]
pub struct LocalBlobs {
    blobs: PathBuf,
    uploads: PathBuf,
    trash: PathBuf,
    /// One per algorithm, to flush the names in it; and whether there is a name to flush.
    directories: Vec<(Algorithm, File, AtomicBool)>,
}

impl LocalBlobs {
    /// Opens or makes the directories below a root. What was thrown away and not yet removed is removed.
    pub fn open(root: &Path) -> Result<Self> {
        let blobs = root.join("blobs");
        let (uploads, trash) = (root.join("uploads"), root.join("trash"));
        let mut directories = Vec::new();
        for algorithm in ALGORITHMS {
            let path = blobs.join(algorithm.as_str());
            create_dir(&path)?;
            let directory = File::open(&path).map_err(StoreError::io("open", &path))?;
            directories.push((algorithm, directory, AtomicBool::new(false)));
        }
        create_dir(&uploads)?;
        create_dir(&trash)?;
        let store = Self { blobs, uploads, trash, directories };
        store.sweep();
        Ok(store)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.algorithm().as_str()).join(digest.hex())
    }

    fn upload(&self, upload: &UploadId) -> PathBuf {
        self.uploads.join(upload.to_string())
    }
}

impl BlobStorage for LocalBlobs {
    fn stage(&self, upload: &UploadId, begin: bool) -> Result<Option<Box<dyn Staged>>> {
        let path = self.upload(upload);
        let file = match File::options().read(true).append(true).create(begin).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(StoreError::io("open", path)(e)),
        };
        let len = file.metadata().map_err(StoreError::io("stat", &path))?.len();
        Ok(Some(Box::new(LocalStaged { file, path, len })))
    }

    fn staged(&self) -> Result<Vec<(UploadId, SystemTime)>> {
        let failed = StoreError::io("list", &self.uploads);
        let entries = fs::read_dir(&self.uploads).map_err(failed)?.flatten();
        let known = entries.filter_map(|entry| {
            let id = UploadId::parse(entry.file_name().to_str()?)?;
            Some((id, entry.metadata().ok()?.modified().ok()?))
        });
        Ok(known.collect())
    }

    fn discard(&self, upload: &UploadId) {
        // Left over, it is removed when it expires.
        let _ = fs::remove_file(self.upload(upload));
    }

    fn publish(&self, upload: &UploadId, digest: &Digest) -> Result<()> {
        let path = self.path(digest);
        fs::rename(self.upload(upload), &path).map_err(StoreError::io("publish", path))?;
        for (algorithm, _, dirty) in &self.directories {
            if *algorithm == digest.algorithm() {
                dirty.store(true, Ordering::Release);
            }
        }
        Ok(())
    }

    fn settle(&self) -> Result<()> {
        for (_, directory, dirty) in &self.directories {
            if !dirty.swap(false, Ordering::AcqRel) {
                continue;
            }
            rustix::fs::fsync(directory).map_err(|e| StoreError::io("flush", &self.blobs)(e.into()))?;
        }
        Ok(())
    }

    fn open(&self, digest: &Digest) -> Result<Option<Content>> {
        let path = self.path(digest);
        match File::open(&path) {
            Ok(file) => Ok(Some(Content::File(file))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StoreError::io("open", path)(e)),
        }
    }

    fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        let path = self.path(digest);
        match fs::symlink_metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StoreError::io("stat", path)(e)),
        }
    }

    fn remove(&self, digest: &Digest) -> Result<()> {
        let path = self.path(digest);
        match fs::rename(&path, self.trash.join(digest.hex())) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(StoreError::io("remove", path)(e)),
        }
    }

    fn sweep(&self) {
        for entry in fs::read_dir(&self.trash).into_iter().flatten().flatten() {
            // What cannot be removed now costs space, and is tried again with the next.
            let _ = fs::remove_file(entry.path());
        }
    }

    fn list(&self) -> Result<Vec<(Digest, u64, SystemTime)>> {
        let mut found = Vec::new();
        for algorithm in ALGORITHMS {
            let path = self.blobs.join(algorithm.as_str());
            for entry in fs::read_dir(&path).map_err(StoreError::io("list", &path))?.flatten() {
                let name = format!("{}:{}", algorithm.as_str(), entry.file_name().to_string_lossy());
                if let (Ok(digest), Ok(metadata)) = (name.parse(), entry.metadata()) {
                    found.push((
                        digest,
                        metadata.len(),
                        metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                    ));
                }
            }
        }
        Ok(found)
    }
}

#[derive(Debug)]
struct LocalStaged {
    file: File,
    path: PathBuf,
    len: u64,
}

impl Staged for LocalStaged {
    fn len(&self) -> u64 {
        self.len
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        match self.file.write_all(bytes) {
            Ok(()) => {
                self.len += bytes.len() as u64;
                Ok(())
            }
            Err(e) => {
                // A part may have been written; what was not acknowledged must not stay before what comes next.
                let _ = self.file.set_len(self.len);
                Err(StoreError::io("write", &self.path)(e))
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        self.file.sync_data().map_err(StoreError::io("flush", &self.path))
    }

    fn content(&self) -> Result<Content> {
        File::open(&self.path).map(Content::File).map_err(StoreError::io("open", &self.path))
    }
}

fn create_dir(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(StoreError::io("create directory", path))
}
