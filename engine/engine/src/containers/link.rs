//! The connection of a container's task to its monitor, on tokio.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::process::Child;

use hull_monitor::client::{Connection, ConnectionError, Executable, spawn};
use hull_monitor::protocol::{Action, Event};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::{Error, Result};

/// A live connection. Requests are numbered; answers carry the number back.
#[derive(Debug)]
pub(crate) struct Link {
    socket: AsyncFd<Connection>,
    next_tag: u64,
    /// The monitor, while it is a child of this process.
    child: Option<Child>,
}

/// A monitor that was just spawned, still outside the event loop.
#[derive(Debug)]
pub(crate) struct Spawned {
    connection: Connection,
    child: Child,
}

impl Spawned {
    /// Starts a monitor with the container's root file system. Blocks for the time of a posix_spawn.
    pub(crate) fn new(executable: BorrowedFd<'_>, config: &Path, root: BorrowedFd<'_>) -> Result<Spawned> {
        let (connection, child) = spawn(Executable::Fd(executable), config, Some(root))
            .map_err(|error| Error::system("start monitor", error))?;
        Ok(Spawned { connection, child })
    }

    /// Pid of the monitor.
    #[allow(dead_code)]
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Link {
    /// Brings a spawned monitor into the event loop.
    pub(crate) fn from_spawned(spawned: Spawned) -> Result<Link> {
        Link::register(spawned.connection, Some(spawned.child))
    }

    /// Connects to a monitor that an earlier engine left behind.
    pub(crate) fn connect(socket: &Path) -> Result<Link, ConnectionError> {
        let connection = Connection::connect(socket)?;
        Link::register(connection, None).map_err(|error| {
            ConnectionError::Connect(socket.to_owned(), std::io::Error::other(error.to_string()))
        })
    }

    /// Takes a connection; tests use it with a monitor of their own.
    pub(crate) fn register(connection: Connection, child: Option<Child>) -> Result<Link> {
        // Deprecated because a type could change its descriptor; a connection keeps its own for life.
        #[allow(deprecated)]
        let socket = AsyncFd::with_interest(connection, Interest::READABLE)
            .map_err(|error| Error::system("watch monitor", error))?;
        Ok(Link { socket, next_tag: 1, child })
    }

    /// The next event. Safe to drop and call again.
    pub(crate) async fn next(&self) -> Result<Event, ConnectionError> {
        loop {
            if let Some(event) = self.socket.get_ref().try_receive()? {
                return Ok(event);
            }
            let mut ready = self.socket.readable().await.map_err(ConnectionError::Receive)?;
            match self.socket.get_ref().try_receive()? {
                Some(event) => return Ok(event),
                None => ready.clear_ready(),
            }
        }
    }

    /// The next event if it is there already.
    pub(crate) fn try_next(&self) -> Result<Option<Event>, ConnectionError> {
        self.socket.get_ref().try_receive()
    }

    /// Sends a request and returns its tag.
    pub(crate) fn request(&mut self, action: Action, fds: &[BorrowedFd<'_>]) -> Result<u64> {
        let tag = self.next_tag;
        self.next_tag += 1;
        self.socket
            .get_ref()
            .request(tag, action, fds)
            .map_err(|error| Error::system("ask the monitor", error))?;
        Ok(tag)
    }

    /// Lets the monitor go: it ends when its clients are served, and is reaped then.
    pub(crate) fn release(mut self) {
        let _ = self.request(Action::Acknowledge, &[]);
        let child = self.child.take();
        // The monitor may still flush output to slow clients; the connection stays open until it is done.
        tokio::spawn(async move {
            while self.next().await.is_ok() {}
            reap(child).await;
        });
    }

    /// Ends the monitor, and the container with it, at once.
    pub(crate) async fn kill(mut self) {
        let child = self.child.take();
        match child {
            Some(mut child) => {
                let _ = child.kill();
                reap(Some(child)).await;
            }
            None => {
                let _ = self.request(Action::Signal { exec_id: None, signal: super::signal::KILL }, &[]);
                let _ = self.request(Action::Acknowledge, &[]);
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // A monitor whose connection broke is a zombie soon; nobody else would reap it.
        if let Some(mut child) = self.child.take()
            && matches!(child.try_wait(), Ok(None))
        {
            tokio::task::spawn_blocking(move || child.wait());
        }
    }
}

async fn reap(child: Option<Child>) {
    if let Some(mut child) = child
        && matches!(child.try_wait(), Ok(None))
    {
        let _ = tokio::task::spawn_blocking(move || child.wait()).await;
    }
}
