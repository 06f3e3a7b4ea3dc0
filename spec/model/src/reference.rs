use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{Digest, DigestError, is_lower_hex};

/// The registry meant when a name has none.
pub const DEFAULT_DOMAIN: &str = "docker.io";
/// The tag meant when a reference has neither tag nor digest.
pub const DEFAULT_TAG: &str = "latest";
const LEGACY_DOMAIN: &str = "index.docker.io";
const OFFICIAL_PREFIX: &str = "library/";
const NAME_MAX: usize = 255;

/// An image's name in full: registry, repository, and a tag, a digest, both or neither.
///
/// Parsed and shortened by the rules of Docker (github.com/distribution/reference, `ParseNormalizedNamed` and
/// `FamiliarString`). Displayed in full; [`Reference::familiar`] is the form users see.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no reference; texts are Docker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Does not match the grammar.
    #[error("invalid reference format")]
    Format,
    /// Nothing given.
    #[error("repository name must have at least one component")]
    Empty,
    /// Upper-case letters in the repository.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// Repository longer than 255 characters.
    #[error("repository name must not be more than {NAME_MAX} characters")]
    TooLong,
    /// 64 hex digits, which are an image's id.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    IsId(String),
    /// The digest is wrong.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl Reference {
    /// Like parsing, and a name without tag and digest means `latest`.
    pub fn parse_default_tag(text: &str) -> Result<Self, ReferenceError> {
        text.parse().map(Self::or_default_tag)
    }

    /// `latest` if it has neither tag nor digest.
    pub fn or_default_tag(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.into());
        }
        self
    }

    /// Registry: host and perhaps port (`docker.io`, `localhost:5000`).
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Repository within the registry (`library/nginx`).
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Tag if there is one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Digest if there is one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Whether it is a bare repository.
    pub fn is_name_only(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }

    /// `domain/path` in full.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The same repository without tag and digest.
    pub fn repository(&self) -> Self {
        Self { tag: None, digest: None, ..self.clone() }
    }

    /// The same repository with this tag and no digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        if !is_tag(tag) {
            return Err(ReferenceError::Format);
        }
        Ok(Self { tag: Some(tag.into()), digest: None, ..self.clone() })
    }

    /// The same repository with this digest and no tag.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// Without the digest, when there is a tag beside it.
    pub fn without_digest(&self) -> Self {
        Self { digest: None, ..self.clone() }
    }

    /// The repository as users write it: `nginx`, `grafana/grafana`, `quay.io/x/y`.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.name();
        }
        match self.path.strip_prefix(OFFICIAL_PREFIX) {
            Some(rest) if !rest.contains('/') => rest.into(),
            _ => self.path.clone(),
        }
    }

    /// The whole reference as users write it.
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_name())
    }

    fn with_suffix(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_str());
        }
        text
    }

    fn parse_canonical(text: &str) -> Result<Self, ReferenceError> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(parse_digest(digest)?)),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|t| !is_tag(t)) {
            return Err(ReferenceError::Format);
        }
        let (domain, path) = name.split_once('/').ok_or(ReferenceError::Format)?;
        if !is_domain(domain) || !path.split('/').all(is_path_component) {
            return Err(ReferenceError::Format);
        }
        if path.len() > NAME_MAX {
            return Err(ReferenceError::TooLong);
        }
        Ok(Self { domain: domain.into(), path: path.into(), tag: tag.map(Into::into), digest })
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if text.len() == 64 && is_lower_hex(text) {
            return Err(ReferenceError::IsId(text.into()));
        }
        let (domain, remainder) = split_domain(text);
        let repository = remainder.split(':').next().unwrap_or_default();
        if repository.chars().any(char::is_uppercase) {
            return Err(ReferenceError::Uppercase(repository.into()));
        }
        Self::parse_canonical(&format!("{domain}/{remainder}"))
    }
}

/// The part before the first slash is a registry when it could not be a user of the default one.
fn split_domain(text: &str) -> (&str, String) {
    let (domain, remainder) = match text.split_once('/') {
        None => (DEFAULT_DOMAIN, text),
        Some((LEGACY_DOMAIN, rest)) => (DEFAULT_DOMAIN, rest),
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first.chars().any(char::is_uppercase) =>
        {
            (first, rest)
        }
        Some(_) => (DEFAULT_DOMAIN, text),
    };
    if domain == DEFAULT_DOMAIN && !remainder.contains('/') {
        return (domain, format!("{OFFICIAL_PREFIX}{remainder}"));
    }
    (domain, remainder.into())
}

