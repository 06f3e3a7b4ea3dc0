//! The OCI runtime as a library: create, start, exec, kill, delete.
//!
//! Synchronous and single-threaded: the caller must have one thread only, the container's first process is a child of
//! the caller made by one `clone3`.

mod error;
mod request;
pub mod user;

pub use error::{CreateError, Error, ErrorKind, ExecError, StartError};
pub use request::{CreateRequest, Created, ExecRequest, Execed, Rootfs, Running, Stdio, create, exec};

pub use hull_cgroup as cgroup;
