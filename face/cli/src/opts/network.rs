//! `--network` in its short and long form, and the flags that belong to the first network.

use std::collections::BTreeMap;

use hull_docker_api::{EndpointIpamConfig, EndpointSettings};

use super::Checked;
use crate::error::{Failure, Result};
use crate::flags::Matches;

/// One `--network`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Attachment {
    pub(crate) target: String,
    pub(crate) aliases: Vec<String>,
    links: Vec<String>,
    ipv4: String,
    ipv6: String,
    link_local: Vec<String>,
    mac: String,
    options: BTreeMap<String, String>,
    priority: i64,
}

/// Check of `--network`.
pub(crate) fn check(text: &str) -> Checked {
    parse(text).map(drop)
}

/// `NAME` or `name=NAME,alias=…,ip=…,ip6=…,mac-address=…,driver-opt=k=v,gw-priority=N`.
pub(crate) fn parse(text: &str) -> Checked<Attachment> {
    if !text.contains('=') {
        return Ok(Attachment { target: text.to_owned(), ..Attachment::default() });
    }
    let mut network = Attachment::default();
    for field in super::mount::csv(text)? {
        let Some((key, value)) = field.split_once('=').filter(|(_, value)| !value.is_empty()) else {
            return Err(format!("invalid field {field}"));
        };
        match key.trim().to_lowercase().as_str() {
            "name" => network.target = value.to_owned(),
            "alias" => network.aliases.push(value.to_owned()),
            "ip" => network.ipv4 = value.to_owned(),
            "ip6" => network.ipv6 = value.to_owned(),
            "link-local-ip" => network.link_local.push(value.to_owned()),
            "mac-address" => network.mac = value.to_owned(),
            "driver-opt" => {
                let Some((name, value)) = value.split_once('=') else {
                    return Err("invalid key value pair format in driver options".to_owned());
                };
                network.options.insert(name.trim().to_lowercase(), value.trim().to_owned());
            }
            "gw-priority" => {
                network.priority =
                    value.parse().map_err(|_| format!("invalid gw-priority ({value}): invalid syntax"))?;
            }
            key => return Err(format!("invalid field key {key}")),
        }
    }
    if network.target.is_empty() {
        return Err("network name/id is not specified".to_owned());
    }
    Ok(network)
}

fn user_defined(target: &str) -> bool {
    !matches!(target, "" | "default" | "bridge" | "host" | "none" | "nat")
        && !target.starts_with("container:")
}

/// The network mode and the endpoints of `run` and `create`.
pub(crate) fn endpoints(m: &Matches) -> Result<(String, BTreeMap<String, EndpointSettings>)> {
    let mut networks = m.list("network").into_iter().map(parse).collect::<Checked<Vec<_>>>()?;
    let mode = networks.first().map_or_else(|| "default".to_owned(), |first| first.target.clone());
    let given = networks.len();
    if networks.is_empty() {
        networks.push(Attachment { target: "default".to_owned(), ..Attachment::default() });
    }
    apply_flags(&mut networks[0], m)?;
    let mut endpoints = BTreeMap::new();
    for (index, network) in networks.iter().enumerate() {
        let endpoint = endpoint(network)?;
        if endpoints.contains_key(&network.target) {
            return Err(format!("network {:?} is specified multiple times", network.target).into());
        }
        // As docker: a single network without options of its own is left to the engine.
        if index == 0 && given == 1 && endpoint == EndpointSettings::default() {
            continue;
        }
        endpoints.insert(network.target.clone(), endpoint);
    }
    let own = networks.iter().filter(|network| user_defined(&network.target)).count();
    if own != 0 && own != networks.len() {
        return Err(
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes".into(),
        );
    }
    Ok((mode, endpoints))
}

fn apply_flags(network: &mut Attachment, m: &Matches) -> Result<()> {
    let conflict = |flag: &str, what: &str| -> Result<()> {
        Err(Failure::new(format!("conflicting options: cannot specify both {flag} and per-network {what}")))
    };
    let (aliases, links) = (m.strings("network-alias"), m.strings("link"));
    if !aliases.is_empty() {
        if !network.aliases.is_empty() {
            return conflict("--network-alias", "alias");
        }
        network.aliases = aliases;
    }
    if !links.is_empty() && user_defined(&network.target) {
        network.links = links;
    }
    for (flag, what, slot) in [
        ("ip", "IPv4 address", &mut network.ipv4),
        ("ip6", "IPv6 address", &mut network.ipv6),
        ("mac-address", "MAC address", &mut network.mac),
    ] {
        let value = m.text(flag);
        if !value.is_empty() {
            if !slot.is_empty() {
                return conflict(&format!("--{flag}"), what);
            }
            *slot = value.to_owned();
        }
    }
    let link_local = m.strings("link-local-ip");
    if !link_local.is_empty() {
        if !network.link_local.is_empty() {
            return conflict("--link-local-ip", "link-local IP addresses");
        }
        network.link_local = link_local;
    }
    Ok(())
}

fn endpoint(network: &Attachment) -> Result<EndpointSettings> {
    if network.target.is_empty() {
        return Err("no name set for network".into());
    }
    if !user_defined(&network.target) && !network.aliases.is_empty() {
        // The engine accepts aliases of its own default names only in user-defined networks.
        return Err("network-scoped aliases are only supported for user-defined networks".into());
    }
    let mut settings = EndpointSettings { gw_priority: network.priority, ..EndpointSettings::default() };
    if !network.aliases.is_empty() {
        settings.aliases = Some(network.aliases.clone());
    }
    if !network.links.is_empty() {
        settings.links = Some(network.links.clone());
    }
    if !network.options.is_empty() {
        settings.driver_opts = Some(network.options.clone());
    }
    if !network.ipv4.is_empty() || !network.ipv6.is_empty() || !network.link_local.is_empty() {
        settings.ipam_config = Some(EndpointIpamConfig {
            ipv4_address: network.ipv4.clone(),
            ipv6_address: network.ipv6.clone(),
            link_local_ips: network.link_local.clone(),
        });
    }
    if !network.mac.is_empty() {
        settings.mac_address = mac_address(&network.mac)?;
    }
    Ok(settings)
}

/// A hardware address in its usual form.
pub(crate) fn mac_address(text: &str) -> Result<String> {
    let bytes: Vec<&str> = text.trim().split([':', '-']).collect();
    let byte = |part: &&str| part.len() == 2 && u8::from_str_radix(part, 16).is_ok();
    if bytes.len() != 6 || !bytes.iter().all(byte) {
        return Err(format!("{} is not a valid mac address", text.trim()).into());
    }
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_form() {
        let network = parse("name=net,alias=web,ip=10.0.0.2,driver-opt=a=b,gw-priority=3").unwrap();
        assert_eq!((network.target.as_str(), network.aliases[0].as_str()), ("net", "web"));
        assert_eq!((network.ipv4.as_str(), network.priority), ("10.0.0.2", 3));
        assert_eq!(parse("name=a,foo=b").unwrap_err(), "invalid field key foo");
        assert_eq!(parse("alias=b").unwrap_err(), "network name/id is not specified");
        assert_eq!(parse("container:x").unwrap().target, "container:x");
    }
}
