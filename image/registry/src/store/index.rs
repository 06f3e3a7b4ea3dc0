//! Questions to and changes of the index.

use hull_model::Digest;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::writer::Effects;
use super::{Blob, Result, Store, UploadId, now};
use crate::error::{ApiError, Code};
use crate::manifest::Document;
use crate::name::{Name, Reference, Tag};

/// A manifest to store.
#[derive(Clone, Debug)]
pub struct PutManifest {
    /// Where.
    pub repository: Name,
    /// Its digest, already checked.
    pub digest: Digest,
    /// Its `Content-Type`.
    pub media_type: String,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// What it names.
    pub document: Document,
    /// Tags that shall name it.
    pub tags: Vec<Tag>,
    /// Whether the blobs and manifests it names must be here.
    pub whole: bool,
}

/// A manifest as it was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredManifest {
    /// Its digest.
    pub digest: String,
    /// Its `Content-Type`.
    pub media_type: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// What a cache knows of a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagState {
    /// The manifest it names.
    pub digest: String,
    /// When the upstream last confirmed it, in seconds since 1970.
    pub checked: i64,
}

/// A part of a sorted list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The entries.
    pub entries: Vec<String>,
    /// Whether there are more after them.
    pub more: bool,
}

const FIND_BLOB: &str = "SELECT b.size, b.bytes, l.repository FROM repository r \
     JOIN blob b ON b.digest = ?2 AND b.damaged = 0 JOIN link l ON l.repository = r.id AND l.blob = b.id WHERE r.name = ?1";
const FIND_SIZE: &str = "SELECT b.size, NULL, l.repository FROM repository r \
     JOIN blob b ON b.digest = ?2 AND b.damaged = 0 JOIN link l ON l.repository = r.id AND l.blob = b.id WHERE r.name = ?1";

