//! Making processes: `clone3(2)`.

use crate::{Result, check};
use rustix::io::Errno;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Flags of `clone3(2)` that make sense without sharing memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CloneFlags(u64);

impl CloneFlags {
    /// New mount namespace.
    pub const NEWNS: Self = Self(libc::CLONE_NEWNS as u64);
    /// New cgroup namespace.
    pub const NEWCGROUP: Self = Self(libc::CLONE_NEWCGROUP as u64);
    /// New UTS namespace.
    pub const NEWUTS: Self = Self(libc::CLONE_NEWUTS as u64);
    /// New IPC namespace.
    pub const NEWIPC: Self = Self(libc::CLONE_NEWIPC as u64);
    /// New user namespace.
    pub const NEWUSER: Self = Self(libc::CLONE_NEWUSER as u64);
    /// New pid namespace, of which the child is the init.
    pub const NEWPID: Self = Self(libc::CLONE_NEWPID as u64);
    /// New network namespace.
    pub const NEWNET: Self = Self(libc::CLONE_NEWNET as u64);
    /// New time namespace, entered by the child at once (its offsets cannot be set any more).
    pub const NEWTIME: Self = Self(0x80);
    /// The child's parent is the caller's parent.
    pub const PARENT: Self = Self(libc::CLONE_PARENT as u64);
    /// No flag.
    pub const fn empty() -> Self {
        Self(0)
    }
    /// Whether all of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
    /// This set without `other`.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
    /// Whether nothing is set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// The kernel's bits.
    pub const fn bits(self) -> u64 {
        self.0
    }
}

impl std::ops::BitOr for CloneFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::BitOrAssign for CloneFlags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// What the new process gets.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneArgs<'a> {
    /// Namespaces and parentage.
    pub flags: CloneFlags,
    /// A cgroup v2 directory the child is born in (`CLONE_INTO_CGROUP`).
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// The two returns of a fork.
#[derive(Debug)]
pub enum Forked {
    /// In the new process.
    Child,
    /// In the caller.
    Parent {
        /// The child's pid in the caller's pid namespace.
        pid: i32,
        /// The child, race free. Close-on-exec.
        pidfd: OwnedFd,
    },
}

/// Whether this process has one thread only: as the C library knows it (no system call) when it never had a second one,
/// else as the kernel does.
pub fn single_threaded() -> bool {
    never_had_threads() || is_alone()
}

/// `unshare(2)` of `CLONE_THREAD` changes nothing, and is refused to a process with several threads.
fn is_alone() -> bool {
    // SAFETY: an integer; nothing is unshared.
    check(unsafe { libc::syscall(libc::SYS_unshare, libc::CLONE_THREAD) }).is_ok()
}

fn never_had_threads() -> bool {
    unsafe extern "C" {
        static __libc_single_threaded: libc::c_char;
    }
    // SAFETY: glibc defines this variable (2.32 and later) as a plain char; only the C library writes it, when a
    // thread is created or joined, and a stale read can only happen when a second thread exists, in which case
    // it has been false since before that thread ran.
    unsafe { core::ptr::read_volatile(&raw const __libc_single_threaded) != 0 }
}

