//! The settings of the daemon in the terms of `daemon.json`, whose keys are dockerd's. Flags become the same struct;
//! a setting may be in one of the two only.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use hull_engine::config::{AddressPool as EnginePool, Config};
use serde::{Deserialize, Serialize};

/// All settings; `None` is not set.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct Settings {
    pub(crate) hosts: Option<Vec<String>>,
    pub(crate) data_root: Option<PathBuf>,
    pub(crate) exec_root: Option<PathBuf>,
    pub(crate) pidfile: Option<PathBuf>,
    pub(crate) runtime_path: Option<PathBuf>,
    pub(crate) group: Option<String>,
    pub(crate) debug: Option<bool>,
    pub(crate) log_level: Option<String>,
    pub(crate) log_format: Option<String>,
    pub(crate) registry_mirrors: Option<Vec<String>>,
    pub(crate) insecure_registries: Option<Vec<String>>,
    pub(crate) registries_file: Option<PathBuf>,
    pub(crate) bip: Option<String>,
    pub(crate) bridge: Option<String>,
    pub(crate) fixed_cidr: Option<String>,
    pub(crate) default_gateway: Option<String>,
    pub(crate) default_address_pools: Option<Vec<AddressPool>>,
    pub(crate) mtu: Option<u32>,
    pub(crate) icc: Option<bool>,
    pub(crate) ip: Option<String>,
    pub(crate) iptables: Option<bool>,
    pub(crate) ip_forward: Option<bool>,
    pub(crate) ip_masq: Option<bool>,
    pub(crate) userland_proxy: Option<bool>,
    pub(crate) dns: Option<Vec<String>>,
    pub(crate) dns_opts: Option<Vec<String>>,
    pub(crate) dns_search: Option<Vec<String>>,
    pub(crate) labels: Option<Vec<String>>,
    pub(crate) log_driver: Option<String>,
    /// Values may be strings or numbers.
    pub(crate) log_opts: Option<BTreeMap<String, serde_json::Value>>,
    pub(crate) default_ulimits: Option<BTreeMap<String, Ulimit>>,
    /// Bytes, or text with a unit.
    pub(crate) default_shm_size: Option<serde_json::Value>,
    pub(crate) init: Option<bool>,
    pub(crate) cgroup_parent: Option<String>,
    pub(crate) no_new_privileges: Option<bool>,
    pub(crate) max_concurrent_downloads: Option<usize>,
    pub(crate) max_concurrent_uploads: Option<usize>,
    pub(crate) max_download_attempts: Option<u32>,
    pub(crate) runtimes: Option<BTreeMap<String, Runtime>>,
    pub(crate) default_runtime: Option<String>,
    pub(crate) live_restore: Option<bool>,
    pub(crate) storage_driver: Option<String>,
    pub(crate) exec_opts: Option<Vec<String>>,
    pub(crate) experimental: Option<bool>,
    pub(crate) shutdown_timeout: Option<i64>,
    pub(crate) tls: Option<bool>,
    pub(crate) tlsverify: Option<bool>,
    pub(crate) tlscacert: Option<PathBuf>,
    pub(crate) tlscert: Option<PathBuf>,
    pub(crate) tlskey: Option<PathBuf>,
    pub(crate) features: Option<BTreeMap<String, bool>>,
}

/// `default-address-pools`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct AddressPool {
    pub(crate) base: String,
    pub(crate) size: u8,
}

/// `default-ulimits`.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Ulimit {
    pub(crate) name: String,
    pub(crate) hard: i64,
    pub(crate) soft: i64,
}

/// `runtimes`.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Runtime {
    pub(crate) path: PathBuf,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) runtime_args: Vec<String>,
}

impl Settings {
    /// The flags and the file together. Fails for what is set in both, naming it, as dockerd does.
    pub(crate) fn merged(flags: &Settings, file: &Settings, path: &Path) -> Result<Settings> {
        let (flags, file) = (fields(flags)?, fields(file)?);
        let both: Vec<String> = flags
            .iter()
            .filter_map(|(key, value)| {
                file.get(key).map(|other| format!("{key}: (from flag: {value}, from file: {other})"))
            })
            .collect();
        if !both.is_empty() {
            bail!(
                "unable to configure the engine with file {}: the following directives are specified both as a flag \
                 and in the configuration file: {}",
                path.display(),
                both.join(", ")
            );
        }
        let all: serde_json::Map<_, _> = flags.into_iter().chain(file).collect();
        serde_json::from_value(all.into()).context("merge settings")
    }

    /// The engine's configuration. `runtime` is the executable found for it.
    pub(crate) fn engine(&self, runtime: PathBuf) -> Result<Config> {
        self.refuse_what_is_not_there()?;
        let data_root = absolute(self.data_root.clone().unwrap_or_else(|| "/var/lib/hull".into()))?;
        let exec_root = absolute(self.exec_root.clone().unwrap_or_else(|| "/run/hull".into()))?;
        let mut config = Config::new(data_root, exec_root, runtime);
        config.debug = self.debug.unwrap_or(false);
        config.labels = self.labels.clone().unwrap_or_default();
        config.registry_mirrors = self.registry_mirrors.clone().unwrap_or_default();
        config.insecure_registries = self.insecure_registries.clone().unwrap_or_default();
        self.network(&mut config)?;
        self.containers(&mut config)?;
        set(&mut config.max_concurrent_downloads, self.max_concurrent_downloads);
        set(&mut config.max_concurrent_uploads, self.max_concurrent_uploads);
        config.max_download_attempts = self.max_download_attempts;
        set(&mut config.registries_file, self.registries_file.clone());
        Ok(config)
    }

