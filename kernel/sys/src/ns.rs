//! Entering and leaving namespaces.

use crate::{CloneFlags, Result, check};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

/// `setns(2)`: enters the namespaces `flags` of the process behind a pidfd, all at once; or, for a descriptor of one
/// namespace, that one, `flags` being its kind. For a pid or time namespace, children created later are meant.
///
/// Refused with `EDEADLK` in a process with several threads: they would live in different worlds.
pub fn setns(target: BorrowedFd<'_>, flags: CloneFlags) -> Result<()> {
    if !crate::process::single_threaded() {
        return Err(Errno::DEADLK);
    }
    // SAFETY: plain integers; the process has one thread, so no other thread's view changes under it.
    check(unsafe { libc::syscall(libc::SYS_setns, target.as_raw_fd(), flags.bits()) }).map(drop)
}

/// `unshare(2)` of namespaces. Refused with `EDEADLK` in a process with several threads.
pub fn unshare(flags: CloneFlags) -> Result<()> {
    if !crate::process::single_threaded() {
        return Err(Errno::DEADLK);
    }
    // SAFETY: only namespaces are unshared (the type holds no CLONE_FILES, CLONE_FS), by the only thread.
    check(unsafe { libc::syscall(libc::SYS_unshare, flags.bits()) }).map(drop)
}

/// Runs `work` on a thread that has a mount namespace and a working directory of its own (`unshare(2)`, `CLONE_NEWNS`),
/// a copy of the caller's that nothing propagates out of. What it mounts goes away with the thread, except what it
/// returns as descriptors of detached mounts.
///
/// The thread is gone when this returns: a process that had one thread has one again, as [`setns`] and
/// [`crate::clone3`] ask for.
pub fn with_own_mounts<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let apart = move || {
        // SAFETY: CLONE_NEWNS implies CLONE_FS: both end for this thread alone, which is new and runs nothing else.
        check(unsafe { libc::syscall(libc::SYS_unshare, libc::CLONE_NEWNS) })?;
        mount_change(c"/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
        work()
    };
    let (tid, result) = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("mounts".into());
        let thread = thread
            .spawn_scoped(scope, || (rustix::thread::gettid(), apart()))
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    wait_for_thread(tid);
    result
}

/// A joined thread has ended its work, but the kernel takes its namespaces apart before it is out of the process.
fn wait_for_thread(tid: rustix::thread::Pid) {
    let task = format!("/proc/self/task/{tid}");
    let mut pause = Duration::from_micros(20);
    let deadline = Instant::now() + Duration::from_secs(5);
    while rustix::fs::access(&task, rustix::fs::Access::EXISTS).is_ok() && Instant::now() < deadline {
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(2));
    }
}

#[cfg(test)]
mod tests {
    use rustix::mount::{MountFlags, mount};

    #[test]
    fn mounts_of_the_thread_are_seen_nowhere_else() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().expect("directory");
        let seen = super::with_own_mounts(|| {
            mount(c"none", directory.path(), c"tmpfs", MountFlags::empty(), None)?;
            Ok(rustix::fs::statfs(directory.path())?.f_type)
        });
        assert_eq!(seen.expect("mounted"), 0x0102_1994);
        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
        assert!(!mounts.contains(directory.path().to_str().expect("utf-8")));
    }

    #[test]
    fn the_thread_is_gone_afterwards() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let tid = super::with_own_mounts(|| Ok(rustix::thread::gettid())).expect("thread");
        assert!(!std::path::Path::new(&format!("/proc/self/task/{tid}")).exists());
        // The harness of this test has threads.
        assert!(!crate::process::single_threaded());
    }
}
