//! A registry that runs: listeners, TLS, timed work, and the end.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::config::{Config, ConfigError};
use crate::control::{self, Command};
use crate::http::{self, Limits, Stream};
use crate::service::Service;
use crate::store::{Store, StoreError};

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long an upload that nobody writes to holds memory and an open file.
const UPLOAD_IDLE: Duration = Duration::from_secs(120);
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// Why a registry does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A setting.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What is kept.
    #[error("open the registry's files")]
    Store(#[from] StoreError),
    /// An address.
    #[error("listen on {0}")]
    Listen(SocketAddr, #[source] io::Error),
    /// The socket for commands.
    #[error("listen on the control socket in {0}")]
    Control(std::path::PathBuf, #[source] io::Error),
}

/// A registry whose listeners are open.
#[derive(Debug)]
pub struct Server {
    service: Arc<Service>,
    listeners: Vec<TcpListener>,
    metrics: Option<TcpListener>,
    tls: Arc<Mutex<Option<Arc<rustls::ServerConfig>>>>,
    limits: Limits,
    connections: usize,
    interval: Duration,
    control: tokio::net::UnixListener,
}

impl Server {
    /// Opens the store and the listeners. `roots` are the certificate authorities, in PEM, that upstreams may have.
    pub async fn open(config: &Config, roots: &[Vec<u8>]) -> Result<Self, ServerError> {
        let (addresses, tls) = (config.addresses()?, config.tls()?);
        let store = Arc::new(Store::open(&config.root)?);
        let service = Arc::new(config.service(store, roots).await?);
        let listeners = addresses.into_iter().map(listen).collect::<Result<_, _>>()?;
        let metrics = config.metrics.listen.map(listen).transpose()?;
        let control =
            control::listen(&config.root).map_err(|e| ServerError::Control(config.root.clone(), e))?;
        Ok(Self {
            service,
            listeners,
            metrics,
            tls: Arc::new(Mutex::new(tls)),
            limits: config.limits(),
            connections: config.limits.connections.max(1),
            interval: config.gc.interval.0,
            control,
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// What requests are answered by.
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// Lets new connections have another certificate.
    pub fn certificates(&self) -> impl Fn(Arc<rustls::ServerConfig>) + Send + Sync + 'static {
        let tls = self.tls.clone();
        move |config| *tls.lock().unwrap_or_else(PoisonError::into_inner) = Some(config)
    }

    /// Serves until `stop` becomes true, then lets the requests under way end, for at most `patience`.
    pub async fn run(self, mut stop: watch::Receiver<bool>, patience: Duration) {
        let permits = Arc::new(Semaphore::new(self.connections));
        let mut tasks = JoinSet::new();
        let mut clients = Arc::new(Clients::default());
        for (listener, plain) in
            self.listeners.into_iter().map(|l| (l, false)).chain(self.metrics.map(|l| (l, true)))
        {
            let accept = Accept {
                service: self.service.clone(),
                tls: if plain { Arc::default() } else { self.tls.clone() },
                limits: self.limits,
                permits: permits.clone(),
                clients: clients.clone(),
                stop: stop.clone(),
                metrics_only: plain,
            };
            tasks.spawn(accept.run(listener));
        }
        tasks.spawn(control::serve(self.control, self.service.clone()));
        tasks.spawn(rest_uploads(self.service.clone()));
        tasks.spawn(collect_now_and_then(self.service.clone(), self.interval));
        // The sender's end is an end, too.
        let _ = stop.wait_for(|stop| *stop).await;
        tasks.shutdown().await;
        let _ = tokio::time::timeout(patience, clients_gone(&mut clients)).await;
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, ServerError> {
    let open = || {
        let socket = match address {
            SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
            SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    open().map_err(|e| ServerError::Listen(address, e))
}

/// Connections under way: a task each, counted.
#[derive(Debug, Default)]
struct Clients(tokio::sync::Notify);

async fn clients_gone(clients: &mut Arc<Clients>) {
    loop {
        let ended = clients.clone();
        let wait = ended.0.notified();
        // One is held here, one by `ended`.
        if Arc::strong_count(clients) <= 2 {
            return;
        }
        let _ = tokio::time::timeout(Duration::from_millis(50), wait).await;
    }
}

struct Accept {
    service: Arc<Service>,
    tls: Arc<Mutex<Option<Arc<rustls::ServerConfig>>>>,
    limits: Limits,
    permits: Arc<Semaphore>,
    clients: Arc<Clients>,
    stop: watch::Receiver<bool>,
    metrics_only: bool,
}

impl Accept {
    async fn run(self, listener: TcpListener) {
        loop {
            let Ok(permit) = self.permits.clone().acquire_owned().await else { return };
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: others have to end first.
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let (service, clients, limits) = (self.service.clone(), self.clients.clone(), self.limits);
            let (stop, metrics_only) = (self.stop.clone(), self.metrics_only);
            let tls = self.tls.lock().unwrap_or_else(PoisonError::into_inner).clone();
            tokio::spawn(async move {
                service.metrics().connections.fetch_add(1, Ordering::Relaxed);
                if metrics_only {
                    http::serve_metrics(stream, peer, service.clone(), limits, stop).await;
                } else if let Some(stream) = secured(&service, stream, tls).await {
                    http::serve(stream, peer, service.clone(), limits, stop).await;
                }
                service.metrics().connections.fetch_sub(1, Ordering::Relaxed);
                clients.0.notify_waiters();
                drop((permit, clients));
            });
        }
    }
}

async fn secured(
    service: &Service,
    stream: TcpStream,
    tls: Option<Arc<rustls::ServerConfig>>,
) -> Option<Stream> {
    // Small answers go out at once; a connection that refuses this will still work.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return Some(Stream::Plain(stream)) };
    match tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(tls).accept(stream)).await {
        Ok(Ok(stream)) => Some(Stream::Tls(Box::new(stream))),
        _ => {
            service.metrics().handshakes_failed.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

async fn rest_uploads(service: Arc<Service>) {
    loop {
        tokio::time::sleep(UPLOAD_IDLE / 2).await;
        let uploads = service.uploads.clone();
        let _ = tokio::task::spawn_blocking(move || uploads.rest(UPLOAD_IDLE)).await;
    }
}

async fn collect_now_and_then(service: Arc<Service>, interval: Duration) {
    if interval.is_zero() {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(interval).await;
        match control::run(&service, Command::Collect { dry_run: false }).await {
            Ok(done) => tracing::info!("collection {}", done.trim_end()),
            Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "collection failed"),
        }
    }
}
