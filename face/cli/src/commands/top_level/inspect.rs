//! `hull inspect`, and what the groups' `inspect` share.

use hull_client::{Client, Query, path_part};
use serde_json::Value;

use crate::command::{Args, Command, Invocation};
use crate::commands::formats;
use crate::error::{Failure, Result};
use crate::flags::{Flag, STRING};
use crate::output::{self, template};

pub(crate) static COMMAND: Command = Command {
    name: "inspect",
    usage: "[OPTIONS] NAME|ID [NAME|ID...]",
    about: "Return low-level information on Docker objects",
    aliases: &["inspect"],
    args: Args::AtLeast(1),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    formats::INSPECT,
    Flag::switch("size", "Display total file sizes if the type is container").short('s'),
    Flag::new(STRING, "type", "Only inspect objects of the given type"),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let kinds: &[Kind] = match invocation.matches.text("type") {
        "" if invocation.matches.is_set("type") => return Err("type is empty: must be one of \"config\", \"container\", \"image\", \"network\", \"node\", \"plugin\", \"secret\", \"service\", \"task\", \"volume\"".into()),
        "" => &[Kind::Container, Kind::Image, Kind::Network, Kind::Volume],
        "container" => &[Kind::Container],
        "image" => &[Kind::Image],
        "network" => &[Kind::Network],
        "volume" => &[Kind::Volume],
        kind @ ("config" | "node" | "plugin" | "secret" | "service" | "task") => {
            return Err(format!("inspecting objects of type {kind:?} is not implemented").into());
        }
        kind => {
            return Err(format!(
                "unknown type: {kind:?}: must be one of \"config\", \"container\", \"image\", \"network\", \"node\", \
                 \"plugin\", \"secret\", \"service\", \"task\", \"volume\""
            )
            .into());
        }
    };
    inspect(&invocation, kinds).await
}

/// A kind of object that can be inspected.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Container,
    Image,
    Network,
    Volume,
}

impl Kind {
    fn path(self, name: &str) -> String {
        let name = path_part(name);
        match self {
            Self::Container => format!("/containers/{name}/json"),
            Self::Image => format!("/images/{name}/json"),
            Self::Network => format!("/networks/{name}"),
            Self::Volume => format!("/volumes/{name}"),
        }
    }

    /// Keys the engine leaves out when they are empty, which templates may still ask for.
    fn omitted(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Container => &[
                ("State", "Health"),
                ("Config", "ExposedPorts"),
                ("Config", "Healthcheck"),
                ("Config", "StopSignal"),
                ("Config", "StopTimeout"),
                ("Config", "Shell"),
                ("Config", "MacAddress"),
                ("HostConfig", "Tmpfs"),
                ("HostConfig", "Sysctls"),
                ("HostConfig", "StorageOpt"),
                ("HostConfig", "Annotations"),
                ("HostConfig", "Mounts"),
                ("HostConfig", "Init"),
                ("HostConfig", "Runtime"),
                ("", "SizeRw"),
                ("", "SizeRootFs"),
            ],
            Self::Image => &[
                ("Config", "User"),
                ("Config", "ExposedPorts"),
                ("Config", "Env"),
                ("Config", "Entrypoint"),
                ("Config", "Cmd"),
                ("Config", "Volumes"),
                ("Config", "WorkingDir"),
                ("Config", "Labels"),
                ("Config", "StopSignal"),
                ("Config", "Healthcheck"),
                ("Config", "OnBuild"),
                ("Config", "Shell"),
                ("", "Variant"),
                ("", "OsVersion"),
            ],
            Self::Network => &[("", "Peers"), ("", "Services")],
            Self::Volume => &[("", "Status"), ("", "UsageData"), ("", "CreatedAt")],
        }
    }
}

/// Prints what the engine tells about each object named, of the first of `kinds` that has it.
pub(crate) async fn inspect(invocation: &Invocation, kinds: &[Kind]) -> Result<u8> {
    let matches = &invocation.matches;
    let form = matches.text("format");
    let template = match form {
        "" | "json" => None,
        form => Some(template::Format::parse(form)?),
    };
    let mut query = Query::new().flag("size", matches.on("size"));
    if matches.on("verbose") {
        query = query.set("verbose", "true");
    }
    query = query.set_nonempty("platform", crate::commands::platform(matches, "platform")?);
    let client = invocation.engine.client().await?;
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for name in &matches.args {
        match find(&client, kinds, name, &query).await {
            Ok((kind, value)) => match &template {
                Some(template) => match template.render_json(&with_omitted(kind, value.clone()), &value) {
                    Ok(text) => output::line(&text),
                    Err(failure) => failures.push(failure),
                },
                None => found.push(value),
            },
            Err(failure) => failures.push(failure),
        }
    }
    if template.is_none() {
        output::text(&match form {
            "json" => serde_json::to_string(&found)? + "\n",
            _ => indented(&found)?,
        });
    }
    let Some(first) = failures.first() else {
        return Ok(0);
    };
    let hint = first.hint.clone();
    let message = failures.iter().map(|failure| failure.message.as_str()).collect::<Vec<_>>().join("\n");
    Err(Failure { message, status: 1, hint, api_status: None })
}

async fn find(client: &Client, kinds: &[Kind], name: &str, query: &Query) -> Result<(Kind, Value)> {
    for kind in kinds {
        match client.get::<Value>(&kind.path(name), query).await {
            Ok(value) => return Ok((*kind, value)),
            Err(error) if error.is_not_found() && kinds.len() > 1 => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failure::new(format!("Error: No such object: {name}")))
}

fn with_omitted(kind: Kind, mut value: Value) -> Value {
    for (parent, key) in kind.omitted() {
        let object = if parent.is_empty() { Some(&mut value) } else { value.get_mut(*parent) };
        if let Some(object) = object.and_then(Value::as_object_mut)
            && !object.contains_key(*key)
        {
            object.insert((*key).to_owned(), Value::Null);
        }
    }
    value
}

/// A list as docker prints it, four spaces a level.
pub(crate) fn indented(values: &[Value]) -> Result<String> {
    use serde::Serialize;
    if values.is_empty() {
        return Ok("[]\n".to_owned());
    }
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    values.serialize(&mut serde_json::Serializer::with_formatter(&mut text, formatter))?;
    text.push(b'\n');
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indentation_is_dockers() {
        let values = [serde_json::json!({"Id": "a", "Args": [], "State": {"Pid": 1}})];
        let text = indented(&values).unwrap();
        assert_eq!(
            text,
            "[\n    {\n        \"Id\": \"a\",\n        \"Args\": [],\n        \"State\": {\n            \"Pid\": 1\n        }\n    }\n]\n"
        );
        assert_eq!(indented(&[]).unwrap(), "[]\n");
    }

    #[test]
    fn omitted_keys_can_be_asked_for() {
        let value = with_omitted(Kind::Container, serde_json::json!({"State": {"Status": "running"}}));
        let format =
            template::Format::parse("{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}")
                .unwrap();
        assert_eq!(format.render(&template::from_json(&value)).unwrap(), "none");
    }
}
