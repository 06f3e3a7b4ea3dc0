//! `hull network connect`.

use hull_client::{Method, Query, json, path_part};
use hull_docker_api::{EndpointIpamConfig, EndpointSettings, NetworkConnectRequest};

use crate::command::{Args, Command, Invocation};
use crate::error::Result;
use crate::flags::{Flag, INT, LIST, STRING, STRINGS};
use crate::opts;
use crate::opts::key_values;

pub(crate) static COMMAND: Command = Command {
    name: "connect",
    usage: "[OPTIONS] NETWORK CONTAINER",
    about: "Connect a container to a network",
    aliases: &["network connect"],
    args: Args::Exactly(2),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::new(STRINGS, "alias", "Add network-scoped alias for the container"),
    Flag::new(STRINGS, "driver-opt", "driver options for the network"),
    Flag::new(
        INT,
        "gw-priority",
        "Highest gw-priority provides the default gateway. Accepts positive and negative values.",
    ),
    Flag::new(STRING, "ip", "IPv4 address (e.g., \"172.30.100.104\")"),
    Flag::new(STRING, "ip6", "IPv6 address (e.g., \"2001:db8::33\")"),
    Flag::new(LIST, "link", "Add link to another container").check(opts::link),
    Flag::new(STRINGS, "link-local-ip", "Add a link-local address for the container"),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let matches = &invocation.matches;
    let links = Some(matches.strings("link")).filter(|links| !links.is_empty());
    let options = matches.comma_list("driver-opt");
    if options.iter().any(|option| !option.contains('=')) {
        return Err("invalid key/value pair format in driver options".into());
    }
    let endpoint = EndpointSettings {
        ipam_config: Some(EndpointIpamConfig {
            ipv4_address: matches.text("ip").to_owned(),
            ipv6_address: matches.text("ip6").to_owned(),
            link_local_ips: matches.comma_list("link-local-ip"),
        }),
        links,
        aliases: Some(matches.comma_list("alias")),
        driver_opts: Some(key_values(&options)),
        gw_priority: matches.int("gw-priority"),
        ..EndpointSettings::default()
    };
    let request =
        NetworkConnectRequest { container: invocation.arg(1).to_owned(), endpoint_config: Some(endpoint) };
    let client = invocation.engine.client().await?;
    let path = format!("/networks/{}/connect", path_part(invocation.arg(0)));
    client.request_bytes(Method::POST, &path, &Query::new(), json(&request)).await?;
    Ok(0)
}
