//! Uploads under way.
//!
//! Beginning one costs nothing: the id carries a proof that this registry made it and for which repository, so a
//! session exists before anything is kept of it. Bytes are gathered in memory while they are few and go to the
//! storage beyond that; small blobs never become a file.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hull_content::Hasher;
use hull_model::{Algorithm, Digest};
use rusqlite::OptionalExtension;

use super::blobs::{Content, Staged};
use super::{INLINE_MAX, Result, Store, StoreError, now};
use crate::error::{ApiError, Code};
use crate::name::Name;

/// Bytes of small uploads kept in memory at most, all together.
const MEMORY_MAX: usize = 64 << 20;
/// Ended sessions that are remembered, so that they are unknown at once.
const ENDED_MAX: usize = 65_536;

/// Names an upload: 16 bytes shown as a UUID; time, chance, and a code that only this registry can compute.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct UploadId([u8; 16]);

impl UploadId {
    /// Reads an id.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let shape = bytes.len() == 36 && [8, 13, 18, 23].iter().all(|at| bytes[*at] == b'-');
        if !shape {
            return None;
        }
        let mut digits = bytes.iter().filter(|b| **b != b'-');
        let mut id = [0; 16];
        for byte in &mut id {
            let mut digit = || match digits.next()? {
                b @ b'0'..=b'9' => Some(b - b'0'),
                b @ b'a'..=b'f' => Some(b - b'a' + 10),
                _ => None,
            };
            *byte = digit()? << 4 | digit()?;
        }
        digits.next().is_none().then_some(Self(id))
    }

    fn begun(&self) -> i64 {
        i64::from(u32::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3]]))
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The uploads of a store.
#[derive(Debug)]
pub struct Uploads {
    store: Arc<Store>,
    key: ring::hmac::Key,
    expire: Duration,
    sessions: Mutex<Sessions>,
    memory: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Sessions {
    open: HashMap<UploadId, Arc<tokio::sync::Mutex<Session>>>,
    ended: VecDeque<UploadId>,
    ended_set: std::collections::HashSet<UploadId>,
}

/// One upload. Who holds it is the only one who writes.
pub struct Session {
    id: UploadId,
    store: Arc<Store>,
    hasher: Option<Hasher>,
    small: Vec<u8>,
    staged: Option<Box<dyn Staged>>,
    memory: Arc<AtomicUsize>,
    used: Instant,
    ended: bool,
}

/// An upload that became a blob.
#[derive(Debug, PartialEq, Eq)]
pub struct Finished {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

impl Uploads {
    /// Takes over the uploads of a store; those not finished within `expire` are given up.
    pub async fn new(store: Arc<Store>, expire: Duration) -> Result<Self> {
        let secret = store.secret("uploads").await?;
        Ok(Self {
            store,
            key: ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret),
            expire,
            sessions: Mutex::default(),
            memory: Arc::default(),
        })
    }

    /// A new upload's id.
    pub fn begin(&self, repository: &Name) -> Result<UploadId> {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&u32::try_from(now()).unwrap_or(u32::MAX).to_be_bytes());
        random(&mut id[4..10])?;
        let code = self.code(&id, repository);
        id[10..].copy_from_slice(&code);
        Ok(UploadId(id))
    }

    fn code(&self, id: &[u8; 16], repository: &Name) -> [u8; 6] {
        let mut context = ring::hmac::Context::with_key(&self.key);
        context.update(&id[..10]);
        context.update(repository.as_str().as_bytes());
        let tag = context.sign();
        let mut code = [0; 6];
        code.copy_from_slice(&tag.as_ref()[..6]);
        code
    }

