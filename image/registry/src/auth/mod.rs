//! Who may do what.

mod der;
mod htpasswd;
mod keys;
mod token;

use std::path::PathBuf;
use std::time::Duration;

pub use htpasswd::{Htpasswd, hash_password};
pub use keys::{Key, KeyError, read_keys};
pub(crate) use token::scopes;
pub use token::{Claims, Grant, Issuer, Tokens};

use crate::error::{ApiError, Code};
use crate::http::Head;
use crate::name::{Name, matches};

/// What is done with a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Read.
    Pull,
    /// Add and change.
    Push,
    /// Take away.
    Delete,
}

impl Action {
    /// Its name in scopes and configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
        }
    }

    /// By its name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Pull, Self::Push, Self::Delete].into_iter().find(|action| action.as_str() == text)
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Nobody said.
    Anonymous,
    /// A user who gave the password.
    User(String),
    /// The bearer of a token.
    Bearer(Claims),
}

impl Caller {
    /// A name for the log.
    pub fn name(&self) -> &str {
        match self {
            Self::Anonymous => "-",
            Self::User(name) => name,
            Self::Bearer(claims) => &claims.subject,
        }
    }
}

/// One rule: these users may do this with these repositories.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Pattern of repositories.
    pub repositories: String,
    /// Users; `*` is everybody who logged in, `anonymous` everybody.
    pub users: Vec<String>,
    /// What they may do.
    pub actions: Vec<Action>,
}

/// Where logins are checked.
#[derive(Debug, Default)]
pub struct Auth {
    /// Users and passwords.
    pub htpasswd: Option<Htpasswd>,
    /// Tokens that somebody signed.
    pub tokens: Option<Tokens>,
    /// This registry's own token server.
    pub issuer: Option<Issuer>,
    /// Who may do what. Without rules everybody who logged in may do everything; without logins, everybody.
    pub rules: Vec<Rule>,
    /// Shown by clients that ask for a password.
    pub realm: String,
}

/// Settings of tokens.
#[derive(Clone, Debug)]
pub struct TokenSettings {
    /// Address of the token server.
    pub realm: String,
    /// What this registry is called there.
    pub service: String,
    /// Whose tokens are taken.
    pub issuer: String,
    /// Files with the public keys or certificates.
    pub keys: Vec<PathBuf>,
    /// How far clocks may differ.
    pub leeway: Duration,
}

impl Auth {
    /// Whether nobody needs to log in, and everybody may do everything.
    pub(crate) fn is_open(&self) -> bool {
        self.takes_everybody() && self.rules.is_empty()
    }

    fn takes_everybody(&self) -> bool {
        self.htpasswd.is_none() && self.tokens.is_none()
    }

    /// Finds out who asks; fails for credentials that are wrong.
    pub async fn caller(&self, head: &Head) -> Result<Caller, ApiError> {
        let Some(header) = head.header("authorization") else { return Ok(Caller::Anonymous) };
        if self.takes_everybody() {
            return Ok(Caller::Anonymous);
        }
        let (scheme, rest) = header.split_once(' ').unwrap_or((header, ""));
        let caller = if scheme.eq_ignore_ascii_case("basic") {
            self.user(rest.trim()).await?
        } else if scheme.eq_ignore_ascii_case("bearer") {
            self.tokens.as_ref().and_then(|tokens| tokens.verify(rest.trim())).map(Caller::Bearer)
        } else {
            None
        };
        caller.ok_or_else(|| ApiError::new(Code::Unauthorized, "the credentials are not valid"))
    }

    /// The user of basic credentials, if the password is right.
    async fn user(&self, credentials: &str) -> Result<Option<Caller>, ApiError> {
        use base64::Engine;
        let Some(htpasswd) = &self.htpasswd else { return Ok(None) };
        let decoded = base64::engine::general_purpose::STANDARD.decode(credentials).unwrap_or_default();
        let Some((name, password)) = std::str::from_utf8(&decoded).ok().and_then(|text| text.split_once(':'))
        else {
            return Ok(None);
        };
        Ok(htpasswd.check(name, password).await?.then(|| Caller::User(name.to_owned())))
    }

