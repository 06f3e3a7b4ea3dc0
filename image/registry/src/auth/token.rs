//! Bearer tokens: JSON Web Tokens of docker's registry token authentication.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::keys::Key;
use crate::error::ApiError;
use crate::store;

/// Longest token looked at, in bytes.
const TOKEN_MAX: usize = 16 << 10;
/// How long this registry's own tokens last.
const LIFETIME: i64 = 300;

/// What a token lets its bearer do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// `repository` or `registry`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Of that name.
    pub name: String,
    /// This.
    pub actions: Vec<String>,
}

/// A token that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// For whom it was made.
    pub subject: String,
    /// What it is for.
    pub access: Vec<Grant>,
}

impl Claims {
    pub(super) fn allows(&self, kind: &str, name: &str, action: &str) -> bool {
        let fits = |grant: &&Grant| grant.kind.split('(').next() == Some(kind) && grant.name == name;
        self.access.iter().filter(fits).any(|grant| grant.actions.iter().any(|a| a == action || a == "*"))
    }
}

/// Whose tokens are taken.
#[derive(Debug)]
pub struct Tokens {
    /// The token server; none is this registry's own.
    pub realm: Option<String>,
    /// What this registry is called.
    pub service: String,
    /// Who makes them.
    pub issuer: String,
    /// What they are signed with.
    pub keys: Vec<Key>,
    /// How far clocks may differ.
    pub leeway: Duration,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Body {
    iss: String,
    #[serde(default)]
    sub: String,
    aud: Audience,
    exp: f64,
    #[serde(default)]
    nbf: f64,
    #[serde(default)]
    access: Option<Vec<Grant>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Tokens {
    /// What the token grants, if it is genuine, for this registry, and its time is now.
    pub fn verify(&self, token: &str) -> Option<Claims> {
        self.verify_at(token, store::now())
    }

    pub(super) fn verify_at(&self, token: &str, now: i64) -> Option<Claims> {
        if token.len() > TOKEN_MAX {
            return None;
        }
        let (message, signed) = token.rsplit_once('.')?;
        let (header, body) = message.split_once('.')?;
        let signed = URL_SAFE_NO_PAD.decode(signed).ok()?;
        let header: Header = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        if header.crit.is_some() {
            return None;
        }
        // A key that is called by name is the only one that counts; names are not always said, or not ours.
        let named = |key: &&Key| header.kid.as_ref().is_some_and(|kid| key.names.contains(kid));
        let candidates: Vec<&Key> = match self.keys.iter().find(named) {
            Some(key) => vec![key],
            None => self.keys.iter().collect(),
        };
        if !candidates.iter().any(|key| key.verifies(&header.alg, message.as_bytes(), &signed)) {
            return None;
        }
        let body: Body = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).ok()?).ok()?;
        self.accept(body, now as f64)
    }

    fn accept(&self, body: Body, now: f64) -> Option<Claims> {
        let leeway = self.leeway.as_secs_f64();
        let for_us = match &body.aud {
            Audience::One(name) => *name == self.service,
            Audience::Many(names) => names.contains(&self.service),
        };
        let in_time = now < body.exp + leeway && now >= body.nbf - leeway;
        (for_us && in_time && body.iss == self.issuer)
            .then(|| Claims { subject: body.sub, access: body.access.unwrap_or_default() })
    }
}

/// This registry's own token server: signs what the rules allow a user.
pub struct Issuer {
    pair: Ed25519KeyPair,
    name: String,
    service: String,
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuer").field("service", &self.service).finish_non_exhaustive()
    }
}

impl Issuer {
    /// From a secret of 32 bytes.
    pub fn new(secret: &[u8], service: &str) -> Result<Self, ApiError> {
        let pair =
            Ed25519KeyPair::from_seed_unchecked(secret).map_err(|e| ApiError::internal(e.to_string()))?;
        let hash = ring::digest::digest(&ring::digest::SHA256, pair.public_key().as_ref());
        let name = URL_SAFE_NO_PAD.encode(&hash.as_ref()[..12]);
        Ok(Self { pair, name, service: service.to_owned() })
    }

    /// How its tokens are verified.
    pub fn tokens(&self, realm: Option<String>) -> Tokens {
        Tokens {
            realm,
            service: self.service.clone(),
            issuer: self.service.clone(),
            keys: vec![Key::ed25519(self.pair.public_key().as_ref(), &self.name)],
            leeway: Duration::from_secs(60),
        }
    }

    /// The answer to a request for a token.
    pub fn issue(&self, subject: &str, access: &[Grant]) -> Result<Value, ApiError> {
        let now = store::now();
        let mut id = [0; 12];
        store::random(&mut id)?;
        let header = serde_json::json!({ "typ": "JWT", "alg": "EdDSA", "kid": self.name });
        let body = serde_json::json!({
            "iss": self.service, "sub": subject, "aud": self.service, "exp": now + LIFETIME, "nbf": now, "iat": now,
            "jti": URL_SAFE_NO_PAD.encode(id), "access": access,
        });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(&header), encode(&body));
        let signed = URL_SAFE_NO_PAD.encode(self.pair.sign(message.as_bytes()).as_ref());
        let token = format!("{message}.{signed}");
        Ok(serde_json::json!({ "token": token, "access_token": token, "expires_in": LIFETIME }))
    }
}

/// The resources of a request's scopes: kind, name and actions.
pub(crate) fn scopes<'a>(parameters: impl Iterator<Item = std::borrow::Cow<'a, str>>) -> Vec<Grant> {
    let mut found = Vec::new();
    for text in parameters {
        for scope in text.split_whitespace().take(64) {
            // The name may have a colon, before a port.
            let Some((kind, rest)) = scope.split_once(':') else { continue };
            let Some((name, actions)) = rest.rsplit_once(':') else { continue };
            let actions = actions.split(',').filter(|a| !a.is_empty()).map(str::to_owned).collect();
            found.push(Grant { kind: kind.to_owned(), name: name.to_owned(), actions });
        }
    }
    found
}
