//! `hull start`.

use hull_client::Query;
use hull_docker_api::ContainerWait;

use crate::command::{Args, Command, Invocation};
use crate::error::{Failure, Result, for_each_in_order};
use crate::flags::{Flag, STRING};
use crate::signals;
use crate::streams::{Ended, Join, join};
use crate::terminal::Raw;

pub(crate) static COMMAND: Command = Command {
    name: "start",
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Start one or more stopped containers",
    aliases: &["container start", "start"],
    args: Args::AtLeast(1),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::switch("attach", "Attach STDOUT/STDERR and forward signals").short('a'),
    Flag::new(STRING, "checkpoint", "Restore from this checkpoint"),
    Flag::new(STRING, "checkpoint-dir", "Use a custom checkpoint storage directory"),
    Flag::new(STRING, "detach-keys", "Override the key sequence for detaching a container"),
    Flag::switch("interactive", "Attach container's STDIN").short('i'),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let matches = &invocation.matches;
    if matches.on("attach") || matches.on("interactive") {
        return attached(&invocation).await;
    }
    let client = invocation.engine.client().await?;
    let query = checkpoint(&invocation);
    let result = for_each_in_order(&matches.args, |name| {
        let (client, query) = (client.clone(), query.clone());
        async move {
            client.container_action(&name, "start", &query).await?;
            Ok(Some(name))
        }
    })
    .await;
    result.map_err(|failure| match failure.message.lines().count() {
        0 => failure,
        _ => {
            let names = matches.args.join(", ");
            Failure {
                message: format!("{}\nError: failed to start containers: {names}", failure.message),
                ..failure
            }
        }
    })
}

fn checkpoint(invocation: &Invocation) -> Query {
    let matches = &invocation.matches;
    Query::new()
        .set_nonempty("checkpoint", matches.text("checkpoint"))
        .set_nonempty("checkpoint-dir", matches.text("checkpoint-dir"))
}

async fn attached(invocation: &Invocation) -> Result<u8> {
    let matches = &invocation.matches;
    if matches.args.len() > 1 {
        return Err("you cannot start and attach multiple containers at once".into());
    }
    let client = invocation.engine.client().await?;
    let container = client.container_inspect(invocation.arg(0)).await?;
    let tty = container.config.tty;
    let stdin = matches.on("interactive") && container.config.open_stdin;
    let (keys_text, detach_keys) = super::detach_keys(invocation)?;
    let query = Query::new()
        .set("stream", "1")
        .flag("stdin", stdin)
        .set("stdout", "1")
        .set("stderr", "1")
        .set_nonempty("detachKeys", keys_text);
    let upgraded = client.container_attach(&container.id, &query).await?;
    let condition = if container.host_config.auto_remove { "removed" } else { "next-exit" };
    let waiting = client.container_wait(&container.id, condition).await?;
    let _signals = (matches.on("sig-proxy") && !tty).then(|| signals::forward(&client, &container.id));
    client.container_action(&container.id, "start", &checkpoint(invocation)).await?;
    let _size = tty.then(|| signals::follow_size(&client, format!("/containers/{}", container.id)));
    let raw = (tty && stdin).then(Raw::enter).flatten();
    let ended = join(upgraded, Join { stdin, tty, detach_keys }).await;
    drop(raw);
    if ended? == Ended::Detached {
        return Ok(0);
    }
    let wait: ContainerWait = serde_json::from_slice(&waiting.bytes(&client).await?)?;
    Ok((wait.status_code & 0xff) as u8)
}
