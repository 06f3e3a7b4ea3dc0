use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::Stream;
use http_body_util::{BodyExt, Empty};
use hull_content::Hasher;
use hull_model::{Algorithm, Descriptor, Digest, Reference, media_type};
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION,
    RETRY_AFTER, USER_AGENT,
};
use hyper::{Method, Request, Response, StatusCode, Uri};
use tokio::sync::Mutex;

use crate::MAX_DOCUMENT;
use crate::auth::{authorize, basic, escape};
use crate::config::{Config, Credentials, Secret};
use crate::error::{DistributionError, MAX_ASKED, detail};
use crate::registries::{RegistryRule, split_scheme};
use crate::transport::{Body, Transport, go_method, shown};

const MAX_REDIRECTS: usize = 10;
const MAX_ERROR_BODY: u64 = 64 << 10;
const MAX_PAUSE: Duration = Duration::from_secs(30);
const DOCKER_HOST: &str = "registry-1.docker.io";

/// Registries' common client: connections and settings. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    transport: Transport,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// What will be done with a repository: what a token is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read.
    Pull,
    /// Read and write.
    Push,
}

/// One repository with one user's credentials.
pub struct Repository {
    client: Client,
    reference: Reference,
    access: Access,
    credentials: Option<Credentials>,
    endpoints: Vec<Endpoint>,
    /// The rule's prefix that forbids it.
    blocked: Option<String>,
    /// For a login: the identity token that came along.
    login: Option<Mutex<Option<Secret>>>,
}

/// A place that serves the repository.
#[derive(Default)]
pub(crate) struct Endpoint {
    /// `https://host[:port]`.
    base: String,
    domain: String,
    /// The repository's path there.
    path: String,
    /// The host a pull-through cache is to ask.
    namespace: Option<String>,
    insecure: bool,
    /// Does not decide that something does not exist.
    mirror: bool,
    digest_only: bool,
    /// Whether it gets the user's credentials.
    credentials: bool,
    down: AtomicBool,
    /// Last authorization that was asked for, shared by parallel requests.
    authorization: Mutex<Option<Secret>>,
}

/// A manifest or index with its bytes.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Type, digest and size.
    pub descriptor: Descriptor,
    /// The document.
    pub bytes: Vec<u8>,
}

/// A request without body, sent again as often as needed.
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    /// Below `/v2/<repository>/`, or a whole address.
    pub(crate) path: &'a str,
    pub(crate) headers: Vec<(HeaderName, String)>,
    /// Whether to try again what may pass; not if the caller does.
    pub(crate) retry: bool,
}

impl Client {
    /// A client with these settings.
    pub fn new(config: Config) -> Self {
        Self { inner: Arc::new(Inner { transport: Transport::new(config.clone()), config }) }
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.inner.transport
    }

    /// The repository of that reference (whose tag and digest do not matter here).
    pub fn repository(
        &self,
        reference: &Reference,
        access: Access,
        credentials: Option<Credentials>,
    ) -> Repository {
        let rule = self.config().registries.rule(reference);
        let blocked = rule.filter(|rule| rule.blocked).map(|rule| rule.prefix.clone());
        let endpoints = endpoints(self.config(), rule, reference, access);
        let credentials = credentials.filter(|c| !c.is_anonymous());
        let reference = reference.repository();
        Repository { client: self.clone(), reference, access, credentials, endpoints, blocked, login: None }
    }

