//! Which containers there are, and how they are found.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, RwLock};

use tokio::sync::{mpsc, watch};

use super::actor::Command;
use super::names;
use super::record::Snapshot;
use crate::{Error, Result};

/// A container as other tasks see it: its latest snapshot and the way to its task.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    pub(crate) id: Arc<str>,
    pub(crate) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(crate) commands: mpsc::Sender<Command>,
}

impl Handle {
    /// The container as it is now.
    pub(crate) fn now(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshots.borrow())
    }

    /// Asks the container's task; the answer comes when it has acted.
    pub(crate) async fn ask<T>(
        &self,
        command: impl FnOnce(tokio::sync::oneshot::Sender<Result<T>>) -> Command,
    ) -> Result<T> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let gone = || Error::not_found(format!("No such container: {}", self.id));
        self.commands.send(command(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// Containers by id and name.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    index: RwLock<Index>,
}

#[derive(Debug, Default)]
struct Index {
    by_id: BTreeMap<Arc<str>, Handle>,
    /// Names, also of containers that are being made.
    names: HashMap<String, Arc<str>>,
}

impl Registry {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(|e| e.into_inner())
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(|e| e.into_inner())
    }

    /// Takes a name for `id`, or says who has it.
    pub(crate) fn claim(&self, name: &str, id: &str) -> Result<()> {
        let mut index = self.write();
        if let Some(owner) = index.names.get(name) {
            return Err(names::conflict(name, owner));
        }
        index.names.insert(name.to_owned(), id.into());
        Ok(())
    }

    /// Frees a name.
    pub(crate) fn release(&self, name: &str) {
        self.write().names.remove(name);
    }

    pub(crate) fn insert(&self, handle: Handle) {
        self.write().by_id.insert(Arc::clone(&handle.id), handle);
    }

    pub(crate) fn remove(&self, id: &str, name: &str) {
        let mut index = self.write();
        index.by_id.remove(id);
        if index.names.get(name).is_some_and(|owner| &**owner == id) {
            index.names.remove(name);
        }
    }

    /// All containers in the order of their ids.
    pub(crate) fn all(&self) -> Vec<Handle> {
        self.read().by_id.values().cloned().collect()
    }

    /// How many containers there are.
    #[allow(dead_code)]
    pub(crate) fn len(&self) -> usize {
        self.read().by_id.len()
    }

    /// A container by full id, name, or unique beginning of an id, in this order (as dockerd looks).
    pub(crate) fn find(&self, text: &str) -> Result<Handle> {
        let index = self.read();
        if let Some(handle) = index.by_id.get(text) {
            return Ok(handle.clone());
        }
        let name = text.strip_prefix('/').unwrap_or(text);
        if let Some(handle) = index.names.get(name).and_then(|id| index.by_id.get(id)) {
            return Ok(handle.clone());
        }
        let missing = || Error::not_found(format!("No such container: {text}"));
        if text.is_empty() {
            return Err(missing());
        }
        let mut matches = index
            .by_id
            .range::<str, _>((Bound::Included(text), Bound::Unbounded))
            .take_while(|(id, _)| id.starts_with(text));
        let (_, first) = matches.next().ok_or_else(missing)?;
        if matches.next().is_some() {
            return Err(Error::invalid(format!("Multiple IDs found with provided prefix: {text}")));
        }
        Ok(first.clone())
    }
}