    /// The upload of that id in that repository, with what was received of it so far; `None` if there is none.
    pub fn find(&self, repository: &Name, id: &UploadId) -> Result<Option<Arc<tokio::sync::Mutex<Session>>>> {
        if id.0[10..] != self.code(&id.0, repository) || now() - id.begun() > self.expire.as_secs() as i64 {
            return Ok(None);
        }
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.ended_set.contains(id) {
            return Ok(None);
        }
        if let Some(session) = sessions.open.get(id) {
            return Ok(Some(session.clone()));
        }
        let staged = self.store.blobs().stage(id, false)?;
        let session = Session {
            id: *id,
            store: self.store.clone(),
            hasher: if staged.is_some() { None } else { Some(Hasher::new(Algorithm::Sha256)) },
            small: Vec::new(),
            staged,
            memory: self.memory.clone(),
            used: Instant::now(),
            ended: false,
        };
        let session = Arc::new(tokio::sync::Mutex::new(session));
        sessions.open.insert(*id, session.clone());
        Ok(Some(session))
    }

    /// Forgets an upload: it is unknown from now on.
    pub fn end(&self, session: &mut Session) {
        session.ended = true;
        session.forget_small();
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.open.remove(&session.id);
        if sessions.ended_set.insert(session.id) {
            sessions.ended.push_back(session.id);
        }
        while sessions.ended.len() > ENDED_MAX {
            if let Some(oldest) = sessions.ended.pop_front() {
                sessions.ended_set.remove(&oldest);
            }
        }
    }

    /// Ends an upload and drops what was received.
    pub fn cancel(&self, session: &mut Session) {
        self.end(session);
        session.staged = None;
        self.store.blobs().discard(&session.id);
    }

    /// Uploads that hold something in memory now.
    pub fn open(&self) -> usize {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).open.len()
    }

    /// Lets go of what uploads hold that nobody wrote to for a while: their bytes stay in the storage, and whoever goes
    /// on finds them there. Blocks on the disk.
    pub fn rest(&self, idle: Duration) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.open.retain(|_, session| {
            let Ok(mut session) = session.try_lock() else { return true };
            // What cannot be written now is tried again.
            session.used.elapsed() < idle || (session.offset() > 0 && session.spill().is_err())
        });
    }

    /// Gives up uploads begun too long ago; returns how many had bytes.
    pub fn expire(&self) -> Result<usize> {
        let old = |id: &UploadId| now() - id.begun() > self.expire.as_secs() as i64;
        let forgotten: Vec<_> = {
            let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            let ids: Vec<_> = sessions.open.keys().filter(|id| old(id)).copied().collect();
            ids.iter().filter_map(|id| sessions.open.remove(id)).collect()
        };
        for session in forgotten {
            if let Ok(mut session) = session.try_lock() {
                session.ended = true;
                session.forget_small();
            }
        }
        let staged = self.store.blobs().staged()?;
        let expired: Vec<_> = staged.iter().filter(|(id, _)| old(id)).collect();
        expired.iter().for_each(|(id, _)| self.store.blobs().discard(id));
        Ok(expired.len())
    }
}

impl Session {
    /// Bytes received so far.
    pub fn offset(&self) -> u64 {
        self.staged.as_ref().map_or(self.small.len() as u64, |staged| staged.len())
    }

    /// Whether its bytes are in memory.
    pub fn is_small(&self) -> bool {
        self.staged.is_none()
    }

    /// Whether somebody finished or cancelled it meanwhile.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Which upload.
    pub fn id(&self) -> UploadId {
        self.id
    }

    /// Computes this kind of digest while bytes come, if none came yet.
    pub fn expect(&mut self, algorithm: Algorithm) {
        if self.offset() == 0 {
            self.hasher = Some(Hasher::new(algorithm));
        }
    }

    /// Adds bytes. Blocks on the disk.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.used = Instant::now();
        let fits = self.small.len() + bytes.len() <= INLINE_MAX
            && self.memory.load(Ordering::Relaxed) + bytes.len() <= MEMORY_MAX;
        if self.staged.is_none() && fits {
            self.small.extend_from_slice(bytes);
            self.memory.fetch_add(bytes.len(), Ordering::Relaxed);
        } else {
            self.spill()?.append(bytes)?;
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        Ok(())
    }

