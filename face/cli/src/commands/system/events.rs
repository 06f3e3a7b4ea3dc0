//! `hull events`.

use hull_client::{JsonLines, Method, Query, empty};
use hull_docker_api::Event;

use crate::command::{Args, Command, Invocation};
use crate::commands::formats;
use crate::error::Result;
use crate::flags::{FILTER, Flag, STRING};
use crate::output::{self, template};

pub(crate) static COMMAND: Command = Command {
    name: "events",
    usage: "[OPTIONS]",
    about: "Get real time events from the server",
    aliases: &["system events", "events"],
    args: Args::None,
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::new(FILTER, "filter", "Filter output based on conditions provided").short('f'),
    formats::INSPECT_LONG,
    Flag::new(STRING, "since", "Show all events created since timestamp"),
    Flag::new(STRING, "until", "Stream events until this timestamp"),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let matches = &invocation.matches;
    let mut query = Query::new();
    for flag in ["since", "until"] {
        let text = matches.text(flag);
        if !text.is_empty() {
            let at = crate::commands::timestamp(text)
                .map_err(|()| format!("failed to parse value as time or duration: {text:?}"))?;
            query = query.set(flag, at);
        }
    }
    query = query.filters(&matches.filters("filter"));
    let format = Form::parse(matches.text("format"))?;
    let client = invocation.engine.client().await?;
    let reply = client.send(Method::GET, "/events", &query, empty(), &[]).await?;
    let mut events = JsonLines::new(reply);
    while let Some(event) = events.next::<serde_json::Value>().await? {
        output::line(&format.render(event)?);
    }
    Ok(0)
}

enum Form {
    Line,
    Json,
    Template(template::Format),
}

impl Form {
    fn parse(text: &str) -> Result<Self> {
        match text {
            "" => Ok(Self::Line),
            "json" | "{{json .}}" => Ok(Self::Json),
            text => template::Format::parse_lenient(text).map(Self::Template),
        }
    }

    fn render(&self, mut event: serde_json::Value) -> Result<String> {
        match self {
            Self::Json => Ok(event.to_string()),
            Self::Line => Ok(line(&serde_json::from_value(event)?)),
            Self::Template(format) => {
                let shown = event.clone();
                // Templates name the fields as Go does.
                for (field, key) in [
                    ("ID", "id"),
                    ("Status", "status"),
                    ("From", "from"),
                    ("Scope", "scope"),
                    ("Time", "time"),
                    ("TimeNano", "timeNano"),
                ] {
                    let value = event
                        .get(key)
                        .cloned()
                        .unwrap_or_else(|| if field.starts_with("Time") { 0.into() } else { "".into() });
                    event[field] = value;
                }
                format.render_json(&event, &shown)
            }
        }
    }
}

fn line(event: &Event) -> String {
    let at = match event.time_nano {
        0 => jiff::Timestamp::from_second(event.time),
        nano => jiff::Timestamp::from_nanosecond(i128::from(nano)),
    };
    let at = at.map_or_else(|_| String::new(), |at| at.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string());
    let mut text = format!("{at} {} {} {}", event.kind, event.action, event.actor.id);
    if !event.actor.attributes.is_empty() {
        let attributes: Vec<String> =
            event.actor.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        text += &format!(" ({})", attributes.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let event = serde_json::json!({"status":"die","id":"abc","Type":"container","Action":"die","scope":"local",
            "Actor":{"ID":"abc","Attributes":{"name":"web","exitCode":"0"}},"timeNano":1767323045000000001i64,"time":1767323045});
        let render = |format: &str| {
            Form::parse(format).and_then(|form| form.render(event.clone())).unwrap_or_else(|f| f.message)
        };
        assert_eq!(render(""), "2026-01-02T03:04:05.000000001Z container die abc (exitCode=0, name=web)");
        assert_eq!(
            render("{{.Type}} {{.Action}} {{.Actor.Attributes.name}} {{.ID}}"),
            "container die web abc"
        );
    }
}
