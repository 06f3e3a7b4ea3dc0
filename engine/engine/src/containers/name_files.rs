//! /etc/hosts, /etc/hostname and /etc/resolv.conf of a container: files in its directory, mounted into it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use hull_docker_api::EndpointSettings;
use hull_network::files::{self, DnsConfig, Hosts, ResolverPlace};

use super::record::Definition;
use super::spec::NameFiles;
use crate::{Engine, Error, Result};

/// Writes the files as far as they are known before the networks are attached, and says where they are. A container
/// in another one's network namespace shares that one's files.
pub(super) fn prepare(engine: &Engine, def: &Definition) -> Result<Option<NameFiles>> {
    if let Some(other) = def.host.network_mode.strip_prefix("container:") {
        let other = engine.0.containers.registry.find(other)?;
        let directory = engine.config().container_dir(&other.id);
        return Ok(Some(paths(&directory)));
    }
    write(engine, def, &BTreeMap::new())?;
    Ok(Some(paths(&engine.config().container_dir(&def.id))))
}

fn paths(directory: &Path) -> NameFiles {
    NameFiles {
        resolv_conf: directory.join("resolv.conf"),
        hostname: directory.join("hostname"),
        hosts: directory.join("hosts"),
    }
}

/// Writes the files with the addresses the container has. Written in place: they are bind-mounted by inode.
pub(super) fn write(
    engine: &Engine,
    def: &Definition,
    endpoints: &BTreeMap<String, EndpointSettings>,
) -> Result<()> {
    let paths = paths(&engine.config().container_dir(&def.id));
    put(&paths.hosts, &hosts(def, endpoints))?;
    if endpoints.is_empty() {
        put(&paths.hostname, &files::hostname(&def.config.hostname))?;
        put(&paths.resolv_conf, &resolv_conf(engine, def))?;
    }
    Ok(())
}

fn put(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|error| Error::system(format!("write {}", path.display()), error))
}

fn hosts(def: &Definition, endpoints: &BTreeMap<String, EndpointSettings>) -> String {
    if def.host.network_mode == "host" {
        let own = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        let extra = extra_hosts(def, None);
        let lines = extra.iter().map(|(address, name)| format!("{address}\t{name}\n"));
        return own + &lines.collect::<String>();
    }
    let addresses: Vec<IpAddr> =
        endpoints.values().filter_map(|endpoint| endpoint.ip_address.parse().ok()).collect();
    let gateway = endpoints
        .get(&def.host.network_mode)
        .or_else(|| endpoints.values().next())
        .and_then(|endpoint| endpoint.gateway.parse().ok());
    files::hosts(&Hosts {
        hostname: &def.config.hostname,
        domainname: &def.config.domainname,
        addresses: &addresses,
        extra: &extra_hosts(def, gateway),
    })
}

fn extra_hosts(def: &Definition, gateway: Option<IpAddr>) -> Vec<(IpAddr, String)> {
    let entries = def.host.extra_hosts.iter().flatten();
    entries.filter_map(|entry| files::parse_extra_host(entry, gateway)).collect()
}

fn resolv_conf(engine: &Engine, def: &Definition) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mut host = read("/etc/resolv.conf");
    if files::names_only_resolved_stub(&host) {
        host = read(files::RESOLVED_RESOLV_CONF);
    }
    let own = |own: &Option<Vec<String>>, engine: &[String]| match own {
        Some(list) if !list.is_empty() => list.clone(),
        _ => engine.to_vec(),
    };
    let config = engine.config();
    let dns = DnsConfig {
        servers: own(&def.host.dns, &config.dns),
        search: own(&def.host.dns_search, &config.dns_search),
        options: own(&def.host.dns_options, &config.dns_options),
    };
    let place = if def.host.network_mode == "host" { ResolverPlace::Host } else { ResolverPlace::Network };
    files::resolv_conf(&host, place, &dns)
}
