//! `hull logout`.

use crate::auth;
use crate::command::{Args, Command, Invocation};
use crate::error::Result;
use crate::output;

pub(crate) static COMMAND: Command = Command {
    name: "logout",
    usage: "[SERVER]",
    about: "Log out from a registry.\nIf no server is specified, the default is defined by the daemon.",
    aliases: &["logout"],
    args: Args::AtMost(1),
    flags: &[],
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

async fn run(invocation: Invocation) -> Result<u8> {
    let argument = invocation.arg(0).trim_start_matches("https://").trim_end_matches('/');
    let key = auth::key(argument).to_owned();
    let mut config = invocation.engine.config().clone();
    output::line(&format!(
        "Removing login credentials for {}",
        if argument.is_empty() { auth::HUB } else { argument }
    ));
    auth::erase(&mut config, &key)?;
    Ok(0)
}
