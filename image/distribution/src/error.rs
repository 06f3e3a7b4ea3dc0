use std::io;
use std::time::Duration;

use hull_content::ContentError;
use hull_model::{Digest, DocumentError};
use serde::Deserialize;

/// Why an exchange with a registry failed.
#[derive(Debug, thiserror::Error)]
pub enum DistributionError {
    /// No answer.
    #[error("{method} {url:?}: {cause}")]
    Connection {
        /// `Get`, `Head`, `Put`, …
        method: String,
        /// Of what, without query.
        url: String,
        /// Why.
        cause: Connection,
    },
    /// The registry wants (other) credentials, or hides what these may not see.
    #[error(
        "pull access denied for {repository}, repository does not exist or may require 'docker login'{}",
        suffix(detail)
    )]
    PullDenied {
        /// Familiar name.
        repository: String,
        /// The registry's words.
        detail: String,
    },
    /// Pushing is not allowed.
    #[error("push access denied for {repository}, may require 'docker login'{}", suffix(detail))]
    PushDenied {
        /// Familiar name.
        repository: String,
        /// The registry's words.
        detail: String,
    },
    /// User or password are wrong.
    #[error("{host}: unauthorized{}", suffix(detail))]
    Login {
        /// Registry or token server.
        host: String,
        /// Its words.
        detail: String,
    },
    /// The registry has no such manifest.
    #[error("manifest for {reference} not found{}", suffix(detail))]
    ManifestUnknown {
        /// Familiar form.
        reference: String,
        /// The registry's words.
        detail: String,
    },
    /// The registry has no such blob.
    #[error("blob {digest} of {repository} not found")]
    BlobUnknown {
        /// Familiar name.
        repository: String,
        /// Which.
        digest: Digest,
    },
    /// The registry asks to wait and retrying did not help.
    #[error("toomanyrequests: {url}{}{}", suffix(detail), asked(*wait))]
    RateLimited {
        /// Of what.
        url: String,
        /// Its words.
        detail: String,
        /// How long it asks to wait.
        wait: Option<Duration>,
    },
    /// An administrator does not want it.
    #[error("registry {0} is blocked by the configuration of registries")]
    Blocked(String),
    /// Any other answer.
    #[error("{method} {url:?}: received unexpected HTTP status: {status}{}", suffix(detail))]
    Status {
        /// Request.
        method: String,
        /// Of what.
        url: String,
        /// The status.
        status: u16,
        /// The registry's words.
        detail: String,
    },
    /// An answer that breaks the protocol.
    #[error("registry answered {url:?} in an unexpected way: {what}")]
    Protocol {
        /// To what.
        url: String,
        /// What is wrong.
        what: String,
    },
    /// The bytes are not those of the digest.
    #[error("{what} does not match its digest: expected {expected}, got {actual}")]
    DigestMismatch {
        /// Which document.
        what: String,
        /// As asked for.
        expected: Digest,
        /// As computed.
        actual: Digest,
    },
    /// More or fewer bytes than announced.
    #[error("blob {digest} has {actual} bytes, expected {expected}")]
    SizeMismatch {
        /// Which.
        digest: Digest,
        /// As in the manifest.
        expected: u64,
        /// As received.
        actual: u64,
    },
    /// The document is of no use.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// Storing failed.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// A file to be sent cannot be read.
    #[error("read content to push")]
    Read(#[source] io::Error),
    /// The client cannot be set up.
    #[error("{0}")]
    Setup(String),
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum Connection {
    /// Nobody listens.
    #[error("dial tcp {0}: connect: connection refused")]
    Refused(String),
    /// The name has no address.
    #[error("dial tcp: lookup {0}: no such host")]
    NoSuchHost(String),
    /// Names cannot be looked up now.
    #[error("dial tcp: lookup {host}: {reason}")]
    Lookup {
        /// Which name.
        host: String,
        /// What the resolver says.
        reason: String,
    },
    /// The certificate is not trusted.
    #[error("tls: failed to verify certificate: x509: {0}")]
    Certificate(String),
    /// The peer does not speak TLS.
    #[error("http: server gave HTTP response to HTTPS client")]
    NotTls,
    /// Nothing came for that long.
    #[error("net/http: timeout awaiting response ({} s)", .0.as_secs_f32())]
    Timeout(Duration),
    /// The connection could not be made in time.
    #[error("dial tcp {0}: i/o timeout")]
    ConnectTimeout(String),
    /// The connection broke.
    #[error("{0}")]
    Broken(String),
}

impl DistributionError {
    /// Whether trying again may help.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Connection { cause, .. } => {
                matches!(cause, Connection::Timeout(_) | Connection::Broken(_) | Connection::Lookup { .. })
            }
            Self::Status { status, .. } => matches!(status, 408 | 500 | 502 | 503 | 504),
            Self::RateLimited { wait, .. } => wait.is_none_or(|wait| wait <= MAX_ASKED),
            _ => false,
        }
    }

    /// How long to wait before trying again, if the registry said so.
    pub(crate) fn wait(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { wait, .. } => *wait,
            _ => None,
        }
    }

    /// Whether a certificate was not trusted.
    pub(crate) fn is_certificate(&self) -> bool {
        matches!(self, Self::Connection { cause: Connection::Certificate(_), .. })
    }

    /// Whether another endpoint of the same registry (plain instead of TLS, or after a mirror) may do better.
    pub(crate) fn is_endpoint(&self) -> bool {
        !matches!(self, Self::Content(_) | Self::Read(_) | Self::Document(_) | Self::Blocked(_))
    }
}

