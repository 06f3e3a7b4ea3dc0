//! The accept loop: unix and TCP listeners, HTTP/1.1 with upgrades.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use hull_engine::Engine;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::respond::Body;
use crate::routes;

/// How long open requests may go on after the server was told to stop.
const DRAIN: Duration = Duration::from_secs(5);

/// A socket to accept clients on.
#[derive(Debug)]
pub enum Listener {
    /// A unix socket; access is a matter of its file mode.
    Unix(UnixListener),
    /// A TCP socket without encryption.
    Tcp(TcpListener),
}

/// Serves the API on all `listeners` until `shutdown` becomes true (or its sender is gone), then stops accepting,
/// gives open requests a few seconds, and returns.
///
/// # Errors
/// A listener that cannot be accepted from any more. Errors of single connections are not errors of the server.
pub async fn serve(
    listeners: Vec<Listener>,
    engine: Engine,
    mut shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut acceptors = JoinSet::new();
    for listener in listeners {
        acceptors.spawn(accept_loop(listener, engine.clone(), shutdown.clone()));
    }
    let mut outcome = Ok(());
    loop {
        tokio::select! {
            () = stopped(&mut shutdown) => break,
            ended = acceptors.join_next() => match ended {
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => { outcome = Err(error); break; }
                Some(Err(error)) => { outcome = Err(io::Error::other(error)); break; }
                None => break,
            },
        }
    }
    if outcome.is_ok() {
        while let Some(ended) = acceptors.join_next().await {
            outcome = outcome.and(ended.unwrap_or_else(|error| Err(io::Error::other(error))));
        }
    }
    outcome
}

async fn accept_loop(
    listener: Listener,
    engine: Engine,
    mut shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut shutdown) => break,
            accepted = accept(&listener) => match accepted {
                Ok(Accepted::Unix(stream)) => {
                    connections.spawn(connection(stream, Kind::Unix, engine.clone(), shutdown.clone()));
                }
                Ok(Accepted::Tcp(stream)) => {
                    connections.spawn(connection(stream, Kind::Tcp, engine.clone(), shutdown.clone()));
                }
                Err(error) if is_transient(&error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => return Err(error),
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        connections.shutdown().await;
    }
    Ok(())
}

/// Resolves when the server is told to stop.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // An error means that nobody can tell any more, which is the same.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

enum Accepted {
    Unix(UnixStream),
    Tcp(TcpStream),
}

async fn accept(listener: &Listener) -> io::Result<Accepted> {
    match listener {
        Listener::Unix(unix) => unix.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
        Listener::Tcp(tcp) => {
            let (stream, _) = tcp.accept().await?;
            stream.set_nodelay(true)?;
            Ok(Accepted::Tcp(stream))
        }
    }
}

/// Out of descriptors or memory, or the client was faster to leave: the listener itself is well.
fn is_transient(error: &io::Error) -> bool {
    const TRANSIENT: [i32; 7] = [
        rustix::io::Errno::MFILE.raw_os_error(),
        rustix::io::Errno::NFILE.raw_os_error(),
        rustix::io::Errno::NOBUFS.raw_os_error(),
        rustix::io::Errno::NOMEM.raw_os_error(),
        rustix::io::Errno::CONNABORTED.raw_os_error(),
        rustix::io::Errno::INTR.raw_os_error(),
        rustix::io::Errno::PROTO.raw_os_error(),
    ];
    error.raw_os_error().is_some_and(|code| TRANSIENT.contains(&code))
}

async fn connection<S>(stream: S, kind: Kind, engine: Engine, mut shutdown: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + AsFd + Unpin + Send + 'static,
{
    let peer = match Peer::of(stream.as_fd(), kind, shutdown.clone()) {
        Ok(peer) => peer,
        Err(error) => return tracing::warn!(%error, "cannot duplicate a client's descriptor"),
    };
    let service = service_fn(move |request| respond_to(engine.clone(), peer.clone(), request));
    // A client may shut down its sending side after the request and still wants the answer.
    let serving = http1::Builder::new()
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stopped(&mut shutdown) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

async fn respond_to(
    engine: Engine,
    peer: Peer,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    // A task of its own: a client that disappears does not stop an action half way.
    match tokio::spawn(routes::handle(engine, peer, request)).await {
        Ok(response) => Ok(response),
        Err(error) => {
            tracing::error!(%error, "a request handler failed");
            Ok(routes::internal_error())
        }
    }
}

/// What kind of socket a client came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Unix,
    Tcp,
}

/// The client's end of a connection, watched for its disappearance.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    descriptor: Arc<OwnedFd>,
    kind: Kind,
    shutdown: watch::Receiver<bool>,
}

impl Peer {
    pub(crate) fn of(
        stream: BorrowedFd<'_>,
        kind: Kind,
        shutdown: watch::Receiver<bool>,
    ) -> io::Result<Peer> {
        Ok(Peer { descriptor: Arc::new(stream.try_clone_to_owned()?), kind, shutdown })
    }

    /// Resolves when the client has closed its connection, or the server stops: a stream without an end must not hold
    /// it up. On a unix socket a client that only shut down its sending side is told apart; on TCP it is not, and both
    /// end the wait, as in docker.
    pub(crate) fn gone(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut peer = self.clone();
        async move {
            let closed = async {
                match peer.kind {
                    Kind::Unix => unix_closed(&peer.descriptor).await,
                    Kind::Tcp => tcp_closed(&peer.descriptor).await,
                }
            };
            tokio::select! {
                () = stopped(&mut peer.shutdown) => {}
                watched = closed => if let Err(error) = watched {
                    tracing::debug!(%error, "cannot watch for a client's leaving");
                    stopped(&mut peer.shutdown).await;
                },
            }
        }
    }
}

async fn unix_closed(descriptor: &OwnedFd) -> io::Result<()> {
    let watched = UnixStream::from_std(descriptor.try_clone()?.into())?;
    while !watched.ready(Interest::WRITABLE).await?.is_write_closed() {
        // Forgets that the socket is writable, so that the next wait is for news.
        let _ = watched.try_io(Interest::WRITABLE, would_block);
    }
    Ok(())
}

async fn tcp_closed(descriptor: &OwnedFd) -> io::Result<()> {
    let watched = TcpStream::from_std(descriptor.try_clone()?.into())?;
    while !watched.ready(Interest::READABLE).await?.is_read_closed() {
        let _ = watched.try_io(Interest::READABLE, would_block);
    }
    Ok(())
}

fn would_block() -> io::Result<()> {
    Err(io::ErrorKind::WouldBlock.into())
}
