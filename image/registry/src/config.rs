//! The settings of a registry, as its file has them, and the parts they make.

use std::fmt;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hull_distribution::{Client, Credentials, HostConfig, Secret};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Deserializer, de};

use crate::access_log::{AccessLog, Format};
use crate::auth::{Action, Auth, Htpasswd, Issuer, Rule, Tokens, read_keys};
use crate::cache::{Caches, Upstream};
use crate::http::Limits;
use crate::service::{Policy, Service};
use crate::store::{Retention, Rules, Store, Uploads};

/// All settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Addresses to listen on.
    pub listen: Vec<String>,
    /// Where everything is kept.
    pub root: PathBuf,
    /// Address as clients know it.
    pub url: Option<String>,
    /// Nothing is changed.
    pub read_only: bool,
    /// Removing is allowed.
    pub delete: bool,
    /// A manifest may name blobs and manifests that are not here.
    pub sparse: bool,
    /// TLS.
    pub tls: Option<TlsConfig>,
    /// Logs.
    pub log: LogConfig,
    /// Limits.
    pub limits: LimitsConfig,
    /// Logins.
    pub auth: Option<AuthConfig>,
    /// Rights.
    pub access: Vec<AccessConfig>,
    /// Caches.
    pub upstream: Vec<UpstreamConfig>,
    /// Collection.
    pub gc: GcConfig,
    /// Tags that stay.
    pub retention: Vec<RetentionConfig>,
    /// Numbers.
    pub metrics: MetricsConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec!["127.0.0.1:5000".into()],
            root: "/var/lib/hull-registry".into(),
            url: None,
            read_only: false,
            delete: true,
            sparse: false,
            tls: None,
            log: LogConfig::default(),
            limits: LimitsConfig::default(),
            auth: None,
            access: Vec::new(),
            upstream: Vec::new(),
            gc: GcConfig::default(),
            retention: Vec::new(),
            metrics: MetricsConfig::default(),
        }
    }
}

/// `[tls]`
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

/// `[log]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct LogConfig {
    /// `error`, `warn`, `info` or `debug`.
    pub level: Option<String>,
    /// Where requests are written down: `stdout`, `off`, or a file.
    pub access: Option<String>,
    /// `combined` or `json`.
    pub format: Option<String>,
}

/// `[limits]`
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Largest manifest.
    pub manifest_size: Size,
    /// Largest blob.
    pub blob_size: Option<Size>,
    /// Connections at once.
    pub connections: usize,
    /// Largest head of a request.
    pub head_size: Size,
    /// Time for a head to arrive.
    pub head_time: Span,
    /// Time between two requests.
    pub idle_time: Span,
    /// Time for each piece of a body.
    pub body_time: Span,
    /// Time for an upload to be finished.
    pub upload_time: Span,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        let http = Limits::default();
        Self {
            manifest_size: Size(4 << 20),
            blob_size: None,
            connections: 10_000,
            head_size: Size(http.head_size as u64),
            head_time: Span(http.head_time),
            idle_time: Span(http.idle_time),
            body_time: Span(http.body_time),
            upload_time: Span(Duration::from_secs(7 * 24 * 3600)),
        }
    }
}

/// `[auth]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct AuthConfig {
    /// Shown by clients that ask for a password.
    pub realm: Option<String>,
    /// File of users.
    pub htpasswd: Option<PathBuf>,
    /// Tokens.
    pub token: Option<TokenConfig>,
}

/// `[auth.token]`
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TokenConfig {
    /// What this registry is called in tokens.
    pub service: String,
    /// Address of the token server; without it the registry makes tokens itself, for the users of `htpasswd`.
    pub realm: Option<String>,
    /// Whose tokens are taken.
    pub issuer: Option<String>,
    /// Files with public keys, certificates or a JSON Web Key Set.
    #[serde(default)]
    pub keys: Vec<PathBuf>,
    /// How far clocks may differ.
    #[serde(default = "minute")]
    pub leeway: Span,
}

fn minute() -> Span {
    Span(Duration::from_secs(60))
}

/// `[[access]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct AccessConfig {
    /// Pattern.
    pub repositories: String,
    /// Users, `*` or `anonymous`.
    pub users: Vec<String>,
    /// `pull`, `push`, `delete`.
    pub allow: Vec<String>,
}

/// `[[upstream]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct UpstreamConfig {
    /// Repositories below this name are its cache.
    pub prefix: String,
    /// Its address.
    pub url: String,
    /// User there.
    pub username: Option<String>,
    /// File with the password or token there.
    pub password_file: Option<PathBuf>,
    /// File with certificate authorities, PEM.
    pub ca: Option<PathBuf>,
    /// How long a tag is served without asking.
    #[serde(default = "ttl")]
    pub ttl: Span,
    /// How long what nobody pulls is kept.
    pub unused: Option<Span>,
}

