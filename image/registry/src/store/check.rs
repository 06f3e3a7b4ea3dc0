//! Reading everything again: are the bytes still those of their digests?

use hull_content::Hasher;
use hull_model::Digest;
use rusqlite::OptionalExtension;

use super::uploads::read_all;
use super::{Content, Result, Store, StoreError};

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Blobs that were read.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Manifests that were read.
    pub manifests: usize,
    /// Digests of blobs and manifests that are not what they should be, and why.
    pub damaged: Vec<(String, &'static str)>,
}

impl Store {
    /// Reads every blob and manifest. A damaged blob is taken out of service: it is answered as unknown, and the next
    /// upload of it heals every repository that has it. Blocks for as long as that takes.
    pub fn check(&self, repair: bool) -> Result<Checked> {
        let mut found = Checked::default();
        let mut last = 0;
        while let Some((id, digest)) = self.next_blob(last)? {
            last = id;
            match self.check_blob(id, &digest)? {
                Ok(bytes) => found.bytes += bytes,
                Err(fault) => {
                    if repair {
                        self.mark_damaged(&digest)?;
                    }
                    found.damaged.push((digest, fault));
                }
            }
            found.blobs += 1;
        }
        self.check_manifests(&mut found)?;
        Ok(found)
    }

    fn next_blob(&self, after: i64) -> Result<Option<(i64, String)>> {
        self.read(|db| {
            db.prepare_cached("SELECT id, digest FROM blob WHERE id > ?1 ORDER BY id LIMIT 1")?
                .query_row([after], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()
        })
    }

    fn check_blob(&self, id: i64, digest: &str) -> Result<std::result::Result<u64, &'static str>> {
        let row: Option<(i64, Option<Vec<u8>>)> = self.read(|db| {
            db.prepare_cached("SELECT size, bytes FROM blob WHERE id = ?1")?
                .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()
        })?;
        // Collected meanwhile.
        let Some((size, inline)) = row else { return Ok(Ok(0)) };
        let Ok(digest) = digest.parse::<Digest>() else { return Ok(Err("its name is no digest")) };
        let mut hasher = Hasher::new(digest.algorithm());
        let read = match inline {
            Some(bytes) => {
                hasher.update(&bytes);
                bytes.len() as u64
            }
            None => match self.blobs.open(&digest)? {
                None => return Ok(Err("its file is missing")),
                Some(Content::File(file)) => match read_all(file, |bytes| hasher.update(bytes)) {
                    Ok(read) => read,
                    Err(_) => return Ok(Err("its file cannot be read")),
                },
            },
        };
        if read != size.unsigned_abs() {
            return Ok(Err("it has another size"));
        }
        Ok(if hasher.finish() == digest { Ok(read) } else { Err("it has another digest") })
    }

    fn mark_damaged(&self, digest: &str) -> Result<()> {
        let digest = digest.to_owned();
        let marked = self.writer.submit(move |db, _| {
            db.execute("UPDATE blob SET damaged = 1 WHERE digest = ?1", [&digest])?;
            Ok(())
        });
        wait(marked)
    }

    fn check_manifests(&self, found: &mut Checked) -> Result<()> {
        let mut last = 0;
        loop {
            let row: Option<(i64, String, Vec<u8>)> = self.read(|db| {
                db.prepare_cached("SELECT id, digest, bytes FROM manifest WHERE id > ?1 ORDER BY id LIMIT 1")?
                    .query_row([last], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                    .optional()
            })?;
            let Some((id, digest, bytes)) = row else { return Ok(()) };
            last = id;
            found.manifests += 1;
            let intact = digest.parse::<Digest>().is_ok_and(|digest| {
                let mut hasher = Hasher::new(digest.algorithm());
                hasher.update(&bytes);
                hasher.finish() == digest
            });
            if !intact {
                found.damaged.push((digest, "the manifest has another digest"));
            }
        }
    }

    /// Records that a blob's bytes are not there or too short.
    pub async fn blob_is_damaged(&self, digest: Digest) -> Result<()> {
        tracing::error!(%digest, "blob is damaged; the next push of it heals it");
        self.write(move |db, _| {
            db.execute("UPDATE blob SET damaged = 1 WHERE digest = ?1", [digest.as_str()])?;
            Ok(())
        })
        .await
    }
}

/// Waits for a change outside the async runtime.
fn wait<T>(change: impl Future<Output = Result<T>>) -> Result<T> {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut change = std::pin::pin!(change);
    loop {
        match change.as_mut().poll(&mut context) {
            std::task::Poll::Ready(result) => return result.map_err(|e: StoreError| e),
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}
