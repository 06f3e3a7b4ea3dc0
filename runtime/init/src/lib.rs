//! The init of a container started with `--init`.
//!
//! As process 1 of the container it starts the user's command in a process group of its own, passes every signal it
//! gets on to that command, reaps whatever orphans the kernel gives it, and ends with the command's status. It is
//! what `docker-init` (tini) does, in the same binary that runs the container.

use std::ffi::OsString;
use std::io::{PipeWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus};

use hull_sys::{process, signal};
use rustix::event::PollFd;
use rustix::process::{Pid, WaitOptions};

/// The name under which `hull-runtime` is this init (the last part of argument 0), docker's name for it.
pub const PROGRAM: &str = "docker-init";

/// Whether argument 0 of this process asks for the init.
pub fn is_asked_for(argument_0: Option<&std::ffi::OsStr>) -> bool {
    argument_0.and_then(|name| Path::new(name).file_name()).is_some_and(|name| name == PROGRAM)
}

/// Why the command could not be run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There was no command on the command line.
    #[error("no command given")]
    NoCommand,
    /// The kernel refused the signal descriptor.
    #[error("watch signals")]
    Signals(#[source] rustix::io::Errno),
    /// No pipe could be made.
    #[error("make a pipe")]
    Pipe(#[source] std::io::Error),
    /// The command's process could not be made.
    #[error("fork")]
    Fork(#[source] rustix::io::Errno),
    /// The command could not be executed.
    #[error("exec {command}")]
    Exec {
        /// Its name.
        command: String,
        /// The kernel's reason.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// The status a shell would end with: 127 not found, 126 not executable, 1 otherwise.
    pub fn status(&self) -> i32 {
        match self {
            Error::Exec { source, .. } if source.kind() == std::io::ErrorKind::NotFound => 127,
            Error::Exec { .. } => 126,
            _ => 1,
        }
    }
}

/// Signals that speak about this process rather than to the command (signal(7)).
const OWN: &[i32] = &[
    7,  // SIGBUS
    8,  // SIGFPE
    4,  // SIGILL
    11, // SIGSEGV
    6,  // SIGABRT
    5,  // SIGTRAP
    31, // SIGSYS
    SIGTTIN, SIGTTOU, 9, // SIGKILL and SIGSTOP cannot be blocked
    19,
];

const SIGTTIN: i32 = 21;
const SIGTTOU: i32 = 22;
const SIGCHLD: i32 = 17;
const LAST_SIGNAL: i32 = 64;

/// Runs the command until it ends and returns the status to exit with: its own, or 128 plus the signal.
///
/// Call it while the process has a single thread: the command is forked from it.
pub fn run(command: &[OsString]) -> Result<i32, Error> {
    let (program, args) = command.split_first().ok_or(Error::NoCommand)?;
    let watched: Vec<i32> =
        (1..=LAST_SIGNAL).filter(|s| !OWN.contains(s) && !(32..=33).contains(s)).collect();
    // Giving the terminal away from the background raises these two.
    signal::block(&[SIGTTIN, SIGTTOU]).map_err(Error::Signals)?;
    let signals = signal::signalfd(&watched).map_err(Error::Signals)?;
    let (mut failure, report) = std::io::pipe().map_err(Error::Pipe)?;
    let Some(child) = process::fork().map_err(Error::Fork)? else { become_command(program, args, report) };
    drop(report);
    let mut errno = [0; 4];
    if failure.read_exact(&mut errno).is_ok() {
        let source = std::io::Error::from_raw_os_error(i32::from_ne_bytes(errno));
        return Err(Error::Exec { command: program.to_string_lossy().into_owned(), source });
    }
    loop {
        wait_readable(&signals);
        while let Ok(Some(got)) = signal::read_signalfd(signals.as_fd()) {
            if got.signal != SIGCHLD {
                // The command may have ended a moment ago; its status is collected below.
                let _ = signal::kill(child, got.signal);
            }
        }
        if let Some(status) = reap(child) {
            return Ok(exit_code(status));
        }
    }
}

/// In the child: leads a process group, takes the terminal, and executes; reports the error when that fails.
fn become_command(program: &OsString, args: &[OsString], mut report: PipeWriter) -> ! {
    let _ = rustix::process::setpgid(None, None);
    give_terminal_to(rustix::process::getpid());
    let failed = match signal::unblock_all() {
        Ok(()) => Command::new(program).args(args).exec(),
        Err(errno) => errno.into(),
    };
    let _ = report.write_all(&failed.raw_os_error().unwrap_or(0).to_ne_bytes());
    process::exit_now(127)
}

/// Makes the command the terminal's foreground group, as a shell would; without a terminal there is nothing to give.
fn give_terminal_to(pid: Pid) {
    let stdin = rustix::stdio::stdin();
    if rustix::termios::isatty(stdin) {
        let _ = rustix::termios::tcsetpgrp(stdin, pid);
    }
}

fn wait_readable(signals: &OwnedFd) {
    let mut polled = [PollFd::new(signals, rustix::event::PollFlags::IN)];
    let _ = rustix::event::poll(&mut polled, None);
}

/// Collects every child that ended; the command's status when it is among them.
fn reap(command: i32) -> Option<ExitStatus> {
    let mut status = None;
    while let Ok(Some((pid, ended))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid.as_raw_nonzero().get() == command {
            status = Some(ExitStatus::from_raw(ended.as_raw()));
        }
    }
    status
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_a_shells() {
        assert_eq!(exit_code(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(exit_code(ExitStatus::from_raw(9)), 137);
    }

    #[test]
    fn a_command_must_be_given() {
        assert!(matches!(run(&[]), Err(Error::NoCommand)));
        let source = std::io::Error::from(std::io::ErrorKind::NotFound);
        assert_eq!(Error::Exec { command: "x".into(), source }.status(), 127);
    }
}