impl Store {
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Connection, &mut Effects<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.writer.submit(change).await
    }

    /// A blob of a repository, with its bytes if they are in the index.
    pub fn blob(&self, repository: &Name, digest: &Digest) -> Result<Option<Blob>> {
        Ok(self.find_blob(FIND_BLOB, repository, digest)?.map(|(blob, _)| blob))
    }

    /// Size of a blob of a repository. A client that was told so may rely on it for a while.
    pub fn blob_size(&self, repository: &Name, digest: &Digest) -> Result<Option<u64>> {
        let found = self.find_blob(FIND_SIZE, repository, digest)?;
        Ok(found.map(|(blob, repository)| {
            self.touch(repository, digest);
            blob.size
        }))
    }

    fn find_blob(&self, query: &str, repository: &Name, digest: &Digest) -> Result<Option<(Blob, i64)>> {
        self.read(|db| {
            db.prepare_cached(query)?
                .query_row((repository.as_str(), digest.as_str()), |row| {
                    Ok((Blob { size: unsigned(row, 0)?, inline: row.get(1)? }, row.get(2)?))
                })
                .optional()
        })
    }

    /// Adds a blob whose bytes are `inline`, or those of the flushed upload, to a repository.
    pub(crate) async fn add_blob(
        &self,
        repository: Name,
        digest: Digest,
        size: u64,
        inline: Option<Vec<u8>>,
        upload: UploadId,
    ) -> Result<()> {
        self.write(move |db, effects| {
            let known: Option<(i64, bool, bool)> = db
                .prepare_cached("SELECT id, damaged, bytes IS NOT NULL FROM blob WHERE digest = ?1")?
                .query_row([digest.as_str()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .optional()?;
            let intact = match known {
                Some((_, false, true)) => true,
                Some((_, false, false)) => effects.blobs.size(&digest)? == Some(size),
                _ => false,
            };
            if intact {
                if inline.is_none() {
                    effects.discard(upload);
                }
            } else if inline.is_none() {
                effects.publish(&upload, &digest)?;
            }
            let id = match known {
                Some((id, ..)) if intact => id,
                Some((id, ..)) => {
                    db.prepare_cached("UPDATE blob SET size = ?2, bytes = ?3, damaged = 0 WHERE id = ?1")?
                        .execute(params![id, size as i64, inline])?;
                    id
                }
                None => db
                    .prepare_cached("INSERT INTO blob(digest, size, bytes) VALUES(?1, ?2, ?3)")?
                    .insert(params![digest.as_str(), size as i64, inline])?,
            };
            link(db, repository_id(db, &repository)?, id)
        })
        .await
    }

    /// Makes a blob of one repository, or of any, one of another, too; `false` if there is none.
    pub async fn mount(&self, from: Option<Name>, to: Name, digest: Digest) -> Result<bool> {
        self.write(move |db, _| {
            let query = "SELECT b.id FROM blob b JOIN link l ON l.blob = b.id JOIN repository r ON r.id = l.repository \
                 WHERE b.digest = ?1 AND b.damaged = 0 AND (?2 IS NULL OR r.name = ?2) LIMIT 1";
            let blob: Option<i64> = db
                .prepare_cached(query)?
                .query_row((digest.as_str(), from.as_ref().map(Name::as_str)), |row| row.get(0))
                .optional()?;
            match blob {
                Some(blob) => link(db, repository_id(db, &to)?, blob).map(|()| true),
                None => Ok(false),
            }
        })
        .await
    }

    /// Takes a blob out of a repository; `false` if it was not there.
    pub async fn unlink(&self, repository: Name, digest: Digest) -> Result<bool> {
        self.write(move |db, _| {
            let removed = db
                .prepare_cached(
                    "DELETE FROM link WHERE repository = (SELECT id FROM repository WHERE name = ?1) \
                     AND blob = (SELECT id FROM blob WHERE digest = ?2)",
                )?
                .execute((repository.as_str(), digest.as_str()))?;
            Ok(removed > 0)
        })
        .await
    }

    /// A manifest of a repository.
    pub fn manifest(&self, repository: &Name, reference: &Reference) -> Result<Option<StoredManifest>> {
        self.read(|db| {
            let row = |row: &Row<'_>| {
                Ok(StoredManifest { digest: row.get(0)?, media_type: row.get(1)?, bytes: row.get(2)? })
            };
            match reference {
                Reference::Tag(tag) => db
                    .prepare_cached(
                        "SELECT m.digest, m.media_type, m.bytes FROM repository r \
                         JOIN tag t ON t.repository = r.id AND t.name = ?2 JOIN manifest m ON m.id = t.manifest \
                         WHERE r.name = ?1",
                    )?
                    .query_row((repository.as_str(), tag.as_str()), row),
                Reference::Digest(digest) => db
                    .prepare_cached(
                        "SELECT m.digest, m.media_type, m.bytes FROM repository r \
                         JOIN manifest m ON m.repository = r.id AND m.digest = ?2 WHERE r.name = ?1",
                    )?
                    .query_row((repository.as_str(), digest.as_str()), row),
            }
            .optional()
        })
    }

    /// Stores a manifest. When this returns it survives a power cut.
    pub async fn put_manifest(&self, put: PutManifest) -> Result<()> {
        self.write(move |db, _| {
            let repository = repository_id(db, &put.repository)?;
            check_uses(db, repository, &put)?;
            let manifest = insert_manifest(db, repository, &put)?;
            for tag in &put.tags {
                db.prepare_cached(
                    "INSERT INTO tag(repository, name, manifest, at, checked) VALUES(?1, ?2, ?3, ?4, ?4) \
                     ON CONFLICT DO UPDATE SET at = iif(manifest = excluded.manifest, at, excluded.at), \
                     manifest = excluded.manifest, checked = excluded.checked",
                )?
                .execute(params![repository, tag.as_str(), manifest, now()])?;
            }
            Ok(())
        })
        .await
    }

    /// Takes a tag away, or a manifest with all its tags; `false` if it was not there.
    pub async fn delete_manifest(&self, repository: Name, reference: Reference) -> Result<bool> {
        self.write(move |db, _| {
            let removed = match &reference {
                Reference::Tag(tag) => db
                    .prepare_cached(
                        "DELETE FROM tag WHERE repository = (SELECT id FROM repository WHERE name = ?1) \
                         AND name = ?2",
                    )?
                    .execute((repository.as_str(), tag.as_str()))?,
                Reference::Digest(digest) => {
                    let id: Option<i64> = db
                        .prepare_cached(
                            "SELECT m.id FROM repository r JOIN manifest m ON m.repository = r.id \
                             AND m.digest = ?2 WHERE r.name = ?1",
                        )?
                        .query_row((repository.as_str(), digest.as_str()), |row| row.get(0))
                        .optional()?;
                    id.map_or(Ok(0), |id| remove_manifest(db, id).map(|()| 1))?
                }
            };
            Ok(removed > 0)
        })
        .await
    }

    /// Whether anything is known of a repository.
    pub fn has_repository(&self, repository: &Name) -> Result<bool> {
        self.read(|db| {
            db.prepare_cached("SELECT 1 FROM repository WHERE name = ?1")?.exists([repository.as_str()])
        })
    }

    /// Tags of a repository in order of their bytes.
    pub fn tags(&self, repository: &Name, after: &str, limit: usize) -> Result<Page> {
        self.read(|db| {
            let mut query = db.prepare_cached(
                "SELECT t.name FROM repository r JOIN tag t ON t.repository = r.id WHERE r.name = ?1 AND t.name > ?2 \
                 ORDER BY t.name LIMIT ?3",
            )?;
            let rows = query.query_map(params![repository.as_str(), after, limit as i64 + 1], |row| row.get(0))?;
            page(rows, limit)
        })
    }

    /// Names of repositories that hold something, in order of their bytes.
    pub fn repositories(&self, after: &str, limit: usize) -> Result<Page> {
        self.read(|db| {
            let mut query = db.prepare_cached(
                "SELECT name FROM repository r WHERE name > ?1 \
                 AND EXISTS(SELECT 1 FROM manifest m WHERE m.repository = r.id) ORDER BY name LIMIT ?2",
            )?;
            let rows = query.query_map(params![after, limit as i64 + 1], |row| row.get(0))?;
            page(rows, limit)
        })
    }

    /// Descriptors of the manifests whose subject is that digest, as JSON.
    pub fn referrers(&self, repository: &Name, subject: &Digest) -> Result<Vec<serde_json::Value>> {
        self.read(|db| {
            let mut query = db.prepare_cached(
                "SELECT m.media_type, m.digest, length(m.bytes), m.artifact_type, m.annotations FROM repository r \
                 JOIN manifest m ON m.repository = r.id AND m.subject = ?2 WHERE r.name = ?1 ORDER BY m.id",
            )?;
            let rows = query.query_map((repository.as_str(), subject.as_str()), descriptor)?;
            rows.collect()
        })
    }

    /// What a tag names, and when that was last confirmed.
    pub fn tag_state(&self, repository: &Name, tag: &Tag) -> Result<Option<TagState>> {
        self.read(|db| {
            db.prepare_cached(
                "SELECT m.digest, t.checked FROM repository r JOIN tag t ON t.repository = r.id AND t.name = ?2 \
                 JOIN manifest m ON m.id = t.manifest WHERE r.name = ?1",
            )?
            .query_row((repository.as_str(), tag.as_str()), |row| {
                Ok(TagState { digest: row.get(0)?, checked: row.get(1)? })
            })
            .optional()
        })
    }

    /// Records that the upstream confirmed a tag now.
    pub async fn confirm_tag(&self, repository: Name, tag: Tag) -> Result<()> {
        self.write(move |db, _| {
            db.prepare_cached(
                "UPDATE tag SET checked = ?3 WHERE repository = (SELECT id FROM repository WHERE name = ?1) \
                 AND name = ?2",
            )?
            .execute(params![repository.as_str(), tag.as_str(), now()])?;
            Ok(())
        })
        .await
    }

    /// Records that a manifest was wanted now.
    pub async fn use_manifest(&self, repository: Name, digest: String) -> Result<()> {
        self.write(move |db, _| {
            db.prepare_cached(
                "UPDATE manifest SET used = ?3 WHERE repository = (SELECT id FROM repository WHERE name = ?1) \
                 AND digest = ?2 AND used < ?3 - 3600",
            )?
            .execute(params![repository.as_str(), digest, now()])?;
            Ok(())
        })
        .await
    }

    /// Size and type of a blob that a manifest of the repository names, whether or not it is here.
    pub fn named_blob(&self, repository: &Name, digest: &Digest) -> Result<Option<(u64, String)>> {
        self.read(|db| {
            db.prepare_cached(
                "SELECT u.size, u.media_type FROM repository r JOIN uses u ON u.repository = r.id AND u.digest = ?2 \
                 WHERE r.name = ?1 LIMIT 1",
            )?
            .query_row((repository.as_str(), digest.as_str()), |row| Ok((unsigned(row, 0)?, row.get(1)?)))
            .optional()
        })
    }

    /// Totals: repositories, manifests, tags, blobs, and the blobs' bytes.
    pub fn totals(&self) -> Result<[u64; 5]> {
        self.read(|db| {
            db.query_row(
                "SELECT (SELECT count(*) FROM repository), (SELECT count(*) FROM manifest), \
                 (SELECT count(*) FROM tag), (SELECT count(*) FROM blob), (SELECT ifnull(sum(size), 0) FROM blob)",
                [],
                |row| {
                    let mut totals = [0; 5];
                    for (at, total) in totals.iter_mut().enumerate() {
                        *total = unsigned(row, at)?;
                    }
                    Ok(totals)
                },
            )
        })
    }
}

