//! `hull network rm`.

use hull_client::{Query, path_part};

use crate::command::{Args, Command, Invocation};
use crate::error::Result;
use crate::flags::Flag;
use crate::output;

pub(crate) static COMMAND: Command = Command {
    name: "rm",
    usage: "NETWORK [NETWORK...]",
    about: "Remove one or more networks",
    aliases: &["network rm", "network remove"],
    args: Args::AtLeast(1),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[Flag::switch("force", "Do not error if the network does not exist").short('f')];

async fn run(invocation: Invocation) -> Result<u8> {
    let force = invocation.matches.on("force");
    let client = invocation.engine.client().await?;
    let mut failed = false;
    for name in &invocation.matches.args {
        match client.delete(&format!("/networks/{}", path_part(name)), &Query::new()).await {
            Ok(_) => output::line(name),
            Err(error) if force && error.is_not_found() => {}
            Err(error) => {
                output::warn(&error.to_string());
                failed = true;
            }
        }
    }
    // The failures were told as they came; docker ends with this line.
    if failed { Err("exit status 1".into()) } else { Ok(0) }
}