    /// Somewhere without repository and credentials: a foreign layer's address.
    pub(crate) fn anonymous(&self, uri: &Uri) -> Foreign<'_> {
        let domain = uri.authority().map_or("", |a| a.as_str());
        let insecure = self.config().is_insecure(domain);
        Foreign { client: self, insecure }
    }

    /// Reads an address that belongs to no registry, without credentials: its length, if it is told, and its bytes.
    ///
    /// # Errors
    /// When it is no `http` or `https` address, cannot be reached, or answers with anything but success.
    pub async fn download(&self, url: &str) -> Result<(Option<u64>, Download), DistributionError> {
        let bad = || DistributionError::Protocol { url: url.into(), what: "it is no address".into() };
        let uri: Uri = url.parse().map_err(|_| bad())?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.authority().is_none() {
            return Err(bad());
        }
        let (uri, answer) = self.anonymous(&uri).ask_foreign(url, Vec::new()).await?;
        if answer.status() != StatusCode::OK {
            let (method, status) = ("Get".into(), answer.status().as_u16());
            return Err(DistributionError::Status {
                method,
                url: shown(&uri),
                status,
                detail: String::new(),
            });
        }
        let length = header_text(answer.headers(), &CONTENT_LENGTH).and_then(|n| n.parse().ok());
        let idle = self.config().idle_timeout;
        let pieces = futures_util::stream::unfold(answer.into_body(), move |mut body| async move {
            loop {
                let frame = match tokio::time::timeout(idle, body.frame()).await {
                    Err(_) => return Some((Err(io::ErrorKind::TimedOut.into()), body)),
                    Ok(frame) => frame?,
                };
                match frame.map(|frame| frame.into_data()) {
                    Ok(Ok(data)) => return Some((Ok(data), body)),
                    Ok(Err(_)) => {}
                    Err(error) => return Some((Err(io::Error::other(error)), body)),
                }
            }
        });
        Ok((length, Box::pin(pieces)))
    }

    /// Checks credentials against a registry (`docker login`). An error is [`DistributionError::Login`] if they are
    /// refused. Returns the token to keep instead of the password, if the registry gives one.
    pub async fn login(
        &self,
        domain: &str,
        credentials: Credentials,
    ) -> Result<Option<Secret>, DistributionError> {
        let name = format!("{domain}/x");
        let reference: Reference =
            name.parse().map_err(|e| DistributionError::Setup(format!("registry {domain:?}: {e}")))?;
        let mut repository = self.repository(&reference, Access::Pull, Some(credentials));
        repository.endpoints.retain(|e| !e.mirror);
        repository.login = Some(Mutex::default());
        repository.check_login().await?;
        Ok(match &repository.login {
            Some(identity) => identity.lock().await.take(),
            None => None,
        })
    }
}

/// Bytes of a download as they arrive.
pub type Download = Pin<Box<dyn Stream<Item = io::Result<bytes::Bytes>> + Send>>;

/// Asks one address without credentials, following redirects.
pub(crate) struct Foreign<'a> {
    client: &'a Client,
    insecure: bool,
}

impl Foreign<'_> {
    pub(crate) async fn ask_foreign(
        &self,
        url: &str,
        headers: Vec<(HeaderName, String)>,
    ) -> Result<(Uri, Response<Incoming>), DistributionError> {
        let bad = || DistributionError::Protocol { url: url.into(), what: "it is no address".into() };
        let mut uri: Uri = url.parse().map_err(|_| bad())?;
        for _ in 0..=MAX_REDIRECTS {
            let mut request = Request::get(uri.clone()).header(USER_AGENT, &self.client.config().user_agent);
            for (name, value) in &headers {
                request = request.header(name, value);
            }
            let body = Empty::new().map_err(|e| match e {}).boxed_unsync();
            let request = request.body(body).map_err(|e| protocol(&uri, e.to_string()))?;
            let answer = self.client.transport().send(request, None, self.insecure).await?;
            match redirect(&answer, &uri)? {
                Some(next) => uri = next,
                None => return Ok((uri, answer)),
            }
        }
        Err(protocol(&uri, format!("more than {MAX_REDIRECTS} redirects")))
    }
}

