//! What the registry keeps: an index of names in one SQLite database, and the bytes of blobs in a [`BlobStorage`].
//!
//! ```text
//! <root>/lock                     one server per root
//! <root>/index.db                 repositories, links, manifests, tags, and the bytes of small blobs
//! <root>/blobs/sha256/<hex>       whole, verified blobs; added and removed, never changed
//! <root>/uploads/<id>             uploads under way; only ever appended to
//! <root>/trash/                   removed blobs on their way out
//! ```
//!
//! One thread writes the index; requests that come while it works are committed together (group commit). What a client
//! was told is done survives a power cut: a blob's bytes are flushed, then it gets its name, then the directory is
//! flushed, then the index says it exists, then the client hears it. A cut between two steps leaves a file nobody
//! names, which the next collection removes.
//!
//! Names come and go in that one thread only, so a blob uploaded anew while it is being removed is either kept or
//! removed before it was there again.

mod blobs;
mod check;
mod gc;
mod index;
mod schema;
mod uploads;
mod writer;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hull_model::Digest;
use rusqlite::{Connection, OpenFlags};
use rustix::fs::FlockOperation;

use crate::error::ApiError;

pub use blobs::{BlobStorage, Content, LocalBlobs, Staged};
pub use check::Checked;
pub use gc::{Collected, Retention, Rules};
pub use index::{Page, PutManifest, StoredManifest, TagState};
pub(crate) use uploads::random;
pub use uploads::{Finished, Session, UploadId, Uploads};

use writer::Writer;

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory belongs to another server that runs.
    #[error("another registry uses {0}")]
    Locked(PathBuf),
    /// A file could not be used.
    #[error("{step} {path}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The index could not be opened.
    #[error("open {path}")]
    Open {
        /// The database.
        path: PathBuf,
        /// SQLite's reason.
        #[source]
        source: rusqlite::Error,
    },
    /// The index was written by a newer version.
    #[error("{path} has version {found}, this program knows up to {known}")]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest known.
        known: i64,
    },
    /// A query failed.
    #[error("index")]
    Index(#[from] rusqlite::Error),
    /// The batch of changes could not be committed; none of it was kept.
    #[error("commit to the index")]
    Commit(#[source] Arc<rusqlite::Error>),
    /// The thread that writes the index is gone.
    #[error("the index is closed")]
    Closed,
    /// The change is refused, with what the client is told.
    #[error(transparent)]
    Refused(Box<ApiError>),
}

impl StoreError {
    pub(crate) fn io(step: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { step, path, source }
    }

    /// Whether the disk is full.
    pub fn is_full(&self) -> bool {
        let full = |e: &rusqlite::Error| e.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull);
        match self {
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::Index(source) => full(source),
            Self::Commit(source) => full(source),
            _ => false,
        }
    }
}

impl From<ApiError> for StoreError {
    fn from(error: ApiError) -> Self {
        Self::Refused(Box::new(error))
    }
}

/// A result of the store.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Largest blob, in bytes, that is kept in the index instead of a file of its own.
pub const INLINE_MAX: usize = 32 << 10;

/// How many recently wanted links are remembered; beyond it a collection takes no links.
const TOUCHED_MAX: usize = 200_000;

/// A blob as a repository sees it.
#[derive(Debug)]
pub struct Blob {
    /// Bytes.
    pub size: u64,
    /// The bytes, if they are in the index.
    pub inline: Option<Vec<u8>>,
}

/// The store of one root.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    blobs: Arc<dyn BlobStorage>,
    writer: Writer,
    readers: Mutex<Vec<Connection>>,
    /// Links that clients were told exist, and when: not collected while an upload may rely on them.
    touched: Mutex<HashMap<(i64, Digest), Instant>>,
    _lock: File,
}

impl Store {
    /// Opens the store in a directory, made if it is not there.
    pub fn open(root: &Path) -> Result<Self> {
        std::fs::create_dir_all(root).map_err(StoreError::io("create directory", root))?;
        let lock = take_lock(root)?;
        let blobs: Arc<dyn BlobStorage> = Arc::new(LocalBlobs::open(root)?);
        let path = root.join("index.db");
        let connection = schema::open(&path)?;
        let writer = Writer::start(connection, blobs.clone())?;
        Ok(Self {
            root: root.to_owned(),
            blobs,
            writer,
            readers: Mutex::default(),
            touched: Mutex::default(),
            _lock: lock,
        })
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the bytes of blobs are.
    pub fn blobs(&self) -> &Arc<dyn BlobStorage> {
        &self.blobs
    }

    /// Runs a query on a connection of its own, which sees everything that was acknowledged.
    pub(crate) fn read<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        let idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.reader()?,
        };
        let result = query(&connection);
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(result?)
    }

    fn reader(&self) -> Result<Connection> {
        let path = self.root.join("index.db");
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = || {
            let connection = Connection::open_with_flags(&path, flags)?;
            connection.busy_timeout(Duration::from_secs(10))?;
            connection.pragma_update(None, "cache_size", -1024)?;
            connection.pragma_update(None, "mmap_size", 256 << 20)?;
            connection.set_prepared_statement_cache_capacity(64);
            Ok(connection)
        };
        open().map_err(|source| StoreError::Open { path: path.clone(), source })
    }

    /// Remembers that a client was told of this link, so that it can rely on it for a while.
    pub(crate) fn touch(&self, repository: i64, digest: &Digest) {
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        if touched.len() < TOUCHED_MAX {
            touched.insert((repository, digest.clone()), Instant::now());
        }
    }
}

fn take_lock(root: &Path) -> Result<File> {
    let path = root.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(StoreError::io("create", &path))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::Locked(root.to_owned())),
        Err(e) => Err(StoreError::io("lock", path)(e.into())),
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64)
}

#[cfg(test)]
mod tests;
