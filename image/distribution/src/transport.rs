use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use hickory_resolver::TokioResolver;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::{Request, Response, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::{Config, HostConfig, host_of};
use crate::error::{Connection, DistributionError};

/// Body of a request.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;
type Hyper = HyperClient<HttpsConnector<HttpConnector<Resolver>>, Body>;

/// Connections to hosts, kept alive between requests; one set for each way of trusting certificates.
pub(crate) struct Transport {
    config: Config,
    resolver: Resolver,
    clients: Mutex<HashMap<Trust, Hyper>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Trust {
    Roots,
    Anything,
    Host(String),
}

impl Transport {
    pub(crate) fn new(config: Config) -> Self {
        Self { config, resolver: Resolver::default(), clients: Mutex::default() }
    }

    /// Sends a request and waits for the head of the answer.
    pub(crate) async fn send(
        &self,
        request: Request<Body>,
        domain: Option<&str>,
        insecure: bool,
    ) -> Result<Response<Incoming>, DistributionError> {
        let method = go_method(request.method());
        let uri = request.uri().clone();
        let failed =
            |cause| DistributionError::Connection { method: method.clone(), url: shown(&uri), cause };
        let client = self.client(domain, insecure)?;
        // A body still being sent may take longer than any idle time; then only the transfer's own pace counts.
        let has_body = hyper::body::Body::size_hint(request.body()).upper() != Some(0);
        let answer = client.request(request);
        let limit = self.config.idle_timeout;
        let result = if has_body {
            answer.await
        } else {
            tokio::time::timeout(limit, answer).await.map_err(|_| failed(Connection::Timeout(limit)))?
        };
        result.map_err(|e| failed(classify(&e, &uri)))
    }

    fn client(&self, domain: Option<&str>, insecure: bool) -> Result<Hyper, DistributionError> {
        let trust = match domain {
            Some(domain) if self.config.hosts.contains_key(domain) => Trust::Host(domain.into()),
            _ if insecure => Trust::Anything,
            _ => Trust::Roots,
        };
        let mut clients = self.clients.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(client) = clients.get(&trust) {
            return Ok(client.clone());
        }
        let client = self.connect_with(&trust, insecure)?;
        clients.insert(trust, client.clone());
        Ok(client)
    }

    fn connect_with(&self, trust: &Trust, insecure: bool) -> Result<Hyper, DistributionError> {
        let mut http = HttpConnector::new_with_resolver(self.resolver.clone());
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(self.config.connect_timeout));
        let host = match trust {
            Trust::Host(domain) => self.config.hosts.get(domain),
            _ => None,
        };
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls_config(&self.config.roots, host, insecure)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        Ok(HyperClient::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(std::time::Duration::from_secs(20))
            .build(https))
    }
}

fn tls_config(
    roots: &[Vec<u8>],
    host: Option<&HostConfig>,
    insecure: bool,
) -> Result<rustls::ClientConfig, DistributionError> {
    let setup = |what: &str, e: &dyn std::fmt::Display| DistributionError::Setup(format!("{what}: {e}"));
    let own = host.is_some_and(|h| !h.roots.is_empty());
    let trust = if insecure && !own {
        hull_tls::Trust::Anyone
    } else {
        let mut store = rustls::RootCertStore::empty();
        for pem in roots.iter().chain(host.iter().flat_map(|h| &h.roots)) {
            // Bundles of the system hold odd certificates; those are simply not trusted.
            store.add_parsable_certificates(CertificateDer::pem_slice_iter(pem).filter_map(Result::ok));
        }
        hull_tls::Trust::Authorities(store)
    };
    let Some((chain, key)) = host.and_then(|h| h.client.as_ref()) else {
        return hull_tls::client_config(trust, None).map_err(|e| setup("TLS", &e));
    };
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(chain).map(|c| c.map(CertificateDer::into_owned)).collect();
    let chain = chain.map_err(|e| setup("client certificate", &e))?;
    let key = PrivateKeyDer::from_pem_slice(key.reveal().as_bytes()).map_err(|e| setup("client key", &e))?;
    hull_tls::client_config(trust, Some((chain, key))).map_err(|e| setup("client certificate", &e))
}

/// Looks names up with hickory (the C library's way needs shared objects a static binary lacks). Set up at the
/// first name: a machine without resolv.conf can still use addresses.
#[derive(Clone, Default)]
struct Resolver {
    inner: Arc<Mutex<Option<TokioResolver>>>,
}

/// A failed look-up, found again in the chain of the connection's error.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
struct LookupFailed {
    no_such_host: bool,
    reason: String,
}

impl Resolver {
    fn resolver(&self) -> Result<TokioResolver, LookupFailed> {
        let mut inner = self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(resolver) = &*inner {
            return Ok(resolver.clone());
        }
        let failed =
            |e: hickory_resolver::net::NetError| LookupFailed { no_such_host: false, reason: e.to_string() };
        let resolver = TokioResolver::builder_tokio().map_err(failed)?.build().map_err(failed)?;
        Ok(inner.insert(resolver).clone())
    }

    async fn look_up(self, name: String) -> Result<std::vec::IntoIter<SocketAddr>, LookupFailed> {
        if name == "localhost" || name.ends_with(".localhost") {
            let loopback =
                [SocketAddr::from(([127, 0, 0, 1], 0)), SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 0))];
            return Ok(Vec::from(loopback).into_iter());
        }
        let found = self.resolver()?.lookup_ip(name.as_str()).await.map_err(|e| LookupFailed {
            no_such_host: e.is_no_records_found() || e.is_nx_domain(),
            reason: e.to_string(),
        })?;
        Ok(found.iter().map(|ip| SocketAddr::new(ip, 0)).collect::<Vec<_>>().into_iter())
    }
}

