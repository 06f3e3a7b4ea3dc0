//! `hull manifest create`.

use hull_model::media_type;

use super::store::{Lists, Stored};
use super::{fetch, reference};
use crate::command::{Args, Command, Invocation};
use crate::error::{Failure, Result};
use crate::flags::Flag;
use crate::output;

pub(crate) static COMMAND: Command = Command {
    name: "create",
    usage: "MANIFEST_LIST MANIFEST [MANIFEST...]",
    about: "Create a local manifest list for annotating and pushing to a registry",
    aliases: &["manifest create"],
    args: Args::AtLeast(2),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::switch("amend", "Amend an existing manifest list").short('a'),
    Flag::switch("insecure", "Allow communication with an insecure registry"),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let lists = Lists::new(&invocation.engine.config_directory());
    let list = reference(invocation.arg(0))?;
    if lists.contains(&list) && !invocation.matches.on("amend") {
        return Err("refusing to amend an existing manifest list with no --amend flag".into());
    }
    let client = invocation.engine.client().await?;
    for name in &invocation.matches.args[1..] {
        let member = reference(name)?;
        // What is in the list already keeps its annotations.
        if lists.find(&list, &member)?.is_some() {
            continue;
        }
        let document = fetch(&invocation, &client, &member).await?;
        if media_type::is_index(&document.descriptor.media_type) {
            return Err(Failure::new(format!("{name} is a manifest list")));
        }
        lists.save(&list, &Stored::new(&member, document)?)?;
    }
    output::line(&format!("Created manifest list {list}"));
    Ok(0)
}
