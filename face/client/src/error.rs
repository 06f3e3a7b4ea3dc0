//! Why a request failed.

use std::io;
use std::path::PathBuf;

/// Why a request failed. The text is what docker prints.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address of the engine cannot be used.
    #[error("unable to resolve docker endpoint: parse \"{endpoint}\": {reason}")]
    Endpoint {
        /// As given.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate or key cannot be used.
    #[error("unable to use TLS material {}: {reason}", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody answers at the endpoint.
    #[error("{}", connect_text(endpoint, source))]
    Connect {
        /// Where.
        endpoint: String,
        /// Why.
        source: io::Error,
    },
    /// The engine refused: its status and message.
    #[error("Error response from daemon: {message}")]
    Api {
        /// HTTP status.
        status: u16,
        /// The engine's words.
        message: String,
    },
    /// The connection broke during a request.
    #[error("error during connect: {0}")]
    Http(#[from] hyper::Error),
    /// A stream broke.
    #[error("error in the engine's stream: {0}")]
    Stream(#[from] io::Error),
    /// The engine's answer is not what the API says.
    #[error("cannot read the engine's answer to {request}: {source}")]
    Decode {
        /// Method and path.
        request: String,
        /// What serde found.
        source: serde_json::Error,
    },
    /// The engine did not switch to a raw stream.
    #[error("unable to upgrade to tcp, received {status}")]
    NotUpgraded {
        /// HTTP status.
        status: u16,
    },
}

impl Error {
    /// HTTP status of the engine's refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Api { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether the object was not found.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }
}

fn connect_text(endpoint: &str, source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::PermissionDenied => format!(
            "permission denied while trying to connect to the Docker daemon socket at {endpoint}: {source}"
        ),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            format!("Cannot connect to the Docker daemon at {endpoint}. Is the docker daemon running?")
        }
        _ => format!("error during connect: {endpoint}: {source}"),
    }
}
