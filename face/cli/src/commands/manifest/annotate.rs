//! `hull manifest annotate`.

use super::reference;
use super::store::Lists;
use crate::command::{Args, Command, Invocation};
use crate::error::{Failure, Result};
use crate::flags::{Flag, STRING, STRINGS};

pub(crate) static COMMAND: Command = Command {
    name: "annotate",
    usage: "[OPTIONS] MANIFEST_LIST MANIFEST",
    about: "Add additional information to a local image manifest",
    aliases: &["manifest annotate"],
    args: Args::Exactly(2),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::new(STRING, "arch", "Set architecture"),
    Flag::new(STRING, "os", "Set operating system"),
    Flag::new(STRINGS, "os-features", "Set operating system feature"),
    Flag::new(STRING, "os-version", "Set operating system version"),
    Flag::new(STRING, "variant", "Set architecture variant"),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let lists = Lists::new(&invocation.engine.config_directory());
    let (list, member) = (reference(invocation.arg(0))?, reference(invocation.arg(1))?);
    let missing = || {
        Failure::new(format!(
            "manifest for image {} does not exist in {}",
            member.familiar(),
            list.familiar()
        ))
    };
    let mut stored = lists.find(&list, &member)?.ok_or_else(missing)?;
    let matches = &invocation.matches;
    let platform = stored.platform();
    let fields = [
        ("arch", &mut platform.architecture),
        ("os", &mut platform.os),
        ("os-version", &mut platform.os_version),
        ("variant", &mut platform.variant),
    ];
    for (flag, field) in fields {
        if !matches.text(flag).is_empty() {
            matches.text(flag).clone_into(field);
        }
    }
    for feature in matches.list("os-features").iter().flat_map(|text| text.split(',')) {
        if !platform.os_features.iter().any(|known| known == feature) {
            platform.os_features.push(feature.to_owned());
        }
    }
    lists.save(&list, &stored)?;
    Ok(0)
}
