//! `hull context show`.

use crate::command::{Args, Command, Invocation};
use crate::error::Result;
use crate::output;

pub(crate) static COMMAND: Command = Command {
    name: "show",
    usage: "",
    about: "Print the name of the current context",
    aliases: &["context show"],
    args: Args::None,
    flags: &[],
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

async fn run(invocation: Invocation) -> Result<u8> {
    output::line(&invocation.engine.context_name());
    Ok(0)
}
