//! Where images come from: mirrors, rewrites, aliases and blocks, as an administrator writes them in TOML.

use std::path::PathBuf;

use hull_model::{DEFAULT_DOMAIN, Reference};
use serde::Deserialize;

/// Rules for registries; see `docs/registries.md` for the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registries {
    /// As written; the longest matching prefix decides.
    pub rules: Vec<RegistryRule>,
    /// Names without a registry are refused, but for aliases.
    pub refuse_short_names: bool,
}

/// What applies to all repositories below a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RegistryRule {
    /// `host[:port]`, `host[:port]/path`, or `*.host` for all hosts below.
    pub prefix: String,
    /// What stands for the prefix when the registry is asked; the image keeps its name.
    #[serde(default)]
    pub location: Option<String>,
    /// Nothing is pulled from or pushed to it.
    #[serde(default)]
    pub blocked: bool,
    /// Plain HTTP, or any certificate, is accepted.
    #[serde(default)]
    pub insecure: bool,
    /// Asked before it, in order, for pulls.
    #[serde(default)]
    pub mirrors: Vec<Mirror>,
    /// Whether a user's credentials for the prefix are sent to `location` as well.
    #[serde(default)]
    pub credentials: bool,
    /// Files of certificate authorities that may sign the registry's certificate, PEM.
    #[serde(default)]
    pub ca: Vec<PathBuf>,
    /// File of the certificate to show, PEM.
    #[serde(default)]
    pub client_cert: Option<PathBuf>,
    /// File of its key, PEM.
    #[serde(default)]
    pub client_key: Option<PathBuf>,
}

