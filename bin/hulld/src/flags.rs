//! The command line: dockerd's flags.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{ArgAction, Parser};

use crate::settings::{AddressPool, Runtime, Settings, Ulimit};

/// Where the configuration file is looked for when no flag names one.
pub(crate) const CONFIG_FILE: &str = "/etc/hull/daemon.json";

/// The Hull engine: runs containers.
#[derive(Debug, Parser)]
#[command(name = "hulld", version, disable_help_subcommand = true)]
pub(crate) struct Flags {
    /// Configuration file (default /etc/hull/daemon.json).
    #[arg(long, value_name = "FILE")]
    pub(crate) config_file: Option<PathBuf>,
    /// Check the configuration and exit.
    #[arg(long)]
    pub(crate) validate: bool,
    /// Socket to listen on: unix://path, tcp://address:port, fd:// (repeatable).
    #[arg(short = 'H', long = "host", value_name = "SOCKET")]
    host: Vec<String>,
    /// Directory of everything lasting (default /var/lib/hull).
    #[arg(long, value_name = "DIR")]
    data_root: Option<PathBuf>,
    /// Directory of sockets and state of this boot (default /run/hull).
    #[arg(long, value_name = "DIR")]
    exec_root: Option<PathBuf>,
    /// Write the process id to this file.
    #[arg(short, long, value_name = "FILE")]
    pidfile: Option<PathBuf>,
    /// The hull-runtime executable (default: beside hulld, else in PATH).
    #[arg(long, value_name = "FILE")]
    runtime_path: Option<PathBuf>,
    /// Group of the unix socket (default docker or hull, whichever exists).
    #[arg(short = 'G', long, value_name = "GROUP")]
    group: Option<String>,
    /// Log debug messages.
    #[arg(short = 'D', long, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    debug: Option<bool>,
    /// Log level: debug, info, warn, error, fatal.
    #[arg(short = 'l', long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Log format: text, json.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Mirror of docker.io (repeatable).
    #[arg(long, value_name = "URL")]
    registry_mirror: Vec<String>,
    /// Registry reached without verified TLS (repeatable).
    #[arg(long, value_name = "REGISTRY")]
    insecure_registry: Vec<String>,
    /// Mirrors, rewrites, aliases and blocks of registries (default /etc/hull/registries.toml).
    #[arg(long, value_name = "FILE")]
    registries_file: Option<PathBuf>,
    /// Address and prefix of the default bridge.
    #[arg(long, value_name = "CIDR")]
    bip: Option<String>,
    /// Bridge of the default network; none for no default network.
    #[arg(short, long, value_name = "NAME")]
    bridge: Option<String>,
    /// Part of the default bridge's subnet that addresses come from.
    #[arg(long, value_name = "CIDR")]
    fixed_cidr: Option<String>,
    /// Gateway of the default bridge network.
    #[arg(long, value_name = "IP")]
    default_gateway: Option<String>,
    /// Range that subnets are cut from: base=CIDR,size=PREFIX (repeatable).
    #[arg(long, value_name = "POOL")]
    default_address_pool: Vec<String>,
    /// MTU of the default bridge.
    #[arg(long)]
    mtu: Option<u32>,
    /// Containers on the default bridge may talk to each other.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    icc: Option<bool>,
    /// Address that ports are published on by default.
    #[arg(long, value_name = "IP")]
    ip: Option<String>,
    /// Write firewall rules.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    iptables: Option<bool>,
    /// Switch on IP forwarding.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    ip_forward: Option<bool>,
    /// Masquerade traffic of containers.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    ip_masq: Option<bool>,
    /// Accepted for compatibility: published ports never pass a user-space proxy.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    userland_proxy: Option<bool>,
    /// Name server for containers (repeatable).
    #[arg(long, value_name = "IP")]
    dns: Vec<String>,
    /// resolv.conf option for containers (repeatable).
    #[arg(long, value_name = "OPTION")]
    dns_opt: Vec<String>,
    /// Search domain for containers (repeatable).
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// key=value label of the engine (repeatable).
    #[arg(long, value_name = "LABEL")]
    label: Vec<String>,
    /// Log driver of containers that name none.
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// Option of the default log driver: key=value (repeatable).
    #[arg(long, value_name = "OPTION")]
    log_opt: Vec<String>,
    /// Default limit: `name=soft[:hard]` (repeatable).
    #[arg(long, value_name = "ULIMIT")]
    default_ulimit: Vec<String>,
    /// Default size of /dev/shm, bytes or with a unit.
    #[arg(long, value_name = "SIZE")]
    default_shm_size: Option<String>,
    /// Run an init in every container.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    init: Option<bool>,
    /// Cgroup above those of all containers.
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
    /// Set no-new-privileges for containers by default.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    no_new_privileges: Option<bool>,
    /// Downloads at the same time.
    #[arg(long)]
    max_concurrent_downloads: Option<usize>,
    /// Uploads at the same time.
    #[arg(long)]
    max_concurrent_uploads: Option<usize>,
    /// How often a download is tried (default 6).
    #[arg(long, value_name = "NUMBER")]
    max_download_attempts: Option<u32>,
    /// Register an OCI runtime: name=path (repeatable).
    #[arg(long, value_name = "RUNTIME")]
    add_runtime: Vec<String>,
    /// Runtime of containers that name none.
    #[arg(long, value_name = "NAME")]
    default_runtime: Option<String>,
    /// Containers always survive the engine; accepted for compatibility.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    live_restore: Option<bool>,
    /// How new layers are kept: erofs, overlay2 or vfs; the best that works here if not said.
    #[arg(short, long, value_name = "DRIVER")]
    storage_driver: Option<String>,
    /// Runtime option; native.cgroupdriver=cgroupfs is the only one.
    #[arg(long, value_name = "OPTION")]
    exec_opt: Vec<String>,
    /// Experimental features; there are none.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    experimental: Option<bool>,
    /// Seconds to wait at shutdown; containers are left running.
    #[arg(long, value_name = "SECONDS")]
    shutdown_timeout: Option<i64>,
    /// Serve tcp sockets with TLS.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    tls: Option<bool>,
    /// Serve tcp sockets with TLS and verify clients.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    tlsverify: Option<bool>,
    /// Certificate authority of clients.
    #[arg(long, value_name = "FILE")]
    tlscacert: Option<PathBuf>,
    /// Certificate of this engine.
    #[arg(long, value_name = "FILE")]
    tlscert: Option<PathBuf>,
    /// Key of this engine's certificate.
    #[arg(long, value_name = "FILE")]
    tlskey: Option<PathBuf>,
}

