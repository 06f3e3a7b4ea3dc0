//! Collection of what nobody needs, while the registry runs.
//!
//! In steps, each a short transaction of its own, so that nobody waits long: uploads that were given up, tags beyond
//! the rules of retention, manifests without a name (if so wished), links of blobs that no manifest of their
//! repository uses, blobs without links, and files without blobs. Each change is checked again in its transaction,
//! so whatever came meanwhile is kept.

use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use hull_model::Digest;
use rusqlite::{Connection, params};

use super::index::remove_manifest;
use super::{Result, Store, TOUCHED_MAX, Uploads, now};
use crate::name;

/// Rows changed in one transaction.
const STEP: usize = 500;

/// How collections decide.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// A link or manifest younger than this is kept: an upload may be about to use it.
    pub grace: Duration,
    /// Manifests that neither tag, index nor subject names go after this time.
    pub untagged: Option<Duration>,
    /// Which tags stay.
    pub retention: Vec<Retention>,
    /// Caches: repositories, and how long their manifests stay unused.
    pub unused: Vec<(String, Duration)>,
}

/// Which tags of which repositories stay. Of several rules each is applied by itself.
#[derive(Clone, Debug, Default)]
pub struct Retention {
    /// Pattern of repositories.
    pub repositories: String,
    /// Pattern of tags that the rule is about.
    pub tags: String,
    /// The newest that stay in any case.
    pub keep_last: Option<usize>,
    /// How long every tag stays.
    pub keep_for: Option<Duration>,
}

/// What a collection removed, or would.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Uploads that were given up.
    pub uploads: usize,
    /// Tags.
    pub tags: usize,
    /// Manifests.
    pub manifests: usize,
    /// Blobs taken out of a repository.
    pub links: usize,
    /// Blobs.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Files that belonged to nothing.
    pub files: usize,
}

impl Store {
    /// Removes what nobody needs.
    pub async fn collect(&self, rules: &Rules, uploads: &Uploads) -> Result<Collected> {
        let mut done = Collected { uploads: uploads.expire()?, ..Default::default() };
        let tags = self.read(|db| old_tags(db, rules))?;
        for step in tags.chunks(STEP) {
            done.tags += self.remove_tags(step.to_vec()).await?;
        }
        // An index that goes leaves its manifests without a name.
        loop {
            let manifests = self.read(|db| old_manifests(db, rules))?;
            let mut removed = 0;
            for step in manifests.chunks(STEP) {
                removed += self.remove_manifests(step.to_vec(), rules.clone()).await?;
            }
            if removed == 0 {
                break;
            }
            done.manifests += removed;
        }
        done.links = self.remove_links(rules).await?;
        (done.blobs, done.bytes) = self.remove_blobs().await?;
        done.files = self.remove_files(rules).await?;
        self.write(|db, _| Ok(db.execute(EMPTY, [])?)).await?;
        self.blobs.sweep();
        Ok(done)
    }

    /// What [`Store::collect`] would remove now. Nothing is changed.
    pub async fn would_collect(&self, rules: &Rules) -> Result<Collected> {
        let rules = rules.clone();
        let keep = self.recently_touched(rules.grace);
        self.write(move |db, _| {
            // Done for real, looked at, and undone.
            db.execute_batch("SAVEPOINT trial")?;
            let result = trial(db, &rules, &keep.unwrap_or_default());
            db.execute_batch("ROLLBACK TO trial; RELEASE trial")?;
            result
        })
        .await
    }

    async fn remove_tags(&self, tags: Vec<(i64, String, i64)>) -> Result<usize> {
        self.write(move |db, _| remove_tags(db, &tags)).await
    }

    async fn remove_manifests(&self, manifests: Vec<i64>, rules: Rules) -> Result<usize> {
        self.write(move |db, _| {
            let still = old_manifests(db, &rules)?;
            let mut removed = 0;
            for id in manifests.into_iter().filter(|id| still.binary_search(id).is_ok()) {
                remove_manifest(db, id)?;
                removed += 1;
            }
            Ok(removed)
        })
        .await
    }

    /// Links that clients were told of lately; `None` if there are too many to know.
    fn recently_touched(&self, grace: Duration) -> Option<Vec<(i64, Digest)>> {
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        let all = touched.len();
        touched.retain(|_, at| at.elapsed() < grace);
        (all < TOUCHED_MAX).then(|| touched.keys().cloned().collect())
    }