/// Where a repository is found: mirrors, then the registry itself; each over TLS, then plain if it may be insecure.
fn endpoints(
    config: &Config,
    rule: Option<&RegistryRule>,
    reference: &Reference,
    access: Access,
) -> Vec<Endpoint> {
    let name = format!("{}/{}", reference.domain(), reference.path());
    // What of the name follows the prefix; below a star, all but the host.
    let prefix = rule.map_or(reference.domain(), |rule| rule.prefix.as_str());
    let rest = match prefix.starts_with("*.") {
        true => reference.path(),
        false => name.strip_prefix(prefix).unwrap_or_default().trim_start_matches('/'),
    };
    let place = |location: &str| match (location.trim_end_matches('/'), rest) {
        (location, "") => location.to_owned(),
        (location, rest) => format!("{location}/{rest}"),
    };
    let mut found = Vec::new();
    if access == Access::Pull {
        for mirror in rule.iter().flat_map(|rule| &rule.mirrors) {
            let (scheme, location) = split_scheme(&mirror.location);
            let kind = Endpoint {
                mirror: true,
                digest_only: mirror.digest_only,
                credentials: mirror.credentials,
                namespace: mirror.pull_through.then(|| reference.domain().to_owned()),
                insecure: mirror.insecure,
                ..Endpoint::default()
            };
            push_endpoints(&mut found, config, scheme, &place(location), kind);
        }
        if reference.domain() == hull_model::DEFAULT_DOMAIN {
            for mirror in &config.mirrors {
                let (scheme, location) = split_scheme(mirror);
                let kind = Endpoint { mirror: true, ..Endpoint::default() };
                push_endpoints(&mut found, config, scheme, &format!("{location}/{}", reference.path()), kind);
            }
        }
    }
    let location = rule.and_then(|rule| rule.location.as_deref());
    let kind = Endpoint {
        credentials: location.is_none() || rule.is_some_and(|rule| rule.credentials),
        insecure: rule.is_some_and(|rule| rule.insecure),
        ..Endpoint::default()
    };
    let own = location.map_or(name.clone(), place);
    push_endpoints(&mut found, config, None, &own, kind);
    found
}

/// One place, `host[:port]/path`, with the protocols it may be spoken to.
fn push_endpoints(
    found: &mut Vec<Endpoint>,
    config: &Config,
    scheme: Option<&str>,
    place: &str,
    kind: Endpoint,
) {
    let (host, path) = place.split_once('/').unwrap_or((place, ""));
    let host = if host == hull_model::DEFAULT_DOMAIN { DOCKER_HOST } else { host };
    let insecure = kind.insecure || (host != DOCKER_HOST && config.is_insecure(host));
    let mut add = |scheme: &str| {
        found.push(Endpoint {
            base: format!("{scheme}://{host}"),
            domain: host.to_owned(),
            path: path.to_owned(),
            namespace: kind.namespace.clone(),
            insecure,
            down: AtomicBool::new(false),
            authorization: Mutex::new(None),
            ..kind
        });
    };
    match scheme {
        Some("http") => add("http"),
        Some(_) => add("https"),
        None => {
            add("https");
            if insecure {
                add("http");
            }
        }
    }
}