impl tower_service::Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = LookupFailed;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, LookupFailed>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LookupFailed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(self.clone().look_up(name.as_str().to_owned()))
    }
}

/// What went wrong, in the words Docker's users know.
fn classify(error: &(dyn std::error::Error + 'static), uri: &Uri) -> Connection {
    let authority = uri.authority().map_or("", |a| a.as_str());
    let with_port = || match uri.port() {
        Some(_) => authority.to_owned(),
        None => format!("{authority}:{}", if uri.scheme_str() == Some("http") { 80 } else { 443 }),
    };
    let mut cause = Some(error);
    let mut last = error.to_string();
    while let Some(error) = cause {
        if let Some(tls) = find_tls(error) {
            return tls_cause(tls);
        }
        if let Some(lookup) = error.downcast_ref::<LookupFailed>() {
            let host = host_of(authority).to_owned();
            let reason = lookup.reason.clone();
            return if lookup.no_such_host {
                Connection::NoSuchHost(host)
            } else {
                Connection::Lookup { host, reason }
            };
        }
        match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::ConnectionRefused) => return Connection::Refused(with_port()),
            Some(io::ErrorKind::TimedOut) => return Connection::ConnectTimeout(with_port()),
            _ => {}
        }
        last = error.to_string();
        cause = error.source();
    }
    Connection::Broken(last)
}

/// The TLS error in an I/O error, which may be wrapped in another (whose `source` passes over what it wraps).
fn find_tls<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    match error.downcast_ref::<io::Error>() {
        Some(wrapper) => find_tls(wrapper.get_ref()?),
        None => error.downcast_ref::<rustls::Error>(),
    }
}

fn tls_cause(error: &rustls::Error) -> Connection {
    use rustls::CertificateError as Bad;
    match error {
        rustls::Error::InvalidMessage(_) => Connection::NotTls,
        rustls::Error::InvalidCertificate(Bad::UnknownIssuer) => {
            Connection::Certificate("certificate signed by unknown authority".into())
        }
        rustls::Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            Connection::Certificate("certificate has expired or is not yet valid".into())
        }
        rustls::Error::InvalidCertificate(bad) => Connection::Certificate(bad.to_string()),
        other => Connection::Broken(other.to_string()),
    }
}

/// Go's spelling of a method in errors.
pub(crate) fn go_method(method: &hyper::Method) -> String {
    let name = method.as_str();
    name[..1].to_owned() + &name[1..].to_ascii_lowercase()
}

/// An address for messages: without query, which may hold signatures.
pub(crate) fn shown(uri: &Uri) -> String {
    let (scheme, authority) = (uri.scheme_str().unwrap_or(""), uri.authority().map_or("", |a| a.as_str()));
    // Credentials in an address are nobody's business either.
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{}", uri.path())
}
