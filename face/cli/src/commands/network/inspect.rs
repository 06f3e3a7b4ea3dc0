//! `hull network inspect`.

use crate::command::{Args, Command, Invocation};
use crate::commands::top_level::inspect::{Kind, inspect};
use crate::error::Result;
use crate::flags::{Flag, STRING};

pub(crate) static COMMAND: Command = Command {
    name: "inspect",
    usage: "[OPTIONS] NETWORK [NETWORK...]",
    about: "Display detailed information on one or more networks",
    aliases: &["network inspect"],
    args: Args::AtLeast(1),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::new(STRING, "format", "Format output using a custom template:\n'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template.\nRefer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates").short('f'),
    Flag::switch("verbose", "Verbose output for diagnostics").short('v'),
];

async fn run(invocation: Invocation) -> Result<u8> {
    inspect(&invocation, &[Kind::Network]).await
}
