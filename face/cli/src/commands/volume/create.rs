//! `hull volume create`.

use hull_client::Query;
use hull_docker_api::{Volume, VolumeCreateRequest};

use crate::command::{Args, Command, Invocation};
use crate::error::Result;
use crate::flags::{BYTES, Flag, LIST, MAP, STRING};
use crate::opts;
use crate::opts::key_values;
use crate::output;

pub(crate) static COMMAND: Command = Command {
    name: "create",
    usage: "[OPTIONS] [VOLUME]",
    about: "Create a volume",
    aliases: &["volume create"],
    args: Args::AtMost(1),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::new(
        STRING,
        "availability",
        "Cluster Volume availability (\"active\", \"pause\", \"drain\") (default \"active\")",
    )
    .default("active"),
    Flag::new(STRING, "driver", "Specify volume driver name (default \"local\")").short('d').default("local"),
    Flag::new(STRING, "group", "Cluster Volume group (cluster volumes)"),
    Flag::new(LIST, "label", "Set metadata for a volume").check(opts::label),
    Flag::new(BYTES, "limit-bytes", "Minimum size of the Cluster Volume in bytes"),
    Flag::alias(STRING, "name", "name"),
    Flag::new(MAP, "opt", "Set driver specific options (default map[])").short('o'),
    Flag::new(BYTES, "required-bytes", "Maximum size of the Cluster Volume in bytes"),
    Flag::new(STRING, "scope", "Cluster Volume access scope (\"single\", \"multi\") (default \"single\")")
        .default("single"),
    Flag::new(MAP, "secret", "Cluster Volume secrets (default map[])"),
    Flag::new(
        STRING,
        "sharing",
        "Cluster Volume access sharing (\"none\", \"readonly\", \"onewriter\", \"all\") (default \"none\")",
    )
    .default("none"),
    Flag::new(LIST, "topology-preferred", "A topology that the Cluster Volume would be preferred in"),
    Flag::new(LIST, "topology-required", "A topology that the Cluster Volume must be accessible from"),
    Flag::new(STRING, "type", "Cluster Volume access type (\"mount\", \"block\") (default \"block\")")
        .default("block"),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let matches = &invocation.matches;
    let (flag, argument) = (matches.text("name"), invocation.arg(0));
    if !flag.is_empty() && !argument.is_empty() {
        return Err(
            "conflicting options: cannot specify a volume name through both --name and as a positional arg"
                .into(),
        );
    }
    let request = VolumeCreateRequest {
        name: if flag.is_empty() { argument } else { flag }.to_owned(),
        driver: matches.text("driver").to_owned(),
        driver_opts: key_values(&matches.list("opt")),
        labels: key_values(&matches.list("label")),
    };
    let client = invocation.engine.client().await?;
    let volume: Volume = client.post("/volumes/create", &Query::new(), &request).await?;
    output::line(&volume.name);
    Ok(0)
}