/// What a registry may ask to wait; asked for more, a request fails at once and says so.
pub(crate) const MAX_ASKED: Duration = Duration::from_secs(120);

fn asked(wait: Option<Duration>) -> String {
    wait.map(|wait| format!(" (try again in {} s)", wait.as_secs())).unwrap_or_default()
}

fn suffix(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(": {detail}") }
}

/// One error of a registry's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct RegistryError {
    /// `MANIFEST_UNKNOWN`, `DENIED`, …
    #[serde(default)]
    pub code: String,
    /// For people.
    #[serde(default)]
    pub message: String,
}

/// The registry's words: `code: message`, joined, as Docker prints them.
pub(crate) fn detail(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Errors {
        #[serde(default)]
        errors: Vec<RegistryError>,
        #[serde(default)]
        details: String,
        #[serde(default)]
        message: String,
    }
    let Ok(answer) = serde_json::from_slice::<Errors>(body) else { return String::new() };
    let each = answer.errors.iter().map(|e| {
        let code = e.code.to_lowercase().replace('_', " ");
        if e.message.is_empty() { code } else { format!("{code}: {}", printable(&e.message)) }
    });
    let joined = each.collect::<Vec<_>>().join("; ");
    [joined, printable(&answer.details), printable(&answer.message)]
        .into_iter()
        .find(|t| !t.is_empty())
        .unwrap_or_default()
}

/// A peer's text ends up on terminals and in logs.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_read_like_dockers() {
        let body =
            br#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#;
        assert_eq!(detail(body), "denied: requested access to the resource is denied");
        assert_eq!(
            detail(br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#),
            "manifest unknown: manifest unknown"
        );
        assert_eq!(detail(b"<html>"), "");
        assert_eq!(
            detail(br#"{"details":"incorrect username or password"}"#),
            "incorrect username or password"
        );
        assert_eq!(
            detail("{\"errors\":[{\"code\":\"X\",\"message\":\"a\\u001b[2Jb\"}]}".as_bytes()),
            "x: a[2Jb"
        );
        let error = DistributionError::PullDenied { repository: "x".into(), detail: String::new() };
        assert_eq!(
            error.to_string(),
            "pull access denied for x, repository does not exist or may require 'docker login'"
        );
    }
}
