//! `hull context rm`.

use crate::command::{Args, Command, Invocation};
use crate::error::{Failure, Result, for_each_in_order};
use crate::flags::Flag;

pub(crate) static COMMAND: Command = Command {
    name: "rm",
    usage: "CONTEXT [CONTEXT...]",
    about: "Remove one or more contexts",
    aliases: &["context rm", "context remove"],
    args: Args::AtLeast(1),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[Flag::switch("force", "Force the removal of a context in use").short('f')];

async fn run(invocation: Invocation) -> Result<u8> {
    let (store, force) = (super::store(&invocation), invocation.matches.on("force"));
    let current = invocation.engine.context_name();
    for_each_in_order(&invocation.matches.args, |name| {
        let removed = remove(&invocation, &store, &name, &current, force);
        async move { removed.map(|()| Some(name)) }
    })
    .await
}

fn remove(
    invocation: &Invocation,
    store: &crate::config::ContextStore,
    name: &str,
    current: &str,
    force: bool,
) -> Result<()> {
    if name == "default" {
        return Err(Failure::new("context \"default\" cannot be removed"));
    }
    if name == current {
        if !force {
            return Err(Failure::new(format!("context {name:?} is in use, set -f flag to force remove")));
        }
        let mut config = invocation.engine.config().clone();
        config.set("currentContext", None);
        config.save()?;
    }
    match store.find(name) {
        Err(_) if force => Ok(()),
        Err(_) => Err(Failure::new(format!("context {name:?} does not exist"))),
        Ok(_) => store.remove(name),
    }
}
