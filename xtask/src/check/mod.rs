//! What can be checked without running Hull.

mod layers;
mod unsafe_code;

use anyhow::{Result, bail};

use crate::{
    project::Project,
    step::{run as command, step},
};

/// Private items are documented too, so links to them lead somewhere.
const FLAGS: &str = "-D warnings -A rustdoc::private_intra_doc_links";

/// Runs every check; the cheap ones first, so that a mistake shows early.
pub(crate) fn run(project: &Project) -> Result<()> {
    step("format", || command(&mut project.cargo(&["fmt", "--all", "--check"])))?;
    step("layers of crates", || none(layers::violations(&project.packages()?)))?;
    step("unsafe only in kernel/sys", || none(unsafe_code::violations(project)?))?;
    step("lints", || {
        let arguments = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
        command(&mut project.cargo(&arguments))
    })?;
    step("documentation", || {
        let arguments = ["doc", "--workspace", "--no-deps", "--locked", "--document-private-items"];
        command(project.cargo(&arguments).env("RUSTDOCFLAGS", FLAGS))
    })
}

fn none(violations: Vec<String>) -> Result<()> {
    if violations.is_empty() {
        return Ok(());
    }
    for violation in &violations {
        eprintln!("    {violation}");
    }
    bail!("{} found", violations.len());
}