fn ttl() -> Span {
    Span(Duration::from_secs(300))
}

/// `[gc]`
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct GcConfig {
    /// Time between two collections; 0 is never.
    pub interval: Span,
    /// What is younger stays.
    pub grace: Span,
    /// Manifests without a name go after this time.
    pub untagged: Option<Span>,
}

impl Default for GcConfig {
    fn default() -> Self {
        let hour = Duration::from_secs(3600);
        Self { interval: Span(6 * hour), grace: Span(hour), untagged: None }
    }
}

/// `[[retention]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RetentionConfig {
    /// Pattern.
    pub repositories: String,
    /// Pattern.
    #[serde(default = "any")]
    pub tags: String,
    /// The newest that stay.
    pub keep_last: Option<usize>,
    /// How long every tag stays.
    pub keep_for: Option<Span>,
}

fn any() -> String {
    "**".into()
}

/// `[metrics]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// An address of their own; without it they are at `/metrics` of the registry.
    pub listen: Option<SocketAddr>,
}

/// A length of time: `90s`, `15m`, `6h`, `30d`, or seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

/// A number of bytes: `4MiB`, `10GiB`, `512k`, or a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl std::str::FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = split_number(text);
        let seconds = match unit {
            "" | "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 24 * 3600,
            _ => {
                return Err(format!(
                    "{text:?} is no length of time; examples: \"90s\", \"15m\", \"6h\", \"30d\""
                ));
            }
        };
        let number: u64 = number
            .parse()
            .map_err(|_| format!("{text:?} is no length of time; examples: \"90s\", \"30d\""))?;
        Ok(Self(Duration::from_secs(number.saturating_mul(seconds).min(1 << 40))))
    }
}

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = split_number(text);
        let wrong = || format!("{text:?} is no size; examples: \"4MiB\", \"10GiB\"");
        let shift = match unit.to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
            "" => 0,
            "k" => 10,
            "m" => 20,
            "g" => 30,
            "t" => 40,
            _ => return Err(wrong()),
        };
        number.parse::<u64>().ok().and_then(|n| n.checked_mul(1 << shift)).map(Self).ok_or_else(wrong)
    }
}

fn split_number(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

struct Textual<T>(std::marker::PhantomData<T>);

impl<T: std::str::FromStr<Err = String>> de::Visitor<'_> for Textual<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, or text with a number and a unit")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Textual(std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Textual(std::marker::PhantomData))
    }
}

/// A setting that cannot be used: its name, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {problem}")]
pub struct ConfigError {
    /// Name in the file.
    pub setting: String,
    /// What is wrong.
    pub problem: String,
}

fn wrong(setting: impl Into<String>, problem: impl fmt::Display) -> ConfigError {
    ConfigError { setting: setting.into(), problem: problem.to_string() }
}

impl Config {
    /// The addresses to listen on.
    pub fn addresses(&self) -> Result<Vec<SocketAddr>, ConfigError> {
        if self.listen.is_empty() {
            return Err(wrong("listen", "no address"));
        }
        let parse = |text: &String| {
            let full = if text.starts_with(':') {
                format!("[::]{text}")
            } else {
                text.replace("localhost:", "127.0.0.1:")
            };
            full.parse()
                .map_err(|_| wrong("listen", format!("{text:?} is no address; example: \"0.0.0.0:5000\"")))
        };
        self.listen.iter().map(parse).collect()
    }