impl Repository {
    /// Which repository.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    pub(crate) fn check_blocked(&self) -> Result<(), DistributionError> {
        self.blocked.clone().map_or(Ok(()), |prefix| Err(DistributionError::Blocked(prefix)))
    }

    async fn check_login(&self) -> Result<(), DistributionError> {
        let ask = Ask { method: Method::GET, path: "/v2/", headers: Vec::new(), retry: true };
        let result = match self.ask_any(&ask).await {
            Ok(answer) if answer.1.status().is_success() => Ok(()),
            Ok(answer) => Err(self.status_error(&Method::GET, answer).await),
            Err(e) => Err(e),
        };
        result.map_err(|e| match e {
            DistributionError::PullDenied { detail, .. } => {
                DistributionError::Login { host: self.reference.domain().to_owned(), detail }
            }
            e => e,
        })
    }

    /// Manifest or index of a tag or digest: of the reference, which should be of this repository.
    pub async fn manifest(&self, reference: &Reference) -> Result<Fetched, DistributionError> {
        let (name, digest) = tag_or_digest(reference);
        let path = format!("manifests/{name}");
        let ask = Ask { method: Method::GET, path: &path, headers: vec![(ACCEPT, accepted())], retry: false };
        let mut attempt = 0;
        loop {
            let result = self.manifest_once(reference, &ask, digest).await;
            match result {
                Err(e) if e.is_passing() && attempt < self.client.config().retries => {
                    pause(self.client.config(), attempt, e.wait()).await;
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    async fn manifest_once(
        &self,
        reference: &Reference,
        ask: &Ask<'_>,
        digest: Option<&Digest>,
    ) -> Result<Fetched, DistributionError> {
        let (uri, answer) = self.ask_any(ask).await?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(self.manifest_unknown(reference, answer, &uri).await),
            _ => return Err(self.status_error(&Method::GET, (uri, answer)).await),
        }
        let stated = header_digest(answer.headers());
        let media_type = content_type(answer.headers());
        let bytes = read_body(&self.client, answer, MAX_DOCUMENT, &uri).await?;
        let algorithm = digest.or(stated.as_ref()).map_or(Algorithm::Sha256, Digest::algorithm);
        let mut hasher = Hasher::new(algorithm);
        hasher.update(&bytes);
        let actual = hasher.finish();
        if let Some(expected) = digest.or(stated.as_ref())
            && *expected != actual
        {
            let what = format!("manifest of {}", reference.familiar());
            return Err(DistributionError::DigestMismatch { what, expected: expected.clone(), actual });
        }
        Ok(Fetched { descriptor: Descriptor::new(&media_type, actual, bytes.len() as u64), bytes })
    }

    /// Type, digest and size of a tag's or digest's manifest without fetching it where the registry says them.
    pub async fn resolve(&self, reference: &Reference) -> Result<Descriptor, DistributionError> {
        let (name, digest) = tag_or_digest(reference);
        let path = format!("manifests/{name}");
        let ask = Ask { method: Method::HEAD, path: &path, headers: vec![(ACCEPT, accepted())], retry: true };
        let (uri, answer) = self.ask_any(&ask).await?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(self.manifest_unknown(reference, answer, &uri).await),
            _ => return Err(self.status_error(&Method::HEAD, (uri, answer)).await),
        }
        let size = header_text(answer.headers(), &CONTENT_LENGTH).and_then(|n| n.parse().ok());
        match (header_digest(answer.headers()).as_ref().or(digest), size) {
            (Some(digest), Some(size)) => {
                Ok(Descriptor::new(&content_type(answer.headers()), digest.clone(), size))
            }
            _ => Ok(self.manifest(reference).await?.descriptor),
        }
    }

    /// Whether the registry has that manifest.
    pub async fn has_manifest(&self, digest: &Digest) -> Result<bool, DistributionError> {
        match self.resolve(&self.reference.with_digest(digest.clone())).await {
            Ok(found) => Ok(found.digest == *digest),
            Err(DistributionError::ManifestUnknown { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// All tags, in the registry's order, following its pages.
    pub async fn tags(&self) -> Result<Vec<String>, DistributionError> {
        #[derive(serde::Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let mut path = "tags/list".to_owned();
        let mut tags = Vec::new();
        for _ in 0..1000 {
            let ask = Ask { method: Method::GET, path: &path, headers: Vec::new(), retry: true };
            let (uri, answer) = self.ask_any(&ask).await?;
            if answer.status() != StatusCode::OK {
                return Err(self.status_error(&Method::GET, (uri, answer)).await);
            }
            let next = next_page(answer.headers(), &uri);
            let body = read_body(&self.client, answer, MAX_DOCUMENT, &uri).await?;
            let page: Page = serde_json::from_slice(&body).map_err(|e| protocol(&uri, e.to_string()))?;
            tags.extend(page.tags.unwrap_or_default());
            match next {
                Some(next) => path = next,
                None => break,
            }
        }
        Ok(tags)
    }

    async fn manifest_unknown(
        &self,
        reference: &Reference,
        answer: Response<Incoming>,
        uri: &Uri,
    ) -> DistributionError {
        // Losing the detail is better than losing the error.
        let body = read_body(&self.client, answer, MAX_ERROR_BODY, uri).await.unwrap_or_default();
        DistributionError::ManifestUnknown { reference: reference.familiar(), detail: detail(&body) }
    }

    /// What an unexpected answer means.
    pub(crate) async fn status_error(
        &self,
        method: &Method,
        answer: (Uri, Response<Incoming>),
    ) -> DistributionError {
        let (uri, answer) = answer;
        let (status, wait) = (answer.status().as_u16(), retry_after(answer.headers()));
        let body = read_body(&self.client, answer, MAX_ERROR_BODY, &uri).await.unwrap_or_default();
        let detail = detail(&body);
        match status {
            401 | 403 => self.denied(detail),
            429 => DistributionError::RateLimited { url: shown(&uri), detail, wait },
            _ => DistributionError::Status { method: go_method(method), url: shown(&uri), status, detail },
        }
    }

    pub(crate) fn denied(&self, detail: String) -> DistributionError {
        let repository = self.reference.familiar_name();
        match self.access {
            Access::Pull => DistributionError::PullDenied { repository, detail },
            Access::Push => DistributionError::PushDenied { repository, detail },
        }
    }

    /// Asks the endpoints in order until one answers, retrying what may pass; errors of the last one are the
    /// result. A mirror's failure of any kind only means asking the next.
    pub(crate) async fn ask_any(
        &self,
        ask: &Ask<'_>,
    ) -> Result<(Uri, Response<Incoming>), DistributionError> {
        self.check_blocked()?;
        let mut last = None;
        let by_digest = ask.path.contains("sha256:") || ask.path.contains("sha512:");
        let all_down = self.endpoints.iter().all(|e| e.down.load(Ordering::Relaxed));
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            let is_last = index + 1 == self.endpoints.len();
            let skipped = endpoint.digest_only && !by_digest;
            if !is_last && (skipped || (!all_down && endpoint.down.load(Ordering::Relaxed))) {
                continue;
            }
            match Box::pin(self.ask(endpoint, ask)).await {
                Ok(answer) if endpoint.mirror && !answer.1.status().is_success() => {
                    last = Some(Ok(answer));
                }
                Ok(answer) => return Ok(answer),
                // It does speak TLS: to go on in plain text would be a downgrade.
                Err(e) if !endpoint.mirror && e.is_certificate() => return Err(e),
                Err(e) if e.is_endpoint() => {
                    if matches!(e, DistributionError::Connection { .. }) {
                        endpoint.down.store(true, Ordering::Relaxed);
                    }
                    last = Some(Err(e));
                }
                Err(e) => return Err(e),
            }
        }
        last.unwrap_or_else(|| Err(DistributionError::Setup("no endpoint".into())))
    }

    /// One endpoint, with retries.
    pub(crate) async fn ask(
        &self,
        endpoint: &Endpoint,
        ask: &Ask<'_>,
    ) -> Result<(Uri, Response<Incoming>), DistributionError> {
        let config = self.client.config();
        let mut attempt = 0;
        loop {
            let result = self.ask_once(endpoint, ask).await;
            let (passing, wait) = match &result {
                Ok((_, answer)) => (is_passing(answer.status()), retry_after(answer.headers())),
                Err(e) => (e.is_passing(), None),
            };
            let passing = passing && wait.is_none_or(|wait| wait <= MAX_ASKED);
            // TLS spoken to a plain server breaks in many ways: the next endpoint is the retry.
            let speculative = endpoint.insecure && endpoint.base.starts_with("https:");
            if !ask.retry || !passing || attempt >= config.retries || (speculative && result.is_err()) {
                return result;
            }
            pause(config, attempt, wait).await;
            attempt += 1;
        }
    }

    /// Authorization and redirects, no retry.
    async fn ask_once(
        &self,
        endpoint: &Endpoint,
        ask: &Ask<'_>,
    ) -> Result<(Uri, Response<Incoming>), DistributionError> {
        let first = self.address(endpoint, ask.path)?;
        let mut uri = first.clone();
        let mut authorized = false;
        let mut redirects = 0;
        loop {
            let own = uri.authority() == first.authority() && uri.scheme() == first.scheme();
            let authorization = if own { self.authorization(endpoint).await } else { None };
            let request = self.build(ask, &uri, authorization.as_ref())?;
            let domain = own.then_some(endpoint.domain.as_str());
            let insecure = match own {
                true => endpoint.insecure,
                false => uri.authority().is_some_and(|a| self.client.config().is_insecure(a.as_str())),
            };
            let answer = self.client.transport().send(request, domain, insecure).await?;
            let status = answer.status();
            if status == StatusCode::UNAUTHORIZED && own && !authorized {
                authorized = true;
                if !self.reauthorize(endpoint, &answer, &uri, authorization, &[]).await? {
                    return Ok((uri, answer));
                }
            } else if let Some(next) = redirect(&answer, &uri)? {
                redirects += 1;
                if redirects > MAX_REDIRECTS {
                    return Err(protocol(&first, format!("more than {MAX_REDIRECTS} redirects")));
                }
                uri = next;
            } else {
                return Ok((uri, answer));
            }
        }
    }

    fn build(
        &self,
        ask: &Ask<'_>,
        uri: &Uri,
        authorization: Option<&Secret>,
    ) -> Result<Request<Body>, DistributionError> {
        let mut request = Request::builder()
            .method(ask.method.clone())
            .uri(uri.clone())
            .header(USER_AGENT, &self.client.config().user_agent);
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, sensitive(authorization)?);
        }
        request
            .body(Empty::new().map_err(|e| match e {}).boxed_unsync())
            .map_err(|e| protocol(uri, e.to_string()))
    }

    /// What to send with a request: what was negotiated before.
    pub(crate) async fn authorization(&self, endpoint: &Endpoint) -> Option<Secret> {
        endpoint.authorization.lock().await.clone()
    }

    /// After a 401: gets authorization, once for all requests that failed with the same one. `false` if there is
    /// nothing to try.
    pub(crate) async fn reauthorize(
        &self,
        endpoint: &Endpoint,
        answer: &Response<Incoming>,
        uri: &Uri,
        used: Option<Secret>,
        more_scopes: &[String],
    ) -> Result<bool, DistributionError> {
        let mut current = endpoint.authorization.lock().await;
        if *current != used && current.is_some() && more_scopes.is_empty() {
            return Ok(true);
        }
        let mut scopes = vec![self.scope(endpoint)];
        scopes.extend_from_slice(more_scopes);
        let credentials = self.credentials.as_ref().filter(|_| endpoint.credentials);
        let login = self.login.as_ref();
        let granted = authorize(&self.client, answer.headers(), uri, credentials, &scopes, login.is_some());
        let granted = granted.await.map_err(|e| match e {
            DistributionError::Login { detail, .. } => self.denied(detail),
            e => e,
        })?;
        if let (Some(login), Some(identity)) = (login, granted.identity) {
            *login.lock().await = Some(identity);
        }
        let new = granted.authorization;
        let helps = new.is_some() && (new != used || !is_basic(new.as_ref(), credentials));
        if helps {
            *current = new;
        }
        Ok(helps)
    }

    fn scope(&self, endpoint: &Endpoint) -> String {
        let actions = if self.access == Access::Push { "pull,push" } else { "pull" };
        format!("repository:{}:{actions}", endpoint.path)
    }

    /// Absolute address of a path of the repository at an endpoint.
    pub(crate) fn address(&self, endpoint: &Endpoint, path: &str) -> Result<Uri, DistributionError> {
        let text = if path.contains("://") {
            path.to_owned()
        } else if path.starts_with('/') {
            format!("{}{path}", endpoint.base)
        } else {
            format!("{}/v2/{}/{path}", endpoint.base, endpoint.path)
        };
        let text = match &endpoint.namespace {
            Some(host) => format!("{text}{}ns={}", if text.contains('?') { '&' } else { '?' }, escape(host)),
            None => text,
        };
        text.parse().map_err(|_| DistributionError::Protocol { url: text, what: "it is no address".into() })
    }
}

impl Endpoint {
    pub(crate) fn domain(&self) -> &str {
        &self.domain
    }

    pub(crate) fn insecure(&self) -> bool {
        self.insecure
    }

    pub(crate) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }
}

fn is_basic(new: Option<&Secret>, credentials: Option<&Credentials>) -> bool {
    credentials.is_some_and(|c| new == Some(&basic(c)))
}

fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// What a `Retry-After` asks for, in seconds or as a date (RFC 9110, section 10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = header_text(headers, &RETRY_AFTER)?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    // A date that has passed asks for nothing.
    Some(Duration::try_from(at.duration_since(jiff::Timestamp::now())).unwrap_or_default())
}

