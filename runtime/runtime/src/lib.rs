//! The OCI runtime as a library: create, start, exec, kill, delete.
