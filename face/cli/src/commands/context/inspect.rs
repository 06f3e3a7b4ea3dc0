//! `hull context inspect`.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::command::{Args, Command, Invocation};
use crate::commands::formats;
use crate::commands::top_level::inspect::indented;
use crate::config::ContextStore;
use crate::error::Result;
use crate::flags::Flag;
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

const FLAGS: &[Flag] = &[formats::INSPECT];

async fn run(invocation: Invocation) -> Result<u8> {
    let store = super::store(&invocation);
    let names = match invocation.matches.args.as_slice() {
        [] => vec![invocation.engine.context_name()],
        names => names.to_vec(),
    };
    let form = invocation.matches.text("format");
    let template = match form {
        "" | "json" => None,
        form => Some(template::Format::parse(form)?),
    };
    let (mut values, mut failed) = (Vec::new(), None);
    for name in &names {
        match describe(&store, name) {
            Ok(value) => values.push(value),
            Err(failure) => {
                failed = Some(failure);
                break;
            }
        }
    }
    match template {
        Some(template) => {
            for value in &values {
                output::line(&template.render_json(value, value)?);
            }
        }
        None if form == "json" => output::line(&template::go_escape(&serde_json::to_string(&values)?)),
        None => output::text(&template::go_escape(&indented(&values)?)),
    }
    failed.map_or(Ok(0), Err)
}

/// A context with what lies beside its description.
fn describe(store: &ContextStore, name: &str) -> Result<Value> {
    let default = name == "default";
    let context = if default { super::default_context() } else { store.find(name)? };
    let mut value = serde_json::to_value(&context)?;
    if default {
        // Its description is of the list only.
        value["Metadata"] = json!({});
    }
    let place = |path: PathBuf| if default { "<IN MEMORY>".to_owned() } else { path.display().to_string() };
    let certificates = store.tls_directory(name);
    let mut names: Vec<String> = std::fs::read_dir(certificates.join("docker"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    value["TLSMaterial"] = if names.is_empty() { json!({}) } else { json!({ "docker": names }) };
    value["Storage"] =
        json!({ "MetadataPath": place(store.meta_directory(name)), "TLSPath": place(certificates) });
    Ok(value)
}