/// `clone3(2)` as a fork: the child continues with a copy of the memory, signal handlers reset to the default
/// (ignored signals stay ignored), SIGCHLD to the parent at its end.
///
/// Fails with `EDEADLK` when the process has more than one thread: locks held by other threads would stay
/// locked in the child.
pub fn clone3(args: CloneArgs<'_>) -> Result<Forked> {
    if !single_threaded() {
        return Err(Errno::DEADLK);
    }
    const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut pidfd: libc::c_int = -1;
    // SAFETY: all-zero is a valid clone_args, each field being an integer.
    let mut raw: libc::clone_args = unsafe { core::mem::zeroed() };
    raw.flags = args.flags.bits() | libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND;
    raw.pidfd = (&raw mut pidfd) as u64;
    // With CLONE_PARENT the kernel takes the exit signal of the caller and wants none here.
    raw.exit_signal = if args.flags.contains(CloneFlags::PARENT) { 0 } else { libc::SIGCHLD as u64 };
    if let Some(cgroup) = args.cgroup {
        raw.flags |= CLONE_INTO_CGROUP;
        raw.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `raw` is a complete clone_args of the size given; no CLONE_VM and no stack, so the child runs on a
    // copy of this stack; the process has a single thread, so no lock of the C library is held by another one.
    let pid =
        check(unsafe { libc::syscall(libc::SYS_clone3, &raw const raw, size_of::<libc::clone_args>()) })?;
    if pid == 0 {
        return Ok(Forked::Child);
    }
    // SAFETY: the kernel stored a new descriptor owned by nobody else into `pidfd`.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Forked::Parent { pid: pid as i32, pidfd })
}

/// `fork(2)`, for where `clone3` is filtered (the default seccomp policy answers ENOSYS): `None` in the child, the child's
/// pid in the caller. Fails with `EDEADLK` when the process has more than one thread, as [`clone3`] does.
pub fn fork() -> Result<Option<i32>> {
    if !single_threaded() {
        return Err(Errno::DEADLK);
    }
    // SAFETY: the process has a single thread, so the child finds no lock held by a thread it does not have.
    let pid = check(unsafe { libc::fork() }.into())?;
    Ok((pid != 0).then_some(pid as i32))
}

/// `wait4(2)` for a child: its wait status, 0 for success, and the user and system time of it and of all it waited for.
pub fn wait_with_cpu_time(pid: i32) -> Result<(i32, Duration)> {
    let mut status = 0;
    // SAFETY: all-zero is a valid rusage, each field being an integer.
    let mut usage: libc::rusage = unsafe { core::mem::zeroed() };
    loop {
        // SAFETY: both are written by the kernel, which knows their sizes.
        match check(unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) }.into()) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
    };
    Ok((status, time(usage.ru_utime) + time(usage.ru_stime)))
}

/// Ends the process at once: no exit handlers, no flushing of the parent's buffers.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(status) }
}

/// `setresuid(2)` of this thread, all three to `uid`.
pub fn setresuid(uid: u32) -> Result<()> {
    // SAFETY: plain integers. Only called in single-threaded processes does this mean the whole process.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// `setresgid(2)` of this thread, all three to `gid`.
pub fn setresgid(gid: u32) -> Result<()> {
    // SAFETY: plain integers.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

/// `setgroups(2)` of this thread.
pub fn setgroups(gids: &[u32]) -> Result<()> {
    // SAFETY: pointer and length are those of one slice of 32-bit ids, which is the kernel's gid_t.
    check(unsafe { libc::syscall(libc::SYS_setgroups, gids.len(), gids.as_ptr()) }).map(drop)
}

/// `personality(2)`: sets the execution domain and its flags.
pub fn personality(persona: u64) -> Result<()> {
    // SAFETY: plain integer.
    check(unsafe { libc::syscall(libc::SYS_personality, persona) }).map(drop)
}

/// `setdomainname(2)`.
pub fn setdomainname(name: &str) -> Result<()> {
    // SAFETY: pointer and length are those of one string.
    check(unsafe { libc::syscall(libc::SYS_setdomainname, name.as_ptr(), name.len()) }).map(drop)
}

/// `prlimit64(2)` on this process: sets soft and hard limit of the resource numbered as in
/// `<sys/resource.h>`.
pub fn setrlimit(resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` lives through the call; the old limit is not asked for.
    check(unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            &raw const limit,
            core::ptr::null_mut::<libc::rlimit64>(),
        )
    })
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_to_fork_with_threads() {
        // The test harness runs tests in threads.
        std::thread::spawn(|| {
            let refused = clone3(CloneArgs::default());
            if matches!(refused, Ok(Forked::Child)) {
                exit_now(1);
            }
            assert_eq!(refused.err(), Some(Errno::DEADLK));
        })
        .join()
        .expect("thread");
    }

    #[test]
    #[expect(clippy::zombie_processes, reason = "it is waited for by its pid")]
    fn a_childs_cpu_time_is_told_with_its_status() {
        let script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exit 3";
        let child = std::process::Command::new("sh").args(["-c", script]).spawn().expect("sh");
        let (status, time) = wait_with_cpu_time(child.id() as i32).expect("wait");
        assert_eq!(libc::WEXITSTATUS(status), 3);
        assert!(time > Duration::ZERO);
    }

    #[test]
    fn flags_combine() {
        let flags = CloneFlags::NEWNS | CloneFlags::NEWPID;
        assert!(flags.contains(CloneFlags::NEWNS));
        assert!(!flags.contains(CloneFlags::NEWNS | CloneFlags::NEWNET));
        assert_eq!(flags.without(CloneFlags::NEWPID), CloneFlags::NEWNS);
    }
}