    /// TLS of the listeners.
    pub fn tls(&self) -> Result<Option<Arc<rustls::ServerConfig>>, ConfigError> {
        let Some(tls) = &self.tls else { return Ok(None) };
        let problem = |name: &'static str, path: &PathBuf, e: &dyn fmt::Display| {
            wrong(format!("tls.{name}"), format!("{}: {e}", path.display()))
        };
        let chain = CertificateDer::pem_file_iter(&tls.certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|e| problem("certificate", &tls.certificate, &e))?;
        if chain.is_empty() {
            return Err(problem("certificate", &tls.certificate, &"no certificate in it"));
        }
        let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|e| problem("key", &tls.key, &e))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| wrong("tls", e))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|e| wrong("tls", e))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Some(Arc::new(config)))
    }

    /// Limits of connections.
    pub fn limits(&self) -> Limits {
        Limits {
            head_size: usize::try_from(self.limits.head_size.0).unwrap_or(usize::MAX).max(1024),
            head_time: self.limits.head_time.0,
            idle_time: self.limits.idle_time.0,
            body_time: self.limits.body_time.0,
        }
    }

    fn policy(&self) -> Policy {
        Policy {
            read_only: self.read_only,
            delete: self.delete,
            manifest_size: usize::try_from(self.limits.manifest_size.0).unwrap_or(usize::MAX),
            blob_size: self.limits.blob_size.map_or(u64::MAX, |size| size.0),
            sparse: self.sparse,
            url: self.url.as_ref().map(|url| url.trim_end_matches('/').to_owned()),
            tls: self.tls.is_some(),
            metrics: self.metrics.listen.is_none(),
        }
    }

    /// How collections decide.
    pub fn rules(&self) -> Result<Rules, ConfigError> {
        let retention = self.retention.iter().enumerate().map(|(at, rule)| {
            if rule.keep_last.is_none() && rule.keep_for.is_none() {
                return Err(wrong(
                    format!("retention[{at}]"),
                    "neither keep-last nor keep-for: it would keep nothing",
                ));
            }
            Ok(Retention {
                repositories: rule.repositories.clone(),
                tags: rule.tags.clone(),
                keep_last: rule.keep_last,
                keep_for: rule.keep_for.map(|span| span.0),
            })
        });
        let unused = self.upstream.iter().filter_map(|upstream| {
            let pattern =
                if upstream.prefix.is_empty() { "**".into() } else { format!("{}/**", upstream.prefix) };
            Some((pattern, upstream.unused?.0))
        });
        Ok(Rules {
            grace: self.gc.grace.0,
            untagged: self.gc.untagged.map(|span| span.0),
            retention: retention.collect::<Result<_, _>>()?,
            unused: unused.collect(),
        })
    }

    fn access_log(&self) -> Result<AccessLog, ConfigError> {
        let format = match self.log.format.as_deref() {
            None | Some("combined") => Format::Combined,
            Some("json") => Format::Json,
            Some(other) => {
                return Err(wrong("log.format", format!("{other:?} is neither combined nor json")));
            }
        };
        let file = match self.log.access.as_deref() {
            None | Some("off") => return Ok(AccessLog::off()),
            Some("stdout") => {
                std::os::fd::AsFd::as_fd(&std::io::stdout()).try_clone_to_owned().map(File::from)
            }
            Some(path) => File::options().create(true).append(true).open(path),
        };
        file.and_then(|file| AccessLog::to(file, format)).map_err(|e| wrong("log.access", e))
    }

    async fn auth(&self, store: &Store) -> Result<Auth, ConfigError> {
        let mut auth = Auth { realm: "Hull registry".into(), rules: self.access_rules()?, ..Auth::default() };
        let Some(config) = &self.auth else {
            if let Some(rule) =
                self.access.iter().find(|rule| rule.users.iter().any(|user| user != "anonymous"))
            {
                let problem = format!("the rule is for {:?}, but [auth] lets nobody log in", rule.users);
                return Err(wrong("access", problem));
            }
            return Ok(auth);
        };
        auth.realm = config.realm.clone().unwrap_or(auth.realm);
        if let Some(path) = &config.htpasswd {
            auth.htpasswd = Some(Htpasswd::open(path).map_err(|e| wrong("auth.htpasswd", e))?);
        }
        if let Some(token) = &config.token {
            self.add_tokens(&mut auth, token, store).await?;
        }
        if auth.htpasswd.is_none() && auth.tokens.is_none() {
            return Err(wrong("auth", "neither htpasswd nor token: nobody could log in"));
        }
        Ok(auth)
    }

    async fn add_tokens(
        &self,
        auth: &mut Auth,
        token: &TokenConfig,
        store: &Store,
    ) -> Result<(), ConfigError> {
        if !token.keys.is_empty() {
            let mut keys = Vec::new();
            for path in &token.keys {
                keys.extend(read_keys(path).map_err(|e| wrong("auth.token.keys", e))?);
            }
            let realm =
                token.realm.clone().ok_or_else(|| wrong("auth.token.realm", "missing: the token server"))?;
            let issuer = token.issuer.clone().ok_or_else(|| wrong("auth.token.issuer", "missing"))?;
            let (service, leeway) = (token.service.clone(), token.leeway.0);
            auth.tokens = Some(Tokens { realm: Some(realm), service, issuer, keys, leeway });
            return Ok(());
        }
        if auth.htpasswd.is_none() {
            let problem = "without keys the registry makes tokens itself, for the users of auth.htpasswd, which is missing";
            return Err(wrong("auth.token", problem));
        }
        let secret = store.secret("token").await.map_err(|e| wrong("auth.token", e))?;
        let issuer = Issuer::new(&secret, &token.service).map_err(|e| wrong("auth.token", e))?;
        auth.tokens = Some(issuer.tokens(token.realm.clone()));
        auth.issuer = Some(issuer);
        Ok(())
    }

    fn access_rules(&self) -> Result<Vec<Rule>, ConfigError> {
        let rule = |(at, access): (usize, &AccessConfig)| {
            let action = |text: &String| {
                let unknown = || {
                    wrong(format!("access[{at}].allow"), format!("{text:?} is none of pull, push, delete"))
                };
                Action::parse(text).ok_or_else(unknown)
            };
            let actions = access.allow.iter().map(action).collect::<Result<Vec<_>, _>>()?;
            Ok(Rule { repositories: access.repositories.clone(), users: access.users.clone(), actions })
        };
        self.access.iter().enumerate().map(rule).collect()
    }

    fn caches(&self, roots: &[Vec<u8>]) -> Result<Caches, ConfigError> {
        let upstreams = self.upstream.iter().enumerate().map(|(at, config)| upstream(at, config, roots));
        Ok(Caches::new(upstreams.collect::<Result<_, _>>()?))
    }

    /// The registry of these settings. `roots` are the certificate authorities, in PEM, that upstreams may have.
    pub async fn service(&self, store: Arc<Store>, roots: &[Vec<u8>]) -> Result<Service, ConfigError> {
        let uploads =
            Uploads::new(store.clone(), self.limits.upload_time.0).await.map_err(|e| wrong("root", e))?;
        let auth = self.auth(&store).await?;
        let (caches, rules) = (self.caches(roots)?, self.rules()?);
        Ok(Service::new(store, Arc::new(uploads), auth, caches, self.policy(), rules, self.access_log()?))
    }

    /// Checks what can be checked without the store.
    pub fn check(&self, roots: &[Vec<u8>]) -> Result<(), ConfigError> {
        self.addresses()?;
        self.tls()?;
        self.rules()?;
        self.access_rules()?;
        self.caches(roots).map(drop)
    }
}