    /// Whether the caller may do that.
    pub fn allows(&self, caller: &Caller, repository: &Name, action: Action) -> bool {
        match caller {
            Caller::Bearer(claims) => claims.allows("repository", repository.as_str(), action.as_str()),
            Caller::User(name) => {
                self.rules.is_empty()
                    || self.rules.iter().any(|rule| rule.allows(Some(name), repository, action))
            }
            Caller::Anonymous => {
                self.is_open() || self.rules.iter().any(|rule| rule.allows(None, repository, action))
            }
        }
    }

    /// Whether the caller may see the catalog; what of it depends on what it may pull.
    pub fn allows_catalog(&self, caller: &Caller) -> bool {
        match caller {
            Caller::Bearer(claims) => claims.allows("registry", "catalog", "*"),
            Caller::User(_) => true,
            Caller::Anonymous => self.takes_everybody() || self.rules.iter().any(|rule| rule.has_user(None)),
        }
    }

    /// Whether the caller may see that this is a registry.
    pub fn allows_base(&self, caller: &Caller) -> bool {
        *caller != Caller::Anonymous || self.takes_everybody()
    }

    /// Fails unless the caller may do that.
    pub fn check(
        &self,
        caller: &Caller,
        repository: &Name,
        actions: &[Action],
        base: &str,
    ) -> Result<(), ApiError> {
        if actions.iter().all(|action| self.allows(caller, repository, *action)) {
            return Ok(());
        }
        let list: Vec<&str> = actions.iter().map(|action| action.as_str()).collect();
        let scope = format!("repository:{repository}:{}", list.join(","));
        Err(self.refusal(caller, &scope, base))
    }

    /// What somebody without the right is told: to log in, or, when that was done, that it is denied.
    pub fn refusal(&self, caller: &Caller, scope: &str, base: &str) -> ApiError {
        if matches!(caller, Caller::User(_)) {
            return ApiError::new(Code::Denied, "requested access to the resource is denied").detail(scope);
        }
        let error = match caller {
            Caller::Bearer(_) => "insufficient_scope",
            _ => "",
        };
        ApiError::new(Code::Unauthorized, "authentication required")
            .detail(scope)
            .header("WWW-Authenticate", self.challenge(scope, error, base))
    }

    /// How to log in. `base` is this registry's address as the client wrote it.
    pub fn challenge(&self, scope: &str, error: &str, base: &str) -> String {
        let Some(tokens) = &self.tokens else {
            return format!("Basic realm=\"{}\"", quoted(&self.realm));
        };
        let realm = tokens.realm.clone().unwrap_or_else(|| format!("{base}/auth/token"));
        let mut text = format!("Bearer realm=\"{}\",service=\"{}\"", quoted(&realm), quoted(&tokens.service));
        if !scope.is_empty() {
            text.push_str(&format!(",scope=\"{}\"", quoted(scope)));
        }
        if !error.is_empty() {
            text.push_str(&format!(",error=\"{error}\""));
        }
        text
    }
}

impl Rule {
    fn has_user(&self, user: Option<&str>) -> bool {
        self.users.iter().any(|known| match (known.as_str(), user) {
            ("anonymous", _) => true,
            ("*", user) => user.is_some(),
            (known, user) => user == Some(known),
        })
    }

    fn allows(&self, user: Option<&str>, repository: &Name, action: Action) -> bool {
        self.actions.contains(&action)
            && self.has_user(user)
            && matches(&self.repositories, repository.as_str())
    }
}

/// Text for a quoted string of a header.
fn quoted(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, '"' | '\\') && !c.is_control()).collect()
}

#[cfg(test)]
mod tests;
