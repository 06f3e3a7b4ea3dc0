//! `hull version`.

use hull_client::Query;
use hull_docker_api::{API_VERSION, Version};
use serde_json::{Value, json};

use crate::command::{Args, Command, Invocation};
use crate::commands::formats;
use crate::error::Result;
use crate::flags::Flag;
use crate::output::{self, template};

pub(crate) static COMMAND: Command = Command {
    name: "version",
    usage: "[OPTIONS]",
    about: "Show the Docker version information",
    aliases: &["version"],
    args: Args::None,
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[formats::INSPECT];

async fn run(invocation: Invocation) -> Result<u8> {
    let server = async {
        let client = invocation.engine.client().await?;
        let server: Value = client.get("/version", &Query::new()).await?;
        Ok((server, client.api_version()))
    };
    let (server, failure) = match server.await {
        Ok((server, api)) => (Some((server, api)), None),
        Err(failure) => (None, Some(failure)),
    };
    let api = server.as_ref().map_or_else(|| API_VERSION.to_owned(), |(_, api)| api.clone());
    let server = server.map(|(server, _)| server);
    let client = json!({
        "Platform": {"Name": ""},
        "Version": env!("CARGO_PKG_VERSION"),
        "ApiVersion": api,
        "DefaultAPIVersion": API_VERSION,
        "GitCommit": "",
        "GoVersion": "",
        "Os": std::env::consts::OS,
        "Arch": go_arch(),
        "BuildTime": "",
        "Context": invocation.engine.context_name(),
    });
    match invocation.matches.text("format") {
        "" => output::text(&text(&client, server.as_ref())?),
        format => {
            let value = json!({"Client": client, "Server": server});
            match format {
                "json" => output::line(&value.to_string()),
                format => output::line(
                    &template::Format::parse(format)?.render_json(&with_go_names(value.clone()), &value)?,
                ),
            }
        }
    }
    match failure {
        Some(failure) => Err(failure),
        None => Ok(0),
    }
}

pub(crate) fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        arch => arch,
    }
}

/// When the engine was built, as `Mon Jan  2 03:04:05 2026`.
fn built(time: &str) -> String {
    match time.parse::<jiff::Timestamp>() {
        Ok(at) => at.strftime("%a %b %e %H:%M:%S %Y").to_string(),
        Err(_) => time.to_owned(),
    }
}

/// Adds the names templates know keys by that differ from those in JSON.
fn with_go_names(mut value: Value) -> Value {
    if value["Server"].is_null() {
        // Templates print nothing for an engine that does not answer.
        value["Server"] = serde_json::to_value(Version::default()).unwrap_or_default();
    }
    for side in ["Client", "Server"] {
        for (name, key) in [("APIVersion", "ApiVersion"), ("MinAPIVersion", "MinAPIVersion")] {
            if let Some(found) = value[side].get(key).cloned() {
                value[side][name] = found;
            }
        }
    }
    // Left out of JSON when they say nothing, but fields all the same.
    let omitted = [("Experimental", json!(false)), ("BuildTime", json!("")), ("KernelVersion", json!(""))];
    for (name, nothing) in omitted {
        if value["Server"].get(name).is_none() {
            value["Server"][name] = nothing;
        }
    }
    value
}

fn text(client: &Value, server: Option<&Value>) -> Result<String> {
    let field = |key: &str| client[key].as_str().unwrap_or_default().to_owned();
    let mut text = format!(
        "Client:\n Version:           {}\n API version:       {}\n OS/Arch:           {}/{}\n Context:           {}\n",
        field("Version"),
        field("ApiVersion"),
        field("Os"),
        field("Arch"),
        field("Context")
    );
    let Some(server) = server else {
        return Ok(text);
    };
    let server: Version = serde_json::from_value(server.clone())?;
    text += &format!("\nServer: {}\n Engine:\n", server.platform.name);
    let minimum = match server.min_api_version.as_str() {
        "" => String::new(),
        minimum => format!(" (minimum version {minimum})"),
    };
    let mut add = |key: &str, value: String| {
        if !value.is_empty() {
            text += &format!("  {:<17} {value}\n", format!("{key}:"));
        }
    };
    add("Version", server.version);
    add("API version", server.api_version + &minimum);
    add("Go version", server.go_version);
    add("Git commit", server.git_commit);
    add("Built", built(&server.build_time));
    add("OS/Arch", format!("{}/{}", server.os, server.arch));
    add("Experimental", server.experimental.to_string());
    for component in server.components.iter().filter(|component| component.name != "Engine") {
        text += &format!(" {}:\n  {:<17} {}\n", component.name, "Version:", component.version);
        for (key, value) in component.details.iter().filter(|(_, value)| !value.is_empty()) {
            text += &format!("  {:<17} {value}\n", format!("{key}:"));
        }
    }
    Ok(text)
}
