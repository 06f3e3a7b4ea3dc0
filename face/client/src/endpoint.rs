//! Where an engine listens: `unix:///run/hull/hull.sock`, `tcp://host:2376`.

use std::path::PathBuf;
use std::sync::Arc;

use hull_tls::Trust;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::Error;

/// An engine's address and how to talk to it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub(crate) address: Address,
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
    /// As the user wrote it, for messages.
    text: String,
}

#[derive(Clone, Debug)]
pub(crate) enum Address {
    Unix(PathBuf),
    Tcp { host: String, port: u16 },
}

/// Files for mutual TLS, PEM.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// Authorities the engine's certificate must come from; the engine is not verified without.
    pub ca: Option<PathBuf>,
    /// The client's certificate chain and key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Accept any certificate of the engine.
    pub skip_verify: bool,
}

impl Endpoint {
    /// Reads `unix://PATH`, `tcp://HOST[:PORT]`, `http://…`, `https://…` or an absolute path.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let unsupported =
            |reason: &str| Err(Error::Endpoint { endpoint: text.to_owned(), reason: reason.to_owned() });
        if let Some(path) = text.strip_prefix("unix://") {
            if path.is_empty() {
                return unsupported("the path of the socket is missing");
            }
            return Ok(Self::unix(path));
        }
        if text.starts_with('/') {
            return Ok(Self::unix(text));
        }
        let tcp = ["tcp://", "http://", "https://"].iter().find_map(|scheme| text.strip_prefix(scheme));
        let Some(authority) = tcp else {
            return match text.split_once("://") {
                Some((scheme, _)) => unsupported(&format!("protocol {scheme} is not supported")),
                None => Self::parse(&format!("tcp://{text}")),
            };
        };
        let authority = authority.trim_end_matches('/');
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => match port.parse() {
                Ok(port) => (host, port),
                Err(_) => return unsupported(&format!("invalid port \":{port}\" after host")),
            },
            _ => (authority, 2375),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = if host.is_empty() { "127.0.0.1" } else { host };
        Ok(Self { address: Address::Tcp { host: host.to_owned(), port }, tls: None, text: text.to_owned() })
    }

    /// A unix socket.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { text: format!("unix://{}", path.display()), address: Address::Unix(path), tls: None }
    }

    /// The path when the endpoint is a unix socket.
    pub fn socket_path(&self) -> Option<&std::path::Path> {
        match &self.address {
            Address::Unix(path) => Some(path),
            Address::Tcp { .. } => None,
        }
    }

    /// Speaks TLS on a TCP endpoint.
    pub fn with_tls(mut self, files: &TlsFiles) -> Result<Self, Error> {
        if matches!(self.address, Address::Tcp { .. }) {
            self.tls = Some(Arc::new(tls_config(files)?));
        }
        Ok(self)
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

fn tls_config(files: &TlsFiles) -> Result<rustls::ClientConfig, Error> {
    let fail = |path: &PathBuf, reason: String| Error::Tls { path: path.clone(), reason };
    let trust = match &files.ca {
        Some(ca) if !files.skip_verify => {
            let mut roots = rustls::RootCertStore::empty();
            for certificate in read_certificates(ca)? {
                roots.add(certificate).map_err(|e| fail(ca, e.to_string()))?;
            }
            Trust::Authorities(roots)
        }
        _ => Trust::Anyone,
    };
    let Some((certificate, key)) = &files.identity else {
        return hull_tls::client_config(trust, None).map_err(|e| fail(&PathBuf::new(), e.to_string()));
    };
    let chain = read_certificates(certificate)?;
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(|e| fail(key, e.to_string()))?;
    hull_tls::client_config(trust, Some((chain, key_der))).map_err(|e| fail(certificate, e.to_string()))
}

fn read_certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|e| Error::Tls { path: path.clone(), reason: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let tcp = |text: &str| match Endpoint::parse(text).unwrap().address {
            Address::Tcp { host, port } => (host, port),
            Address::Unix(path) => panic!("{}", path.display()),
        };
        assert_eq!(tcp("tcp://10.0.0.1:2376"), ("10.0.0.1".to_owned(), 2376));
        assert_eq!(tcp("tcp://[::1]:2376"), ("::1".to_owned(), 2376));
        assert_eq!(tcp("tcp://[::1]"), ("::1".to_owned(), 2375));
        assert_eq!(tcp("tcp://:2375"), ("127.0.0.1".to_owned(), 2375));
        assert_eq!(tcp("engine"), ("engine".to_owned(), 2375));
        assert_eq!(Endpoint::parse("unix:///a/b").unwrap().socket_path().unwrap().to_str(), Some("/a/b"));
        assert!(
            Endpoint::parse("tcp://x:y").unwrap_err().to_string().contains("invalid port \":y\" after host")
        );
        assert!(
            Endpoint::parse("ssh://x").unwrap_err().to_string().contains("protocol ssh is not supported")
        );
    }
}
