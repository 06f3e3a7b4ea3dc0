//! `hull kill`.

use hull_client::Query;

use crate::command::{Args, Command, Invocation};
use crate::error::Result;
use crate::flags::{Flag, STRING};

pub(crate) static COMMAND: Command = Command {
    name: "kill",
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Kill one or more running containers",
    aliases: &["container kill", "kill"],
    args: Args::AtLeast(1),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[Flag::new(STRING, "signal", "Signal to send to the container").short('s')];

async fn run(invocation: Invocation) -> Result<u8> {
    let query = Query::new().set_nonempty("signal", invocation.matches.text("signal"));
    super::each_action(&invocation, "kill", query).await
}
