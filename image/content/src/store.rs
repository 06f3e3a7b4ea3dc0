use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hull_model::{Algorithm, Digest};

use crate::ingest::is_abandoned;
use crate::{ContentError, Hasher, Ingest};

const ALGORITHMS: [Algorithm; 3] = [Algorithm::Sha256, Algorithm::Sha384, Algorithm::Sha512];

/// The blobs of one data root. Cheap to clone; safe to use from several threads and processes at once.
#[derive(Clone, Debug)]
pub struct Store {
    root: Arc<Path>,
}

/// What [`Store::verify`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The bytes have that digest.
    Intact,
    /// The bytes have another.
    Damaged {
        /// Theirs.
        actual: Digest,
    },
}

impl Store {
    /// Opens the store in that directory, made if it is not there. Unnamed downloads that belong to nobody are
    /// removed; resumable ones stay.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, ContentError> {
        let store = Self { root: Arc::from(root.into()) };
        for algorithm in ALGORITHMS {
            create_dir(&store.root.join("blobs").join(algorithm.as_str()))?;
        }
        create_dir(&store.ingest_dir())?;
        store.remove_abandoned();
        Ok(store)
    }

    fn remove_abandoned(&self) {
        let Ok(entries) = fs::read_dir(self.ingest_dir()) else { return };
        for entry in entries.flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(b"tmp-") && is_abandoned(&entry.path()) {
                // A file that cannot be removed now costs space, not correctness.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    pub(crate) fn ingest_dir(&self) -> PathBuf {
        self.root.join("ingest")
    }

    /// The directory of the store.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where that blob is or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
    }

    /// Size of a blob in bytes, `None` if it is not there.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>, ContentError> {
        let path = self.path(digest);
        match fs::symlink_metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(ContentError::io("stat", path)(e)),
        }
    }

    /// Whether a blob of that size is there.
    pub fn contains(&self, digest: &Digest, size: u64) -> bool {
        matches!(self.size(digest), Ok(Some(n)) if n == size)
    }

    /// Opens a blob for reading.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, ContentError> {
        let path = self.path(digest);
        File::open(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => ContentError::NotFound(digest.clone()),
            _ => ContentError::io("open", path)(e),
        })
    }

    /// A whole small blob, its digest checked.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, ContentError> {
        let file = self.open_blob(digest)?;
        let path = self.path(digest);
        let size = file.metadata().map_err(ContentError::io("stat", &path))?.len();
        if size > limit {
            return Err(ContentError::TooLarge { digest: digest.clone(), size, limit });
        }
        let mut bytes = Vec::with_capacity(size as usize);
        file.take(limit).read_to_end(&mut bytes).map_err(ContentError::io("read", &path))?;
        check(digest, &bytes)?;
        Ok(bytes)
    }

    /// Stores a small blob and returns its SHA-256 digest.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, ContentError> {
        let digest = crate::sha256(bytes);
        if !self.contains(&digest, bytes.len() as u64) {
            let mut ingest = Ingest::unnamed(self.clone(), Algorithm::Sha256)?;
            ingest.append(bytes)?;
            ingest.commit()?;
        }
        Ok(digest)
    }

    /// Stores a small blob under the digest it is said to have.
    pub fn put_as(&self, digest: &Digest, bytes: &[u8]) -> Result<(), ContentError> {
        check(digest, bytes)?;
        if !self.contains(digest, bytes.len() as u64) {
            let mut ingest = Ingest::unnamed(self.clone(), digest.algorithm())?;
            ingest.append(bytes)?;
            ingest.commit()?;
        }
        Ok(())
    }

    /// Starts or resumes writing content of known digest and perhaps size.
    pub fn ingest(&self, digest: &Digest, size: Option<u64>) -> Result<Ingest, ContentError> {
        Ingest::resumable(self.clone(), digest, size)
    }

    /// Starts writing content whose SHA-256 digest is not known yet.
    pub fn ingest_unnamed(&self) -> Result<Ingest, ContentError> {
        Ingest::unnamed(self.clone(), Algorithm::Sha256)
    }

    /// Removes a blob; whether it was there.
    pub fn delete(&self, digest: &Digest) -> Result<bool, ContentError> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(ContentError::io("remove", path)(e)),
        }
    }

    /// All blobs with their sizes, in no order.
    pub fn list(&self) -> Result<Vec<(Digest, u64)>, ContentError> {
        let mut found = Vec::new();
        for algorithm in ALGORITHMS {
            let dir = self.root.join("blobs").join(algorithm.as_str());
            for entry in fs::read_dir(&dir).map_err(ContentError::io("list", &dir))? {
                let entry = entry.map_err(ContentError::io("list", &dir))?;
                let name = format!("{}:{}", algorithm.as_str(), entry.file_name().to_string_lossy());
                // A name that is no digest is not ours; a blob gone since the listing is not there.
                if let (Ok(digest), Ok(metadata)) = (name.parse(), entry.metadata()) {
                    found.push((digest, metadata.len()));
                }
            }
        }
        Ok(found)
    }

    /// Reads a blob and computes its digest anew.
    pub fn verify(&self, digest: &Digest) -> Result<Verdict, ContentError> {
        let mut file = self.open_blob(digest)?;
        let mut hasher = Hasher::new(digest.algorithm());
        let mut buffer = vec![0; 256 << 10];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => hasher.update(&buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(ContentError::io("read", self.path(digest))(e)),
            }
        }
        let actual = hasher.finish();
        Ok(if actual == *digest { Verdict::Intact } else { Verdict::Damaged { actual } })
    }

    /// Removes downloads begun and not finished that nobody is writing now, for a clean-up that wants the space more
    /// than the head start; returns the bytes freed.
    pub fn remove_partial(&self) -> Result<u64, ContentError> {
        let dir = self.ingest_dir();
        let mut freed = 0;
        for entry in fs::read_dir(&dir).map_err(ContentError::io("list", &dir))?.flatten() {
            let size = entry.metadata().map_or(0, |m| m.len());
            if is_abandoned(&entry.path()) && fs::remove_file(entry.path()).is_ok() {
                freed += size;
            }
        }
        Ok(freed)
    }

    /// Brings these blobs to the disk, and that they are there.
    ///
    /// # Errors
    /// When one is not there or the disk refuses.
    pub fn sync_blobs<'a>(&self, digests: impl Iterator<Item = &'a Digest>) -> Result<(), ContentError> {
        let mut directories = std::collections::BTreeSet::new();
        for digest in digests {
            let file = self.open_blob(digest)?;
            let path = self.path(digest);
            file.sync_data().map_err(ContentError::io("sync", &path))?;
            directories.extend(path.parent().map(Path::to_path_buf));
        }
        for path in directories {
            let directory = File::open(&path).map_err(ContentError::io("open", &path))?;
            directory.sync_all().map_err(ContentError::io("sync", &path))?;
        }
        Ok(())
    }

    /// Brings everything written so far on this file system to the disk (syncfs(2)): one flush for all blobs and
    /// layers of an image, to be called before the image is recorded.
    pub fn sync(&self) -> Result<(), ContentError> {
        let dir = File::open(&self.root).map_err(ContentError::io("open", &*self.root))?;
        rustix::fs::syncfs(&dir).map_err(|e| ContentError::io("sync", &*self.root)(e.into()))
    }
}

