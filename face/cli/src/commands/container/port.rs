//! `hull port`.

use hull_docker_api::{PortBinding, nat};

use crate::command::{Args, Command, Invocation};
use crate::error::{Failure, Result};
use crate::output;

pub(crate) static COMMAND: Command = Command {
    name: "port",
    usage: "CONTAINER [PRIVATE_PORT[/PROTO]]",
    about: "List port mappings or a specific mapping for the container",
    aliases: &["container port", "port"],
    args: Args::Between(1, 2),
    flags: &[],
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

async fn run(invocation: Invocation) -> Result<u8> {
    let client = invocation.engine.client().await?;
    let (name, wanted) = (invocation.arg(0), invocation.arg(1));
    let ports = client.container_inspect(name).await?.network_settings.ports;
    let host = |binding: &PortBinding| match binding.host_ip.contains(':') {
        true => format!("[{}]:{}", binding.host_ip, binding.host_port),
        false => format!("{}:{}", binding.host_ip, binding.host_port),
    };
    if !wanted.is_empty() {
        let (port, proto) = nat::split_proto(wanted);
        if nat::parse_range(port).is_none_or(|(first, last)| first != last) {
            return Err(format!(
                "Error: invalid port ({port}): strconv.ParseUint: parsing {port:?}: invalid syntax"
            )
            .into());
        }
        let key = format!("{port}/{proto}");
        let Some(Some(bindings)) = ports.get(&key) else {
            return Err(Failure::new(format!("Error: No public port '{wanted}' published for {name}")));
        };
        bindings.iter().for_each(|binding| output::line(&host(binding)));
        return Ok(0);
    }
    let mut lines: Vec<(u16, String)> = Vec::new();
    for (port, bindings) in &ports {
        let number = nat::split_proto(port).0.parse().unwrap_or_default();
        lines.extend(
            bindings.iter().flatten().map(|binding| (number, format!("{port} -> {}", host(binding)))),
        );
    }
    lines.sort();
    lines.iter().for_each(|(_, line)| output::line(line));
    Ok(0)
}
