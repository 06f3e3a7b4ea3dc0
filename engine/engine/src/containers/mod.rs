//! Containers: their actions, and one task per container that owns its state machine.

use crate::{Config, Engine, EngineId, Result};

/// The containers of an engine.
#[derive(Debug)]
pub struct Containers {}

impl Containers {
    /// Loads the records of containers.
    pub(crate) fn open(_config: &Config, _id: &EngineId, _store: &hull_meta::Store) -> Result<Containers> {
        Ok(Containers {})
    }
}

impl Engine {
    /// Compares the record with what the kernel holds: adopts live containers, settles dead ones, removes what
    /// belongs to nobody, and applies restart policies.
    pub async fn reconcile(&self) -> Result<()> {
        Ok(())
    }
}
