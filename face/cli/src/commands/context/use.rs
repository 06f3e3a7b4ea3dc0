//! `hull context use`.

use crate::command::{Args, Command, Invocation};
use crate::error::Result;
use crate::output;

pub(crate) static COMMAND: Command = Command {
    name: "use",
    usage: "CONTEXT",
    about: "Set the current docker context",
    aliases: &["context use"],
    args: Args::Exactly(1),
    flags: &[],
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

async fn run(invocation: Invocation) -> Result<u8> {
    let name = invocation.arg(0);
    if name != "default" {
        super::store(&invocation).find(name)?;
    }
    let mut config = invocation.engine.config().clone();
    config.set("currentContext", Some(name).filter(|name| *name != "default"));
    config.save()?;
    output::line(name);
    output::warn(&format!("Current context is now {name:?}"));
    if name != "default" && std::env::var_os("DOCKER_HOST").is_some_and(|host| !host.is_empty()) {
        output::warn(&format!(
            "Warning: DOCKER_HOST environment variable overrides the active context. To use {name:?}, either set the \
             global --context flag, or unset DOCKER_HOST environment variable."
        ));
    }
    Ok(0)
}
