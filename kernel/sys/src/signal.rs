//! Signal masks, dispositions and `signalfd(2)`.

use crate::{Result, check};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

fn mask_of(signals: &[i32]) -> u64 {
    signals.iter().filter(|n| (1..=64).contains(*n)).fold(0, |mask, n| mask | 1 << (n - 1))
}

fn sigprocmask(how: libc::c_int, mask: u64) -> Result<()> {
    // SAFETY: the kernel's sigset is 64 bits here, its size is given; the old mask is not asked for.
    check(unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const mask, core::ptr::null_mut::<u64>(), 8)
    })
    .map(drop)
}

/// Blocks these signals in this thread.
pub fn block(signals: &[i32]) -> Result<()> {
    sigprocmask(libc::SIG_BLOCK, mask_of(signals))
}

/// Unblocks every signal in this thread.
pub fn unblock_all() -> Result<()> {
    sigprocmask(libc::SIG_SETMASK, 0)
}

/// Blocks the signals and returns a descriptor that delivers them (non-blocking, close-on-exec).
pub fn signalfd(signals: &[i32]) -> Result<OwnedFd> {
    block(signals)?;
    let mask = mask_of(signals);
    // SAFETY: the mask lives through the call and has the size given.
    let fd = check(unsafe {
        libc::syscall(libc::SYS_signalfd4, -1, &raw const mask, 8, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    })?;
    // SAFETY: a new descriptor owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A signal read from a [`signalfd`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Signal number.
    pub signal: i32,
    /// Sender, or the child for SIGCHLD.
    pub pid: i32,
}

/// Reads one signal from a [`signalfd`]; `None` when there is none.
pub fn read_signalfd(fd: BorrowedFd<'_>) -> Result<Option<Delivered>> {
    let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
    match rustix::io::read(fd, &mut info) {
        Ok(read) if read == info.len() => {
            let word = |at: usize| i32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
            // ssi_signo is the first field, ssi_pid the fourth of 32 bits.
            Ok(Some(Delivered { signal: word(0), pid: word(12) }))
        }
        Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sets the disposition of these signals to the default. Handlers are already gone in a child of [`crate::clone3`],
/// but what was ignored stays ignored through exec.
pub fn set_default(signals: &[i32]) -> Result<()> {
    for signal in signals {
        // SAFETY: SIG_DFL installs no code of ours.
        if unsafe { libc::signal(*signal, libc::SIG_DFL) } == libc::SIG_ERR {
            return Err(crate::last_errno());
        }
    }
    Ok(())
}

/// `kill(2)` with any signal number, 0 and the real-time ones included.
pub fn kill(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: plain integers.
    check(unsafe { libc::syscall(libc::SYS_kill, pid, signal) }).map(drop)
}

/// `pidfd_send_signal(2)` with any signal number.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: no siginfo is given, the rest are integers.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            core::ptr::null::<libc::siginfo_t>(),
            0,
        )
    })
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_blocked_signal_comes_through_the_descriptor() {
        let fd = signalfd(&[libc::SIGUSR1]).expect("signalfd");
        assert_eq!(read_signalfd(fd.as_fd()).expect("read"), None);
        // SAFETY: sends a signal blocked by this thread to this thread.
        unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGUSR1) };
        let delivered = read_signalfd(fd.as_fd()).expect("read").expect("a signal");
        assert_eq!(delivered.signal, libc::SIGUSR1);
        assert_eq!(delivered.pid, std::process::id() as i32);
    }
}
