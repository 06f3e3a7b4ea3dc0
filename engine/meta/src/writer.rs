//! The thread that owns the connection.
//!
//! Schema version 1: `documents(tbl, id, doc)` and `names(space, name, id)`.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::oneshot;

use crate::{Durability, Error, Op};

const SCHEMA_VERSION: i64 = 1;

/// Quiet time after which the write-ahead log is folded into the database, away from anybody who waits.
const CHECKPOINT_AFTER: Duration = Duration::from_millis(700);

/// Batches committed together at most, so that the first one does not wait for ever.
const GROUP: usize = 128;

pub(crate) type Rows = Vec<(String, String)>;

pub(crate) struct Write {
    pub(crate) ops: Vec<Op>,
    pub(crate) durability: Durability,
    pub(crate) reply: oneshot::Sender<Result<(), Error>>,
}

pub(crate) enum Job {
    Write(Write),
    Load { table: &'static str, reply: oneshot::Sender<Result<Rows, Error>> },
    Names { space: &'static str, reply: oneshot::Sender<Result<Rows, Error>> },
    Get { table: &'static str, id: String, reply: oneshot::Sender<Result<Option<String>, Error>> },
}

pub(crate) fn open(path: &Path) -> Result<Connection, Error> {
    let failed = |source| Error::Open { path: path.to_owned(), source };
    let db = Connection::open(path).map_err(failed)?;
    configure(&db).map_err(failed)?;
    let found: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    if found > SCHEMA_VERSION {
        return Err(Error::Newer { path: path.to_owned(), found, known: SCHEMA_VERSION });
    }
    migrate(&db, found).map_err(failed)?;
    Ok(db)
}

fn configure(db: &Connection) -> rusqlite::Result<()> {
    // The lock of the data root keeps other engines out, so the shared-memory file of the log is not needed.
    db.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    db.pragma_update(None, "synchronous", "NORMAL")?;
    db.pragma_update(None, "wal_autocheckpoint", 0)?;
    db.pragma_update(None, "cache_size", -512)?;
    db.pragma_update(None, "temp_store", "MEMORY")?;
    db.busy_timeout(Duration::from_secs(5))
}

fn migrate(db: &Connection, found: i64) -> rusqlite::Result<()> {
    if found < 1 {
        db.execute_batch(
            "BEGIN IMMEDIATE;
             CREATE TABLE documents (tbl TEXT NOT NULL, id TEXT NOT NULL, doc TEXT NOT NULL,
                 PRIMARY KEY (tbl, id)) WITHOUT ROWID;
             CREATE TABLE names (space TEXT NOT NULL, name TEXT NOT NULL, id TEXT NOT NULL,
                 PRIMARY KEY (space, name)) WITHOUT ROWID;
             PRAGMA user_version = 1;
             COMMIT;",
        )?;
    }
    Ok(())
}

pub(crate) fn run(db: Connection, queue: Receiver<Job>) {
    let mut dirty = false;
    loop {
        let job = if dirty {
            match queue.recv_timeout(CHECKPOINT_AFTER) {
                Ok(job) => job,
                Err(RecvTimeoutError::Timeout) => {
                    checkpoint(&db);
                    dirty = false;
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        } else {
            match queue.recv() {
                Ok(job) => job,
                Err(_) => break,
            }
        };
        let mut group = Vec::new();
        let mut next = Some(job);
        // Writes that are waiting already join the group; the first read ends it, because it must see them.
        let mut read = None;
        while let Some(job) = next.take() {
            match job {
                Job::Write(write) => group.push(write),
                other => {
                    read = Some(other);
                    break;
                }
            }
            if group.len() < GROUP {
                next = queue.try_recv().ok();
            }
        }
        if !group.is_empty() {
            commit(&db, group);
            dirty = true;
        }
        if let Some(job) = read {
            answer(&db, job);
        }
    }
    checkpoint(&db);
}

fn checkpoint(db: &Connection) {
    // A checkpoint that fails is tried again after the next write; the log keeps everything.
    let _ = db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
}

/// Applies each batch in its own savepoint and commits all of them at once.
fn commit(db: &Connection, group: Vec<Write>) {
    let disk = group.iter().any(|write| write.durability == Durability::Disk);
    let mut outcomes = Vec::with_capacity(group.len());
    let result = transaction(db, disk, &group, &mut outcomes);
    match result {
        Ok(()) => {
            for (write, outcome) in group.into_iter().zip(outcomes) {
                let _ = write.reply.send(outcome);
            }
        }
        Err(error) => {
            let _ = db.execute_batch("ROLLBACK");
            let error = Arc::new(error);
            for write in group {
                let _ = write.reply.send(Err(Error::Write(Arc::clone(&error))));
            }
        }
    }
}

fn transaction(
    db: &Connection,
    disk: bool,
    group: &[Write],
    outcomes: &mut Vec<Result<(), Error>>,
) -> rusqlite::Result<()> {
    // Only outside a transaction can the flush behaviour be changed.
    db.pragma_update(None, "synchronous", if disk { "FULL" } else { "NORMAL" })?;
    db.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    for write in group {
        if let [op] = write.ops.as_slice() {
            outcomes.push(apply(db, op));
            continue;
        }
        db.prepare_cached("SAVEPOINT batch")?.execute([])?;
        let outcome = write.ops.iter().try_for_each(|op| apply(db, op));
        if outcome.is_err() {
            db.prepare_cached("ROLLBACK TO batch")?.execute([])?;
        }
        db.prepare_cached("RELEASE batch")?.execute([])?;
        outcomes.push(outcome);
    }
    db.prepare_cached("COMMIT")?.execute([])?;
    Ok(())
}

fn apply(db: &Connection, op: &Op) -> Result<(), Error> {
    let failed = |source| Error::Write(Arc::new(source));
    match op {
        Op::Put { table, id, doc } => execute(
            db,
            "INSERT INTO documents VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET doc = ?3",
            params![table, id, doc],
        )
        .map_err(failed),
        Op::Delete { table, id } => {
            execute(db, "DELETE FROM documents WHERE tbl = ?1 AND id = ?2", params![table, id])
                .map_err(failed)
        }
        Op::Claim { space, name, id } => claim(db, space, name, id),
        Op::Release { space, name } => {
            execute(db, "DELETE FROM names WHERE space = ?1 AND name = ?2", params![space, name])
                .map_err(failed)
        }
    }
}

fn claim(db: &Connection, space: &str, name: &str, id: &str) -> Result<(), Error> {
    let failed = |source| Error::Write(Arc::new(source));
    let owner: Option<String> = db
        .prepare_cached("SELECT id FROM names WHERE space = ?1 AND name = ?2")
        .and_then(|mut query| query.query_row(params![space, name], |row| row.get(0)).optional())
        .map_err(failed)?;
    match owner {
        None => {
            execute(db, "INSERT INTO names VALUES (?1, ?2, ?3)", params![space, name, id]).map_err(failed)
        }
        Some(owner) if owner == id => Ok(()),
        Some(owner) => Err(Error::NameTaken { space: space.to_owned(), name: name.to_owned(), owner }),
    }
}

fn execute(db: &Connection, sql: &str, params: impl rusqlite::Params) -> rusqlite::Result<()> {
    db.prepare_cached(sql)?.execute(params).map(|_| ())
}

fn answer(db: &Connection, job: Job) {
    match job {
        Job::Write(write) => commit(db, vec![write]),
        Job::Load { table, reply } => {
            let sql = "SELECT id, doc FROM documents WHERE tbl = ?1 ORDER BY id";
            let _ = reply.send(pairs(db, sql, table));
        }
        Job::Names { space, reply } => {
            let sql = "SELECT name, id FROM names WHERE space = ?1 ORDER BY name";
            let _ = reply.send(pairs(db, sql, space));
        }
        Job::Get { table, id, reply } => {
            let doc = db
                .prepare_cached("SELECT doc FROM documents WHERE tbl = ?1 AND id = ?2")
                .and_then(|mut query| query.query_row(params![table, id], |row| row.get(0)).optional())
                .map_err(|source| Error::Read { table: table.to_owned(), source });
            let _ = reply.send(doc);
        }
    }
}

fn pairs(db: &Connection, sql: &str, key: &str) -> Result<Rows, Error> {
    let failed = |source| Error::Read { table: key.to_owned(), source };
    let mut query = db.prepare_cached(sql).map_err(failed)?;
    let rows = query.query_map(params![key], |row| Ok((row.get(0)?, row.get(1)?))).map_err(failed)?;
    rows.collect::<rusqlite::Result<Rows>>().map_err(failed)
}
