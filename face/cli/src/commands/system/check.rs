//! `hull system check`.

use hull_client::{Method, Query, empty};
use hull_docker_api::{SystemCheck, SystemCheckFinding};

use crate::command::{Args, Command, Invocation};
use crate::error::Result;
use crate::flags::Flag;
use crate::output::{self, human};

pub(crate) static COMMAND: Command = Command {
    name: "check",
    usage: "[OPTIONS]",
    about: "Check that images are on disk as they were made",
    aliases: &["system check"],
    args: Args::None,
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[Flag::switch("repair", "Unpack or fetch again what is damaged")];

async fn run(invocation: Invocation) -> Result<u8> {
    let client = invocation.engine.client().await?;
    let query = Query::new().flag("repair", invocation.matches.on("repair"));
    let checked: SystemCheck = client.request(Method::POST, "/system/check", &query, empty()).await?;
    checked.findings.iter().for_each(|finding| output::line(&line(finding)));
    let (blobs, layers, size) = (checked.blobs, checked.layers, human::size(checked.bytes as f64));
    let left = checked.findings.iter().filter(|finding| !finding.repaired).count();
    let end = match (left, checked.findings.len()) {
        (0, 0) => "all intact".to_owned(),
        (0, all) => format!("{all} repaired"),
        (left, all) => format!("{left} not as made, {} repaired", all - left),
    };
    output::line(&format!("Checked {blobs} blobs and {layers} layers ({size}): {end}"));
    Ok(u8::from(left > 0))
}

fn line(finding: &SystemCheckFinding) -> String {
    let mut text = format!("{} {}: {}", finding.kind, finding.digest, finding.fault);
    if !finding.images.is_empty() {
        text += &format!(" (of {})", finding.images.join(", "));
    }
    if finding.repaired {
        text += "; repaired";
    } else if !finding.error.is_empty() {
        text += &format!("; not repaired: {}", finding.error);
    }
    text
}
