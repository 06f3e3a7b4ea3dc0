//! Users and passwords from a file that Apache's `htpasswd -B` writes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::error::{ApiError, Code};
use crate::store;

/// How long a checked password is not checked again.
const REMEMBER: Duration = Duration::from_secs(300);
const REMEMBER_MAX: usize = 10_000;
/// Passwords checked at once: each takes a processor for as long as its cost says.
const AT_ONCE: usize = 2;
/// What an unknown user's password is compared with, so that unknown users are not told apart by time.
const NOBODY: &str = "$2b$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy";

/// A file of users.
#[derive(Debug)]
pub struct Htpasswd {
    path: PathBuf,
    users: Mutex<Users>,
    /// Passwords that were right, by a keyed hash of user and password.
    right: Mutex<HashMap<[u8; 32], Instant>>,
    key: ring::hmac::Key,
    checks: tokio::sync::Semaphore,
}

#[derive(Debug, Default)]
struct Users {
    hashes: Arc<HashMap<String, String>>,
    modified: Option<SystemTime>,
    looked: Option<Instant>,
}

/// A bcrypt hash as it stands in such a file.
pub fn hash_password(password: &str) -> Result<String, String> {
    if password.len() > 72 {
        return Err("bcrypt takes passwords of at most 72 bytes".into());
    }
    bcrypt::hash(password, 10).map_err(|e| e.to_string())
}

impl Htpasswd {
    /// Reads the file. It is read again when it changes.
    pub fn open(path: &Path) -> Result<Self, String> {
        let mut secret = [0; 32];
        store::random(&mut secret).map_err(|e| e.to_string())?;
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let hashes = parse(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        let modified = std::fs::metadata(path).and_then(|m| m.modified()).ok();
        Ok(Self {
            path: path.to_owned(),
            users: Mutex::new(Users { hashes: hashes.into(), modified, looked: Some(Instant::now()) }),
            right: Mutex::default(),
            key: ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret),
            checks: tokio::sync::Semaphore::new(AT_ONCE),
        })
    }

    fn users(&self) -> Arc<HashMap<String, String>> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if users.looked.is_none_or(|at| at.elapsed() > Duration::from_secs(1)) {
            users.looked = Some(Instant::now());
            let modified = std::fs::metadata(&self.path).and_then(|m| m.modified()).ok();
            if modified != users.modified {
                match std::fs::read_to_string(&self.path)
                    .map_err(|e| e.to_string())
                    .and_then(|text| parse(&text))
                {
                    Ok(hashes) => {
                        users.hashes = hashes.into();
                        users.modified = modified;
                        self.right.lock().unwrap_or_else(PoisonError::into_inner).clear();
                    }
                    Err(error) => {
                        tracing::error!(path = %self.path.display(), error, "users not read; the old ones stay")
                    }
                }
            }
        }
        users.hashes.clone()
    }

    /// Whether that is the user's password.
    pub async fn check(&self, user: &str, password: &str) -> Result<bool, ApiError> {
        let users = self.users();
        let digest = self.digest(user, password);
        let remembered = {
            let right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
            right.get(&digest).is_some_and(|at| at.elapsed() < REMEMBER)
        };
        if remembered && users.contains_key(user) {
            return Ok(true);
        }
        let closed = |_| ApiError::new(Code::Internal, "the registry ends");
        let _turn = self.checks.acquire().await.map_err(closed)?;
        let hash = users.get(user).cloned();
        let password = password.to_owned();
        let known = hash.is_some();
        let compare = move || bcrypt::verify(password, hash.as_deref().unwrap_or(NOBODY)).unwrap_or(false);
        let right = tokio::task::spawn_blocking(compare).await.map_err(ApiError::internal)? && known;
        if right {
            let mut remembered = self.right.lock().unwrap_or_else(PoisonError::into_inner);
            if remembered.len() >= REMEMBER_MAX {
                remembered.clear();
            }
            remembered.insert(digest, Instant::now());
        }
        Ok(right)
    }

    fn digest(&self, user: &str, password: &str) -> [u8; 32] {
        let mut context = ring::hmac::Context::with_key(&self.key);
        context.update(&(user.len() as u64).to_be_bytes());
        context.update(user.as_bytes());
        context.update(password.as_bytes());
        let mut digest = [0; 32];
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }
}

fn parse(text: &str) -> Result<HashMap<String, String>, String> {
    let lines = text.lines().map(str::trim).enumerate();
    let entries = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let mut users = HashMap::new();
    for (at, line) in entries {
        let line_number = at + 1;
        let (user, hash) = line.split_once(':').ok_or(format!("line {line_number}: no user and password"))?;
        if !["$2a$", "$2b$", "$2y$"].iter().any(|kind| hash.starts_with(kind)) {
            return Err(format!("line {line_number}: the password of {user} is not bcrypt's (htpasswd -B)"));
        }
        users.insert(user.to_owned(), hash.to_owned());
    }
    Ok(users)
}
