//! `hull image inspect`.

use crate::command::{Args, Command, Invocation};
use crate::commands::formats;
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
    formats::INSPECT,
    Flag::new(
        STRING,
        "platform",
        "Inspect a specific platform of the multi-platform image.\nIf the image or the server is not multi-platform capable, the command will error out if the platform does not match.\n'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)",
    ),
];

async fn run(invocation: Invocation) -> Result<u8> {
    inspect(&invocation, &[Kind::Image]).await
}
