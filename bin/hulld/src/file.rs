//! Reading `daemon.json`.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::settings::{Settings, known_keys};

/// The settings of a file. A file that nobody named may be missing.
pub(crate) fn read(path: &Path, named: bool) -> Result<Settings> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound && !named => return Ok(Settings::default()),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    parse(&text).with_context(|| format!("unable to configure the engine with file {}", path.display()))
}

fn parse(text: &[u8]) -> Result<Settings> {
    if text.trim_ascii().is_empty() {
        return Ok(Settings::default());
    }
    let map: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(text)?;
    let known = known_keys();
    let unknown: Vec<&str> = map.keys().filter(|key| !known.contains(key)).map(String::as_str).collect();
    if !unknown.is_empty() {
        bail!("the following directives don't match any configuration option: {}", unknown.join(", "));
    }
    Ok(serde_json::from_value(map.into())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_named_and_known_ones_read() {
        let settings =
            parse(br#"{"debug": true, "default-address-pools": [{"base": "10.0.0.0/8", "size": 24}]}"#);
        assert_eq!(settings.expect("settings").default_address_pools.expect("pools")[0].size, 24);
        let error = parse(br#"{"debgu": true, "hosts": []}"#).expect_err("unknown").to_string();
        assert_eq!(error, "the following directives don't match any configuration option: debgu");
        assert!(parse(b"{").is_err());
        assert!(parse(b" ").expect("empty").hosts.is_none());
    }
}
