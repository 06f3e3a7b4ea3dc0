//! docker's configuration directory: `config.json` and contexts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Failure, Result};

/// `config.json`. Keys Hull does not know are kept when the file is written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    path: PathBuf,
    values: Map<String, Value>,
}

impl Config {
    /// Reads `config.json` of a directory; a missing file is an empty configuration.
    pub(crate) fn load(directory: &Path) -> Result<Self> {
        let path = directory.join("config.json");
        let values = match std::fs::read(&path) {
            Ok(bytes) if bytes.trim_ascii().is_empty() => Map::new(),
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                Failure::new(format!("error loading config file: {}: {error}", path.display()))
            })?,
            Err(_) => Map::new(),
        };
        Ok(Self { path, values })
    }

    /// A text setting, empty when absent.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.values.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// A setting of any shape.
    pub(crate) fn value(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// A setting that is an object, made when absent.
    pub(crate) fn object(&mut self, key: &str) -> &mut Map<String, Value> {
        let entry = self.values.entry(key.to_owned()).or_insert_with(|| Value::Object(Map::new()));
        if !entry.is_object() {
            *entry = Value::Object(Map::new());
        }
        match entry {
            Value::Object(map) => map,
            // It was made an object above.
            _ => unreachable!("config entry is an object"),
        }
    }

    /// Sets or removes a text setting.
    pub(crate) fn set(&mut self, key: &str, value: Option<&str>) {
        match value {
            Some(value) => {
                self.values.insert(key.to_owned(), value.into());
            }
            None => {
                self.values.shift_remove(key);
            }
        }
    }

    /// Writes the file: a new file moved over the old one, readable by its owner only.
    pub(crate) fn save(&self) -> Result<()> {
        let mut text = serde_json::to_string_pretty(&self.values)?.replace("\n  ", "\n\t");
        text.push('\n');
        if let Some(directory) = self.path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        write_private(&self.path, text.as_bytes())
    }

    /// Headers for every request.
    pub(crate) fn http_headers(&self) -> Vec<(String, String)> {
        let headers = self.values.get("HttpHeaders").and_then(Value::as_object);
        headers
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .collect()
    }

    /// Proxy settings for containers as `(variable, value)`.
    pub(crate) fn proxies(&self, host: &str) -> Vec<(String, String)> {
        const NAMES: &[(&str, &str)] = &[
            ("httpProxy", "HTTP_PROXY"),
            ("httpsProxy", "HTTPS_PROXY"),
            ("noProxy", "NO_PROXY"),
            ("ftpProxy", "FTP_PROXY"),
            ("allProxy", "ALL_PROXY"),
        ];
        let Some(proxies) = self.values.get("proxies") else {
            return Vec::new();
        };
        let Some(settings) = proxies.get(host).or_else(|| proxies.get("default")) else {
            return Vec::new();
        };
        let mut variables = Vec::new();
        for (key, name) in NAMES {
            if let Some(value) = settings.get(*key).and_then(Value::as_str).filter(|value| !value.is_empty())
            {
                variables.push(((*name).to_owned(), value.to_owned()));
                variables.push((name.to_lowercase(), value.to_owned()));
            }
        }
        variables
    }
}

/// Replaces a file atomically; only its owner may read it.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    Ok(())
}

/// The configuration directory: `--config`, `DOCKER_CONFIG`, `~/.docker`.
pub(crate) fn directory(flag: &str) -> PathBuf {
    if !flag.is_empty() {
        return PathBuf::from(flag);
    }
    match std::env::var_os("DOCKER_CONFIG").filter(|value| !value.is_empty()) {
        Some(directory) => PathBuf::from(directory),
        None => home().join(".docker"),
    }
}

/// The user's home directory.
pub(crate) fn home() -> PathBuf {
    std::env::var_os("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from)
}

/// `meta.json` of a context.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ContextMeta {
    #[serde(rename = "Name")]
    pub(crate) name: String,
    #[serde(rename = "Metadata", default)]
    pub(crate) metadata: Map<String, Value>,
    #[serde(rename = "Endpoints", default)]
    pub(crate) endpoints: BTreeMap<String, ContextEndpoint>,
}