impl Flags {
    /// What the flags set, in the terms of the configuration file.
    pub(crate) fn settings(self) -> Result<Settings> {
        let list = |list: Vec<String>| (!list.is_empty()).then_some(list);
        Ok(Settings {
            hosts: list(self.host),
            data_root: self.data_root,
            exec_root: self.exec_root,
            pidfile: self.pidfile,
            runtime_path: self.runtime_path,
            group: self.group,
            debug: self.debug,
            log_level: self.log_level,
            log_format: self.log_format,
            registry_mirrors: list(self.registry_mirror),
            insecure_registries: list(self.insecure_registry),
            bip: self.bip,
            bridge: self.bridge,
            fixed_cidr: self.fixed_cidr,
            default_gateway: self.default_gateway,
            default_address_pools: pools(&self.default_address_pool)?,
            mtu: self.mtu,
            icc: self.icc,
            ip: self.ip,
            iptables: self.iptables,
            ip_forward: self.ip_forward,
            ip_masq: self.ip_masq,
            userland_proxy: self.userland_proxy,
            dns: list(self.dns),
            dns_opts: list(self.dns_opt),
            dns_search: list(self.dns_search),
            labels: list(self.label),
            log_driver: self.log_driver,
            log_opts: pairs(&self.log_opt, "--log-opt")?,
            default_ulimits: ulimits(&self.default_ulimit)?,
            default_shm_size: self.default_shm_size.map(serde_json::Value::String),
            init: self.init,
            cgroup_parent: self.cgroup_parent,
            no_new_privileges: self.no_new_privileges,
            max_concurrent_downloads: self.max_concurrent_downloads,
            max_concurrent_uploads: self.max_concurrent_uploads,
            max_download_attempts: self.max_download_attempts,
            registries_file: self.registries_file,
            runtimes: runtimes(&self.add_runtime)?,
            default_runtime: self.default_runtime,
            live_restore: self.live_restore,
            storage_driver: self.storage_driver,
            exec_opts: list(self.exec_opt),
            experimental: self.experimental,
            shutdown_timeout: self.shutdown_timeout,
            tls: self.tls,
            tlsverify: self.tlsverify,
            tlscacert: self.tlscacert,
            tlscert: self.tlscert,
            tlskey: self.tlskey,
            features: None,
        })
    }
}

