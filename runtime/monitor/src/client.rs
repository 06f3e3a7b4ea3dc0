//! The engine's side: starting a monitor and talking to it.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::protocol::{Action, Event, Request};
use crate::{socket_path, wire};

/// A connection to a monitor. Every call but [`Connection::receive`] returns at once.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
}

/// Talking to a monitor failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The monitor's socket does not exist or nobody listens on it.
    #[error("connect to the monitor at {}", .0.display())]
    Connect(PathBuf, #[source] io::Error),
    /// The monitor is gone. Its exit record tells why, or it was killed and its container with it.
    #[error("the monitor has closed the connection")]
    Closed,
    /// A request could not be sent; `WouldBlock` when the monitor does not read.
    #[error("send a request to the monitor")]
    Send(#[source] io::Error),
    /// An event could not be received.
    #[error("receive an event from the monitor")]
    Receive(#[source] io::Error),
    /// A message is no request or no event.
    #[error("decode a message of the monitor")]
    Decode(#[source] serde_json::Error),
}

/// A monitor could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// No socket pair.
    #[error("make a socket for the monitor")]
    Socket(#[source] io::Error),
    /// The executable could not be run.
    #[error("execute the monitor {}", .0.display())]
    Execute(PathBuf, #[source] io::Error),
}

/// The executable that has the `monitor` subcommand.
#[derive(Clone, Copy, Debug)]
pub enum Executable<'a> {
    /// By path.
    Path(&'a Path),
    /// By descriptor, such as a sealed memfd: what is executed cannot change under the engine.
    Fd(BorrowedFd<'a>),
}

/// The message a root file system comes with.
pub(crate) const ROOT: &[u8] = b"root";

/// Starts a monitor that reads `config` (a `monitor.json`, see [`crate::config::MonitorConfig::write`]) and is
/// connected from its first instant on.
///
/// `root` is the container's root file system, a detached mount, if the configuration says that it is sent
/// ([`crate::config::Rootfs::Sent`]): it goes away with the monitor that never took it.
///
/// The monitor leaves the caller's session, and outlives the caller. The caller reaps the [`Child`] if it is still
/// there.
///
/// # Errors
/// [`SpawnError`]; all later failures arrive as events.
pub fn spawn(
    executable: Executable<'_>,
    config: &Path,
    root: Option<BorrowedFd<'_>>,
) -> Result<(Connection, Child), SpawnError> {
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(|errno| SpawnError::Socket(errno.into()))?;
    if let Some(root) = root {
        wire::send(&ours, ROOT, &[root]).map_err(SpawnError::Socket)?;
    }
    let program = match executable {
        Executable::Path(path) => path.to_owned(),
        // Resolved by the new process, which has the descriptor until its execve.
        Executable::Fd(fd) => PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())),
    };
    let child = Command::new(&program)
        .arg0("hull-runtime")
        .args(["monitor", "--config"])
        .arg(config)
        .env_clear()
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|source| SpawnError::Execute(program, source))?;
    Ok((Connection { socket: ours }, child))
}

impl Connection {
    /// Connects to the monitor that listens at `socket`.
    ///
    /// # Errors
    /// [`ConnectionError::Connect`].
    pub fn connect(socket: &Path) -> Result<Self, ConnectionError> {
        let connect = || -> io::Result<OwnedFd> {
            let fd = rustix::net::socket_with(
                AddressFamily::UNIX,
                SocketType::SEQPACKET,
                SocketFlags::CLOEXEC,
                None,
            )?;
            let (address, _directory) = socket_path::address(socket)?;
            rustix::net::connect(&fd, &address)?;
            Ok(fd)
        };
        connect()
            .map(|socket| Self { socket })
            .map_err(|source| ConnectionError::Connect(socket.into(), source))
    }

    /// Takes a connected SOCK_SEQPACKET socket.
    pub fn from_socket(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Sends a request with the descriptors it needs.
    ///
    /// # Errors
    /// [`ConnectionError::Closed`], [`ConnectionError::Send`].
    pub fn send(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(), ConnectionError> {
        let message = serde_json::to_vec(request).map_err(ConnectionError::Decode)?;
        wire::send(&self.socket, &message, fds).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ConnectionError::Closed,
            _ => ConnectionError::Send(error),
        })
    }

    /// [`Self::send`] of `action` under `tag`.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn request(&self, tag: u64, action: Action, fds: &[BorrowedFd<'_>]) -> Result<(), ConnectionError> {
        self.send(&Request { tag, action }, fds)
    }

    /// The next event, if one is there.
    ///
    /// # Errors
    /// [`ConnectionError::Closed`] when the monitor is gone, [`ConnectionError::Receive`],
    /// [`ConnectionError::Decode`].
    pub fn try_receive(&self) -> Result<Option<Event>, ConnectionError> {
        match wire::receive(&self.socket) {
            Ok(Some((message, _))) => {
                serde_json::from_slice(&message).map(Some).map_err(ConnectionError::Decode)
            }
            Ok(None) => Err(ConnectionError::Closed),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(ConnectionError::Receive(error)),
        }
    }

    /// Waits for the next event.
    ///
    /// # Errors
    /// As [`Self::try_receive`].
    pub fn receive(&self) -> Result<Event, ConnectionError> {
        loop {
            if let Some(event) = self.try_receive()? {
                return Ok(event);
            }
            match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(ConnectionError::Receive(errno.into())),
            }
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl std::os::fd::AsRawFd for Connection {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.socket.as_raw_fd()
    }
}