/// The grammar wants 32 hex digits or more of any algorithm; only then does the digest's own check speak.
fn parse_digest(text: &str) -> Result<Digest, ReferenceError> {
    let (algorithm, hex) = text.split_once(':').ok_or(ReferenceError::Format)?;
    let component = |c: &str| {
        c.starts_with(|b: char| b.is_ascii_alphabetic()) && c.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    let grammar = algorithm.split(['-', '_', '+', '.']).all(component)
        && hex.len() >= 32
        && hex.bytes().all(|b| b.is_ascii_hexdigit());
    if !grammar {
        return Err(ReferenceError::Format);
    }
    Ok(text.parse()?)
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = text.as_bytes();
    (1..=128).contains(&bytes.len()) && word(bytes[0]) && bytes.iter().all(|b| word(*b) || b".-".contains(b))
}

fn is_domain(text: &str) -> bool {
    let (host, port) = if text.starts_with('[') {
        match text.split_once(']') {
            Some((host, "")) => (host, None),
            Some((host, rest)) => match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None => return false,
            },
            None => return false,
        }
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    if port.is_some_and(|p| p.is_empty() || !p.bytes().all(|b| b.is_ascii_digit())) {
        return false;
    }
    match host.strip_prefix('[') {
        Some(v6) => !v6.is_empty() && v6.bytes().all(|b| b.is_ascii_hexdigit() || b == b':'),
        None => host.split('.').all(is_domain_component),
    }
}

fn is_domain_component(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// Runs of `[a-z0-9]` joined by one of `.`, `_`, `__` or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let alnum = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let edges = bytes.first().is_some_and(alnum) && bytes.last().is_some_and(alnum);
    edges
        && bytes.split(alnum).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-')
        })
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffix(self.name()))
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|e| serde::de::Error::custom(format_args!("reference {text:?}: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

    fn parse(text: &str) -> Result<Reference, ReferenceError> {
        text.parse()
    }

    /// Cases of the reference library's normalize_test.go.
    #[test]
    fn normalises_like_docker() {
        for (text, full, familiar) in [
            ("nginx", "docker.io/library/nginx", "nginx"),
            ("library/nginx", "docker.io/library/nginx", "nginx"),
            ("docker.io/library/nginx", "docker.io/library/nginx", "nginx"),
            ("index.docker.io/nginx", "docker.io/library/nginx", "nginx"),
            ("docker.io/fooo/bar", "docker.io/fooo/bar", "fooo/bar"),
            ("library/foo/bar", "docker.io/library/foo/bar", "library/foo/bar"),
            ("localhost/foo", "localhost/foo", "localhost/foo"),
            ("localhost:5000/foo", "localhost:5000/foo", "localhost:5000/foo"),
            ("Docker/docker", "Docker/docker", "Docker/docker"),
            ("127.0.0.1:5000/docker/docker", "127.0.0.1:5000/docker/docker", "127.0.0.1:5000/docker/docker"),
            ("[2001:db8::1]:5000/a", "[2001:db8::1]:5000/a", "[2001:db8::1]:5000/a"),
            ("[::1]/a:t", "[::1]/a:t", "[::1]/a:t"),
            ("foo_bar.com:8080/a", "", ""),
            ("docker/docker", "docker.io/docker/docker", "docker/docker"),
            ("xn--n3h.com/a", "xn--n3h.com/a", "xn--n3h.com/a"),
            ("test.com:5000", "docker.io/library/test.com:5000", "test.com:5000"),
            ("a__b/c---d:Tag.1-x", "docker.io/a__b/c---d:Tag.1-x", "a__b/c---d:Tag.1-x"),
        ] {
            match parse(text) {
                Ok(r) => {
                    assert_eq!((r.to_string().as_str(), r.familiar().as_str()), (full, familiar), "{text}")
                }
                Err(e) => assert!(full.is_empty(), "{text}: {e}"),
            }
        }
    }

    #[test]
    fn tag_and_digest() {
        let r = parse(&format!("quay.io/a/b:v1@sha256:{HEX}")).unwrap();
        assert_eq!((r.domain(), r.path(), r.tag()), ("quay.io", "a/b", Some("v1")));
        assert_eq!(r.digest().unwrap().hex(), HEX);
        assert_eq!(r.repository().to_string(), "quay.io/a/b");
        assert_eq!(Reference::parse_default_tag("a").unwrap().to_string(), "docker.io/library/a:latest");
        let digested = Reference::parse_default_tag(&format!("a@sha256:{HEX}")).unwrap();
        assert_eq!(digested.tag(), None);
        assert!(r.with_tag("bad tag").is_err());
    }

    #[test]
    fn refuses_with_dockers_words() {
        let long = "a/".repeat(128) + "a";
        let too_long_tag = format!("a:{}", "t".repeat(129));
        for (text, message) in [
            ("", "repository name must have at least one component"),
            ("Nginx", "invalid reference format: repository name (library/Nginx) must be lowercase"),
            ("a/B:t", "invalid reference format: repository name (a/B) must be lowercase"),
            (":justtag", "invalid reference format"),
            ("-foo/bar", "invalid reference format"),
            ("foo-/bar", "invalid reference format"),
            ("foo//bar", "invalid reference format"),
            ("foo/", "invalid reference format"),
            ("foo/.bar", "invalid reference format"),
            ("foo._bar", "invalid reference format"),
            ("foo___bar", "invalid reference format"),
            ("docker.io/docker/docker@", "invalid reference format"),
            ("a@sha256:ffff", "invalid reference format"),
            ("a@sha256:ffffffffffffffffffffffffffffffffff", "invalid checksum digest length"),
            ("a@foo:ffffffffffffffffffffffffffffffffffff", "unsupported digest algorithm"),
            ("a b", "invalid reference format"),
            ("a\n", "invalid reference format"),
            ("../etc/passwd", "invalid reference format"),
            (&too_long_tag, "invalid reference format"),
            (&long, "repository name must not be more than 255 characters"),
            (HEX, &format!("invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings")),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn displayed_parses_to_the_same(text in "([a-zA-Z.:0-9-]{1,9}/)?[a-z0-9._/-]{1,12}(:[a-zA-Z0-9_.-]{1,8})?") {
            if let Ok(r) = parse(&text) {
                prop_assert_eq!(&parse(&r.to_string()).unwrap(), &r);
                prop_assert_eq!(&parse(&r.familiar()).unwrap(), &r);
            }
        }

        #[test]
        fn any_text_parses_or_fails(text in ".{0,80}") {
            let _ = parse(&text);
        }
    }
}
