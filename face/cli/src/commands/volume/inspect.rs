//! `hull volume inspect`.

use crate::command::{Args, Command, Invocation};
use crate::commands::formats;
use crate::commands::top_level::inspect::{Kind, inspect};
use crate::error::Result;
use crate::flags::Flag;

pub(crate) static COMMAND: Command = Command {
    name: "inspect",
    usage: "[OPTIONS] VOLUME [VOLUME...]",
    about: "Display detailed information on one or more volumes",
    aliases: &["volume inspect"],
    args: Args::AtLeast(1),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[formats::INSPECT];

async fn run(invocation: Invocation) -> Result<u8> {
    inspect(&invocation, &[Kind::Volume]).await
}
