//! The engine's actions, container state machines, reconciliation and events.