    fn spill(&mut self) -> Result<&mut Box<dyn Staged>> {
        if self.staged.is_none() {
            let mut staged = self.store.blobs().stage(&self.id, true)?.ok_or_else(|| {
                StoreError::from(ApiError::new(Code::BlobUploadUnknown, "the upload was given up"))
            })?;
            if !self.small.is_empty() {
                staged.append(&self.small)?;
            }
            self.staged = Some(staged);
            self.forget_small();
        }
        self.staged.as_mut().ok_or(StoreError::Closed)
    }

    /// The bytes so far, to be read while more are added.
    pub fn content(&mut self) -> Result<Content> {
        self.spill()?.content()
    }

    fn forget_small(&mut self) {
        self.memory.fetch_sub(self.small.len(), Ordering::Relaxed);
        self.small = Vec::new();
    }

    /// Digest of all bytes. Blocks on the disk if they have to be read again.
    fn digest(&mut self, algorithm: Algorithm) -> Result<Digest> {
        match &self.hasher {
            Some(hasher) if hasher_algorithm(hasher) == algorithm => Ok(hasher.clone().finish()),
            _ => {
                let mut hasher = Hasher::new(algorithm);
                hasher.update(&self.small);
                if let Some(staged) = &self.staged {
                    let Content::File(file) = staged.content()?;
                    read_all(file, |bytes| hasher.update(bytes)).map_err(StoreError::io("read", "upload"))?;
                }
                Ok(hasher.finish())
            }
        }
    }

    /// Checks the digest and brings the bytes to the disk, so that they can be published. Blocks.
    pub fn seal(&mut self, expected: &Digest) -> Result<()> {
        let actual = self.digest(expected.algorithm())?;
        if actual != *expected {
            let detail = serde_json::json!({ "digest": expected.as_str(), "received": actual.as_str() });
            let message = "provided digest did not match uploaded content";
            return Err(ApiError::new(Code::DigestInvalid, message).detail(detail).into());
        }
        match &mut self.staged {
            Some(staged) => staged.flush(),
            None => Ok(()),
        }
    }

    /// Makes the sealed upload a blob of the repository. When this returns the blob survives a power cut.
    pub async fn publish(&mut self, repository: &Name, digest: &Digest) -> Result<Finished> {
        let (size, id) = (self.offset(), self.id);
        let inline = if self.staged.is_none() { Some(std::mem::take(&mut self.small)) } else { None };
        if let Some(bytes) = &inline {
            self.memory.fetch_sub(bytes.len(), Ordering::Relaxed);
        }
        self.staged = None;
        let (repository, named) = (repository.clone(), digest.clone());
        self.store.add_blob(repository, named, size, inline, id).await?;
        Ok(Finished { digest: digest.clone(), size })
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("offset", &self.offset())
            .finish_non_exhaustive()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.forget_small();
    }
}

fn hasher_algorithm(hasher: &Hasher) -> Algorithm {
    match hasher {
        Hasher::Sha256(_) => Algorithm::Sha256,
        Hasher::Sha384(_) => Algorithm::Sha384,
        Hasher::Sha512(_) => Algorithm::Sha512,
    }
}

/// Reads to the end in pieces.
pub(super) fn read_all(mut reader: impl Read, mut each: impl FnMut(&[u8])) -> std::io::Result<u64> {
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(n) => {
                each(&buffer[..n]);
                total += n as u64;
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Unpredictable bytes.
pub(crate) fn random(bytes: &mut [u8]) -> Result<()> {
    use ring::rand::SecureRandom;
    ring::rand::SystemRandom::new()
        .fill(bytes)
        .map_err(|_| StoreError::io("read", "random bytes")(std::io::Error::other("no randomness")))
}

impl Store {
    /// A secret of this registry, made when it is first asked for.
    pub async fn secret(&self, name: &'static str) -> Result<Vec<u8>> {
        self.write(move |db, _| {
            let found = db
                .query_row("SELECT value FROM setting WHERE key = ?1", [name], |row| row.get(0))
                .optional()?;
            if let Some(secret) = found {
                return Ok(secret);
            }
            let mut secret = vec![0; 32];
            random(&mut secret)?;
            db.execute("INSERT INTO setting(key, value) VALUES(?1, ?2)", (name, &secret))?;
            Ok(secret)
        })
        .await
    }
}
