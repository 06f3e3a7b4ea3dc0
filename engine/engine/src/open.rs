//! Opening an engine: lock the data root, open the database, load what each module recorded.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, Mode};
use rustix::io::Errno;

use crate::{Config, Engine, EngineId, Inner, containers, events, images, networks, volumes};

/// Why an engine could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A directory could not be made.
    #[error("create directory {path}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// Another engine works on this data root.
    #[error("another engine is already running on {data_root}; stop it or choose another --data-root")]
    Busy {
        /// The data root.
        data_root: PathBuf,
    },
    /// The lock file could not be used.
    #[error("lock {path}")]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// The database could not be opened or read.
    #[error("open the record of the engine")]
    Record(#[from] hull_meta::Error),
    /// A module could not load or set up its part.
    #[error("set up {part}")]
    Part {
        /// Which module.
        part: &'static str,
        /// Its reason.
        #[source]
        source: crate::Error,
    },
}

/// How long a lock that is held may be about to be freed.
const LOCK_PATIENCE: std::time::Duration = std::time::Duration::from_millis(500);

/// Table of single documents about the engine itself.
const ENGINE_TABLE: &str = "engine";

impl Engine {
    /// Opens the engine on `config.data_root`. Blocks: call it from a blocking thread inside a tokio runtime.
    ///
    /// Nothing runs yet that touches containers: see [`Engine::reconcile`].
    pub fn open(config: Config) -> Result<Engine, OpenError> {
        create_directory(&config.data_root, 0o710)?;
        create_directory(&config.data_root.join("containers"), 0o710)?;
        // The group of the socket has to pass.
        create_directory(&config.exec_root, 0o711)?;
        create_directory(&config.exec_root.join("containers"), 0o700)?;
        let lock = lock(&config.data_root)?;
        let store = hull_meta::Store::open(&config.data_root.join("meta.db"))?;
        let id = identity(&store)?;
        let part = |part| move |source| OpenError::Part { part, source };
        let images = images::Images::open(&config, &store).map_err(part("images"))?;
        let networks = networks::Networks::open(&config, &id, &store).map_err(part("networks"))?;
        let volumes = volumes::Volumes::open(&config, &store).map_err(part("volumes"))?;
        let containers = containers::Containers::open(&config, &id, &store).map_err(part("containers"))?;
        Ok(Engine(Arc::new(Inner {
            config,
            id,
            started: jiff::Timestamp::now(),
            store,
            events: events::Bus::default(),
            containers,
            images,
            networks,
            volumes,
            _lock: lock,
        })))
    }
}

fn create_directory(path: &Path, mode: u32) -> Result<(), OpenError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|source| OpenError::Directory { path: path.to_owned(), source })
}

/// Takes the lock of the data root. The kernel frees it when this process ends in any way.
fn lock(data_root: &Path) -> Result<File, OpenError> {
    let path = data_root.join("hulld.lock");
    let failed = |source: Errno| OpenError::Lock { path: path.clone(), source: source.into() };
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
    let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600)).map_err(failed)?;
    let asked = std::time::Instant::now();
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(File::from(file)),
            // An engine that was killed a moment ago holds it until the kernel has taken it apart.
            Err(Errno::WOULDBLOCK) if asked.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            Err(Errno::WOULDBLOCK) => return Err(OpenError::Busy { data_root: data_root.to_owned() }),
            Err(errno) => return Err(failed(errno)),
        }
    }
}

/// The engine's names, made once per data root.
fn identity(store: &hull_meta::Store) -> Result<EngineId, hull_meta::Error> {
    if let Some((_, id)) = store.load::<EngineId>(ENGINE_TABLE)?.into_iter().find(|(key, _)| key == "id") {
        return Ok(id);
    }
    let id = new_identity();
    let mut batch = hull_meta::Batch::new();
    batch.put(ENGINE_TABLE, "id", &id)?;
    store.write(batch, hull_meta::Durability::Disk).wait()?;
    Ok(id)
}

fn new_identity() -> EngineId {
    let mut bytes = [0u8; 16];
    random(&mut bytes);
    // A version 4 UUID (RFC 9562 section 5.4).
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let id = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
    EngineId { short: hex[..8].to_owned(), id }
}

/// Fills `bytes` from the kernel's random source.
pub(crate) fn random(bytes: &mut [u8]) {
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(n) => filled += n,
            Err(Errno::INTR) => {}
            // Only an early boot without entropy or a seccomp filter could refuse; neither runs an engine.
            Err(errno) => panic!("getrandom: {errno}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_engine_per_data_root_and_a_stable_identity() {
        let dir = tempfile::tempdir().expect("temp dir");
        let config = || Config::new(dir.path().join("data"), dir.path().join("run"), "/nonexistent".into());
        let first = Engine::open(config()).expect("open");
        assert!(matches!(Engine::open(config()), Err(OpenError::Busy { .. })));
        let id = first.id().clone();
        drop(first);
        let again = Engine::open(config()).expect("open again");
        assert_eq!(again.id().id, id.id);
        assert_eq!(id.short.len(), 8);
        assert_eq!(id.id.len(), 36);
    }
}
