use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Empty, Full};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT, WWW_AUTHENTICATE};
use hyper::{HeaderMap, Method, Request, Uri};
use serde::Deserialize;

use crate::challenge::{Challenge, parse_challenges};
use crate::config::{Credentials, Secret};
use crate::error::{DistributionError, detail};
use crate::repository::{Client, read_body, retry_after};
use crate::transport::{Body, shown};

/// Largest token answer, in bytes.
const MAX_TOKEN: u64 = 1 << 20;

/// What a registry or its token server granted.
#[derive(Debug, Default)]
pub(crate) struct Granted {
    /// The value of an `Authorization` header; `None` when nothing we have could help.
    pub(crate) authorization: Option<Secret>,
    /// What a client may keep instead of the password, if the token server hands such a thing out.
    pub(crate) identity: Option<Secret>,
}

impl From<Option<Secret>> for Granted {
    fn from(authorization: Option<Secret>) -> Self {
        Self { authorization, identity: None }
    }
}

/// Answers a registry's 401. `login` asks for a token to keep as well.
pub(crate) async fn authorize(
    client: &Client,
    headers: &HeaderMap,
    registry: &Uri,
    credentials: Option<&Credentials>,
    scopes: &[String],
    login: bool,
) -> Result<Granted, DistributionError> {
    let challenges: Vec<Challenge> = headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(parse_challenges)
        .collect();
    if let Some(token) = credentials.map(|c| &c.registry_token).filter(|t| !t.is_empty()) {
        return Ok(Some(Secret::new(format!("Bearer {}", token.reveal()))).into());
    }
    if let Some(bearer) = challenges.iter().find(|c| c.scheme == "bearer") {
        return token(client, bearer, registry, credentials, scopes, login).await;
    }
    if challenges.iter().any(|c| c.scheme == "basic") {
        return Ok(credentials.filter(|c| !c.username.is_empty()).map(basic).into());
    }
    Ok(Granted::default())
}

/// `Authorization` of user and password.
pub(crate) fn basic(credentials: &Credentials) -> Secret {
    let pair = format!("{}:{}", credentials.username, credentials.password.reveal());
    Secret::new(format!("Basic {}", STANDARD.encode(pair)))
}

/// Asks the token server (distribution auth/token.md; auth/oauth.md with an identity token).
async fn token(
    client: &Client,
    challenge: &Challenge,
    registry: &Uri,
    credentials: Option<&Credentials>,
    scopes: &[String],
    login: bool,
) -> Result<Granted, DistributionError> {
    let odd = |what: String| DistributionError::Protocol { url: shown(registry), what };
    let realm = challenge.parameter("realm").ok_or_else(|| odd("authentication without realm".into()))?;
    let uri: Uri = realm.parse().map_err(|_| odd(format!("realm {realm:?}")))?;
    let plain = uri.scheme_str() == Some("http");
    if !plain && uri.scheme_str() != Some("https") {
        return Err(odd(format!("realm {realm:?}")));
    }
    let known = credentials.filter(|c| !c.is_anonymous());
    if known.is_some() && plain && registry.scheme_str() == Some("https") {
        return Err(odd(format!("it wants credentials sent in plain text to {}", shown(&uri))));
    }
    let service = challenge.parameter("service").unwrap_or_default();
    let request = match known {
        Some(c) if !c.identity_token.is_empty() => refresh_request(client, &uri, service, scopes, c),
        _ => token_request(client, &uri, service, scopes, known, login),
    };
    let request = request.map_err(|e| odd(format!("realm {realm:?}: {e}")))?;
    let host = uri.authority().map_or(String::new(), ToString::to_string);
    let insecure = client.config().is_insecure(&host);
    let answer = client.transport().send(request, Some(&host), insecure).await?;
    let (status, wait) = (answer.status(), retry_after(answer.headers()));
    let body = read_body(client, answer, MAX_TOKEN, &uri).await?;
    match status.as_u16() {
        200..=299 => parse_token(&body).ok_or_else(|| odd(format!("no token from {}", shown(&uri)))),
        401 | 403 | 400 => Err(DistributionError::Login { host, detail: detail(&body) }),
        429 => Err(DistributionError::RateLimited { url: shown(&uri), detail: detail(&body), wait }),
        status => Err(DistributionError::Status {
            method: "Get".into(),
            url: shown(&uri),
            status,
            detail: detail(&body),
        }),
    }
}

fn token_request(
    client: &Client,
    uri: &Uri,
    service: &str,
    scopes: &[String],
    credentials: Option<&Credentials>,
    login: bool,
) -> Result<Request<Body>, hyper::http::Error> {
    let mut query = uri.query().unwrap_or_default().to_owned();
    let mut add = |name: &str, value: &str| {
        if !query.is_empty() {
            query.push('&');
        }
        query.push_str(name);
        query.push('=');
        query.push_str(&escape(value));
    };
    if !service.is_empty() {
        add("service", service);
    }
    for scope in scopes {
        add("scope", scope);
    }
    if let Some(c) = credentials {
        add("account", &c.username);
        if login {
            add("offline_token", "true");
        }
    }
    let base = shown(uri);
    let mut request = Request::builder()
        .method(Method::GET)
        .uri(if query.is_empty() { base } else { format!("{base}?{query}") })
        .header(USER_AGENT, &client.config().user_agent);
    if let Some(c) = credentials {
        request = request.header(AUTHORIZATION, basic(c).reveal());
    }
    request.body(Empty::new().map_err(|e| match e {}).boxed_unsync())
}

fn refresh_request(
    client: &Client,
    uri: &Uri,
    service: &str,
    scopes: &[String],
    credentials: &Credentials,
) -> Result<Request<Body>, hyper::http::Error> {
    let fields = [
        ("grant_type", "refresh_token"),
        ("service", service),
        ("client_id", "hull"),
        ("scope", &scopes.join(" ")),
        ("refresh_token", credentials.identity_token.reveal()),
    ];
    let form = fields.map(|(name, value)| format!("{name}={}", escape(value))).join("&");
    Request::builder()
        .method(Method::POST)
        .uri(uri)
        .header(USER_AGENT, &client.config().user_agent)
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Full::from(form).map_err(|e| match e {}).boxed_unsync())
}

fn parse_token(body: &[u8]) -> Option<Granted> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        token: String,
        #[serde(default)]
        access_token: String,
        #[serde(default)]
        refresh_token: String,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let token = if answer.access_token.is_empty() { answer.token } else { answer.access_token };
    // Anything else could not be a header's value.
    let usable = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
    let identity = Some(answer.refresh_token).filter(|token| !token.is_empty()).map(Secret::new);
    usable.then(|| Granted { authorization: Some(Secret::new(format!("Bearer {token}"))), identity })
}

/// Percent-encodes all but unreserved characters (RFC 3986, section 2.3).
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(b as char),
            _ => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}
