//! Commands about containers.

pub(crate) mod attach;
pub(crate) mod commit;
pub(crate) mod cp;
pub(crate) mod create;
pub(crate) mod diff;
pub(crate) mod exec;
pub(crate) mod export;
pub(crate) mod inspect;
pub(crate) mod kill;
pub(crate) mod logs;
pub(crate) mod ls;
pub(crate) mod pause;
pub(crate) mod port;
pub(crate) mod prune;
pub(crate) mod rename;
pub(crate) mod restart;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod start;
pub(crate) mod stats;
pub(crate) mod stop;
pub(crate) mod top;
pub(crate) mod unpause;
pub(crate) mod update;
pub(crate) mod wait;

use hull_client::Query;

use crate::command::{Group, Invocation};
use crate::error::{Result, for_each};

/// `hull container`.
pub(crate) static GROUP: Group = Group {
    about: "Manage containers",
    commands: &[
        &attach::COMMAND,
        &commit::COMMAND,
        &cp::COMMAND,
        &create::COMMAND,
        &diff::COMMAND,
        &exec::COMMAND,
        &export::COMMAND,
        &inspect::COMMAND,
        &kill::COMMAND,
        &logs::COMMAND,
        &ls::COMMAND,
        &pause::COMMAND,
        &port::COMMAND,
        &prune::COMMAND,
        &rename::COMMAND,
        &restart::COMMAND,
        &rm::COMMAND,
        &run::COMMAND,
        &start::COMMAND,
        &stats::COMMAND,
        &stop::COMMAND,
        &top::COMMAND,
        &unpause::COMMAND,
        &update::COMMAND,
        &wait::COMMAND,
    ],
};

/// Does an action that answers with nothing on each container named, and prints the names.
async fn each_action(invocation: &Invocation, action: &'static str, query: Query) -> Result<u8> {
    let client = invocation.engine.client().await?;
    for_each(&invocation.matches.args, |name| {
        let (client, query) = (client.clone(), query.clone());
        async move {
            client.container_action(&name, action, &query).await?;
            Ok(Some(name))
        }
    })
    .await
}

/// A `--detach-keys` value: the flag, the configuration, or docker's default.
fn detach_keys(invocation: &Invocation) -> Result<(String, Vec<u8>)> {
    let flag = invocation.matches.text("detach-keys");
    let text = match flag {
        "" => invocation.engine.config().text("detachKeys"),
        flag => flag,
    };
    let keys = match text {
        "" => crate::detach_keys::DEFAULT,
        text => text,
    };
    Ok((text.to_owned(), crate::detach_keys::parse(keys)?))
}

/// Standard input must be a terminal when a terminal is to be attached to it.
fn check_tty(attach_stdin: bool, tty: bool) -> Result<()> {
    if attach_stdin && tty && !crate::terminal::stdin_is_terminal() {
        return Err("the input device is not a TTY".into());
    }
    Ok(())
}
