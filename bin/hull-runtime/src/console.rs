//! Waiting for a process in the foreground: signals forwarded to it, its terminal connected to ours.

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const SIGCHLD: i32 = 17;
const SIGURG: i32 = 23;
const SIGWINCH: i32 = 28;
const SIGPIPE: i32 = 13;

/// All signals that can be handed on, blocked and readable; to be called before the process is made.
pub(crate) fn forwarded_signals() -> anyhow::Result<OwnedFd> {
    // Synchronous ones are ours, KILL and STOP cannot be blocked.
    let own = [4, 5, 7, 8, 9, 11, 19, 31];
    let signals: Vec<i32> = (1..=31).filter(|signal| !own.contains(signal)).collect();
    hull_sys::signal::signalfd(&signals).context("make a signal descriptor")
}

/// Takes a child's exit status: 0 to 255, 128 and the number for a signal.
pub(crate) fn reap(pid: i32) -> u8 {
    let Some(pid) = Pid::from_raw(pid) else { return 255 };
    loop {
        match rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                let signal = status.terminating_signal().map(|signal| 128 + signal);
                return signal.or(status.exit_status()).unwrap_or(255) as u8;
            }
            Err(Errno::INTR) => {}
            _ => return 255,
        }
    }
}

/// A process in the foreground.
pub(crate) struct Attached<'a> {
    pub(crate) pid: i32,
    pub(crate) pidfd: BorrowedFd<'a>,
    pub(crate) console: Option<&'a OwnedFd>,
    pub(crate) signals: &'a OwnedFd,
}

/// Our terminal in raw mode until dropped.
struct Raw(Option<Termios>);

impl Raw {
    fn enter() -> Self {
        let Ok(before) = tcgetattr(rustix::stdio::stdin()) else { return Self(None) };
        let mut raw = before.clone();
        raw.make_raw();
        // Newlines are made of line feeds here, since the container's terminal leaves them alone.
        raw.output_modes |= rustix::termios::OutputModes::OPOST;
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw);
        Self(Some(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before);
        }
    }
}

impl Attached<'_> {
    /// Waits for its end and returns its status.
    pub(crate) fn wait(&self) -> anyhow::Result<u8> {
        let _raw = self.console.map(|_| Raw::enter());
        self.resize();
        let mut input = self.console.is_some();
        let mut output = self.console.is_some();
        loop {
            let nothing = PollFlags::empty();
            let mut fds =
                vec![PollFd::new(&self.pidfd, PollFlags::IN), PollFd::new(self.signals, PollFlags::IN)];
            let stdin = rustix::stdio::stdin();
            if let Some(console) = self.console {
                fds.push(PollFd::new(console, if output { PollFlags::IN } else { nothing }));
                fds.push(PollFd::from_borrowed_fd(stdin, if input { PollFlags::IN } else { nothing }));
            }
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("wait for the process"),
            }
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            drop(fds);
            if ready[1] {
                self.forward_signals()?;
            }
            if let Some(console) = self.console {
                if output && ready[2] {
                    output = copy(console.as_fd(), rustix::stdio::stdout());
                }
                if input && ready[3] {
                    input = copy(stdin, console.as_fd());
                }
            }
            // What it wrote last comes first.
            if ready[0] && !(output && ready.get(2) == Some(&true)) {
                return Ok(reap(self.pid));
            }
        }
    }

    fn forward_signals(&self) -> anyhow::Result<()> {
        while let Some(delivered) =
            hull_sys::signal::read_signalfd(self.signals.as_fd()).context("read signals")?
        {
            match delivered.signal {
                SIGCHLD | SIGURG | SIGPIPE => {}
                SIGWINCH if self.console.is_some() => self.resize(),
                signal => match hull_sys::signal::pidfd_send_signal(self.pidfd, signal) {
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(error) => return Err(error).context("forward a signal"),
                },
            }
        }
        Ok(())
    }

    fn resize(&self) {
        let Some(console) = self.console else { return };
        if let Ok(size) = tcgetwinsize(rustix::stdio::stdin()) {
            let _ = tcsetwinsize(console, size);
        }
    }
}

/// Copies what is there; false at the end of either side.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut buffer = [0u8; 16384];
    let length = match rustix::io::read(from, &mut buffer) {
        Ok(0) => return false,
        Ok(length) => length,
        Err(Errno::INTR | Errno::AGAIN) => return true,
        // A terminal whose other side is closed answers EIO.
        Err(_) => return false,
    };
    let mut rest = &buffer[..length];
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => return false,
        }
    }
    true
}
