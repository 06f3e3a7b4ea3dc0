//! The thread that writes the index.

use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use hull_model::Digest;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::blobs::BlobStorage;
use super::{Result, StoreError};

/// Changes committed together at most: bounds how long the first of them waits.
const BATCH: usize = 256;

/// What a change does beside the index.
pub(crate) struct Effects<'a> {
    /// Where blobs are.
    pub(crate) blobs: &'a dyn BlobStorage,
    /// A blob got its name: flushed before the commit.
    published: bool,
    /// Blobs that lose their name after the commit.
    removed: Vec<Digest>,
    /// Uploads that are not needed after the commit.
    discarded: Vec<super::UploadId>,
}

impl Effects<'_> {
    /// Gives an upload's bytes, which were flushed, the name of their digest.
    pub(crate) fn publish(&mut self, upload: &super::UploadId, digest: &Digest) -> Result<()> {
        self.blobs.publish(upload, digest)?;
        self.published = true;
        Ok(())
    }

    /// Removes a blob's bytes once the index no longer names them.
    pub(crate) fn remove(&mut self, digest: Digest) {
        self.removed.push(digest);
    }

    /// Drops an upload once the change is committed.
    pub(crate) fn discard(&mut self, upload: super::UploadId) {
        self.discarded.push(upload);
    }
}

/// Told whether the batch failed.
type Done = Box<dyn FnOnce(Option<&Arc<rusqlite::Error>>) + Send>;
type Job = Box<dyn FnOnce(&Connection, &mut Effects<'_>) -> Done + Send>;

/// Hands changes to the thread.
#[derive(Debug)]
pub(crate) struct Writer {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(connection: Connection, blobs: Arc<dyn BlobStorage>) -> Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("index".into())
            .spawn(move || run(&connection, &*blobs, &queue))
            .map_err(StoreError::io("start thread", "index"))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Makes a change; when this returns it is on the disk. A change that fails leaves nothing.
    pub(super) fn submit<T, F>(&self, change: F) -> impl Future<Output = Result<T>> + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, &mut Effects<'_>) -> Result<T> + Send + 'static,
    {
        let (answer, wait) = oneshot::channel();
        let job: Job = Box::new(move |connection, effects| {
            let result = attempt(connection, effects, change);
            Box::new(move |failed| {
                let result = result.and_then(|value| match failed {
                    None => Ok(value),
                    Some(error) => Err(StoreError::Commit(error.clone())),
                });
                // Whoever asked may have gone; the change stands.
                let _ = answer.send(result);
            })
        });
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        async move { if sent { wait.await.unwrap_or(Err(StoreError::Closed)) } else { Err(StoreError::Closed) } }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn attempt<T>(
    connection: &Connection,
    effects: &mut Effects<'_>,
    change: impl FnOnce(&Connection, &mut Effects<'_>) -> Result<T>,
) -> Result<T> {
    connection.prepare_cached("SAVEPOINT change")?.execute([])?;
    let (removed, discarded) = (effects.removed.len(), effects.discarded.len());
    let result = change(connection, effects);
    if result.is_err() {
        effects.removed.truncate(removed);
        effects.discarded.truncate(discarded);
        connection.prepare_cached("ROLLBACK TO change")?.execute([])?;
    }
    connection.prepare_cached("RELEASE change")?.execute([])?;
    result
}

fn run(connection: &Connection, blobs: &dyn BlobStorage, queue: &mpsc::Receiver<Job>) {
    while let Ok(first) = queue.recv() {
        let mut effects = Effects { blobs, published: false, removed: Vec::new(), discarded: Vec::new() };
        let mut done = Vec::new();
        let result = batch(connection, &mut effects, first, queue, &mut done).map_err(Arc::new);
        if result.is_err() {
            // Nothing of the batch may stay in a transaction that the next one would commit.
            let _ = connection.execute_batch("ROLLBACK");
        }
        let Effects { removed, discarded, .. } = effects;
        if result.is_ok() {
            for digest in &removed {
                if let Err(error) = blobs.remove(digest) {
                    tracing::warn!(%digest, error = &error as &dyn std::error::Error, "blob not removed");
                }
            }
            for upload in &discarded {
                blobs.discard(upload);
            }
        }
        for done in done {
            done(result.as_ref().err());
        }
    }
}

fn batch(
    connection: &Connection,
    effects: &mut Effects<'_>,
    first: Job,
    queue: &mpsc::Receiver<Job>,
    done: &mut Vec<Done>,
) -> rusqlite::Result<()> {
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    done.push(first(connection, effects));
    while done.len() < BATCH
        && let Ok(job) = queue.try_recv()
    {
        done.push(job(connection, effects));
    }
    if effects.published {
        effects.blobs.settle().map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "names of blobs are not on the disk");
            rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_DIR_FSYNC),
                Some(error.to_string()),
            )
        })?;
    }
    connection.prepare_cached("COMMIT")?.execute([])?;
    Ok(())
}
