//! Kernel keyrings.

use crate::{Result, check};
use std::ffi::CStr;

/// Joins a new session keyring of that name (`keyctl(2)`, `KEYCTL_JOIN_SESSION_KEYRING`), so that the keys of the
/// caller's session are out of reach.
pub fn join_session_keyring(name: &CStr) -> Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a NUL-terminated name.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) }).map(drop)
}