fn unsigned(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(at).map(|n| u64::try_from(n).unwrap_or(0))
}

fn page(rows: impl Iterator<Item = rusqlite::Result<String>>, limit: usize) -> rusqlite::Result<Page> {
    let mut entries = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let more = entries.len() > limit;
    entries.truncate(limit);
    Ok(Page { entries, more })
}

fn descriptor(row: &Row<'_>) -> rusqlite::Result<serde_json::Value> {
    let (media_type, digest): (String, String) = (row.get(0)?, row.get(1)?);
    let mut descriptor =
        serde_json::json!({ "mediaType": media_type, "digest": digest, "size": row.get::<_, i64>(2)? });
    if let Some(kind) = row.get::<_, Option<String>>(3)? {
        descriptor["artifactType"] = kind.into();
    }
    let annotations = row.get::<_, Option<String>>(4)?;
    if let Some(annotations) = annotations.and_then(|text| serde_json::from_str(&text).ok()) {
        descriptor["annotations"] = annotations;
    }
    Ok(descriptor)
}

/// The repository's row, made if there is none.
fn repository_id(db: &Connection, name: &Name) -> Result<i64> {
    let found = db
        .prepare_cached("SELECT id FROM repository WHERE name = ?1")?
        .query_row([name.as_str()], |row| row.get(0))
        .optional()?;
    match found {
        Some(id) => Ok(id),
        None => Ok(db.prepare_cached("INSERT INTO repository(name) VALUES(?1)")?.insert([name.as_str()])?),
    }
}

