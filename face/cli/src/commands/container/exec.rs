//! `hull exec`.

use hull_docker_api::{ExecCreateRequest, ExecStartRequest};

use crate::command::{Args, Command, Invocation};
use crate::error::{Failure, Result};
use crate::flags::{Flag, LIST, STRING};
use crate::opts;
use crate::opts::env;
use crate::signals;
use crate::streams::{Join, join};
use crate::terminal::{self, Raw};

pub(crate) static COMMAND: Command = Command {
    name: "exec",
    usage: "[OPTIONS] CONTAINER COMMAND [ARG...]",
    about: "Execute a command in a running container",
    aliases: &["container exec", "exec"],
    args: Args::AtLeast(2),
    flags: FLAGS,
    interspersed: false,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::switch("detach", "Detached mode: run command in the background").short('d'),
    Flag::new(STRING, "detach-keys", "Override the key sequence for detaching a container"),
    Flag::new(LIST, "env", "Set environment variables").short('e').check(opts::env_variable),
    Flag::new(LIST, "env-file", "Read in a file of environment variables"),
    Flag::switch("interactive", "Keep STDIN open even if not attached").short('i'),
    Flag::switch("privileged", "Give extended privileges to the command"),
    Flag::switch("tty", "Allocate a pseudo-TTY").short('t'),
    Flag::new(STRING, "user", "Username or UID (format: \"<name|uid>[:<group|gid>]\")").short('u'),
    Flag::new(STRING, "workdir", "Working directory inside the container").short('w'),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let request = request(&invocation)?;
    let (detach, tty, stdin) = (invocation.matches.on("detach"), request.tty, request.attach_stdin);
    if !detach {
        super::check_tty(stdin, tty)?;
    }
    let client = invocation.engine.client().await?;
    let exec = client.exec_create(invocation.arg(0), &request).await?;
    if exec.id.is_empty() {
        return Err("exec ID empty".into());
    }
    let start = ExecStartRequest { detach, tty, console_size: request.console_size };
    if detach {
        client.exec_start(&exec.id, &start).await?;
        return Ok(0);
    }
    let (_, detach_keys) = super::detach_keys(&invocation)?;
    let upgraded = client.exec_attach(&exec.id, &start).await.map_err(start_failure)?;
    let size = (tty && terminal::stdin_is_terminal())
        .then(|| signals::follow_size(&client, format!("/exec/{}", exec.id)));
    let raw = (tty && stdin).then(Raw::enter).flatten();
    let ended = join(upgraded, Join { stdin, tty, detach_keys }).await;
    drop((raw, size));
    ended?;
    let state = client.exec_inspect(&exec.id).await?;
    Ok((state.exit_code.unwrap_or(0) & 0xff) as u8)
}

/// A command that cannot be started: the shells' statuses.
fn start_failure(error: hull_client::Error) -> Failure {
    let failure = Failure::from(error);
    let status = crate::commands::container::run::start_status(&failure.message);
    failure.with_status(if status == 125 { 1 } else { status })
}

fn request(invocation: &Invocation) -> Result<ExecCreateRequest> {
    let matches = &invocation.matches;
    let detach = matches.on("detach");
    let (keys_text, _) = super::detach_keys(invocation)?;
    let tty = matches.on("tty");
    let size = terminal::size();
    Ok(ExecCreateRequest {
        user: matches.text("user").to_owned(),
        privileged: matches.on("privileged"),
        tty,
        console_size: (tty && size != [0, 0]).then_some(size),
        attach_stdin: !detach && matches.on("interactive"),
        attach_stdout: !detach,
        attach_stderr: !detach,
        detach_keys: keys_text,
        env: Some(env::variables(&matches.list("env-file"), &matches.list("env"))?)
            .filter(|variables| !variables.is_empty()),
        working_dir: matches.text("workdir").to_owned(),
        cmd: Some(matches.args.get(1..).unwrap_or_default().to_vec()),
    })
}