/// A place that holds copies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "MirrorText")]
pub struct Mirror {
    /// `[http[s]://]host[:port][/path]`: what stands for the prefix.
    pub location: String,
    /// Plain HTTP, or any certificate, is accepted.
    pub insecure: bool,
    /// It fetches what it lacks, and is told from where (`ns=host`, as containerd does).
    pub pull_through: bool,
    /// Only asked for digests: its tags may be old.
    pub digest_only: bool,
    /// Whether a user's credentials for the prefix are sent to it as well.
    pub credentials: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum MirrorText {
    Plain(String),
    Table(MirrorTable),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct MirrorTable {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_through: bool,
    #[serde(default)]
    digest_only: bool,
    #[serde(default)]
    credentials: bool,
}

impl From<MirrorText> for Mirror {
    fn from(text: MirrorText) -> Self {
        match text {
            MirrorText::Plain(location) => Self { location, ..Self::default() },
            MirrorText::Table(MirrorTable { location, insecure, pull_through, digest_only, credentials }) => {
                Self { location, insecure, pull_through, digest_only, credentials }
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    short_names: Option<String>,
    #[serde(default)]
    aliases: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    registry: Vec<RegistryRule>,
}

/// Why a configuration of registries is of no use.
#[derive(Debug, thiserror::Error)]
pub enum RegistriesError {
    /// Not TOML, or a key nobody knows.
    #[error("{0}")]
    Toml(String),
    /// A name or place that is none.
    #[error("{key} = {value:?}: {reason}")]
    Value {
        /// Of which key.
        key: &'static str,
        /// As written.
        value: String,
        /// What is wrong.
        reason: String,
    },
}

impl Registries {
    /// Reads the text of a `registries.toml`.
    ///
    /// # Errors
    /// TOML errors with their line, unknown keys, places that are none, the same prefix twice.
    pub fn parse(text: &str) -> Result<Self, RegistriesError> {
        let file: File = toml::from_str(text).map_err(|e| RegistriesError::Toml(e.to_string()))?;
        let mut rules = file.registry;
        for (alias, target) in &file.aliases {
            let reference: Reference = alias.parse().map_err(|e| value("aliases", alias, &e))?;
            let short = reference.familiar_name() == *alias && !has_registry(alias);
            if !short {
                return Err(value("aliases", alias, &"an alias is a name without registry, tag and digest"));
            }
            rules.push(rewrite(reference.name(), target));
        }
        let mut refuse_short_names = false;
        match file.short_names.as_deref() {
            None | Some(DEFAULT_DOMAIN) => {}
            Some("refuse") => refuse_short_names = true,
            Some(place) => {
                rules.push(rewrite(format!("{DEFAULT_DOMAIN}/library"), place));
                rules.push(rewrite(DEFAULT_DOMAIN.to_owned(), place));
            }
        }
        rules.iter().try_for_each(check_rule)?;
        for (index, rule) in rules.iter().enumerate() {
            if rules[..index].iter().any(|other| other.prefix == rule.prefix) {
                return Err(value("prefix", &rule.prefix, &"there is another rule for it"));
            }
        }
        Ok(Self { rules, refuse_short_names })
    }

    /// The rule for a repository.
    pub(crate) fn rule(&self, repository: &Reference) -> Option<&RegistryRule> {
        let name = format!("{}/{}", repository.domain(), repository.path());
        self.rules
            .iter()
            .filter(|rule| matches(&rule.prefix, &name, repository.domain()))
            .max_by_key(|rule| rule.prefix.len())
    }

    /// Whether a name as a user wrote it may be pulled: it names its registry, or an alias does.
    pub fn allows(&self, written: &str, reference: &Reference) -> bool {
        !self.refuse_short_names || has_registry(written) || self.rule(reference).is_some()
    }

    /// Whether that host (`host[:port]`) may be plain HTTP or have any certificate.
    pub(crate) fn is_insecure(&self, domain: &str) -> bool {
        let host_of = |prefix: &str| prefix.split('/').next().unwrap_or(prefix).to_owned();
        self.rules.iter().any(|rule| {
            let own = rule.insecure
                && rule.location.is_none()
                && (host_of(&rule.prefix) == domain || matches(&rule.prefix, domain, domain));
            let moved = rule.insecure && rule.location.as_deref().is_some_and(|l| host_of(l) == domain);
            own || moved
        })
    }
}

fn rewrite(prefix: String, location: &str) -> RegistryRule {
    RegistryRule { prefix, location: Some(location.to_owned()), ..RegistryRule::default() }
}

fn value(key: &'static str, value: &str, reason: &dyn std::fmt::Display) -> RegistriesError {
    RegistriesError::Value { key, value: value.to_owned(), reason: reason.to_string() }
}

fn check_rule(rule: &RegistryRule) -> Result<(), RegistriesError> {
    let ok = match rule.prefix.strip_prefix("*.") {
        Some(parent) => is_place(&format!("x.{parent}")) && !parent.contains('/'),
        None => is_place(&rule.prefix),
    };
    if !ok {
        return Err(value("prefix", &rule.prefix, &"it is neither host[:port][/path] nor *.host"));
    }
    if let Some(location) = &rule.location
        && (!is_place(location) || rule.prefix.starts_with("*."))
    {
        return Err(value("location", location, &"it is no host[:port][/path] for a prefix without star"));
    }
    if rule.client_cert.is_some() != rule.client_key.is_some() {
        return Err(value("prefix", &rule.prefix, &"client-cert and client-key go together"));
    }
    for mirror in &rule.mirrors {
        if !is_place(split_scheme(&mirror.location).1) {
            return Err(value("mirrors", &mirror.location, &"it is no [http[s]://]host[:port][/path]"));
        }
    }
    Ok(())
}

/// `(https, host/path)`.
pub(crate) fn split_scheme(location: &str) -> (Option<&str>, &str) {
    match location.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest.trim_end_matches('/')),
        None => (None, location.trim_end_matches('/')),
    }
}

/// `host[:port][/path]` whose first part can only be a host.
fn is_place(text: &str) -> bool {
    let mut parts = text.split('/');
    let host = parts.next().unwrap_or_default();
    let host_like = !host.is_empty()
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]_".contains(&b))
        && (host.contains(['.', ':']) || host == "localhost");
    host_like
        && parts.all(|part| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        })
}

/// Whether a name as written begins with a registry (docker's rule: a dot, a colon, or `localhost`).
fn has_registry(written: &str) -> bool {
    written.split_once('/').is_some_and(|(first, _)| first.contains(['.', ':']) || first == "localhost")
}

fn matches(prefix: &str, name: &str, domain: &str) -> bool {
    if let Some(parent) = prefix.strip_prefix("*.") {
        let host = crate::config::host_of(domain);
        return host.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'));
    }
    name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule_of<'a>(registries: &'a Registries, name: &str) -> Option<&'a str> {
        registries.rule(&name.parse().unwrap()).map(|rule| rule.prefix.as_str())
    }

    #[test]
    fn the_longest_prefix_decides() {
        let registries = Registries::parse(
            r#"
            [aliases]
            fedora = "registry.fedoraproject.org/fedora"
            [[registry]]
            prefix = "docker.io"
            mirrors = ["https://mirror.example", { location = "cache.example:5000/hub", pull-through = true }]
            [[registry]]
            prefix = "docker.io/team"
            blocked = true
            [[registry]]
            prefix = "*.internal"
            insecure = true
            "#,
        )
        .unwrap();
        for (name, prefix) in [
            ("busybox", Some("docker.io")),
            ("team/app", Some("docker.io/team")),
            ("teams/app", Some("docker.io")),
            ("fedora", Some("docker.io/library/fedora")),
            ("a.internal:5000/x", Some("*.internal")),
            ("internal.example/x", None),
        ] {
            assert_eq!(rule_of(&registries, name), prefix, "{name}");
        }
        assert!(registries.rules[0].mirrors[1].pull_through);
        assert!(registries.is_insecure("a.internal:5000") && !registries.is_insecure("docker.io"));
    }

    #[test]
    fn short_names() {
        let refusing = Registries::parse("short-names = \"refuse\"\n[aliases]\nx = \"q.io/x\"").unwrap();
        let allows = |name: &str| refusing.allows(name, &name.parse().unwrap());
        assert!(
            !allows("busybox") && !allows("team/app") && allows("docker.io/library/busybox") && allows("x")
        );
        let moved = Registries::parse("short-names = \"reg.example:5000/team\"").unwrap();
        assert_eq!(rule_of(&moved, "busybox"), Some("docker.io/library"));
        assert_eq!(rule_of(&moved, "a/b"), Some("docker.io"));
        assert_eq!(rule_of(&moved, "quay.io/a/b"), None);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, message) in [
            ("mirror = 1", "unknown field `mirror`"),
            ("[[registry]]\nprefix = \"x\"", "neither host"),
            ("[[registry]]\nprefix = \"q.io\"\nlocation = \"http://x\"", "no host"),
            ("[[registry]]\nprefix = \"q.io\"\n[[registry]]\nprefix = \"q.io\"", "another rule"),
            ("[[registry]]\nprefix = \"q.io\"\nclient-cert = \"x\"", "go together"),
            ("[[registry]]\nprefix = \"q.io\"\nmirrors = [\"ftp//x\"]", "mirrors"),
            ("[aliases]\n\"q.io/x\" = \"q.io/y\"", "alias is a name"),
            ("short-names = \"what\"", "no host"),
        ] {
            let error = Registries::parse(text).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }
}
