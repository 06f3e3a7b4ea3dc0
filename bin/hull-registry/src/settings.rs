//! File, environment and flags become one configuration: flags count before the environment, and that before the file.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use hull_registry_server::config::Config;
use toml::{Table, Value};

use crate::flags::{Common, Serve};

const FILE: &str = "/etc/hull/registry.toml";
const PREFIX: &str = "HULL_REGISTRY_";

/// Settings that the environment may have, as their path in the file. `HULL_REGISTRY_AUTH_TOKEN_SERVICE` is
/// `auth.token.service`.
const SETTINGS: &[&str] = &[
    "listen",
    "root",
    "url",
    "read-only",
    "delete",
    "sparse",
    "tls.certificate",
    "tls.key",
    "log.level",
    "log.access",
    "log.format",
    "limits.manifest-size",
    "limits.blob-size",
    "limits.connections",
    "limits.head-size",
    "limits.head-time",
    "limits.idle-time",
    "limits.body-time",
    "limits.upload-time",
    "auth.realm",
    "auth.htpasswd",
    "auth.token.service",
    "auth.token.realm",
    "auth.token.issuer",
    "auth.token.keys",
    "auth.token.leeway",
    "gc.interval",
    "gc.grace",
    "gc.untagged",
    "metrics.listen",
];

/// Settings that are lists.
const LISTS: [&str; 2] = ["listen", "auth.token.keys"];

/// The configuration of a command that serves.
pub(crate) fn serving(flags: &Serve) -> Result<Config> {
    let mut table = table(&flags.common)?;
    if !flags.listen.is_empty() {
        let list = flags.listen.iter().cloned().map(Value::String).collect();
        put(&mut table, "listen", Value::Array(list))?;
    }
    let path = |path: &PathBuf| Value::String(path.to_string_lossy().into_owned());
    for (setting, value) in [
        ("tls.certificate", flags.tls_certificate.as_ref().map(path)),
        ("tls.key", flags.tls_key.as_ref().map(path)),
        ("auth.htpasswd", flags.htpasswd.as_ref().map(path)),
        ("log.access", flags.access_log.clone().map(Value::String)),
        ("read-only", flags.read_only.then_some(Value::Boolean(true))),
    ] {
        if let Some(value) = value {
            put(&mut table, setting, value)?;
        }
    }
    if let Some(url) = &flags.upstream {
        let mut upstream = Table::new();
        upstream.insert("prefix".into(), Value::String(String::new()));
        upstream.insert("url".into(), Value::String(url.clone()));
        match table.entry("upstream").or_insert_with(|| Value::Array(Vec::new())) {
            Value::Array(list) => list.push(Value::Table(upstream)),
            _ => bail!("upstream in the configuration file is no list of tables ([[upstream]])"),
        }
    }
    finish(table)
}

/// The configuration of a command that only needs the files.
pub(crate) fn common(flags: &Common) -> Result<Config> {
    finish(table(flags)?)
}

fn finish(table: Table) -> Result<Config> {
    let text = toml::to_string(&table).context("settings")?;
    match toml::from_str::<Config>(&text) {
        Ok(config) => Ok(config),
        Err(error) => bail!("environment or flags: {}", error.message()),
    }
}

fn table(flags: &Common) -> Result<Table> {
    let mut table = read_file(flags.config.as_deref())?;
    read_environment(&mut table)?;
    for setting in &flags.set {
        let (name, value) =
            setting.split_once('=').with_context(|| format!("--set {setting}: no \"=\" in it"))?;
        if !SETTINGS.contains(&name) {
            bail!(
                "--set {setting}: there is no setting {name:?}; those that can be set so are {}",
                SETTINGS.join(", ")
            );
        }
        put(&mut table, name, parsed(name, value)).with_context(|| format!("--set {setting}"))?;
    }
    if let Some(root) = &flags.root {
        put(&mut table, "root", Value::String(root.to_string_lossy().into_owned()))?;
    }
    Ok(table)
}