/// An endpoint of a context.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ContextEndpoint {
    #[serde(rename = "Host", default, skip_serializing_if = "String::is_empty")]
    pub(crate) host: String,
    #[serde(rename = "SkipTLSVerify", default)]
    pub(crate) skip_tls_verify: bool,
}

impl ContextMeta {
    pub(crate) fn description(&self) -> &str {
        self.metadata.get("Description").and_then(Value::as_str).unwrap_or_default()
    }

    /// The engine's address.
    pub(crate) fn host(&self) -> &str {
        self.endpoints.get("docker").map_or("", |endpoint| endpoint.host.as_str())
    }
}

/// The contexts below a configuration directory.
pub(crate) struct ContextStore {
    root: PathBuf,
}

impl ContextStore {
    pub(crate) fn new(config_directory: &Path) -> Self {
        Self { root: config_directory.join("contexts") }
    }

    /// Directory of a context's description.
    pub(crate) fn meta_directory(&self, name: &str) -> PathBuf {
        self.root.join("meta").join(digest(name))
    }

    /// Directory of a context's certificates.
    pub(crate) fn tls_directory(&self, name: &str) -> PathBuf {
        self.root.join("tls").join(digest(name))
    }

    pub(crate) fn find(&self, name: &str) -> Result<ContextMeta> {
        let missing = || {
            Failure::new(format!(
                "context {name:?}: context not found: open {}: no such file or directory",
                self.meta_directory(name).join("meta.json").display()
            ))
        };
        let bytes = std::fs::read(self.meta_directory(name).join("meta.json")).map_err(|_| missing())?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    pub(crate) fn list(&self) -> Vec<ContextMeta> {
        let entries = std::fs::read_dir(self.root.join("meta")).into_iter().flatten().flatten();
        let mut contexts: Vec<ContextMeta> = entries
            .filter_map(|entry| std::fs::read(entry.path().join("meta.json")).ok())
            .filter_map(|bytes| serde_json::from_slice(&bytes).ok())
            .collect();
        contexts.sort_by(|a, b| a.name.cmp(&b.name));
        contexts
    }

    pub(crate) fn save(&self, context: &ContextMeta) -> Result<()> {
        let directory = self.meta_directory(&context.name);
        std::fs::create_dir_all(&directory)?;
        write_private(&directory.join("meta.json"), &serde_json::to_vec(context)?)
    }

    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        self.find(name)?;
        std::fs::remove_dir_all(self.meta_directory(name))?;
        match std::fs::remove_dir_all(self.tls_directory(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// A context's directory name: SHA-256 of its name.
fn digest(name: &str) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(name.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_settings_survive_a_change() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("config.json"), r#"{"z":1,"psFormat":"x","a":{"b":2}}"#)
            .unwrap();
        let mut config = Config::load(directory.path()).unwrap();
        assert_eq!(config.text("psFormat"), "x");
        config.object("auths").insert("r".into(), "y".into());
        config.set("currentContext", Some("c"));
        config.save().unwrap();
        let text = std::fs::read_to_string(directory.path().join("config.json")).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"z":1,"psFormat":"x","a":{"b":2},"auths":{"r":"y"},"currentContext":"c"})
        );
    }

    #[test]
    fn contexts_are_found_by_the_digest_of_their_name() {
        let directory = tempfile::tempdir().unwrap();
        let store = ContextStore::new(directory.path());
        let endpoint = ContextEndpoint { host: "tcp://h:1".into(), skip_tls_verify: false };
        let meta = ContextMeta {
            name: "a".into(),
            endpoints: [("docker".to_owned(), endpoint)].into(),
            ..Default::default()
        };
        store.save(&meta).unwrap();
        let path = "contexts/meta/ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb/meta.json";
        assert!(directory.path().join(path).exists());
        assert_eq!(store.find("a").unwrap().host(), "tcp://h:1");
        store.remove("a").unwrap();
        assert!(store.find("a").unwrap_err().message.starts_with("context \"a\": context not found"));
    }
}
