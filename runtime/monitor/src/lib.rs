//! A container's parent: stdio, logs, attach, exec, exit record; and its client.
//!
//! One small single-threaded process per container. It outlives the engine; the kernel kills the container when
//! the monitor dies (`PR_SET_PDEATHSIG`), so a monitor that is gone without an exit record means a dead container.
//!
//! ```text
//!            engine ──Request──▶ ┌─────────┐ ──clone3──▶ container init, exec'd processes
//!            engine ◀──Event──── │ monitor │ ◀─stdout, stderr, terminal─┘
//! client sockets (SCM_RIGHTS) ◀─▶└─────────┘ ──▶ log file, exit.json
//! ```
//!
//! [`protocol`] has the messages, [`client`] the engine's side of them, [`config`] what a monitor is told at its
//! start.

mod attached;
mod backend;
pub mod client;
mod clock;
pub mod config;
pub mod detach_keys;
mod exit_record;
mod foreign;
mod log;
mod monitor;
mod peer;
mod process;
pub mod protocol;
mod session;
mod socket_path;
mod wire;

#[cfg(test)]
mod tests;

pub use config::MonitorConfig;
pub use exit_record::read as read_exit;
pub use process::{RunError, run};
