//! `hull context inspect`.

use crate::command::{Args, Command, Invocation};
use crate::error::Result;
use crate::flags::{Flag, STRING};
use crate::output::{self, template};

pub(crate) static COMMAND: Command = Command {
    name: "inspect",
    usage: "[OPTIONS] [CONTEXT] [CONTEXT...]",
    about: "Display detailed information on one or more contexts",
    aliases: &["context inspect"],
    args: Args::Any,
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::new(STRING, "format", "Format output using a custom template:\n'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template.\nRefer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates").short('f'),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let store = super::store(&invocation);
    let names = match invocation.matches.args.as_slice() {
        [] => vec![invocation.engine.context_name()],
        names => names.to_vec(),
    };
    let mut values = Vec::new();
    for name in names {
        let context = if name == "default" { super::default_context() } else { store.find(&name)? };
        let mut value = serde_json::to_value(&context)?;
        value["TLSMaterial"] = serde_json::json!({});
        value["Storage"] = serde_json::json!({
            "MetadataPath": if name == "default" { "<IN MEMORY>".into() } else { store.meta_directory(&name).display().to_string() },
            "TLSPath": if name == "default" { "<IN MEMORY>".into() } else { store.tls_directory(&name).display().to_string() },
        });
        values.push(value);
    }
    match invocation.matches.text("format") {
        "" | "json" => output::text(&crate::commands::top_level::inspect::indented(&values)?),
        format => {
            let format = template::Format::parse(format)?;
            for value in &values {
                output::line(&format.render(&template::from_json(value))?);
            }
        }
    }
    Ok(0)
}
