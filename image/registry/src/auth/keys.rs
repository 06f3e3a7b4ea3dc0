//! Public keys that may sign tokens.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::signature;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;

use super::der;

/// A key that may sign tokens.
#[derive(Clone, Debug)]
pub struct Key {
    kind: Kind,
    /// Names a token may call it by.
    pub names: Vec<String>,
}

#[derive(Clone, Debug)]
enum Kind {
    /// RSAPublicKey, DER.
    Rsa(Vec<u8>),
    RsaParts {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// Why keys cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file.
    #[error("{0}")]
    Read(PathBuf, #[source] std::io::Error),
    /// What is in it.
    #[error("{0} has no public key or certificate that is understood (RSA, P-256, P-384, Ed25519)")]
    None(PathBuf),
    /// The set of keys.
    #[error("{0}")]
    Set(PathBuf, #[source] serde_json::Error),
}

const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
const ELLIPTIC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

impl Key {
    fn new(key: &der::PublicKey<'_>) -> Option<Self> {
        let bytes = key.key.to_vec();
        let kind = match (key.algorithm, key.curve) {
            (RSA, _) => Kind::Rsa(bytes),
            (ELLIPTIC, Some(P256)) => Kind::P256(bytes),
            (ELLIPTIC, Some(P384)) => Kind::P384(bytes),
            (ED25519, _) => Kind::Ed25519(bytes),
            _ => return None,
        };
        Some(Self { kind, names: vec![libtrust_name(key.info)] })
    }

    /// An Ed25519 key of this registry's own token server.
    pub(super) fn ed25519(public: &[u8], name: &str) -> Self {
        Self { kind: Kind::Ed25519(public.to_vec()), names: vec![name.to_owned()] }
    }

    /// Whether it signed that, by that algorithm of RFC 7518 section 3.1.
    pub fn verifies(&self, algorithm: &str, message: &[u8], signed: &[u8]) -> bool {
        let unparsed = |how: &'static dyn signature::VerificationAlgorithm, key: &[u8]| {
            signature::UnparsedPublicKey::new(how, key).verify(message, signed).is_ok()
        };
        match (&self.kind, algorithm) {
            (Kind::Rsa(key), _) => rsa(algorithm).is_some_and(|how| unparsed(how, key)),
            (Kind::RsaParts { n, e }, _) => rsa(algorithm).is_some_and(|how| {
                signature::RsaPublicKeyComponents { n, e }.verify(how, message, signed).is_ok()
            }),
            (Kind::P256(key), "ES256") => unparsed(&signature::ECDSA_P256_SHA256_FIXED, key),
            (Kind::P384(key), "ES384") => unparsed(&signature::ECDSA_P384_SHA384_FIXED, key),
            (Kind::Ed25519(key), "EdDSA") => unparsed(&signature::ED25519, key),
            _ => false,
        }
    }
}

fn rsa(algorithm: &str) -> Option<&'static signature::RsaParameters> {
    Some(match algorithm {
        "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
        "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
        "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
        "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
        "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
        "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

/// The name docker's token servers give a key: 30 bytes of its SHA-256 in base 32, in groups of four.
fn libtrust_name(info: &[u8]) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, info);
    let mut bits = 0u32;
    let mut held = 0;
    let mut name = String::new();
    for byte in &hash.as_ref()[..30] {
        bits = bits << 8 | u32::from(*byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            if name.len() % 5 == 4 {
                name.push(':');
            }
            name.push(char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[(bits >> held & 31) as usize]));
        }
    }
    name
}

/// Reads the keys of a file: certificates and public keys in PEM, or a JSON Web Key Set.
pub fn read_keys(path: &Path) -> Result<Vec<Key>, KeyError> {
    let text = std::fs::read(path).map_err(|e| KeyError::Read(path.to_owned(), e))?;
    let keys = if text.trim_ascii_start().starts_with(b"{") {
        let set: Set = serde_json::from_slice(&text).map_err(|e| KeyError::Set(path.to_owned(), e))?;
        set.keys.iter().filter_map(Jwk::key).collect::<Vec<_>>()
    } else {
        let certificates = CertificateDer::pem_slice_iter(&text).filter_map(Result::ok);
        let certified = certificates.filter_map(|c| der::certificate_key(&c).as_ref().and_then(Key::new));
        let blocks = public_blocks(&String::from_utf8_lossy(&text));
        let bare = blocks.into_iter().filter_map(|der| der::public_key(&der).as_ref().and_then(Key::new));
        certified.chain(bare).collect()
    };
    if keys.is_empty() { Err(KeyError::None(path.to_owned())) } else { Ok(keys) }
}

fn public_blocks(text: &str) -> Vec<Vec<u8>> {
    let parts = text.split("-----BEGIN PUBLIC KEY-----").skip(1);
    let bodies = parts.filter_map(|part| part.split_once("-----END PUBLIC KEY-----"));
    bodies.filter_map(|(body, _)| STANDARD.decode(body.split_whitespace().collect::<String>()).ok()).collect()
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Jwk>,
}

/// RFC 7517, RFC 7518 section 6, RFC 8037.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default)]
    crv: String,
    #[serde(default)]
    kid: String,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
    #[serde(default)]
    x: String,
    #[serde(default)]
    y: String,
}

impl Jwk {
    fn key(&self) -> Option<Key> {
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok();
        let point = || Some([vec![4], decode(&self.x)?, decode(&self.y)?].concat());
        let kind = match (self.kty.as_str(), self.crv.as_str()) {
            ("RSA", _) => Kind::RsaParts { n: decode(&self.n)?, e: decode(&self.e)? },
            ("EC", "P-256") => Kind::P256(point()?),
            ("EC", "P-384") => Kind::P384(point()?),
            ("OKP", "Ed25519") => Kind::Ed25519(decode(&self.x)?),
            _ => return None,
        };
        Some(Key { kind, names: vec![self.kid.clone()] })
    }
}