fn upstream(at: usize, config: &UpstreamConfig, roots: &[Vec<u8>]) -> Result<Upstream, ConfigError> {
    let named = |name: &str| format!("upstream[{at}].{name}");
    if !config.prefix.is_empty() && crate::name::Name::parse(&config.prefix).is_none() {
        return Err(wrong(named("prefix"), format!("{:?} is no name of a repository", config.prefix)));
    }
    let (plain, rest) = match config.url.split_once("://") {
        Some(("https", rest)) => (false, rest),
        Some(("http", rest)) => (true, rest),
        _ => return Err(wrong(named("url"), format!("{:?} is no http or https address", config.url))),
    };
    let host = rest.trim_end_matches('/');
    let host = if host == "registry-1.docker.io" { "docker.io" } else { host };
    let reference = format!("{host}/x/y").parse::<hull_model::Reference>();
    if !reference.is_ok_and(|reference| reference.domain() == host) {
        return Err(wrong(
            named("url"),
            format!("{host:?} is no host; what follows the host is not supported"),
        ));
    }
    let read = |name: &str, path: &PathBuf| {
        std::fs::read(path).map_err(|e| wrong(named(name), format!("{}: {e}", path.display())))
    };
    let mut settings = hull_distribution::Config {
        user_agent: concat!("hull-registry/", env!("CARGO_PKG_VERSION")).into(),
        roots: roots.to_vec(),
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(30),
        retries: 2,
        ..hull_distribution::Config::default()
    };
    if plain {
        settings.insecure.push(host.to_owned());
    }
    if let Some(path) = &config.ca {
        let host_config = HostConfig { roots: vec![read("ca", path)?], client: None };
        settings.hosts.insert(host.to_owned(), host_config);
    }
    let password = match &config.password_file {
        Some(path) => String::from_utf8_lossy(&read("password-file", path)?).trim_end().to_owned(),
        None => String::new(),
    };
    let credentials = config.username.as_ref().map(|username| Credentials {
        username: username.clone(),
        password: Secret::new(password),
        ..Credentials::default()
    });
    Ok(Upstream {
        prefix: config.prefix.clone(),
        host: host.to_owned(),
        client: Client::new(settings),
        credentials,
        ttl: config.ttl.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        assert_eq!("90".parse(), Ok(Span(Duration::from_secs(90))));
        assert_eq!("2d".parse(), Ok(Span(Duration::from_secs(2 * 86400))));
        assert!("2 weeks".parse::<Span>().is_err());
        assert!("".parse::<Span>().is_err());
        assert_eq!("4MiB".parse(), Ok(Size(4 << 20)));
        assert_eq!("10 G".parse(), Ok(Size(10 << 30)));
        assert!("99999999999999999999".parse::<Size>().is_err());
        assert!("4 potatoes".parse::<Size>().is_err());
    }
}
