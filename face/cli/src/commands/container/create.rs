//! `hull create`.

use std::rc::Rc;

use hull_client::{Client, Error};
use hull_docker_api::{ContainerCreateRequest, ContainerCreateResponse};

use crate::command::{Args, Command, Invocation};
use crate::commands::image::pull;
use crate::error::{Failure, Result};
use crate::flags::{Flag, STRING};
use crate::opts::create_flags::{CREATE, joined};
use crate::output;
use crate::output::progress::Sink;

pub(crate) static COMMAND: Command = Command {
    name: "create",
    usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    about: "Create a new container",
    aliases: &["container create", "create"],
    args: Args::AtLeast(1),
    flags: FLAGS,
    interspersed: false,
    run: |invocation| Box::pin(run(invocation)),
};

static FLAGS: &[Flag] = &joined::<{ CREATE.len() }, 1, { CREATE.len() + 1 }>(
    CREATE,
    [Flag::new(
        STRING,
        "pull",
        "Pull image before creating (\"always\", \"missing\", \"never\") (default \"missing\")",
    )
    .default("missing")],
);

async fn run(invocation: Invocation) -> Result<u8> {
    // Like docker, another status for a mistake in the command than for the engine's refusal.
    let mistake = |failure| with_help(&invocation, failure).with_status(125);
    check_pull(&invocation).map_err(mistake)?;
    let request = request(&invocation).map_err(mistake)?;
    let created = async {
        let client = invocation.engine.client().await?;
        create(&invocation, &client, &request).await
    };
    let created = created.await.map_err(|failure| failure.with_status(1))?;
    output::line(&created.id);
    Ok(0)
}

/// The request of `run` and `create`, with the proxy variables of the configuration.
pub(crate) fn request(invocation: &Invocation) -> Result<ContainerCreateRequest> {
    let mut request = crate::opts::create::request(&invocation.matches)?;
    let proxies = invocation.engine.config().proxies("default");
    for (name, value) in proxies {
        let env = request.config.env.get_or_insert_default();
        let set = |variable: &String| variable.split('=').next() == Some(name.as_str());
        if !env.iter().any(set) {
            env.push(format!("{name}={value}"));
        }
    }
    if invocation.matches.on("use-api-socket") {
        mount_api_socket(invocation, &mut request)?;
    }
    Ok(request)
}

/// `--use-api-socket`: the engine's socket in the container, where docker's clients look for it.
fn mount_api_socket(invocation: &Invocation, request: &mut ContainerCreateRequest) -> Result<()> {
    let location = invocation.engine.location()?;
    let Some(socket) = location.endpoint.socket_path() else {
        return Err("flag --use-api-socket can only be used with an engine on a unix socket".into());
    };
    let mount = hull_docker_api::Mount {
        kind: "bind".to_owned(),
        source: socket.display().to_string(),
        target: "/var/run/docker.sock".to_owned(),
        bind_options: Some(hull_docker_api::BindOptions::default()),
        ..hull_docker_api::Mount::default()
    };
    request.host_config.get_or_insert_default().mounts.push(mount);
    Ok(())
}

/// The engine's refusal with docker's prefix and hint; the shells' statuses for commands that cannot run.
pub(crate) fn with_help(invocation: &Invocation, failure: Failure) -> Failure {
    if failure.message.is_empty() {
        return failure;
    }
    let status = super::run::start_status(&failure.message);
    let command = invocation.path.split(' ').next_back().unwrap_or("run");
    let message = format!("hull: {}\n\nRun 'hull {command} --help' for more information", failure.message);
    Failure { message, ..failure }.with_status(status)
}

/// Creates the container, pulling its image when it is missing or `--pull=always`.
pub(crate) async fn create(
    invocation: &Invocation,
    client: &Rc<Client>,
    request: &ContainerCreateRequest,
) -> Result<ContainerCreateResponse> {
    let matches = &invocation.matches;
    let (name, platform, policy) = (matches.text("name"), matches.text("platform"), matches.text("pull"));
    check_pull(invocation)?;
    let image = &request.config.image;
    match image.parse::<hull_model::Reference>() {
        // The id of an image is no reference, but names one here.
        Ok(_) | Err(hull_model::ReferenceError::IsId(_)) => {}
        Err(error) => return Err(Failure::new(error.to_string())),
    }
    let mut id_file = IdFile::reserve(matches.text("cidfile"))?;
    let sink = if matches.on("quiet") { Sink::Nowhere } else { Sink::Stderr };
    if policy == "always" {
        pull::pull(invocation, client, image, platform, sink).await?;
    }
    let created = match client.container_create(request, name, platform).await {
        Err(Error::Api { status: 404, message })
            if policy == "missing" && message.contains("No such image") =>
        {
            if sink != Sink::Nowhere {
                output::warn(&format!("Unable to find image '{}' locally", pull::with_tag(image)));
            }
            pull::pull(invocation, client, image, platform, sink).await?;
            client.container_create(request, name, platform).await?
        }
        other => other?,
    };
    for warning in &created.warnings {
        output::warn(&format!("WARNING: {warning}"));
    }
    id_file.write(&created.id)?;
    Ok(created)
}

fn check_pull(invocation: &Invocation) -> Result<()> {
    match invocation.matches.text("pull") {
        "always" | "missing" | "never" => Ok(()),
        policy => Err(format!(
            "invalid pull option: '{policy}': must be one of \"always\", \"missing\" or \"never\""
        )
        .into()),
    }
}

/// `--cidfile`: made before the container so that two runs never share one, and removed when there is no container.
struct IdFile {
    path: String,
    written: bool,
}

impl IdFile {
    fn reserve(path: &str) -> Result<Self> {
        if !path.is_empty() {
            if std::path::Path::new(path).exists() {
                return Err(format!(
                    "container ID file found, make sure the other container isn't running or delete {path}"
                )
                .into());
            }
            std::fs::File::create(path).map_err(|error| {
                let reason = crate::opts::env::io_reason(&error);
                format!("failed to create the container ID file: open {path}: {reason}")
            })?;
        }
        Ok(Self { path: path.to_owned(), written: false })
    }

    fn write(&mut self, id: &str) -> Result<()> {
        if !self.path.is_empty() {
            std::fs::write(&self.path, id)
                .map_err(|error| format!("failed to write the container ID to the file: {error}"))?;
        }
        self.written = true;
        Ok(())
    }
}

impl Drop for IdFile {
    fn drop(&mut self) {
        if !self.written && !self.path.is_empty() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
