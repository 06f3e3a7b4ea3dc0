//! `hull context create`.

use crate::command::{Args, Command, Invocation};
use crate::config::{ContextEndpoint, ContextMeta};
use crate::error::{Failure, Result};
use crate::flags::{Flag, LIST, STRING, named};
use crate::opts::key_values;
use crate::output;

pub(crate) static COMMAND: Command = Command {
    name: "create",
    usage: "[OPTIONS] CONTEXT",
    about: ABOUT,
    aliases: &["context create"],
    args: Args::Exactly(1),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const ABOUT: &str = "Create a context

Docker endpoint config:

NAME                DESCRIPTION
from                Copy named context's Docker endpoint configuration
host                Docker endpoint on which to connect
ca                  Trust certs signed only by this CA
cert                Path to TLS certificate file
key                 Path to TLS key file
skip-tls-verify     Skip TLS certificate validation

Example:

$ hull context create my-context --description \"some description\" --docker \"host=tcp://myserver:2376,ca=~/ca-file,cert=~/cert-file,key=~/key-file\"";

const FLAGS: &[Flag] = &[
    Flag::new(STRING, "description", "Description of the context"),
    Flag::new(named(LIST, "stringToString"), "docker", "set the docker endpoint (default [])"),
    Flag::new(STRING, "from", "create context from a named context"),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let (matches, name, store) = (&invocation.matches, invocation.arg(0), super::store(&invocation));
    check_name(name)?;
    if store.find(name).is_ok() {
        return Err(format!("context {name:?} already exists").into());
    }
    let settings = key_values(&matches.comma_list("docker"));
    const KEYS: &[&str] = &["from", "host", "ca", "cert", "key", "skip-tls-verify"];
    if let Some(key) = settings.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(format!("unable to create docker endpoint config: unrecognized config key: {key}").into());
    }
    let setting = |key: &str| settings.get(key).cloned().unwrap_or_default();
    let from = match (matches.text("from"), setting("from")) {
        ("", from) => from,
        (from, _) => from.to_owned(),
    };
    let mut context = match from.as_str() {
        // Without settings the context is what the default one is now.
        "" if settings.is_empty() => super::default_context(),
        "" => ContextMeta::default(),
        "default" => super::default_context(),
        from => store.find(from)?,
    };
    context.name = name.to_owned();
    if matches.is_set("description") {
        context.metadata.insert("Description".to_owned(), matches.text("description").into());
    }
    if from.is_empty() && !settings.is_empty() {
        let host = setting("host");
        if host.is_empty() {
            return Err("docker endpoint configuration is required".into());
        }
        hull_client::Endpoint::parse(&host)
            .map_err(|error| format!("invalid docker endpoint options: {error}"))?;
        let skip_tls_verify = matches!(setting("skip-tls-verify").as_str(), "true" | "1");
        context.endpoints.insert("docker".to_owned(), ContextEndpoint { host, skip_tls_verify });
    }
    store.save(&context)?;
    let certificates = store.tls_directory(name).join("docker");
    for (key, file) in [("ca", "ca.pem"), ("cert", "cert.pem"), ("key", "key.pem")] {
        let source = setting(key);
        if !source.is_empty() {
            let content = std::fs::read(&source).map_err(|error| {
                Failure::new(format!("open {source}: {}", crate::opts::env::io_reason(&error)))
            })?;
            std::fs::create_dir_all(&certificates)?;
            crate::config::write_private(&certificates.join(file), &content)?;
        }
    }
    output::line(name);
    output::warn(&format!("Successfully created context {name:?}"));
    Ok(0)
}

fn check_name(name: &str) -> Result<()> {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = name.bytes().skip(1).all(|byte| byte.is_ascii_alphanumeric() || b"_.+-".contains(&byte));
    match name {
        "default" => Err("default is a reserved context name".replacen("default", "\"default\"", 1).into()),
        _ if first && rest && name.len() > 1 => Ok(()),
        _ => Err(format!(
            "context name {name:?} is invalid, names are validated against regexp \"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$\""
        )
        .into()),
    }
}