fn link(db: &Connection, repository: i64, blob: i64) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO link(repository, blob, at) VALUES(?1, ?2, ?3) ON CONFLICT DO UPDATE SET at = excluded.at",
    )?
    .execute(params![repository, blob, now()])?;
    Ok(())
}

fn check_uses(db: &Connection, repository: i64, put: &PutManifest) -> Result<()> {
    if !put.whole {
        return Ok(());
    }
    let mut missing = Vec::new();
    let mut find = db.prepare_cached(
        "SELECT b.size FROM blob b JOIN link l ON l.repository = ?1 AND l.blob = b.id \
         WHERE b.digest = ?2 AND b.damaged = 0",
    )?;
    for used in put.document.blobs.iter().filter(|used| !used.elsewhere) {
        let size = find.query_row((repository, used.digest.as_str()), |row| unsigned(row, 0)).optional()?;
        match size {
            None => missing.push(used.digest.as_str()),
            Some(size) if size != used.size => return Err(wrong_size(&used.digest, used.size, size)),
            Some(_) => {}
        }
    }
    let mut find = db.prepare_cached("SELECT 1 FROM manifest WHERE repository = ?1 AND digest = ?2")?;
    for child in &put.document.manifests {
        if !find.exists((repository, child.as_str()))? {
            missing.push(child.as_str());
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let message = "the manifest names blobs or manifests that are not in this repository";
    Err(ApiError::new(Code::ManifestBlobUnknown, message).detail(missing).into())
}

fn wrong_size(digest: &Digest, said: u64, actual: u64) -> super::StoreError {
    let message = format!("the manifest says {digest} has {said} bytes; it has {actual}");
    ApiError::new(Code::ManifestInvalid, message).into()
}

fn insert_manifest(db: &Connection, repository: i64, put: &PutManifest) -> Result<i64> {
    let known: Option<i64> = db
        .prepare_cached("SELECT id FROM manifest WHERE repository = ?1 AND digest = ?2")?
        .query_row(params![repository, put.digest.as_str()], |row| row.get(0))
        .optional()?;
    if let Some(id) = known {
        db.prepare_cached("UPDATE manifest SET at = ?2, used = ?2, media_type = ?3 WHERE id = ?1")?
            .execute(params![id, now(), put.media_type])?;
        return Ok(id);
    }
    let document = &put.document;
    let id = db
        .prepare_cached(
            "INSERT INTO manifest(repository, digest, media_type, at, used, subject, artifact_type, annotations, bytes) \
             VALUES(?1, ?2, ?3, ?4, ?4, ?5, ?6, ?7, ?8)",
        )?
        .insert(params![
            repository,
            put.digest.as_str(),
            put.media_type,
            now(),
            document.subject.as_ref().map(Digest::as_str),
            document.artifact_type,
            document.annotations,
            put.bytes
        ])?;
    let mut uses = db.prepare_cached(
        "INSERT OR IGNORE INTO uses(repository, digest, manifest, size, media_type) VALUES(?1, ?2, ?3, ?4, ?5)",
    )?;
    for used in &document.blobs {
        uses.execute(params![repository, used.digest.as_str(), id, used.size as i64, used.media_type])?;
    }
    let mut children =
        db.prepare_cached("INSERT OR IGNORE INTO children(repository, digest, manifest) VALUES(?1, ?2, ?3)")?;
    for child in &document.manifests {
        children.execute(params![repository, child.as_str(), id])?;
    }
    Ok(id)
}

/// Removes a manifest with its tags and what it names; the blobs stay until a collection.
pub(super) fn remove_manifest(db: &Connection, id: i64) -> Result<()> {
    for query in [
        "DELETE FROM tag WHERE manifest = ?1",
        "DELETE FROM uses WHERE manifest = ?1",
        "DELETE FROM children WHERE manifest = ?1",
        "DELETE FROM manifest WHERE id = ?1",
    ] {
        db.prepare_cached(query)?.execute([id])?;
    }
    Ok(())
}
