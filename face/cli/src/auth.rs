//! Registry credentials: `auths` of config.json and credential helpers.

use std::io::Write;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use hull_docker_api::AuthConfig;
use hull_model::Reference;

use crate::config::Config;
use crate::error::{Failure, Result};

/// The key of Docker Hub's credentials.
pub(crate) const HUB: &str = "https://index.docker.io/v1/";

/// The key a registry's credentials are stored under.
pub(crate) fn key(registry: &str) -> &str {
    match registry {
        "" | "docker.io" | "index.docker.io" | "registry-1.docker.io" => HUB,
        registry => registry,
    }
}

/// `X-Registry-Auth` for a repository: credentials of its own, of a folder above it, or of its registry.
pub(crate) fn header_for(config: &Config, reference: &Reference) -> String {
    let mut place = format!("{}/{}", reference.domain(), reference.path());
    while place.contains('/') {
        let kept = |name: &str| config.value(name).and_then(|entries| entries.get(&place)).is_some();
        if (kept("auths") || kept("credHelpers"))
            && let Some(auth) = find(config, &place)
        {
            return encode(&auth);
        }
        place.truncate(place.rfind('/').unwrap_or(0));
    }
    encode(&find(config, key(reference.domain())).unwrap_or_default())
}

fn encode(auth: &AuthConfig) -> String {
    URL_SAFE.encode(serde_json::to_vec(auth).unwrap_or_default())
}

/// The stored credentials of a registry.
pub(crate) fn find(config: &Config, key: &str) -> Option<AuthConfig> {
    if let Some(helper) = helper_of(config, key) {
        return from_helper(&helper, key);
    }
    let stored = config.value("auths")?.as_object()?;
    let host = |text: &str| {
        let text = text.trim_start_matches("https://").trim_start_matches("http://");
        text.split('/').next().unwrap_or_default().to_owned()
    };
    let entry = stored.get(key).or_else(|| {
        let wanted = host(key);
        // Credentials of one repository are not those of its registry.
        let is_registry = |text: &str| {
            let text =
                text.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
            text.split_once('/').is_none_or(|(_, path)| matches!(path, "v1" | "v2"))
        };
        stored.iter().find(|(known, _)| is_registry(known) && host(known) == wanted).map(|(_, entry)| entry)
    })?;
    from_entry(entry, key)
}

fn from_entry(entry: &Value, key: &str) -> Option<AuthConfig> {
    let field = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut auth = AuthConfig {
        username: field("username"),
        password: field("password"),
        identitytoken: field("identitytoken"),
        registrytoken: field("registrytoken"),
        serveraddress: key.to_owned(),
        ..AuthConfig::default()
    };
    if let Ok(decoded) = STANDARD.decode(field("auth")) {
        let text = String::from_utf8_lossy(&decoded).trim_end_matches('\0').to_owned();
        if let Some((name, password)) = text.split_once(':') {
            (auth.username, auth.password) = (name.to_owned(), password.to_owned());
        }
    }
    let known = !auth.username.is_empty() || !auth.identitytoken.is_empty() || !auth.registrytoken.is_empty();
    known.then_some(auth)
}

/// Name of the helper that keeps a registry's credentials.
fn helper_of(config: &Config, key: &str) -> Option<String> {
    let own = config.value("credHelpers").and_then(|helpers| helpers.get(key)).and_then(Value::as_str);
    own.or_else(|| Some(config.text("credsStore")).filter(|name| !name.is_empty())).map(str::to_owned)
}

#[derive(Serialize, Deserialize)]
struct Secret {
    #[serde(rename = "ServerURL", default)]
    server: String,
    #[serde(rename = "Username", default)]
    username: String,
    #[serde(rename = "Secret", default)]
    secret: String,
}

fn from_helper(helper: &str, key: &str) -> Option<AuthConfig> {
    let answer = ask_helper(helper, "get", key.as_bytes()).ok()?;
    let secret: Secret = serde_json::from_slice(&answer).ok()?;
    let mut auth = AuthConfig { serveraddress: key.to_owned(), ..AuthConfig::default() };
    if secret.username == "<token>" {
        auth.identitytoken = secret.secret;
    } else {
        (auth.username, auth.password) = (secret.username, secret.secret);
    }
    Some(auth)
}