/// Waits before the next attempt: doubling, or as long as the registry asks.
pub(crate) async fn pause(config: &Config, attempt: u32, asked: Option<Duration>) {
    let own = config.backoff.saturating_mul(1 << attempt.min(16)).min(MAX_PAUSE);
    tokio::time::sleep(asked.map_or(own, |asked| asked.min(MAX_ASKED))).await;
}

/// Where a redirect leads; `None` if it is none.
fn redirect(answer: &Response<Incoming>, from: &Uri) -> Result<Option<Uri>, DistributionError> {
    if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let location = header_text(answer.headers(), &LOCATION)
        .ok_or_else(|| protocol(from, "redirect without location".into()))?;
    join(from, location).map(Some)
}

/// An address relative to another (RFC 3986, as far as registries use it).
pub(crate) fn join(base: &Uri, location: &str) -> Result<Uri, DistributionError> {
    let bad = || protocol(base, format!("location {location:?}"));
    let origin = || {
        format!("{}://{}", base.scheme_str().unwrap_or("https"), base.authority().map_or("", |a| a.as_str()))
    };
    let text = if location.starts_with("//") {
        format!("{}:{location}", base.scheme_str().unwrap_or("https"))
    } else if location.starts_with('/') {
        format!("{}{location}", origin())
    } else if location.contains("://") {
        location.to_owned()
    } else {
        let directory = base.path().rsplit_once('/').map_or("", |(dir, _)| dir);
        format!("{}{directory}/{location}", origin())
    };
    let uri: Uri = text.parse().map_err(|_| bad())?;
    match uri.scheme_str() {
        Some("http" | "https") if uri.authority().is_some() => Ok(uri),
        _ => Err(bad()),
    }
}