fn check(digest: &Digest, bytes: &[u8]) -> Result<(), ContentError> {
    let mut hasher = Hasher::new(digest.algorithm());
    hasher.update(bytes);
    let actual = hasher.finish();
    if actual == *digest {
        Ok(())
    } else {
        Err(ContentError::DigestMismatch { expected: digest.clone(), actual })
    }
}

fn create_dir(path: &Path) -> Result<(), ContentError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(ContentError::io("create directory", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sha256;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("content")).unwrap();
        (dir, store)
    }

    fn ingest_files(store: &Store) -> usize {
        fs::read_dir(store.ingest_dir()).unwrap().count()
    }

    #[test]
    fn put_read_delete() {
        let (_dir, store) = store();
        let digest = store.put(b"hello").unwrap();
        assert_eq!(store.put(b"hello").unwrap(), digest);
        assert_eq!(store.read(&digest, 5).unwrap(), b"hello");
        assert!(matches!(store.read(&digest, 4), Err(ContentError::TooLarge { size: 5, .. })));
        assert_eq!(store.list().unwrap(), vec![(digest.clone(), 5)]);
        assert!(store.delete(&digest).unwrap());
        assert!(!store.delete(&digest).unwrap());
        assert!(matches!(store.read(&digest, 5), Err(ContentError::NotFound(_))));
        assert_eq!(ingest_files(&store), 0);
    }

    #[test]
    fn resumes_where_it_stopped() {
        let (_dir, store) = store();
        let digest = sha256(b"hello world");
        let mut first = store.ingest(&digest, Some(11)).unwrap();
        first.append(b"hello").unwrap();
        assert!(matches!(first.commit(), Err(ContentError::SizeMismatch { actual: 5, .. })));
        let mut second = store.ingest(&digest, Some(11)).unwrap();
        assert_eq!(second.offset(), 5);
        let mut there = String::new();
        second.reader().unwrap().read_to_string(&mut there).unwrap();
        assert_eq!(there, "hello");
        second.append(b" world").unwrap();
        assert_eq!(second.commit().unwrap(), (digest.clone(), 11));
        assert_eq!(store.verify(&digest).unwrap(), Verdict::Intact);
        assert_eq!(ingest_files(&store), 0);
    }

    #[test]
    fn wrong_content_gets_no_name_and_is_not_resumed() {
        let (_dir, store) = store();
        let digest = sha256(b"hello world");
        let mut ingest = store.ingest(&digest, Some(11)).unwrap();
        ingest.append(b"hello WORLD").unwrap();
        assert!(matches!(ingest.commit(), Err(ContentError::DigestMismatch { .. })));
        assert!(!store.contains(&digest, 11));
        assert_eq!(store.ingest(&digest, Some(11)).unwrap().offset(), 0);
    }

    #[test]
    fn too_much_is_refused_at_once() {
        let (_dir, store) = store();
        let mut ingest = store.ingest(&sha256(b"ab"), Some(2)).unwrap();
        assert!(matches!(ingest.append(b"abc"), Err(ContentError::SizeMismatch { actual: 3, .. })));
    }

    #[test]
    fn same_blob_written_by_many_at_once() {
        let (_dir, store) = store();
        let content: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
        let digest = sha256(&content);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut ingest = store.ingest(&digest, Some(content.len() as u64)).unwrap();
                    let offset = ingest.offset() as usize;
                    for piece in content[offset..].chunks(4096) {
                        ingest.append(piece).unwrap();
                    }
                    ingest.commit().unwrap();
                });
            }
        });
        assert_eq!(store.verify(&digest).unwrap(), Verdict::Intact);
        assert_eq!(ingest_files(&store), 0);
    }

    #[test]
    fn damage_is_noticed() {
        let (_dir, store) = store();
        let digest = store.put(b"precious").unwrap();
        fs::write(store.path(&digest), b"previous").unwrap();
        assert_eq!(store.verify(&digest).unwrap(), Verdict::Damaged { actual: sha256(b"previous") });
        assert!(matches!(store.read(&digest, 100), Err(ContentError::DigestMismatch { .. })));
        fs::write(store.path(&digest), b"prec").unwrap();
        assert!(!store.contains(&digest, 8));
    }

    #[test]
    fn opening_again_removes_only_what_nobody_can_resume() {
        let (dir, store) = store();
        fs::write(store.ingest_dir().join("tmp-dead"), b"x").unwrap();
        let mut kept = store.ingest(&sha256(b"resumable"), None).unwrap();
        kept.append(b"resu").unwrap();
        drop(kept);
        let running = store.ingest_unnamed().unwrap();
        let again = Store::open(dir.path().join("content")).unwrap();
        assert_eq!(ingest_files(&again), 2);
        drop(running);
        assert_eq!(ingest_files(&again), 1);
        assert_eq!(again.remove_partial().unwrap(), 4);
    }
}
