use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::registries::Registries;

/// How to talk to registries. The library reads no files and no environment: the caller brings roots and lists.
#[derive(Clone, Debug)]
pub struct Config {
    /// Sent as `User-Agent`.
    pub user_agent: String,
    /// Certificate authorities in PEM that may sign any registry's certificate.
    pub roots: Vec<Vec<u8>>,
    /// Mirrors of docker.io, `https://host[:port]`, tried in order before it.
    pub mirrors: Vec<String>,
    /// Registries (`host[:port]`) and networks (`10.0.0.0/8`) that may be plain HTTP or have any certificate. Loopback
    /// addresses and `localhost` always may.
    pub insecure: Vec<String>,
    /// Settings of single registries by `host[:port]`.
    pub hosts: BTreeMap<String, HostConfig>,
    /// Mirrors of any registry, rewrites, aliases, blocks.
    pub registries: Registries,
    /// For a connection to come up.
    pub connect_timeout: Duration,
    /// For an answer to begin, and then for each next piece of it.
    pub idle_timeout: Duration,
    /// Times a failed request, or a transfer that makes no progress, is tried again.
    pub retries: u32,
    /// First pause before trying again; doubled each time, up to 30 seconds.
    pub backoff: Duration,
    /// Connections that share one large blob, where a single one is slow and the registry serves ranges; 1 for never.
    pub connections: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            user_agent: concat!("hull/", env!("CARGO_PKG_VERSION")).into(),
            roots: Vec::new(),
            mirrors: Vec::new(),
            insecure: Vec::new(),
            hosts: BTreeMap::new(),
            registries: Registries::default(),
            connect_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(60),
            retries: 5,
            backoff: Duration::from_millis(250),
            connections: 4,
        }
    }
}

/// Settings of one registry.
#[derive(Clone, Debug, Default)]
pub struct HostConfig {
    /// More certificate authorities, PEM.
    pub roots: Vec<Vec<u8>>,
    /// Certificate chain and key to show, PEM.
    pub client: Option<(Vec<u8>, Secret)>,
}

impl Config {
    /// Whether that registry may be plain HTTP or have any certificate.
    pub fn is_insecure(&self, domain: &str) -> bool {
        let host = host_of(domain);
        if host == "localhost"
            || self.registries.is_insecure(domain)
            || self.insecure.iter().any(|entry| entry == domain || entry == host)
        {
            return true;
        }
        let Ok(address) = host.parse::<IpAddr>() else { return false };
        address.is_loopback() || self.insecure.iter().any(|entry| network_has(entry, address))
    }
}

/// Host of `host[:port]`, without brackets.
pub(crate) fn host_of(domain: &str) -> &str {
    if let Some(rest) = domain.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    domain.rsplit_once(':').map_or(domain, |(host, _)| host)
}

fn network_has(network: &str, address: IpAddr) -> bool {
    let Some((base, length)) = network.split_once('/') else { return false };
    let (Ok(base), Ok(length)) = (base.parse::<IpAddr>(), length.parse::<u32>()) else { return false };
    match (base, address) {
        (IpAddr::V4(base), IpAddr::V4(a)) if length <= 32 => {
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            base.to_bits() & mask == a.to_bits() & mask
        }
        (IpAddr::V6(base), IpAddr::V6(a)) if length <= 128 => {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            base.to_bits() & mask == a.to_bits() & mask
        }
        _ => false,
    }
}

/// Text that is never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "Secret(empty)" } else { "Secret(…)" })
    }
}

/// What a user logs in with (the decoded `X-Registry-Auth`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// User.
    pub username: String,
    /// Password or access token.
    pub password: Secret,
    /// OAuth2 refresh token, used instead of user and password.
    pub identity_token: Secret,
    /// Bearer token sent as it is.
    pub registry_token: Secret,
}

impl Credentials {
    /// Whether there is nothing to log in with.
    pub fn is_anonymous(&self) -> bool {
        self.username.is_empty() && self.identity_token.is_empty() && self.registry_token.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn insecure_registries() {
        let config = Config {
            insecure: vec![
                "reg.example:5000".into(),
                "plain.example".into(),
                "10.0.0.0/8".into(),
                "fd00::/8".into(),
            ],
            ..Config::default()
        };
        for (domain, insecure) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("[::1]:5000", true),
            ("reg.example:5000", true),
            ("reg.example", false),
            ("plain.example:80", true),
            ("10.1.2.3", true),
            ("11.1.2.3:5000", false),
            ("[fd12::1]", true),
            ("docker.io", false),
        ] {
            assert_eq!(config.is_insecure(domain), insecure, "{domain}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let credentials =
            Credentials { username: "u".into(), password: Secret::new("hunter2"), ..Default::default() };
        assert!(!format!("{credentials:?}").contains("hunter2"));
    }
}
