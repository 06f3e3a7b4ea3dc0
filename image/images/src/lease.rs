use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use hull_model::Digest;

/// Counts of who needs which blob or chain id now.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    counts: Mutex<HashMap<Digest, Held>>,
}

#[derive(Debug, Default)]
struct Held {
    count: usize,
    /// More than one held it at some time since it was first held.
    shared: bool,
}

/// Says that somebody builds upon these blobs and layers, for as long as it lives: they are not collected, and what a
/// failed operation added and somebody else relies upon is not taken back.
#[derive(Debug)]
pub struct Lease {
    leases: Arc<Leases>,
    held: Mutex<HashSet<Digest>>,
}

impl Leases {
    fn counts(&self) -> MutexGuard<'_, HashMap<Digest, Held>> {
        self.counts.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn lease(self: &Arc<Self>) -> Lease {
        Lease { leases: self.clone(), held: Mutex::default() }
    }

    /// Runs `remove` if one lease alone holds the digest and no other ever did meanwhile: then nobody can have built
    /// upon it.
    pub(crate) fn if_unshared<T>(&self, digest: &Digest, remove: impl FnOnce() -> T) -> Option<T> {
        let counts = self.counts();
        counts.get(digest).is_some_and(|held| held.count == 1 && !held.shared).then(remove)
    }
}

impl Leases {
    /// Runs `remove` unless somebody holds the digest; nobody can begin to hold it meanwhile.
    pub(crate) fn unless_held<T>(&self, digest: &Digest, remove: impl FnOnce() -> T) -> Option<T> {
        let counts = self.counts();
        (!counts.contains_key(digest)).then(remove)
    }
}

impl Lease {
    /// Protects this one as well, whether it is there yet or not. To be called before looking whether it is.
    pub fn hold(&self, digest: &Digest) {
        let mut own = self.held.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // The only layer of an image is blob and chain id at once.
        if own.insert(digest.clone()) {
            let mut counts = self.leases.counts();
            let held = counts.entry(digest.clone()).or_default();
            held.shared |= held.count > 0;
            held.count += 1;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut counts = self.leases.counts();
        for digest in self.held.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner()).drain() {
            if let Some(held) = counts.get_mut(&digest) {
                held.count -= 1;
                if held.count == 0 {
                    counts.remove(&digest);
                }
            }
        }
    }
}
