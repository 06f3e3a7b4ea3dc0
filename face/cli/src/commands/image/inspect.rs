//! `hull image inspect`.

use crate::command::{Args, Command, Invocation};
use crate::commands::top_level::inspect::{Kind, inspect};
use crate::error::Result;
use crate::flags::{Flag, STRING};

pub(crate) static COMMAND: Command = Command {
    name: "inspect",
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Display detailed information on one or more images",
    aliases: &["image inspect"],
    args: Args::AtLeast(1),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::new(STRING, "format", "Format output using a custom template:\n'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template.\nRefer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates").short('f'),
    Flag::new(STRING, "platform", "Inspect a specific platform of the multi-platform image.\nIf the image or the server is not multi-platform capable, the command will error out if the platform does not match.\n'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)"),
];

async fn run(invocation: Invocation) -> Result<u8> {
    inspect(&invocation, &[Kind::Image]).await
}
