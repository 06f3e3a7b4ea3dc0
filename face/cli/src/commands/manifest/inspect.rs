//! `hull manifest inspect`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hull_model::{Descriptor, Index, Reference, media_type};
use serde::Serialize;
use serde_json::Value;

use super::push::list_document;
use super::store::{Lists, Stored};
use super::{fetch, reference};
use crate::command::{Args, Command, Invocation};
use crate::error::{Failure, Result};
use crate::flags::Flag;
use crate::output;

pub(crate) static COMMAND: Command = Command {
    name: "inspect",
    usage: "[OPTIONS] [MANIFEST_LIST] MANIFEST",
    about: "Display an image manifest, or manifest list",
    aliases: &["manifest inspect"],
    args: Args::Between(1, 2),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::switch("insecure", "Allow communication with an insecure registry"),
    Flag::switch("verbose", "Output additional info including layers and platform").short('v'),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let lists = Lists::new(&invocation.engine.config_directory());
    let verbose = invocation.matches.on("verbose");
    let first = reference(invocation.arg(0))?;
    if invocation.matches.args.len() == 2 {
        let member = reference(invocation.arg(1))?;
        let missing =
            || Failure::new(format!("no such manifest: {} in {}", member.familiar(), first.familiar()));
        print_one(&lists.find(&first, &member)?.ok_or_else(missing)?, verbose)?;
        return Ok(0);
    }
    if let Some(members) = lists.all(&first)? {
        match verbose {
            true => print(&members, b"\t")?,
            false => output::line(&String::from_utf8_lossy(&list_document(&members)?.1)),
        }
        return Ok(0);
    }
    let client = invocation.engine.client().await?;
    let document = fetch(&invocation, &client, &first).await?;
    if !media_type::is_index(&document.descriptor.media_type) {
        print_one(&Stored::new(&first, document)?, verbose)?;
        return Ok(0);
    }
    let raw = STANDARD.decode(&document.raw).map_err(|error| Failure::new(error.to_string()))?;
    if !verbose {
        // As the registry has it, one key a line.
        print(&serde_json::from_slice::<Value>(&raw)?, b"   ")?;
        return Ok(0);
    }
    let index: Index = serde_json::from_slice(&raw)?;
    let mut members = Vec::new();
    for entry in &index.manifests {
        members.push(member(&invocation, &client, &first, entry).await?);
    }
    print(&members, b"\t")?;
    Ok(0)
}

/// A manifest of an index, its platform as the index says.
async fn member(
    invocation: &Invocation,
    client: &hull_client::Client,
    list: &Reference,
    entry: &Descriptor,
) -> Result<Stored> {
    let by_digest = list.with_digest(entry.digest.clone());
    let document = fetch(invocation, client, &by_digest).await?;
    let mut stored = Stored::new(&by_digest, document)?;
    stored.reference = format!("{list}@{}", entry.digest);
    if let Some(platform) = &entry.platform {
        stored.descriptor.platform = Some(serde_json::from_value(serde_json::to_value(platform)?)?);
    }
    Ok(stored)
}

fn print_one(stored: &Stored, verbose: bool) -> Result<()> {
    match verbose {
        true => print(stored, b"\t"),
        false => print(&serde_json::from_slice::<Value>(&stored.bytes()?)?, b"\t"),
    }
}

fn print(value: &impl Serialize, indent: &[u8]) -> Result<()> {
    output::line(&String::from_utf8_lossy(&indented(value, indent)?));
    Ok(())
}

/// JSON as Go's `MarshalIndent` writes it.
pub(super) fn indented(value: &impl Serialize, indent: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent);
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter))?;
    Ok(bytes)
}