    async fn remove_links(&self, rules: &Rules) -> Result<usize> {
        let Some(keep) = self.recently_touched(rules.grace) else { return Ok(0) };
        let keep: std::collections::HashSet<_> = keep.into_iter().collect();
        let before = now() - rules.grace.as_secs() as i64;
        let links = self.read(|db| unused_links(db, before))?;
        let links: Vec<_> = links
            .into_iter()
            .filter(|(repository, _, digest)| {
                digest.parse().is_ok_and(|digest| !keep.contains(&(*repository, digest)))
            })
            .map(|(repository, blob, _)| (repository, blob))
            .collect();
        let mut removed = 0;
        for step in links.chunks(STEP) {
            let step = step.to_vec();
            removed += self.write(move |db, _| remove_links(db, &step, before)).await?;
        }
        Ok(removed)
    }

    async fn remove_blobs(&self) -> Result<(usize, u64)> {
        let mut done = (0, 0);
        loop {
            let step = self
                .write(|db, effects| {
                    let mut find = db.prepare_cached(UNLINKED)?;
                    let rows = find.query_map([STEP as i64], |row| {
                        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?))
                    })?;
                    let mut done = (0, 0);
                    for row in rows.collect::<rusqlite::Result<Vec<_>>>()? {
                        db.prepare_cached("DELETE FROM blob WHERE id = ?1")?.execute([row.0])?;
                        if let Ok(digest) = row.1.parse() {
                            effects.remove(digest);
                        }
                        done = (done.0 + 1, done.1 + row.2.unsigned_abs());
                    }
                    Ok(done)
                })
                .await?;
            if step.0 == 0 {
                return Ok(done);
            }
            done = (done.0 + step.0, done.1 + step.1);
        }
    }

    /// Removes files that no blob of the index has: left by a cut between naming and recording.
    async fn remove_files(&self, rules: &Rules) -> Result<usize> {
        let young = SystemTime::now() - rules.grace.max(Duration::from_secs(60));
        let files: Vec<_> = self.blobs.list()?.into_iter().filter(|(.., at)| *at < young).collect();
        let mut removed = 0;
        for step in files.chunks(STEP) {
            let step: Vec<Digest> = step.iter().map(|(digest, ..)| digest.clone()).collect();
            removed += self
                .write(move |db, effects| {
                    let mut known =
                        db.prepare_cached("SELECT 1 FROM blob WHERE digest = ?1 AND bytes IS NULL")?;
                    let mut removed = 0;
                    for digest in step {
                        if !known.exists([digest.as_str()])? {
                            effects.remove(digest);
                            removed += 1;
                        }
                    }
                    Ok(removed)
                })
                .await?;
        }
        Ok(removed)
    }
}

const EMPTY: &str = "DELETE FROM repository WHERE NOT EXISTS(SELECT 1 FROM link l WHERE l.repository = repository.id) \
     AND NOT EXISTS(SELECT 1 FROM manifest m WHERE m.repository = repository.id)";

const UNLINKED: &str = "SELECT id, digest, size FROM blob b \
     WHERE NOT EXISTS(SELECT 1 FROM link l WHERE l.blob = b.id) LIMIT ?1";

/// Tags beyond their rules: repository, name, manifest.
fn old_tags(db: &Connection, rules: &Rules) -> rusqlite::Result<Vec<(i64, String, i64)>> {
    let mut old = Vec::new();
    if rules.retention.is_empty() {
        return Ok(old);
    }
    let mut repositories = db.prepare("SELECT id, name FROM repository")?;
    let repositories = repositories.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    for repository in repositories {
        let (id, name): (i64, String) = repository?;
        for rule in rules.retention.iter().filter(|rule| name::matches(&rule.repositories, &name)) {
            old.extend(tags_beyond(db, id, rule)?);
        }
    }
    old.sort();
    old.dedup();
    Ok(old)
}

fn tags_beyond(db: &Connection, id: i64, rule: &Retention) -> rusqlite::Result<Vec<(i64, String, i64)>> {
    let mut query = db.prepare_cached(
        "SELECT name, manifest, at FROM tag WHERE repository = ?1 ORDER BY at DESC, name DESC",
    )?;
    let rows = query.query_map([id], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
    })?;
    let tags = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let about = tags.into_iter().filter(|(name, ..)| name::matches(&rule.tags, name)).enumerate();
    let beyond = about.filter(|(place, (.., at))| {
        let newest = rule.keep_last.is_some_and(|keep| *place < keep);
        let young = rule.keep_for.is_some_and(|keep| now() - at <= keep.as_secs() as i64);
        !newest && !young
    });
    Ok(beyond.map(|(_, (name, manifest, _))| (id, name, manifest)).collect())
}

