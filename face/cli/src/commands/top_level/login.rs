//! `hull login`.

use std::io::BufRead;

use hull_client::Query;
use hull_docker_api::{AuthConfig, AuthResponse};

use crate::auth;
use crate::command::{Args, Command, Invocation};
use crate::error::{Failure, Result};
use crate::flags::{Flag, STRING};
use crate::output;

pub(crate) static COMMAND: Command = Command {
    name: "login",
    usage: "[OPTIONS] [SERVER]",
    about: "Authenticate to a registry.\nDefaults to Docker Hub if no server is specified.",
    aliases: &["login"],
    args: Args::AtMost(1),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::new(STRING, "password", "Password or Personal Access Token (PAT)").short('p'),
    Flag::switch("password-stdin", "Take the Password or Personal Access Token (PAT) from stdin"),
    Flag::new(STRING, "username", "Username").short('u'),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let registry =
        auth::key(invocation.arg(0)).trim_start_matches("https://").trim_end_matches('/').to_owned();
    let key =
        if invocation.arg(0).is_empty() { auth::HUB.to_owned() } else { auth::key(&registry).to_owned() };
    let stored = auth::find(invocation.engine.config(), &key);
    let matches = &invocation.matches;
    let asked = !matches.text("username").is_empty()
        || !matches.text("password").is_empty()
        || matches.on("password-stdin");
    let known = stored.is_some() && !asked;
    let mut credentials = credentials(&invocation, stored)?;
    credentials.serveraddress = key.clone();
    let client = invocation.engine.client().await?;
    let response: AuthResponse = client.post("/auth", &Query::new(), &credentials).await?;
    if !response.identity_token.is_empty() {
        credentials.password = String::new();
        credentials.identitytoken = response.identity_token;
    }
    let mut config = invocation.engine.config().clone();
    if !known && config.text("credsStore").is_empty() && config.value("credHelpers").is_none() {
        output::warn(&format!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential helper to remove this \
             warning. See\nhttps://docs.docker.com/go/credential-store/\n",
            invocation.engine.config_directory().join("config.json").display()
        ));
    }
    auth::store(&mut config, &key, &credentials)?;
    if !response.status.is_empty() {
        output::line(&response.status);
    }
    Ok(0)
}

/// What the flags say, what is stored, or what the user types.
fn credentials(invocation: &Invocation, stored: Option<AuthConfig>) -> Result<AuthConfig> {
    let matches = &invocation.matches;
    let (username, mut password) = (matches.text("username"), matches.text("password").to_owned());
    if matches.on("password-stdin") {
        if !password.is_empty() {
            return Err("conflicting options: cannot specify both --password and --password-stdin".into());
        }
        if username.is_empty() {
            return Err("the --password-stdin option requires --username to be set".into());
        }
        std::io::read_to_string(std::io::stdin())?.trim_end_matches(['\r', '\n']).clone_into(&mut password);
    } else if !password.is_empty() {
        output::warn("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
    }
    if username.is_empty()
        && password.is_empty()
        && let Some(stored) = stored
    {
        output::warn(&format!(
            "Authenticating with existing credentials... [Username: {}]\n\n Info -> To login with a different account, \
             run 'hull logout' followed by 'hull login'\n\n",
            stored.username
        ));
        return Ok(stored);
    }
    let terminal = crate::terminal::stdin_is_terminal();
    if !terminal && (username.is_empty() || password.is_empty()) {
        return Err(Failure::new("Error: Cannot perform an interactive login from a non TTY device"));
    }
    let username = if username.is_empty() { ask("Username: ", true)? } else { username.to_owned() };
    if username.is_empty() {
        return Err("Error: Non-null Username Required".into());
    }
    if password.is_empty() {
        password = ask("Password: ", false)?;
    }
    if password.is_empty() {
        return Err("Error: Password Required".into());
    }
    Ok(AuthConfig { username, password, ..AuthConfig::default() })
}

fn ask(prompt: &str, echo: bool) -> Result<String> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    output::text(prompt);
    let saved = tcgetattr(std::io::stdin()).map_err(std::io::Error::from)?;
    if !echo {
        let mut silent = saved.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(std::io::stdin(), OptionalActions::Now, &silent).map_err(std::io::Error::from)?;
    }
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    if !echo {
        tcsetattr(std::io::stdin(), OptionalActions::Now, &saved).map_err(std::io::Error::from)?;
        output::line("");
    }
    read?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
