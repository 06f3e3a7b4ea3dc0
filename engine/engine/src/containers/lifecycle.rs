//! Actions that are a message to the container's task, waiting for it, and pruning.

use std::sync::Arc;

use hull_docker_api::{
    ContainerUpdateRequest, ContainerUpdateResponse, ContainerWait, ContainersPruned, Filters,
};

use super::actor::Command;
use super::record::{Snapshot, Status};
use super::{RemoveOptions, StopOptions, Wait, WaitCondition, list, signal};
use crate::{Engine, Error, Kind, Result};

/// Container actions. `id` is always a name, an id or a unique beginning of an id.
impl Engine {
    /// Starts it. [`crate::Kind::NotModified`] when it runs.
    pub async fn container_start(&self, id: &str) -> Result<()> {
        self.0.containers.registry.find(id)?.ask(|reply| Command::Start { reply }).await
    }

    /// Stops it. [`crate::Kind::NotModified`] when it does not run.
    pub async fn container_stop(&self, id: &str, options: StopOptions) -> Result<()> {
        check_signal(&options)?;
        self.0.containers.registry.find(id)?.ask(|reply| Command::Stop { options, reply }).await
    }

    /// Stops it if it runs, and starts it.
    pub async fn container_restart(&self, id: &str, options: StopOptions) -> Result<()> {
        check_signal(&options)?;
        self.0.containers.registry.find(id)?.ask(|reply| Command::Restart { options, reply }).await
    }

    /// Sends a signal (name with or without SIG, or number; empty for KILL).
    pub async fn container_kill(&self, id: &str, signal: &str) -> Result<()> {
        let signal = if signal.is_empty() { signal::KILL } else { signal::parse(signal)? };
        let handle = self.0.containers.registry.find(id)?;
        let result = handle.ask(|reply| Command::Kill { signal, reply }).await;
        result.map_err(|error| match error.kind() {
            Kind::Conflict => Error::conflict(format!("cannot kill container: {id}: {}", error.message())),
            _ => error,
        })
    }

    /// Freezes its processes.
    pub async fn container_pause(&self, id: &str) -> Result<()> {
        self.0.containers.registry.find(id)?.ask(|reply| Command::Pause { reply }).await
    }

    /// Thaws its processes.
    pub async fn container_unpause(&self, id: &str) -> Result<()> {
        self.0.containers.registry.find(id)?.ask(|reply| Command::Unpause { reply }).await
    }

    /// Gives it another name.
    pub async fn container_rename(&self, id: &str, name: &str) -> Result<()> {
        if name.is_empty() {
            return Err(Error::invalid("Neither old nor new names may be empty"));
        }
        let name = name.to_owned();
        self.0.containers.registry.find(id)?.ask(|reply| Command::Rename { name, reply }).await
    }

    /// Changes limits and restart policy.
    pub async fn container_update(
        &self,
        id: &str,
        request: ContainerUpdateRequest,
    ) -> Result<ContainerUpdateResponse> {
        let request = Box::new(request);
        self.0.containers.registry.find(id)?.ask(|reply| Command::Update { request, reply }).await?;
        Ok(ContainerUpdateResponse::default())
    }

    /// Arms a wait. Send the response's headers, then await what it returns.
    pub async fn container_wait(&self, id: &str, condition: WaitCondition) -> Result<Wait> {
        let mut snapshots = self.0.containers.registry.find(id)?.snapshots;
        let seen = snapshots.borrow().state.exits;
        Ok(Box::pin(async move {
            let fulfilled = |now: &Arc<Snapshot>| match condition {
                WaitCondition::NotRunning => now.removed || !now.state.status.is_up(),
                WaitCondition::NextExit => now.removed || now.state.exits > seen,
                WaitCondition::Removed => now.removed,
            };
            let last = match snapshots.wait_for(fulfilled).await {
                Ok(now) => Some(now.state.exit_code),
                Err(_) => None,
            };
            // The task ended without saying more: the last state tells.
            let status_code = last.unwrap_or_else(|| snapshots.borrow().state.exit_code);
            Ok(ContainerWait { status_code, error: None })
        }))
    }

    /// Removes it.
    pub async fn container_remove(&self, id: &str, options: RemoveOptions) -> Result<()> {
        self.0.containers.registry.find(id)?.ask(|reply| Command::Remove { options, reply }).await
    }

    /// Removes all stopped containers that pass the filters (`until`, `label`, `label!`).
    pub async fn container_prune(&self, filters: &Filters) -> Result<ContainersPruned> {
        if let Some(unknown) = filters.unknown_field(&["until", "label", "label!"]) {
            return Err(Error::invalid(format!("invalid filter '{unknown}'")));
        }
        let until = crate::images::until(filters)?;
        let (mut deleted, mut reclaimed) = (Vec::new(), 0);
        for handle in self.0.containers.registry.all() {
            let now = handle.now();
            let stopped = matches!(now.state.status, Status::Created | Status::Exited | Status::Dead);
            let old = until.is_none_or(|until| now.def.created < until);
            if !stopped || !old || !list::matches_labels(filters, &now.def) {
                continue;
            }
            let size = self.upper_size(&handle.id).await;
            let removed =
                handle.ask(|reply| Command::Remove { options: RemoveOptions::default(), reply }).await;
            if removed.is_ok() {
                reclaimed += size;
                deleted.push(handle.id.to_string());
            }
        }
        self.events().emit(
            "container",
            "prune",
            "",
            [("reclaimed".to_owned(), reclaimed.to_string())].into(),
        );
        let containers_deleted = (!deleted.is_empty()).then_some(deleted);
        Ok(ContainersPruned { containers_deleted, space_reclaimed: reclaimed })
    }
}

fn check_signal(options: &StopOptions) -> Result<()> {
    match options.signal.as_deref() {
        None | Some("") => Ok(()),
        Some(name) => signal::parse(name).map(|_| ()),
    }
}
