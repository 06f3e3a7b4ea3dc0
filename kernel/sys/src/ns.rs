//! Entering and leaving namespaces.

use crate::{CloneFlags, Result, check};
use std::os::fd::{AsRawFd, BorrowedFd};

/// `setns(2)`: enters the namespaces `flags` of the process behind a pidfd, all at once; or, for a descriptor of one
/// namespace, that one, `flags` being its kind. For a pid or time namespace, children created later are meant.
///
/// Refused with `EDEADLK` in a process with several threads: they would live in different worlds.
pub fn setns(target: BorrowedFd<'_>, flags: CloneFlags) -> Result<()> {
    if !crate::process::single_threaded() {
        return Err(rustix::io::Errno::DEADLK);
    }
    // SAFETY: plain integers; the process has one thread, so no other thread's view changes under it.
    check(unsafe { libc::syscall(libc::SYS_setns, target.as_raw_fd(), flags.bits()) }).map(drop)
}

/// `unshare(2)` of namespaces. Refused with `EDEADLK` in a process with several threads.
pub fn unshare(flags: CloneFlags) -> Result<()> {
    if !crate::process::single_threaded() {
        return Err(rustix::io::Errno::DEADLK);
    }
    // SAFETY: only namespaces are unshared (the type holds no CLONE_FILES, CLONE_FS), by the only thread.
    check(unsafe { libc::syscall(libc::SYS_unshare, flags.bits()) }).map(drop)
}