fn split<'a>(text: &'a str, flag: &str) -> Result<(&'a str, &'a str)> {
    text.split_once('=').with_context(|| format!("invalid value {text:?} for {flag}: expected key=value"))
}

fn pairs(
    list: &[String],
    flag: &str,
) -> Result<Option<std::collections::BTreeMap<String, serde_json::Value>>> {
    if list.is_empty() {
        return Ok(None);
    }
    let pairs = list.iter().map(|text| {
        split(text, flag).map(|(key, value)| (key.to_owned(), serde_json::Value::String(value.to_owned())))
    });
    pairs.collect::<Result<_>>().map(Some)
}

fn runtimes(list: &[String]) -> Result<Option<std::collections::BTreeMap<String, Runtime>>> {
    if list.is_empty() {
        return Ok(None);
    }
    let runtimes = list.iter().map(|text| {
        split(text, "--add-runtime")
            .map(|(name, path)| (name.to_owned(), Runtime { path: path.into(), ..Runtime::default() }))
    });
    runtimes.collect::<Result<_>>().map(Some)
}

fn pools(list: &[String]) -> Result<Option<Vec<AddressPool>>> {
    if list.is_empty() {
        return Ok(None);
    }
    let pool = |text: &String| -> Result<AddressPool> {
        let (mut base, mut size) = (None, None);
        for part in text.split(',') {
            match split(part, "--default-address-pool")? {
                ("base", value) => base = Some(value.to_owned()),
                ("size", value) => {
                    size = Some(value.parse().with_context(|| format!("invalid size in {text:?}"))?)
                }
                (key, _) => bail!("unexpected key {key:?} in --default-address-pool {text:?}"),
            }
        }
        match (base, size) {
            (Some(base), Some(size)) => Ok(AddressPool { base, size }),
            _ => bail!("--default-address-pool {text:?} needs base and size"),
        }
    };
    list.iter().map(pool).collect::<Result<_>>().map(Some)
}

fn ulimits(list: &[String]) -> Result<Option<std::collections::BTreeMap<String, Ulimit>>> {
    if list.is_empty() {
        return Ok(None);
    }
    let ulimit = |text: &String| -> Result<(String, Ulimit)> {
        let (name, limits) = split(text, "--default-ulimit")?;
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        let number =
            |text: &str| text.parse::<i64>().with_context(|| format!("invalid limit {text:?} of {name}"));
        let ulimit = Ulimit { name: name.to_owned(), soft: number(soft)?, hard: number(hard)? };
        Ok((name.to_owned(), ulimit))
    };
    list.iter().map(ulimit).collect::<Result<_>>().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockerds_spellings_are_understood() {
        let args = "hulld -H unix:///a -H fd:// -D --icc=false -l debug --default-ulimit nofile=10:20 \
                    --default-address-pool base=10.1.0.0/16,size=24 --log-opt max-size=1m --add-runtime crun=/usr/bin/crun";
        let flags = Flags::try_parse_from(args.split_whitespace()).expect("flags");
        let settings = flags.settings().expect("settings");
        assert_eq!(settings.hosts.as_deref(), Some(&["unix:///a".to_owned(), "fd://".to_owned()][..]));
        assert_eq!((settings.debug, settings.icc), (Some(true), Some(false)));
        assert_eq!(settings.default_ulimits.expect("ulimits")["nofile"].hard, 20);
        assert_eq!(settings.default_address_pools.expect("pools")[0].size, 24);
        assert_eq!(settings.runtimes.expect("runtimes")["crun"].path, PathBuf::from("/usr/bin/crun"));
    }

    #[test]
    fn nonsense_is_refused() {
        let settings = |args: &str| Flags::try_parse_from(args.split_whitespace()).expect("flags").settings();
        assert!(settings("hulld --log-opt x").is_err());
        assert!(settings("hulld --default-address-pool base=10.0.0.0/8").is_err());
        assert!(settings("hulld --default-ulimit nofile=x").is_err());
    }
}
