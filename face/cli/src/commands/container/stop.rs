//! `hull stop`.

use hull_client::Query;

use crate::command::{Args, Command, Invocation};
use crate::error::Result;
use crate::flags::{Flag, INT, STRING};

pub(crate) static COMMAND: Command = Command {
    name: "stop",
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Stop one or more running containers",
    aliases: &["container stop", "stop"],
    args: Args::AtLeast(1),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::new(STRING, "signal", "Signal to send to the container").short('s'),
    Flag::new(INT, "timeout", "Seconds to wait before killing the container").short('t'),
    Flag::alias(INT, "time", "timeout"),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let matches = &invocation.matches;
    let mut query = Query::new().set_nonempty("signal", matches.text("signal"));
    if matches.is_set("timeout") {
        query = query.set("t", matches.int("timeout").to_string());
    }
    super::each_action(&invocation, "stop", query).await
}
