//! `hull manifest rm`.

use super::reference;
use super::store::Lists;
use crate::command::{Args, Command, Invocation};
use crate::error::{Failure, Result};

pub(crate) static COMMAND: Command = Command {
    name: "rm",
    usage: "MANIFEST_LIST [MANIFEST_LIST...]",
    about: "Delete one or more manifest lists from local storage",
    aliases: &["manifest rm"],
    args: Args::AtLeast(1),
    flags: &[],
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

async fn run(invocation: Invocation) -> Result<u8> {
    let lists = Lists::new(&invocation.engine.config_directory());
    let mut errors = Vec::new();
    for name in &invocation.matches.args {
        let list = reference(name)?;
        match lists.contains(&list) {
            true => lists.remove(&list)?,
            false => errors.push(format!("No such manifest: {name}")),
        }
    }
    if errors.is_empty() { Ok(0) } else { Err(Failure::new(errors.join("\n"))) }
}
