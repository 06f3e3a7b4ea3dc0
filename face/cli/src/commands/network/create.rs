//! `hull network create`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hull_client::Query;
use hull_docker_api::{ConfigReference, Ipam, IpamConfig, NetworkCreateRequest, NetworkCreateResponse};

use crate::command::{Args, Command, Invocation};
use crate::error::Result;
use crate::flags::{Flag, LIST, MAP, STRING, STRINGS};
use crate::opts;
use crate::opts::{env, key_values};
use crate::output;

pub(crate) static COMMAND: Command = Command {
    name: "create",
    usage: "[OPTIONS] NETWORK",
    about: "Create a network",
    aliases: &["network create"],
    args: Args::Exactly(1),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::switch("attachable", "Enable manual container attachment"),
    Flag::new(MAP, "aux-address", "Auxiliary IPv4 or IPv6 addresses used by Network driver (default map[])"),
    Flag::new(STRING, "config-from", "The network from which to copy the configuration"),
    Flag::switch("config-only", "Create a configuration only network"),
    Flag::new(STRING, "driver", "Driver to manage the Network (default \"bridge\")")
        .short('d')
        .default("bridge"),
    Flag::new(STRINGS, "gateway", "IPv4 or IPv6 Gateway for the master subnet"),
    Flag::switch("ingress", "Create swarm routing-mesh network"),
    Flag::switch("internal", "Restrict external access to the network"),
    Flag::new(STRINGS, "ip-range", "Allocate container ip from a sub-range"),
    Flag::new(STRING, "ipam-driver", "IP Address Management Driver (default \"default\")").default("default"),
    Flag::new(MAP, "ipam-opt", "Set IPAM driver specific options (default map[])"),
    Flag::switch("ipv4", "Enable or disable IPv4 address assignment (default true)").default("true"),
    Flag::switch("ipv6", "Enable or disable IPv6 address assignment"),
    Flag::new(LIST, "label", "Set metadata on a network").check(opts::label),
    Flag::new(MAP, "opt", "Set driver specific options (default map[])").short('o'),
    Flag::new(STRING, "scope", "Control the network's scope"),
    Flag::new(STRINGS, "subnet", "Subnet in CIDR format that represents a network segment"),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let matches = &invocation.matches;
    let subnets = Subnets {
        subnets: matches.comma_list("subnet"),
        ranges: matches.comma_list("ip-range"),
        gateways: matches.comma_list("gateway"),
        auxiliary: key_values(&matches.list("aux-address")),
    };
    let config_from = matches.text("config-from");
    let request = NetworkCreateRequest {
        name: invocation.arg(0).to_owned(),
        driver: matches.text("driver").to_owned(),
        scope: matches.text("scope").to_owned(),
        enable_ipv4: matches.is_set("ipv4").then(|| matches.on("ipv4")),
        enable_ipv6: matches.is_set("ipv6").then(|| matches.on("ipv6")),
        ipam: Some(Ipam {
            driver: matches.text("ipam-driver").to_owned(),
            options: Some(key_values(&matches.list("ipam-opt"))),
            config: Some(subnets.configs()?),
        }),
        internal: matches.on("internal"),
        attachable: matches.on("attachable"),
        ingress: matches.on("ingress"),
        config_only: matches.on("config-only"),
        config_from: (!config_from.is_empty()).then(|| ConfigReference { network: config_from.to_owned() }),
        options: Some(key_values(&matches.list("opt"))),
        labels: Some(key_values(&env::labels(&[], &matches.list("label"))?)),
        check_duplicate: None,
    };
    let client = invocation.engine.client().await?;
    let response: NetworkCreateResponse = client.post("/networks/create", &Query::new(), &request).await?;
    if !response.warning.is_empty() {
        output::warn(&format!("WARNING: {}", response.warning));
    }
    output::line(&response.id);
    Ok(0)
}

/// What the flags say about subnets; ranges, gateways and addresses belong to the subnet that contains them.
struct Subnets {
    subnets: Vec<String>,
    ranges: Vec<String>,
    gateways: Vec<String>,
    auxiliary: BTreeMap<String, String>,
}