/// The file's settings. The file is checked by itself, so that an error tells its line.
fn read_file(named: Option<&Path>) -> Result<Table> {
    let path = named.unwrap_or(Path::new(FILE));
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && named.is_none() => return Ok(Table::new()),
        Err(e) => return Err(e).with_context(|| format!("configuration file {}", path.display())),
    };
    let problem = |error: toml::de::Error| anyhow::anyhow!("configuration file {}: {error}", path.display());
    toml::from_str::<Config>(&text).map_err(problem)?;
    toml::from_str::<Table>(&text).map_err(problem)
}

fn read_environment(table: &mut Table) -> Result<()> {
    for (name, value) in std::env::vars_os() {
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        let name = format!("{PREFIX}{rest}");
        let wanted = |setting: &&&str| setting.replace(['.', '-'], "_").eq_ignore_ascii_case(rest);
        let Some(setting) = SETTINGS.iter().find(wanted) else {
            bail!("environment variable {name}: there is no such setting");
        };
        let value = value.to_str().with_context(|| format!("environment variable {name} is not UTF-8"))?;
        put(table, setting, parsed(setting, value))
            .with_context(|| format!("environment variable {name}"))?;
    }
    Ok(())
}

/// A value as text has it: a list is divided by commas.
fn parsed(setting: &str, text: &str) -> Value {
    if LISTS.contains(&setting) {
        return Value::Array(text.split(',').map(|part| Value::String(part.trim().to_owned())).collect());
    }
    match text {
        "true" => Value::Boolean(true),
        "false" => Value::Boolean(false),
        text => match text.parse() {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::String(text.to_owned()),
        },
    }
}

/// Puts a value at a path.
fn put(table: &mut Table, path: &str, value: Value) -> Result<()> {
    match path.split_once('.') {
        None => {
            table.insert(path.to_owned(), value);
            Ok(())
        }
        Some((first, rest)) => match table.entry(first).or_insert_with(|| Value::Table(Table::new())) {
            Value::Table(inner) => put(inner, rest, value),
            _ => bail!("{first} is no table"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(set: &[&str]) -> Serve {
        let common = Common {
            config: Some("/dev/null".into()),
            set: set.iter().map(|s| (*s).to_owned()).collect(),
            ..Common::default()
        };
        Serve { common, ..Serve::default() }
    }

    #[test]
    fn flags_become_settings() {
        let mut flags = flags(&["limits.blob-size=10MiB", "listen=a:1, b:2"]);
        flags.read_only = true;
        flags.upstream = Some("https://registry-1.docker.io".into());
        let config = serving(&flags).unwrap();
        assert_eq!(config.limits.blob_size.map(|size| size.0), Some(10 << 20));
        assert_eq!(config.listen, ["a:1", "b:2"]);
        assert_eq!(config.upstream[0].url, "https://registry-1.docker.io");
        assert!(config.read_only);
    }

    #[test]
    fn errors_name_the_place() {
        let error = |set: &str| serving(&flags(&[set])).unwrap_err().to_string();
        assert!(error("gc.interval").contains("no \"=\""));
        assert!(error("gc.intervall=1").contains("there is no setting"));
        assert!(error("gc.interval=soon").contains("no length of time"));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "root = \"/x\"\n\n[gc]\nintervall = \"6h\"\n").unwrap();
        let mut flags = flags(&[]);
        flags.common.config = Some(file.path().to_owned());
        let error = serving(&flags).unwrap_err().to_string();
        assert!(error.contains("line 4") && error.contains("intervall"), "{error}");
    }

    #[test]
    fn every_setting_of_the_environment_exists() {
        for setting in SETTINGS {
            let error = serving(&flags(&[&format!("{setting}=x")])).err().map(|e| e.to_string());
            assert!(!error.as_deref().unwrap_or_default().contains("unknown field"), "{setting}: {error:?}");
        }
    }
}
