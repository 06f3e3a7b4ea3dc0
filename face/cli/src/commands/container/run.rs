//! `hull run`: create, attach, start, wait.

use std::rc::Rc;

use hull_client::{Client, Query, Upgraded};
use hull_docker_api::{ContainerConfig, ContainerWait};

use super::create;
use crate::command::{Args, Command, Invocation};
use crate::error::{Failure, Result};
use crate::flags::{Flag, STRING};
use crate::opts::create_flags::{CREATE, joined};
use crate::streams::{Ended, Join, join};
use crate::terminal::{self, Raw};
use crate::{output, signals};

pub(crate) static COMMAND: Command = Command {
    name: "run",
    usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    about: "Create and run a new container from an image",
    aliases: &["container run", "run"],
    args: Args::AtLeast(1),
    flags: FLAGS,
    interspersed: false,
    run: |invocation| Box::pin(run(invocation)),
};

static FLAGS: &[Flag] = &joined::<{ CREATE.len() }, 4, { CREATE.len() + 4 }>(
    CREATE,
    [
        Flag::switch("detach", "Run container in background and print container ID").short('d'),
        Flag::new(STRING, "detach-keys", "Override the key sequence for detaching a container"),
        Flag::new(
            STRING,
            "pull",
            "Pull image before running (\"always\", \"missing\", \"never\") (default \"missing\")",
        )
        .default("missing"),
        Flag::switch("sig-proxy", "Proxy received signals to the process (default true)").default("true"),
    ],
);

async fn run(invocation: Invocation) -> Result<u8> {
    let matches = &invocation.matches;
    if matches.on("detach") && matches.is_set("attach") {
        return Err(
            Failure::new("conflicting options: cannot specify both --attach and --detach").with_status(125)
        );
    }
    match run_container(&invocation).await {
        Ok(status) => Ok(status),
        Err(failure) => Err(create::with_help(&invocation, failure)),
    }
}

async fn run_container(invocation: &Invocation) -> Result<u8> {
    let matches = &invocation.matches;
    let mut request = create::request(invocation)?;
    let detach = matches.on("detach");
    let config = &mut request.config;
    if detach {
        (config.attach_stdin, config.attach_stdout, config.attach_stderr) = (false, false, false);
        config.stdin_once = false;
    } else {
        super::check_tty(config.attach_stdin, config.tty)?;
    }
    if let Some(host) = &mut request.host_config {
        host.console_size = terminal::size();
    }
    let (keys_text, detach_keys) = super::detach_keys(invocation)?;
    let client = invocation.engine.client().await?;
    let created = create::create(invocation, &client, &request).await?;
    if detach {
        client.container_action(&created.id, "start", &Query::new()).await?;
        output::line(&created.id);
        return Ok(0);
    }
    let session = Session { client, id: created.id, removed: matches.on("rm"), detach_keys, keys_text };
    session.run(&request.config, matches.on("sig-proxy")).await
}

/// An attached run of a created container.
struct Session {
    client: Rc<Client>,
    id: String,
    /// The engine removes the container at its end.
    removed: bool,
    detach_keys: Vec<u8>,
    keys_text: String,
}

impl Session {
    async fn run(self, config: &ContainerConfig, sig_proxy: bool) -> Result<u8> {
        let signals = sig_proxy.then(|| signals::forward(&self.client, &self.id));
        let condition = if self.removed { "removed" } else { "next-exit" };
        // Both must be in place before the start, on connections of their own; neither depends on the other, nor
        // does opening the connection the start will use.
        let (upgraded, waiting, connected) = tokio::join!(
            self.attach(config),
            self.client.container_wait(&self.id, condition),
            self.client.connect()
        );
        connected?;
        let waiting = waiting?;
        let started = self.client.container_action(&self.id, "start", &Query::new()).await;
        if let Err(error) = started {
            if self.removed {
                // The engine removes what did not start; the next run may use the same name.
                let _ = waiting.bytes(&self.client).await;
            }
            return Err(error.into());
        }
        let tty = config.tty;
        let size = (tty && terminal::stdout_is_terminal())
            .then(|| signals::follow_size(&self.client, format!("/containers/{}", self.id)));
        if let Some(upgraded) = upgraded? {
            let stdin = config.attach_stdin;
            let raw = (tty && stdin).then(Raw::enter).flatten();
            let ended = join(upgraded, Join { stdin, tty, detach_keys: self.detach_keys }).await;
            drop(raw);
            if ended? == Ended::Detached {
                return Ok(0);
            }
        }
        let wait: ContainerWait = serde_json::from_slice(&waiting.bytes(&self.client).await?)?;
        drop((signals, size));
        match wait.error {
            Some(error) if !error.message.is_empty() => {
                Err(Failure::new(format!("error waiting for container: {}", error.message)))
            }
            _ => Ok((wait.status_code & 0xff) as u8),
        }
    }

    async fn attach(&self, config: &ContainerConfig) -> Result<Option<Upgraded>> {
        if !config.attach_stdin && !config.attach_stdout && !config.attach_stderr {
            return Ok(None);
        }
        let query = Query::new()
            .set("stream", "1")
            .flag("stdin", config.attach_stdin)
            .flag("stdout", config.attach_stdout)
            .flag("stderr", config.attach_stderr)
            .set_nonempty("detachKeys", &self.keys_text);
        Ok(Some(self.client.container_attach(&self.id, &query).await?))
    }
}

/// The exit status for an engine's failure: 127 for a command that was not found, 126 for one that cannot be
/// executed, 125 for everything else.
pub(crate) fn start_status(message: &str) -> u8 {
    let has = |text: &str| message.contains(text);
    if has("executable file not found") || has("no such file or directory") {
        127
    } else if has("permission denied") && !has("docker daemon socket") || has("is a directory") {
        126
    } else {
        125
    }
}