/// `Link: </v2/…?n=…&last=…>; rel="next"`.
pub(crate) fn next_page(headers: &HeaderMap, from: &Uri) -> Option<String> {
    let link = header_text(headers, &hyper::header::LINK)?;
    let (target, parameters) = link.strip_prefix('<')?.split_once('>')?;
    let next = join(from, target).ok()?;
    (parameters.contains("next") && next.authority() == from.authority())
        .then(|| next.path_and_query().map(ToString::to_string))?
}

fn accepted() -> String {
    [media_type::OCI_INDEX, media_type::OCI_MANIFEST, media_type::DOCKER_LIST, media_type::DOCKER_MANIFEST]
        .join(", ")
}

fn tag_or_digest(reference: &Reference) -> (&str, Option<&Digest>) {
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => (digest.as_str(), Some(digest)),
        (None, tag) => (tag.unwrap_or(hull_model::DEFAULT_TAG), None),
    }
}

pub(crate) fn sensitive(secret: &Secret) -> Result<HeaderValue, DistributionError> {
    let mut value = HeaderValue::from_str(secret.reveal())
        .map_err(|_| DistributionError::Setup("credentials hold characters a header cannot".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn header_text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn header_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

fn content_type(headers: &HeaderMap) -> String {
    let value = header_text(headers, &CONTENT_TYPE).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

pub(crate) fn protocol(uri: &Uri, what: String) -> DistributionError {
    DistributionError::Protocol { url: shown(uri), what }
}

/// A whole small body; pieces must keep coming.
pub(crate) async fn read_body(
    client: &Client,
    answer: Response<Incoming>,
    limit: u64,
    uri: &Uri,
) -> Result<Vec<u8>, DistributionError> {
    use crate::error::Connection;
    let failed = |cause| DistributionError::Connection { method: "Get".into(), url: shown(uri), cause };
    let idle = client.config().idle_timeout;
    let mut body = answer.into_body();
    let mut bytes = Vec::new();
    loop {
        let frame =
            tokio::time::timeout(idle, body.frame()).await.map_err(|_| failed(Connection::Timeout(idle)))?;
        let Some(frame) = frame else { return Ok(bytes) };
        let frame = frame.map_err(|e| failed(Connection::Broken(e.to_string())))?;
        if let Some(data) = frame.data_ref() {
            if (bytes.len() + data.len()) as u64 > limit {
                return Err(protocol(uri, format!("answer is larger than {limit} bytes")));
            }
            bytes.extend_from_slice(data);
        }
    }
}
