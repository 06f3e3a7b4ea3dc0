//! The `monitor` command: becoming a process that nothing but its container holds on to.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::SocketType;

use crate::backend::{Backend, InProcess, chain, failure};
use crate::config::{MonitorConfig, RecordError, Rootfs};
use crate::foreign::Foreign;
use crate::monitor::Monitor;
use crate::peer::Peer;
use crate::protocol::{Event, FailureKind};

/// A monitor could not begin.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its standard streams could not be replaced.
    #[error("leave the caller's streams")]
    Streams(#[source] Errno),
    /// Its configuration could not be read. Told to the engine, too.
    #[error(transparent)]
    Config(#[from] RecordError),
}

/// Runs the monitor of the container that `config` (a `monitor.json`) describes, to the container's end.
///
/// Standard input may be a connected SOCK_SEQPACKET socket: the first engine. The process must have one thread. It
/// leaves its session, its directory and its streams; what happens from then on is told to engines only.
///
/// # Errors
/// [`RunError`]: nothing was created then.
pub fn run(config: &Path) -> Result<(), RunError> {
    let path = std::path::absolute(config).unwrap_or_else(|_| config.to_owned());
    hull_sys::memory::stay_small();
    let engine = leave_caller().map_err(RunError::Streams)?;
    match MonitorConfig::read(&path) {
        Ok(config) => {
            supervise(config, path, engine);
            Ok(())
        }
        Err(error) => {
            report(engine, &error);
            Err(error.into())
        }
    }
}

fn supervise(config: MonitorConfig, path: PathBuf, engine: Option<OwnedFd>) {
    let root = engine.as_ref().filter(|_| config.rootfs == Rootfs::Sent).and_then(receive_root);
    match config.runtime.clone() {
        None => supervise_with(config, InProcess::new(path, root), engine),
        Some(runtime) => supervise_with(config, Foreign::new(runtime, root), engine),
    }
}

/// The root file system, which was sent before this process began. Without one the creation fails and says so.
fn receive_root(engine: &OwnedFd) -> Option<OwnedFd> {
    let (message, fds) = crate::wire::receive(engine).ok()??;
    fds.into_iter().next().filter(|_| message == crate::client::ROOT)
}

fn supervise_with<B: Backend>(config: MonitorConfig, backend: B, engine: Option<OwnedFd>) {
    Monitor::create(config, backend, engine).run();
}

/// Leaves session, directory and standard streams of the caller; returns the engine's connection.
fn leave_caller() -> Result<Option<OwnedFd>, Errno> {
    // Fails for the leader of a session, which is what it should become.
    let _ = rustix::process::setsid();
    rustix::process::chdir("/")?;
    // The listening socket is for the engine's user alone; the container sets its own mask.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let stdin = rustix::stdio::stdin();
    let engine = match rustix::net::sockopt::socket_type(stdin) {
        Ok(SocketType::SEQPACKET) => Some(rustix::io::fcntl_dupfd_cloexec(stdin, 3)?),
        _ => None,
    };
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
    let null = rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(engine)
}

fn report(engine: Option<OwnedFd>, error: &RecordError) {
    let event = Event::CreateFailed(failure(FailureKind::Other, chain(error)));
    if let (Some(engine), Ok(message)) = (engine, serde_json::to_vec(&event)) {
        Peer::new(engine).send(&message);
    }
}
