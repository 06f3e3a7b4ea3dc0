//! The record of truth: an embedded database of containers, images, networks, volumes.
//!
//! [`Store`] keeps JSON documents by table and id, and names that are unique within a space. One thread owns the
//! SQLite connection; writes that queue up while it works are committed together (group commit). The file is in
//! WAL mode: a batch written with [`Durability::Disk`] survives a power cut once its future resolves, one written
//! with [`Durability::Process`] survives the death of this process (the data is in the kernel's page cache).
//!
//! The engine holds the working copy of everything in memory; reads happen when it starts.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

mod writer;

/// What a finished write must survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// The end of this process at any instant, but not a power cut: no disk flush.
    Process,
    /// A power cut: the write-ahead log is flushed before the write is reported done.
    Disk,
}

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database file could not be opened or its schema not be brought up to date.
    #[error("open database {path}")]
    Open {
        /// The database file.
        path: PathBuf,
        /// SQLite's reason.
        #[source]
        source: rusqlite::Error,
    },
    /// The database was written by a newer engine.
    #[error("database {path} has schema version {found}, this engine knows up to {known}")]
    Newer {
        /// The database file.
        path: PathBuf,
        /// Version in the file.
        found: i64,
        /// Newest version this code writes.
        known: i64,
    },
    /// The writer thread could not be started.
    #[error("start database writer")]
    Thread(#[source] std::io::Error),
    /// A document could not be turned into JSON or back.
    #[error("document {table}/{id}")]
    Document {
        /// Table of the document.
        table: String,
        /// Id of the document.
        id: String,
        /// The JSON error.
        #[source]
        source: serde_json::Error,
    },
    /// Reading failed.
    #[error("read table {table}")]
    Read {
        /// Table that was read.
        table: String,
        /// SQLite's reason.
        #[source]
        source: rusqlite::Error,
    },
    /// Writing failed; nothing of the batch was kept.
    #[error("write batch")]
    Write(#[source] Arc<rusqlite::Error>),
    /// A claimed name belongs to something else; nothing of the batch was kept.
    #[error("name {name} in {space} is taken by {owner}")]
    NameTaken {
        /// Name space.
        space: String,
        /// The name.
        name: String,
        /// Id that owns it.
        owner: String,
    },
    /// The writer thread is gone (the store was closed).
    #[error("database is closed")]
    Closed,
}

/// One change of a [`Batch`].
#[derive(Debug, Clone)]
enum Op {
    Put { table: &'static str, id: String, doc: String },
    Delete { table: &'static str, id: String },
    Claim { space: &'static str, name: String, id: String },
    Release { space: &'static str, name: String },
}

/// Changes that happen together or not at all.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    ops: Vec<Op>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Writes a document, replacing the one that was there.
    pub fn put<T: Serialize + ?Sized>(
        &mut self,
        table: &'static str,
        id: &str,
        doc: &T,
    ) -> Result<&mut Batch, Error> {
        let doc = serde_json::to_string(doc).map_err(|source| Error::Document {
            table: table.to_owned(),
            id: id.to_owned(),
            source,
        })?;
        self.ops.push(Op::Put { table, id: id.to_owned(), doc });
        Ok(self)
    }

    /// Removes a document; one that is not there is no error.
    pub fn delete(&mut self, table: &'static str, id: &str) -> &mut Batch {
        self.ops.push(Op::Delete { table, id: id.to_owned() });
        self
    }

    /// Gives `name` in `space` to `id`. Fails the batch when another id has it; claiming again is no error.
    pub fn claim(&mut self, space: &'static str, name: &str, id: &str) -> &mut Batch {
        self.ops.push(Op::Claim { space, name: name.to_owned(), id: id.to_owned() });
        self
    }

    /// Frees a name; one that is not taken is no error.
    pub fn release(&mut self, space: &'static str, name: &str) -> &mut Batch {
        self.ops.push(Op::Release { space, name: name.to_owned() });
        self
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

/// A write under way. Await it to know it is kept; dropping it leaves the write going on in order.
#[derive(Debug)]
#[must_use = "await it, or call `detach` when the order is enough"]
pub struct Pending(oneshot::Receiver<Result<(), Error>>);

impl Pending {
    /// Lets the write finish by itself.
    pub fn detach(self) {}

    /// Waits on a thread that runs no async tasks.
    pub fn wait(self) -> Result<(), Error> {
        self.0.blocking_recv().unwrap_or(Err(Error::Closed))
    }
}

impl Future for Pending {
    type Output = Result<(), Error>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(cx).map(|got| got.unwrap_or(Err(Error::Closed)))
    }
}

/// The open database. Clones share it; the last one closes it after everything queued is written.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    jobs: Mutex<Option<mpsc::Sender<writer::Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
    /// Opens the database file, creating it or bringing its schema up to date.
    pub fn open(path: &Path) -> Result<Store, Error> {
        let connection = writer::open(path)?;
        let (jobs, queue) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("meta".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || writer::run(connection, queue))
            .map_err(Error::Thread)?;
        Ok(Store {
            inner: Arc::new(Inner { jobs: Mutex::new(Some(jobs)), thread: Mutex::new(Some(thread)) }),
        })
    }

    /// Queues a batch. Batches are applied in the order of these calls.
    pub fn write(&self, batch: Batch, durability: Durability) -> Pending {
        let (reply, answer) = oneshot::channel();
        let job = writer::Job::Write(writer::Write { ops: batch.ops, durability, reply });
        // A job that cannot be queued drops its reply, which the caller sees as `Closed`.
        self.send(job);
        Pending(answer)
    }

    /// Writes one document.
    pub async fn put<T: Serialize + ?Sized>(
        &self,
        table: &'static str,
        id: &str,
        doc: &T,
        durability: Durability,
    ) -> Result<(), Error> {
        let mut batch = Batch::new();
        batch.put(table, id, doc)?;
        self.write(batch, durability).await
    }

    /// Removes one document.
    pub async fn delete(&self, table: &'static str, id: &str, durability: Durability) -> Result<(), Error> {
        let mut batch = Batch::new();
        batch.delete(table, id);
        self.write(batch, durability).await
    }

    /// All documents of a table in the order of their ids. Blocks: for start-up and blocking threads.
    pub fn load<T: DeserializeOwned>(&self, table: &'static str) -> Result<Vec<(String, T)>, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(writer::Job::Load { table, reply });
        let rows = answer.blocking_recv().unwrap_or(Err(Error::Closed))?;
        rows.into_iter().map(|(id, doc)| decode(table, &id, &doc).map(|doc| (id, doc))).collect()
    }

    /// All names of a space as (name, id). Blocks: for start-up and blocking threads.
    pub fn names(&self, space: &'static str) -> Result<Vec<(String, String)>, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(writer::Job::Names { space, reply });
        answer.blocking_recv().unwrap_or(Err(Error::Closed))
    }

    /// One document, after all writes queued before.
    pub async fn get<T: DeserializeOwned>(&self, table: &'static str, id: &str) -> Result<Option<T>, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(writer::Job::Get { table, id: id.to_owned(), reply });
        let doc = answer.await.unwrap_or(Err(Error::Closed))?;
        doc.map(|doc| decode(table, id, &doc)).transpose()
    }

    /// Writes everything queued, then closes the file. Later calls fail with [`Error::Closed`].
    pub fn close(&self) {
        self.inner.close();
    }

    fn send(&self, job: writer::Job) {
        if let Some(jobs) = self.inner.jobs.lock().unwrap_or_else(|e| e.into_inner()).as_ref() {
            let _ = jobs.send(job);
        }
    }
}

impl Inner {
    fn close(&self) {
        drop(self.jobs.lock().unwrap_or_else(|e| e.into_inner()).take());
        if let Some(thread) = self.thread.lock().unwrap_or_else(|e| e.into_inner()).take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

fn decode<T: DeserializeOwned>(table: &'static str, id: &str, doc: &str) -> Result<T, Error> {
    serde_json::from_str(doc).map_err(|source| Error::Document {
        table: table.to_owned(),
        id: id.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Doc {
        n: u32,
    }

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().expect("temp dir");
        let store = Store::open(&dir.path().join("meta.db")).expect("open");
        (dir, store)
    }

    #[test]
    fn documents_survive_reopening() {
        let (dir, store) = store();
        let mut batch = Batch::new();
        batch.put("t", "b", &Doc { n: 2 }).expect("json").put("t", "a", &Doc { n: 1 }).expect("json");
        store.write(batch, Durability::Disk).wait().expect("write");
        let mut batch = Batch::new();
        batch.delete("t", "b").put("u", "b", &Doc { n: 3 }).expect("json");
        store.write(batch, Durability::Process).detach();
        store.close();
        let store = Store::open(&dir.path().join("meta.db")).expect("open again");
        assert_eq!(store.load::<Doc>("t").expect("load"), vec![("a".to_owned(), Doc { n: 1 })]);
        assert_eq!(store.load::<Doc>("u").expect("load"), vec![("b".to_owned(), Doc { n: 3 })]);
    }

    #[test]
    fn a_taken_name_fails_its_batch_only() {
        let (_dir, store) = store();
        let mut first = Batch::new();
        first.claim("names", "web", "1");
        store.write(first, Durability::Process).wait().expect("claim");
        let mut second = Batch::new();
        second.put("t", "2", &Doc { n: 2 }).expect("json").claim("names", "web", "2");
        let second = store.write(second, Durability::Process);
        let mut third = Batch::new();
        third.put("t", "3", &Doc { n: 3 }).expect("json").claim("names", "web", "1");
        let third = store.write(third, Durability::Process);
        assert!(matches!(second.wait(), Err(Error::NameTaken { owner, .. }) if owner == "1"));
        third.wait().expect("claiming an own name again");
        assert_eq!(store.load::<Doc>("t").expect("load").len(), 1);
        let mut free = Batch::new();
        free.release("names", "web").claim("names", "web", "2");
        store.write(free, Durability::Process).wait().expect("claim after release");
        assert_eq!(store.names("names").expect("names"), vec![("web".to_owned(), "2".to_owned())]);
    }

    #[test]
    fn a_closed_store_says_so() {
        let (_dir, store) = store();
        store.close();
        assert!(matches!(store.write(Batch::new(), Durability::Process).wait(), Err(Error::Closed)));
    }

    #[test]
    fn a_newer_schema_is_refused() {
        let (dir, store) = store();
        store.close();
        let path = dir.path().join("meta.db");
        let db = rusqlite::Connection::open(&path).expect("open");
        db.pragma_update(None, "user_version", 99).expect("pragma");
        drop(db);
        assert!(matches!(Store::open(&path), Err(Error::Newer { found: 99, .. })));
    }
}