    fn network(&self, config: &mut Config) -> Result<()> {
        let bridge = &mut config.bridge;
        bridge.name.clone_from(&self.bridge);
        bridge.bip.clone_from(&self.bip);
        bridge.fixed_cidr.clone_from(&self.fixed_cidr);
        bridge.default_gateway.clone_from(&self.default_gateway);
        bridge.mtu = self.mtu.filter(|mtu| *mtu != 0);
        set(&mut bridge.icc, self.icc);
        let pools = self.default_address_pools.iter().flatten();
        config.default_address_pools =
            pools.map(|pool| EnginePool { base: pool.base.clone(), size: pool.size }).collect();
        set(&mut config.firewall, self.iptables);
        set(&mut config.ip_forward, self.ip_forward);
        set(&mut config.ip_masq, self.ip_masq);
        if let Some(ip) = &self.ip {
            config.default_publish_address =
                ip.parse().with_context(|| format!("invalid address {ip:?} for ip"))?;
        }
        config.dns = self.dns.clone().unwrap_or_default();
        for server in &config.dns {
            server.parse::<std::net::IpAddr>().with_context(|| format!("{server} is not an ip address"))?;
        }
        config.dns_options = self.dns_opts.clone().unwrap_or_default();
        config.dns_search = self.dns_search.clone().unwrap_or_default();
        Ok(())
    }

    fn containers(&self, config: &mut Config) -> Result<()> {
        set(&mut config.log_driver, self.log_driver.clone());
        for (key, value) in self.log_opts.iter().flatten() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            config.log_options.insert(key.clone(), text);
        }
        for (name, limit) in self.default_ulimits.iter().flatten() {
            config.default_ulimits.insert(name.clone(), (limit.soft, limit.hard));
        }
        if let Some(size) = &self.default_shm_size {
            config.default_shm_size = size
                .as_i64()
                .or_else(|| size.as_str().and_then(bytes))
                .with_context(|| format!("invalid default-shm-size {size}"))?;
        }
        set(&mut config.init, self.init);
        config.cgroup_parent.clone_from(&self.cgroup_parent);
        set(&mut config.no_new_privileges, self.no_new_privileges);
        for (name, runtime) in self.runtimes.iter().flatten() {
            if !runtime.runtime_args.is_empty() {
                bail!("runtimes.{name}.runtimeArgs is not implemented");
            }
            config.runtimes.insert(name.clone(), runtime.path.clone());
        }
        if let Some(default) = &self.default_runtime {
            if default != "hull" && !config.runtimes.contains_key(default) {
                bail!("specified default runtime '{default}' does not exist");
            }
            config.default_runtime.clone_from(default);
        }
        config.storage_driver = self.storage_driver.as_deref().map(str::parse).transpose()?;
        Ok(())
    }

    fn refuse_what_is_not_there(&self) -> Result<()> {
        if self.tls == Some(true) || self.tlsverify == Some(true) {
            bail!("TLS on tcp sockets is not implemented; use a unix socket, or ssh:// from the client");
        }
        for option in self.exec_opts.iter().flatten() {
            if option != "native.cgroupdriver=cgroupfs" {
                bail!("exec-opt {option} is not implemented");
            }
        }
        Ok(())
    }
}

fn set<T>(value: &mut T, wanted: Option<T>) {
    if let Some(wanted) = wanted {
        *value = wanted;
    }
}

fn absolute(path: PathBuf) -> Result<PathBuf> {
    std::path::absolute(&path).with_context(|| format!("make {} absolute", path.display()))
}

/// `64m`, `1g`, `1024`.
fn bytes(text: &str) -> Option<i64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(1 << shift)
}

/// What is set, by key.
fn fields(settings: &Settings) -> Result<serde_json::Map<String, serde_json::Value>> {
    match serde_json::to_value(settings).context("read settings")? {
        serde_json::Value::Object(map) => Ok(map.into_iter().filter(|(_, value)| !value.is_null()).collect()),
        _ => Ok(serde_json::Map::new()),
    }
}

/// Keys a file may have.
pub(crate) fn known_keys() -> Vec<String> {
    match serde_json::to_value(Settings::default()) {
        Ok(serde_json::Value::Object(map)) => map.into_iter().map(|(key, _)| key).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_in_both_places_is_named() {
        let flags = Settings { debug: Some(true), ..Settings::default() };
        let file =
            Settings { debug: Some(false), bip: Some("10.0.0.1/24".to_owned()), ..Settings::default() };
        let error = Settings::merged(&flags, &file, Path::new("/f")).expect_err("conflict").to_string();
        assert!(error.ends_with("debug: (from flag: true, from file: false)"), "{error}");
        let file = Settings { bip: Some("10.0.0.1/24".to_owned()), ..Settings::default() };
        let merged = Settings::merged(&flags, &file, Path::new("/f")).expect("merged");
        assert_eq!((merged.debug, merged.bip.as_deref()), (Some(true), Some("10.0.0.1/24")));
    }

    #[test]
    fn what_is_not_there_is_refused_and_units_are_read() {
        let tls = Settings { tlsverify: Some(true), ..Settings::default() };
        assert!(tls.engine("/r".into()).is_err());
        let settings = Settings { default_shm_size: Some("128m".into()), ..Settings::default() };
        assert_eq!(settings.engine("/r".into()).expect("config").default_shm_size, 128 << 20);
        let settings = Settings { default_runtime: Some("crun".to_owned()), ..Settings::default() };
        assert!(settings.engine("/r".into()).is_err());
    }
}