fn remove_tags(db: &Connection, tags: &[(i64, String, i64)]) -> Result<usize> {
    // A tag that was moved meanwhile is another tag.
    let mut remove =
        db.prepare_cached("DELETE FROM tag WHERE repository = ?1 AND name = ?2 AND manifest = ?3")?;
    let mut removed = 0;
    for (repository, name, manifest) in tags {
        removed += remove.execute(params![repository, name, manifest])?;
    }
    Ok(removed)
}

/// Ids of manifests that go, sorted.
fn old_manifests(db: &Connection, rules: &Rules) -> rusqlite::Result<Vec<i64>> {
    let mut old = Vec::new();
    if let Some(after) = rules.untagged {
        let before = now() - after.max(rules.grace).as_secs() as i64;
        let mut query = db.prepare_cached(
            "SELECT id FROM manifest m WHERE at < ?1 \
             AND NOT EXISTS(SELECT 1 FROM tag t WHERE t.manifest = m.id) \
             AND NOT EXISTS(SELECT 1 FROM children c WHERE c.repository = m.repository AND c.digest = m.digest) \
             AND NOT EXISTS(SELECT 1 FROM manifest s WHERE s.repository = m.repository AND s.digest = m.subject)",
        )?;
        let rows = query.query_map([before], |row| row.get(0))?;
        old.extend(rows.collect::<rusqlite::Result<Vec<i64>>>()?);
    }
    for (pattern, unused) in &rules.unused {
        let before = now() - unused.as_secs() as i64;
        let mut query = db.prepare_cached(
            "SELECT m.id, r.name FROM manifest m JOIN repository r ON r.id = m.repository WHERE m.used < ?1",
        )?;
        let rows = query.query_map([before], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
        for row in rows {
            let (id, name) = row?;
            if name::matches(pattern, &name) {
                old.push(id);
            }
        }
    }
    old.sort_unstable();
    old.dedup();
    Ok(old)
}

/// Links that no manifest of their repository uses: repository, blob, digest.
fn unused_links(db: &Connection, before: i64) -> rusqlite::Result<Vec<(i64, i64, String)>> {
    let mut query = db.prepare_cached(
        "SELECT l.repository, l.blob, b.digest FROM link l JOIN blob b ON b.id = l.blob WHERE l.at < ?1 \
         AND NOT EXISTS(SELECT 1 FROM uses u WHERE u.repository = l.repository AND u.digest = b.digest)",
    )?;
    let rows = query.query_map([before], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    rows.collect()
}

fn remove_links(db: &Connection, links: &[(i64, i64)], before: i64) -> Result<usize> {
    let mut remove = db.prepare_cached(
        "DELETE FROM link WHERE repository = ?1 AND blob = ?2 AND at < ?3 \
         AND NOT EXISTS(SELECT 1 FROM uses u JOIN blob b ON b.digest = u.digest WHERE u.repository = ?1 AND b.id = ?2)",
    )?;
    let mut removed = 0;
    for (repository, blob) in links {
        removed += remove.execute(params![repository, blob, before])?;
    }
    Ok(removed)
}

fn trial(db: &Connection, rules: &Rules, keep: &[(i64, Digest)]) -> Result<Collected> {
    let mut done = Collected { tags: remove_tags(db, &old_tags(db, rules)?)?, ..Default::default() };
    loop {
        let manifests = old_manifests(db, rules)?;
        if manifests.is_empty() {
            break;
        }
        done.manifests += manifests.len();
        manifests.into_iter().try_for_each(|id| remove_manifest(db, id))?;
    }
    let before = now() - rules.grace.as_secs() as i64;
    let kept =
        |repository: i64, digest: &str| keep.iter().any(|(r, d)| *r == repository && d.as_str() == digest);
    let links: Vec<_> = unused_links(db, before)?
        .into_iter()
        .filter(|(repository, _, digest)| !kept(*repository, digest))
        .map(|(repository, blob, _)| (repository, blob))
        .collect();
    done.links = remove_links(db, &links, before)?;
    let mut find = db.prepare_cached(UNLINKED)?;
    for row in find.query_map([i64::MAX], |row| row.get::<_, i64>(2))? {
        done.blobs += 1;
        done.bytes += row?.unsigned_abs();
    }
    Ok(done)
}
