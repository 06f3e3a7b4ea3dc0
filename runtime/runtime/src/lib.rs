//! The OCI runtime as a library: create, start, exec, kill, delete.
//!
//! Synchronous and single-threaded: the caller must have one thread only, the container's first process is a child of
//! the caller made by one `clone3`.

mod affinity;
mod agent;
pub mod checkpoint;
pub mod container;
mod copy_up;
mod create;
mod criu;
mod error;
mod exec;
pub mod hooks;
mod idmap;
mod init;
mod lists;
mod memory_policy;
mod net_devices;
mod plan;
mod process;
mod request;
pub mod resctrl;
mod rootfs;
pub mod scope;
mod sync;
pub mod user;

pub use create::{check, create};
pub use error::{CreateError, Error, ErrorKind, ExecError, StartError};
pub use exec::exec;
pub use request::{CreateRequest, Created, ExecRequest, Execed, Rootfs, Running, Stdio};

pub use hull_cgroup as cgroup;