/// Stores credentials where the configuration says.
pub(crate) fn store(config: &mut Config, key: &str, auth: &AuthConfig) -> Result<()> {
    if let Some(helper) = helper_of(config, key) {
        let (username, secret) = match auth.identitytoken.is_empty() {
            true => (auth.username.clone(), auth.password.clone()),
            false => ("<token>".to_owned(), auth.identitytoken.clone()),
        };
        let secret = Secret { server: key.to_owned(), username, secret };
        return ask_helper(&helper, "store", &serde_json::to_vec(&secret)?).map(drop);
    }
    let text = match auth.identitytoken.is_empty() {
        true => format!("{}:{}", auth.username, auth.password),
        false => format!("{}:", auth.username),
    };
    let mut entry = serde_json::json!({ "auth": STANDARD.encode(text) });
    if !auth.identitytoken.is_empty() {
        entry["identitytoken"] = auth.identitytoken.clone().into();
    }
    config.object("auths").insert(key.to_owned(), entry);
    config.save()
}

/// Removes credentials; false when there were none.
pub(crate) fn erase(config: &mut Config, key: &str) -> Result<bool> {
    if let Some(helper) = helper_of(config, key) {
        ask_helper(&helper, "erase", key.as_bytes())?;
    }
    let found = config.object("auths").shift_remove(key).is_some();
    if found {
        config.save()?;
    }
    Ok(found)
}

/// Runs `docker-credential-<helper> <action>`; it tells its errors on standard output.
fn ask_helper(helper: &str, action: &str, input: &[u8]) -> Result<Vec<u8>> {
    let program = format!("docker-credential-{helper}");
    let failed = |reason: String| Failure::new(format!("error getting credentials - err: {reason}"));
    let mut child = Command::new(&program)
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(format!("exec: {program:?}: {error}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input).map_err(|error| failed(error.to_string()))?;
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(failed(format!(
            "{}, out: `{}`",
            output.status,
            String::from_utf8_lossy(&output.stdout).trim()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries() {
        let entry = serde_json::json!({"auth": STANDARD.encode("me:pa:ss")});
        let auth = from_entry(&entry, "r").unwrap();
        assert_eq!((auth.username.as_str(), auth.password.as_str()), ("me", "pa:ss"));
        assert!(from_entry(&serde_json::json!({}), "r").is_none());
        assert_eq!(key("docker.io"), HUB);
    }

    #[test]
    fn stored_credentials_are_found_by_host() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::load(directory.path()).unwrap();
        let auth = AuthConfig { username: "u".into(), password: "p".into(), ..AuthConfig::default() };
        store(&mut config, "https://r.example/v2/", &auth).unwrap();
        let config = Config::load(directory.path()).unwrap();
        assert_eq!(find(&config, "r.example").unwrap().password, "p");
        assert!(find(&config, "other.example").is_none());
    }

    #[test]
    fn a_repository_may_have_credentials_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::load(directory.path()).unwrap();
        let auth =
            |name: &str| AuthConfig { username: name.into(), password: "p".into(), ..AuthConfig::default() };
        for (place, user) in [("r.example/team", "team"), ("r.example/team/app", "app"), ("q.example", "all")]
        {
            store(&mut config, place, &auth(user)).unwrap();
        }
        let user = |name: &str| {
            let header = URL_SAFE.decode(header_for(&config, &name.parse().unwrap())).unwrap();
            serde_json::from_slice::<AuthConfig>(&header).unwrap().username
        };
        assert_eq!(user("r.example/team/app"), "app");
        assert_eq!(user("r.example/team/app/part"), "app");
        assert_eq!(user("r.example/team/other"), "team");
        assert_eq!(user("r.example/teams/app"), "");
        assert_eq!(user("q.example/any/thing"), "all");
        assert_eq!(user("busybox"), "");
    }
}
