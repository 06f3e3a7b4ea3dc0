use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::{Result, StoreError};

const VERSION: i64 = 1;

/// Times are seconds since 1970. `uses` and `children` are what a manifest names, kept apart so that a collection
/// asks the database and parses nothing.
const SCHEMA: &str = "
CREATE TABLE setting(key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE repository(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE blob(
    id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, damaged INTEGER NOT NULL DEFAULT 0,
    bytes BLOB);
CREATE TABLE link(
    repository INTEGER NOT NULL, blob INTEGER NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY(repository, blob)) WITHOUT ROWID;
CREATE INDEX link_blob ON link(blob);
CREATE TABLE manifest(
    id INTEGER PRIMARY KEY, repository INTEGER NOT NULL, digest TEXT NOT NULL, media_type TEXT NOT NULL,
    at INTEGER NOT NULL, used INTEGER NOT NULL, subject TEXT, artifact_type TEXT, annotations TEXT,
    bytes BLOB NOT NULL,
    UNIQUE(repository, digest));
CREATE INDEX manifest_subject ON manifest(repository, subject) WHERE subject IS NOT NULL;
CREATE TABLE uses(
    repository INTEGER NOT NULL, digest TEXT NOT NULL, manifest INTEGER NOT NULL, size INTEGER NOT NULL,
    media_type TEXT NOT NULL,
    PRIMARY KEY(repository, digest, manifest)) WITHOUT ROWID;
CREATE INDEX uses_manifest ON uses(manifest);
CREATE TABLE children(
    repository INTEGER NOT NULL, digest TEXT NOT NULL, manifest INTEGER NOT NULL,
    PRIMARY KEY(repository, digest, manifest)) WITHOUT ROWID;
CREATE INDEX children_manifest ON children(manifest);
CREATE TABLE tag(
    repository INTEGER NOT NULL, name TEXT NOT NULL, manifest INTEGER NOT NULL, at INTEGER NOT NULL,
    checked INTEGER NOT NULL,
    PRIMARY KEY(repository, name)) WITHOUT ROWID;
CREATE INDEX tag_manifest ON tag(manifest);
";

/// Opens the index for writing and brings its schema up to date.
pub(super) fn open(path: &Path) -> Result<Connection> {
    let failed = |source| StoreError::Open { path: path.to_owned(), source };
    let connection = Connection::open(path).map_err(failed)?;
    prepare(&connection).map_err(failed)?;
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
    match found {
        0 => {
            let all = format!("BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;");
            connection.execute_batch(&all).map_err(failed)?;
        }
        VERSION => {}
        found => return Err(StoreError::Newer { path: path.to_owned(), found, known: VERSION }),
    }
    Ok(connection)
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.pragma_update(None, "page_size", 8192)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A commit is on the disk when it returns.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 4000)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    connection.pragma_update(None, "cache_size", -8192)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}
