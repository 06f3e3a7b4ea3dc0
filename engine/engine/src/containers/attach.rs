//! Attaching clients: their connection is handed to the monitor.
//!
//! A client that attaches before the container runs gets its place before it is answered, because the next thing it
//! does is start the container: the start waits for the connections of those that have a place, so that no output is
//! missed.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use futures_util::StreamExt;
use hull_monitor::config::ConsoleSize;
use hull_monitor::detach_keys;
use hull_monitor::protocol::{self, Action};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::actor::{Actor, Command, Waiting};
use super::registry::Handle;
use super::{AttachOptions, ClientStream, LogsOptions};
use crate::bytestream::ByteStream;
use crate::{Engine, Error, Result};

/// How long a start waits for a client between its answer and its connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// A validated attach: give it the upgraded connection.
pub struct Attach {
    /// Whether the container has a terminal: decides the media type.
    pub tty: bool,
    handle: Handle,
    attach: protocol::Attach,
    /// Stay attached after the replay.
    stream: bool,
    replay: Option<ByteStream>,
    /// Where a container that does not run yet expects the connection.
    place: Option<oneshot::Sender<OwnedFd>>,
}

impl Attach {
    /// Serves the client until it or the container is done, or the stream is handed over to the monitor. Errors are
    /// written to the client's stream.
    pub async fn run(mut self, client: ClientStream) {
        let served = self.serve(client).await;
        if let Err(error) = served {
            tracing::debug!(container = %self.handle.id, %error, "attach");
        }
    }

    async fn serve(&mut self, client: ClientStream) -> Result<()> {
        let failed = |error: io::Error| Error::system("attach client", error);
        let mut socket = relay_early(client).map_err(failed)?;
        if let Some(replay) = self.replay.take() {
            socket = write_all(socket, replay).await.map_err(failed)?;
        }
        if !self.stream {
            return Ok(());
        }
        if let Some(place) = self.place.take() {
            // Nobody at the other end: the container is gone, and the connection closes.
            let _ = place.send(socket);
            return Ok(());
        }
        let attach = self.attach.clone();
        self.handle.ask(|reply| Command::Attach { attach, client: socket, reply }).await
    }
}

impl Engine {
    /// Checks that a client may attach. Upgrade the connection, then call [`Attach::run`].
    pub async fn container_attach(&self, id: &str, options: AttachOptions) -> Result<Attach> {
        let handle = self.0.containers.registry.find(id)?;
        let now = handle.now();
        let keys = keys_of(options.detach_keys.as_deref())?;
        if now.state.status == super::record::Status::Paused {
            return Err(Error::conflict(format!(
                "container {} is paused, unpause the container before attach",
                now.def.id
            )));
        }
        if now.state.status == super::record::Status::Restarting {
            return Err(Error::conflict(format!(
                "container {} is restarting, wait until the container is running",
                now.def.id
            )));
        }
        let tty = now.def.config.tty;
        let attach = protocol::Attach {
            stdin: options.stdin && now.def.config.open_stdin,
            stdout: options.stdout,
            stderr: options.stderr,
            framed: !tty,
            detach_keys: keys,
            ..protocol::Attach::default()
        };
        let replay = if options.logs { Some(self.replay(&handle.id, &options).await?) } else { None };
        let place = if options.stream { reserve(&handle, &attach).await? } else { None };
        Ok(Attach { tty, handle, attach, stream: options.stream, replay, place })
    }

    async fn replay(&self, id: &str, options: &AttachOptions) -> Result<ByteStream> {
        let wanted = LogsOptions { stdout: options.stdout, stderr: options.stderr, ..LogsOptions::default() };
        self.container_logs(id, wanted).await.map(|logs| logs.body)
    }

    /// Sets the size of a container's terminal.
    pub async fn container_resize(&self, id: &str, height: u16, width: u16) -> Result<()> {
        let handle = self.0.containers.registry.find(id)?;
        let size = ConsoleSize { rows: height, cols: width };
        handle.ask(|reply| Command::Resize { exec_id: None, size, reply }).await
    }
}

/// A place in a container that does not run; none in one that does.
async fn reserve(handle: &Handle, attach: &protocol::Attach) -> Result<Option<oneshot::Sender<OwnedFd>>> {
    if handle.now().state.status.has_processes() {
        return Ok(None);
    }
    let (place, client) = oneshot::channel();
    let attach = attach.clone();
    let waits = handle.ask(|reply| Command::AttachLater { attach, client, reply }).await?;
    Ok(waits.then_some(place))
}

impl Actor {
    /// Connects a client now.
    pub(super) fn attach(&mut self, mut attach: protocol::Attach, client: OwnedFd) -> Result<()> {
        attach.attach_id = self.next_attach_id();
        self.emit("attach", &[]);
        match &mut self.link {
            Some(link) => link.request(Action::Attach(attach), &[client.as_fd()]).map(|_| ()),
            None => Err(Error::conflict(format!("container {} is not running", self.def.id))),
        }
    }

    /// Keeps a place for a client until the start; false when the container runs already.
    pub(super) fn attach_later(
        &mut self,
        mut attach: protocol::Attach,
        client: oneshot::Receiver<OwnedFd>,
    ) -> bool {
        if self.link.is_some() {
            return false;
        }
        attach.attach_id = self.next_attach_id();
        self.emit("attach", &[]);
        self.waiting.push(Waiting { attach, client });
        true
    }

    fn next_attach_id(&mut self) -> u64 {
        self.next_attach += 1;
        self.next_attach
    }

    /// The connections of those that have a place.
    pub(super) async fn arrivals(&mut self) -> Vec<(protocol::Attach, OwnedFd)> {
        let mut arrived = Vec::with_capacity(self.waiting.len());
        for Waiting { attach, client } in self.waiting.drain(..) {
            if let Ok(Ok(client)) = tokio::time::timeout(PATIENCE, client).await {
                arrived.push((attach, client));
            }
        }
        arrived
    }
}

/// Detach keys in docker's notation; none or empty is the default.
pub(super) fn keys_of(text: Option<&str>) -> Result<Vec<u8>> {
    match text {
        None | Some("") => Ok(detach_keys::DEFAULT.to_vec()),
        Some(text) => detach_keys::parse(text)
            .map_err(|error| Error::invalid(format!("Invalid detach keys ({text}) provided: {error}"))),
    }
}

/// The connection itself, or, when HTTP had read too much already, one that begins with what it read.
pub(super) fn relay_early(client: ClientStream) -> io::Result<OwnedFd> {
    if client.early.is_empty() {
        return Ok(client.socket);
    }
    let mut outer = stream_of(client.socket)?;
    let (mut ours, theirs) = UnixStream::pair()?;
    tokio::spawn(async move {
        if ours.write_all(&client.early).await.is_ok() {
            let _ = tokio::io::copy_bidirectional(&mut outer, &mut ours).await;
        }
    });
    theirs.into_std().map(OwnedFd::from)
}

fn stream_of(socket: OwnedFd) -> io::Result<UnixStream> {
    let socket = std::os::unix::net::UnixStream::from(socket);
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

/// Sends a stream to the client and gives the connection back.
async fn write_all(socket: OwnedFd, mut stream: ByteStream) -> io::Result<OwnedFd> {
    let mut socket = stream_of(socket)?;
    while let Some(chunk) = stream.next().await {
        socket.write_all(&chunk?).await?;
    }
    socket.into_std().map(OwnedFd::from)
}
