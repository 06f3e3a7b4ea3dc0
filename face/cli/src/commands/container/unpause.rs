//! `hull unpause`.

use hull_client::Query;

use crate::command::{Args, Command, Invocation};
use crate::error::Result;

pub(crate) static COMMAND: Command = Command {
    name: "unpause",
    usage: "CONTAINER [CONTAINER...]",
    about: "Unpause all processes within one or more containers",
    aliases: &["container unpause", "unpause"],
    args: Args::AtLeast(1),
    flags: &[],
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

async fn run(invocation: Invocation) -> Result<u8> {
    super::each_action(&invocation, "unpause", Query::new()).await
}