impl Subnets {
    fn configs(&self) -> Result<Vec<IpamConfig>> {
        if self.subnets.len() < self.ranges.len() || self.subnets.len() < self.gateways.len() {
            return Err("every ip-range or gateway must have a corresponding subnet".into());
        }
        let mut configs: Vec<IpamConfig> = Vec::new();
        for subnet in &self.subnets {
            network(subnet).ok_or_else(|| format!("invalid CIDR address: {subnet}"))?;
            if configs.iter().any(|known| contains(&known.subnet, subnet) || contains(subnet, &known.subnet))
            {
                return Err("multiple overlapping subnet configuration is not supported".into());
            }
            configs.push(IpamConfig { subnet: subnet.clone(), ..IpamConfig::default() });
        }
        for range in &self.ranges {
            let config =
                owner(&mut configs, range).ok_or_else(|| format!("no matching subnet for range {range}"))?;
            if !config.ip_range.is_empty() {
                return Err(format!(
                    "cannot configure multiple ranges ({range}, {}) on the same subnet ({})",
                    config.ip_range, config.subnet
                )
                .into());
            }
            config.ip_range = range.clone();
        }
        for gateway in &self.gateways {
            let config = owner(&mut configs, gateway)
                .ok_or_else(|| format!("no matching subnet for gateway {gateway}"))?;
            if !config.gateway.is_empty() {
                return Err(format!(
                    "cannot configure multiple gateways ({gateway}, {}) for the same subnet ({})",
                    config.gateway, config.subnet
                )
                .into());
            }
            config.gateway = gateway.clone();
        }
        for (name, address) in &self.auxiliary {
            let config = owner(&mut configs, address)
                .ok_or_else(|| format!("no matching subnet for aux-address {address}"))?;
            config.auxiliary_addresses.insert(name.clone(), address.clone());
        }
        Ok(configs)
    }
}

fn owner<'a>(configs: &'a mut [IpamConfig], address: &str) -> Option<&'a mut IpamConfig> {
    configs.iter_mut().find(|config| contains(&config.subnet, address))
}

/// An address or subnet as its bits, left-aligned, and the length of its prefix.
fn network(text: &str) -> Option<(IpAddr, u32)> {
    let (address, length) = text.split_once('/').unwrap_or((text, ""));
    let address: IpAddr = address.parse().ok()?;
    let whole = if address.is_ipv4() { 32 } else { 128 };
    let length = if length.is_empty() { whole } else { length.parse().ok()? };
    (length <= whole).then_some((address, length))
}

fn contains(subnet: &str, address: &str) -> bool {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)) << 96,
        IpAddr::V6(ip) => u128::from(ip),
    };
    let (Some((net, length)), Some((inside, _))) = (network(subnet), network(address)) else {
        return false;
    };
    let same_family = net.is_ipv4() == inside.is_ipv4();
    let mask = if length == 0 { 0 } else { u128::MAX << (128 - length) };
    same_family && bits(net) & mask == bits(inside) & mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_to_their_subnet() {
        let text = |values: &[&str]| values.iter().map(|value| value.to_string()).collect::<Vec<_>>();
        let subnets = Subnets {
            subnets: text(&["10.1.0.0/16", "fd00::/64"]),
            ranges: text(&["10.1.2.0/24"]),
            gateways: text(&["fd00::1", "10.1.0.1"]),
            auxiliary: [("a".to_owned(), "10.1.3.4".to_owned())].into(),
        };
        let configs = subnets.configs().unwrap();
        assert_eq!((configs[0].ip_range.as_str(), configs[0].gateway.as_str()), ("10.1.2.0/24", "10.1.0.1"));
        assert_eq!(
            (configs[1].gateway.as_str(), configs[0].auxiliary_addresses["a"].as_str()),
            ("fd00::1", "10.1.3.4")
        );
        let overlap = Subnets {
            subnets: text(&["10.0.0.0/8", "10.1.0.0/16"]),
            ranges: vec![],
            gateways: vec![],
            auxiliary: BTreeMap::new(),
        };
        assert_eq!(
            overlap.configs().unwrap_err().message,
            "multiple overlapping subnet configuration is not supported"
        );
    }
}
