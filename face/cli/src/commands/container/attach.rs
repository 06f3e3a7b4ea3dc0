//! `hull attach`.

use hull_client::Query;
use hull_docker_api::{ContainerInspect, ContainerWait};

use crate::command::{Args, Command, Invocation};
use crate::error::{Failure, Result};
use crate::flags::{Flag, STRING};
use crate::signals;
use crate::streams::{Ended, Join, join};
use crate::terminal::Raw;

pub(crate) static COMMAND: Command = Command {
    name: "attach",
    usage: "[OPTIONS] CONTAINER",
    about: "Attach local standard input, output, and error streams to a running container",
    aliases: &["container attach", "attach"],
    args: Args::Exactly(1),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::new(STRING, "detach-keys", "Override the key sequence for detaching a container"),
    Flag::switch("no-stdin", "Do not attach STDIN"),
    Flag::switch("sig-proxy", "Proxy all received signals to the process (default true)").default("true"),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let matches = &invocation.matches;
    let client = invocation.engine.client().await?;
    let container = client.container_inspect(invocation.arg(0)).await?;
    check_attachable(&container)?;
    let stdin = !matches.on("no-stdin") && container.config.open_stdin;
    let tty = container.config.tty;
    super::check_tty(!matches.on("no-stdin"), tty)?;
    let (keys_text, detach_keys) = super::detach_keys(&invocation)?;
    let waiting = client.container_wait(&container.id, "").await?;
    let query = Query::new()
        .set("stream", "1")
        .flag("stdin", stdin)
        .set("stdout", "1")
        .set("stderr", "1")
        .set_nonempty("detachKeys", keys_text);
    let upgraded = client.container_attach(&container.id, &query).await?;
    let _signals = (matches.on("sig-proxy") && !tty).then(|| signals::forward(&client, &container.id));
    let _size = tty.then(|| signals::follow_size(&client, format!("/containers/{}", container.id)));
    let raw = (tty && stdin).then(Raw::enter).flatten();
    let ended = join(upgraded, Join { stdin, tty, detach_keys }).await;
    drop(raw);
    if ended? == Ended::Detached {
        return Err("read escape sequence".into());
    }
    let wait: ContainerWait = serde_json::from_slice(&waiting.bytes(&client).await?)?;
    match wait.error {
        Some(error) if !error.message.is_empty() => Err(Failure::new(error.message)),
        _ => Ok((wait.status_code & 0xff) as u8),
    }
}

fn check_attachable(container: &ContainerInspect) -> Result<()> {
    if !container.state.running {
        return Err("cannot attach to a stopped container, start it first".into());
    }
    if container.state.paused {
        return Err("cannot attach to a paused container, unpause it first".into());
    }
    if container.state.restarting {
        return Err("cannot attach to a restarting container, wait until it is running".into());
    }
    Ok(())
}
