use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hull_model::{Algorithm, Digest};
use rustix::fs::FlockOperation;

use crate::store::Store;
use crate::{ContentError, Hasher};

/// What the disk is asked to write at once, while more arrives.
const WRITE_BACK: u64 = 8 << 20;

/// A blob being written. Dropped without [`Ingest::commit`], a resumable one stays for the next attempt and an
/// unnamed one is removed.
pub struct Ingest {
    store: Store,
    file: File,
    path: PathBuf,
    expected: Option<(Digest, Option<u64>)>,
    hasher: Hasher,
    written: u64,
    resumable: bool,
    committed: bool,
}

impl Ingest {
    /// For content whose digest is known: goes on where an earlier attempt stopped. If somebody else is writing the
    /// same content now, this one starts from nothing under another name.
    pub(crate) fn resumable(store: Store, digest: &Digest, size: Option<u64>) -> Result<Self, ContentError> {
        let path = store.ingest_dir().join(format!("{}-{}", digest.algorithm().as_str(), digest.hex()));
        let Some(file) = open_locked(&path)? else {
            let mut ingest = Self::unnamed(store, digest.algorithm())?;
            ingest.expected = Some((digest.clone(), size));
            return Ok(ingest);
        };
        let mut ingest = Self {
            store,
            file,
            path,
            expected: Some((digest.clone(), size)),
            hasher: Hasher::new(digest.algorithm()),
            written: 0,
            resumable: true,
            committed: false,
        };
        ingest.rehash()?;
        if size.is_some_and(|size| ingest.written > size) {
            ingest.restart()?;
        }
        Ok(ingest)
    }

    /// For content whose digest is not known yet.
    pub(crate) fn unnamed(store: Store, algorithm: Algorithm) -> Result<Self, ContentError> {
        let path = store.ingest_dir().join(format!("tmp-{}", hull_model::Id::random()));
        let file = open_locked(&path)?.ok_or_else(|| ContentError::Io {
            step: "lock",
            path: path.clone(),
            source: io::ErrorKind::WouldBlock.into(),
        })?;
        let hasher = Hasher::new(algorithm);
        Ok(Self { store, file, path, expected: None, hasher, written: 0, resumable: false, committed: false })
    }

    fn rehash(&mut self) -> Result<(), ContentError> {
        let mut buffer = vec![0; 256 << 10];
        loop {
            match self.file.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => {
                    self.hasher.update(&buffer[..n]);
                    self.written += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(ContentError::io("read partial content", &self.path)(e)),
            }
        }
    }

    /// Bytes already there.
    pub fn offset(&self) -> u64 {
        self.written
    }

    /// Throws away what is there and starts again.
    pub fn restart(&mut self) -> Result<(), ContentError> {
        let truncate = |file: &mut File| {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0)).map(drop)
        };
        truncate(&mut self.file).map_err(ContentError::io("truncate", &self.path))?;
        let algorithm = self.expected.as_ref().map_or(Algorithm::Sha256, |(digest, _)| digest.algorithm());
        self.hasher = Hasher::new(algorithm);
        self.written = 0;
        Ok(())
    }

    /// A reader of the bytes already there, from the first; reads no further than they go now.
    pub fn reader(&self) -> Result<impl Read + Send + 'static, ContentError> {
        let file = File::open(&self.path).map_err(ContentError::io("open partial content", &self.path))?;
        Ok(file.take(self.written))
    }

    /// Adds bytes. More than were announced is an error at once, so that a lying peer cannot fill the disk.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), ContentError> {
        let total = self.written + bytes.len() as u64;
        if let Some((digest, Some(expected))) = &self.expected
            && total > *expected
        {
            return Err(ContentError::SizeMismatch {
                digest: digest.clone(),
                expected: *expected,
                actual: total,
            });
        }
        self.file.write_all(bytes).map_err(ContentError::io("write", &self.path))?;
        self.hasher.update(bytes);
        if total / WRITE_BACK > self.written / WRITE_BACK {
            // The flush at the end finds most of it on the disk.
            hull_sys::fd::start_writeback(&self.file, total.saturating_sub(WRITE_BACK), WRITE_BACK);
        }
        self.written = total;
        Ok(())
    }

    /// Checks size and digest and gives the blob its name; returns digest and size. Content that is not what it
    /// should be is removed.
    pub fn commit(self) -> Result<(Digest, u64), ContentError> {
        self.commit_held(|_| ())
    }

    /// Like [`Ingest::commit`]; `hold` is told the digest before the blob appears, so that whoever collects garbage can
    /// be kept from taking it.
    pub fn commit_held(mut self, hold: impl FnOnce(&Digest)) -> Result<(Digest, u64), ContentError> {
        let hasher = std::mem::replace(&mut self.hasher, Hasher::new(Algorithm::Sha256));
        let actual = hasher.finish();
        if let Some((digest, size)) = self.expected.clone() {
            if let Some(expected) = size
                && self.written != expected
            {
                // Too short is a broken transfer, worth keeping; the bytes so far may well be right.
                return Err(ContentError::SizeMismatch { digest, expected, actual: self.written });
            }
            if digest != actual {
                self.resumable = false;
                return Err(ContentError::DigestMismatch { expected: digest, actual });
            }
        }
        hold(&actual);
        let target = self.store.path(&actual);
        std::fs::rename(&self.path, &target).map_err(ContentError::io("rename into place", &target))?;
        self.committed = true;
        Ok((actual, self.written))
    }

    /// Gives up and removes what is there.
    pub fn discard(mut self) {
        self.resumable = false;
    }
}

impl Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if !self.committed && !self.resumable {
            // Nothing to do about a failure: what remains is removed when the store is opened next.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Opens and locks; `None` when another writer holds it. The lock is on the inode, so a file renamed away between
/// open and lock is not the one wanted any more.
fn open_locked(path: &Path) -> Result<Option<File>, ContentError> {
    loop {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(ContentError::io("create", path))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(e) => return Err(ContentError::io("lock", path)(e.into())),
        }
        let locked = file.metadata().map_err(ContentError::io("stat", path))?;
        match std::fs::symlink_metadata(path) {
            Ok(named) if (named.dev(), named.ino()) == (locked.dev(), locked.ino()) => return Ok(Some(file)),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(ContentError::io("stat", path)(e)),
        }
    }
}

/// Whether a file in the ingest directory belongs to nobody: its lock can be taken.
pub(crate) fn is_abandoned(path: &Path) -> bool {
    File::open(path)
        .is_ok_and(|file| rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok())
}
